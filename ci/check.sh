#!/bin/sh
# The checks that run nothing: the counts of `unsafe`, the format, the shell scripts, and clippy's
# warnings as errors for the host and the bare target. Ends with how many passed.
set -eu
cd "$(dirname "$0")/.."

. ci/checks.sh

# Each shell script that git tracks: by its name, or by its first line.
scripts() {
    git ls-files '*.sh'
    git ls-files | grep -v '\.sh$' | while read -r file; do
        case $(head -c 10 "$file" 2>/dev/null | tr -d '\000') in '#!/bin/sh'*) echo "$file" ;; esac
    done
}

check 'counts of unsafe blocks' ci/unsafe.sh
check 'format' ci/toolchain.sh host fmt --all --check
check 'format of the fuzz targets' ci/toolchain.sh host fmt --manifest-path fuzz/Cargo.toml --check
# shellcheck disable=SC2046 # the scripts are a list
check 'shellcheck' shellcheck $(scripts)
check 'clippy for the host' ci/toolchain.sh host clippy --workspace --all-targets -- -D warnings
# The library's tests need a host; everything else must hold on the bare target too. The release
# profile shares its procedural macros with the image.
check 'clippy for the bare target' ci/toolchain.sh bare clippy --release -p kernel --lib --bins -- -D warnings

total check
