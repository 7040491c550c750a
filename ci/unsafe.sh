#!/bin/sh
# Counts the `unsafe` blocks of each room, and compares with the table in ARCHITECTURE.md.
#
#   ci/unsafe.sh            fails where the table is not true, and shows how it should be
#   ci/unsafe.sh --write    writes the true one there
#
# That each block has a SAFETY reason is clippy's to check (`undocumented_unsafe_blocks`).
set -eu
cd "$(dirname "$0")/.."

document=ARCHITECTURE.md
# shellcheck disable=SC2016 # Markdown's quotes
head='| room | `unsafe` blocks |'

# Files new to git count too.
# shellcheck disable=SC2016 # awk's program
true_table() {
    echo "$head"
    echo '|---|---:|'
    git ls-files --cached --others --exclude-standard '*.rs' | while read -r file; do
        [ ! -f "$file" ] || echo "$file"
    done | xargs awk '
        function room(file) {
            if (file ~ /\/(tests|examples|fake_abi)\// || file ~ /(tests|testing|\/fake(_abi)?)\.rs$/)
                return "6 tests and examples"
            if (file ~ /^kernel\/src\/bin\//) return "5 the probe"
            if (file ~ /^kernel\/src\/runtime\//) return "1 `runtime`"
            if (file ~ /^kernel\/src\/llm\/kernels\//) return "2 `llm/kernels`"
            if (sub(/^kernel\/src\//, "", file)) {
                sub(/\.rs$/, "", file)
                return "3 `" file "`"
            }
            return "4 `" substr(file, 1, index(file, "/") - 1) "`"
        }
        {
            code = $0
            sub(/\/\/.*/, "", code)
            n = gsub(/(^|[^a-z_])unsafe \{/, "", code)
            if (n > 0) blocks[room(FILENAME)] += n
        }
        END { for (r in blocks) print r, "| " blocks[r] }
    ' | LC_ALL=C sort | sed 's/^[0-9] \(.*\) | \([0-9]*\)$/| \1 | \2 |/'
}

table_in() {
    awk -v head="$head" '$0 == head { inside = 1 } !/^\|/ { inside = 0 } inside' "$1"
}

tables=target/ci
mkdir -p "$tables"
true_table >"$tables/unsafe-true"
table_in "$document" >"$tables/unsafe-written"

case ${1:-} in
'')
    diff -u "$tables/unsafe-written" "$tables/unsafe-true" || {
        echo "$document counts the unsafe blocks wrong; look at what came, then: ci/unsafe.sh --write" >&2
        exit 1
    }
    ;;
--write)
    awk -v head="$head" -v table="$tables/unsafe-true" '
        $0 == head { inside = 1; while ((getline line <table) > 0) print line }
        !/^\|/ { inside = 0 }
        !inside' "$document" >"$tables/document"
    cat "$tables/document" >"$document"
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
