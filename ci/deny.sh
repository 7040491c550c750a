#!/bin/sh
# Checks the crates that are built upon, by `cargo deny` and deny.toml: their licences, where they come
# from, whether one is there twice, and what the RustSec database reports of them. Ends with how many of
# the checks passed. Builds cargo-deny first, for a minute or two, where this version is not installed.
set -eu
cd "$(dirname "$0")/.."

version=0.20.2
deny=cargo-deny
if [ "$($deny --version 2>/dev/null)" != "cargo-deny $version" ]; then
    deny=target/tools/bin/cargo-deny
    [ "$($deny --version 2>/dev/null)" = "cargo-deny $version" ] || {
        echo "building cargo-deny $version"
        # A debug build: it runs for a second, and takes a quarter of the time to make.
        ci/toolchain.sh host install --quiet --locked --debug --version "$version" --root target/tools \
            --target-dir target/tools/build cargo-deny
        rm -r target/tools/build
    }
fi

passed=0
failed=0
logs=target/deny
rm -rf "$logs"
mkdir -p "$logs"
# The database of advisories is a repository elsewhere: without a way there, nothing is known of them.
advisories=1
"$deny" fetch db >"$logs/fetch.log" 2>&1 || advisories=

for workspace in Cargo.toml fuzz/Cargo.toml; do
    for what in licenses bans sources advisories; do
        if [ "$what" = advisories ] && [ -z "$advisories" ]; then
            echo "skipped     $what of $workspace: $(grep -m 1 fatal: "$logs/fetch.log")"
        # Denied, as a mere warning ends with success.
        elif "$deny" --config deny.toml --manifest-path "$workspace" --all-features \
            check -D warnings "$what" >"$logs/log" 2>&1; then
            passed=$((passed + 1))
            echo "ok      $what of $workspace"
        else
            failed=$((failed + 1))
            echo "FAILED  $what of $workspace"
            cat "$logs/log"
        fi
    done
done

echo "deny: $passed passed, $failed failed"
[ "$failed" = 0 ]
