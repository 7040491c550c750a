#!/bin/sh
# Everything that injects a fault, sends rubbish, or goes on for long, more of it than `make test` does:
# `make torture` calls it once everything it needs is there. Takes up to an hour and 5 GB of memory. Shows
# at the end a table of what was tried, how often, and what came of it, and leaves it in
# target/torture/table.json.
#
#   ci/torture.sh [PART...]     deny, image, runtime, boot, m1n1, endurance, fuzz: only these
set -eu
cd "$(dirname "$0")/.."

# What takes long is not left out.
export LONG=1

[ $# -gt 0 ] || set -- deny image runtime boot m1n1 endurance fuzz
out=target/torture
rm -rf "$out"
mkdir -p "$out"

for part in "$@"; do
    case $part in
    deny | image | runtime | boot | m1n1) arguments= ;;
    endurance) arguments='200 10000' ;;
    fuzz) arguments=60 ;;
    *)
        echo "there is no part $part" >&2
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    echo "==> ci/$part.sh $arguments"
    # A part that fails in some check still has all of them, and the others follow.
    # shellcheck disable=SC2086 # the arguments are to be split
    { "ci/$part.sh" $arguments 2>&1 || echo "$part ended with status $?"; } | tee "$out/$part.log"
done

# The lines that each part writes: "ok  3 s  NAME (REMARK)", "FAILED  3 s  NAME: WHY", "skipped  NAME: WHY",
# where nothing is booted "ok  WORDS" and "FAILED  WORDS", and the fuzzer's "NAME: RUNS runs in 60 s, ...",
# "NAME: FAILED, ...".
for part in "$@"; do
    awk -v part="$part" '
        function row(name, tries, outcome) {
            gsub(/ /, "-", name)
            gsub(/[^A-Za-z0-9_.,=:+\/-]/, "", name)
            printf "%s\t%s\t%d\t%s\n", part, name, tries, outcome
            rows++
        }
        /^ok +[0-9]+ s  / {
            tries = match($0, /\([0-9]+ tries\)/) ? substr($0, RSTART + 1) + 0 : 1
            row($4, tries, "as it must")
            next
        }
        /^FAILED +[0-9]+ s  / { sub(/:$/, "", $4); row($4, 1, "FAILED"); next }
        /^ok  / { sub(/^ok +/, ""); row($0, 1, "as it must") }
        /^FAILED  / { sub(/^FAILED +/, ""); row($0, 1, "FAILED") }
        /^skipped / { sub(/^skipped */, ""); sub(/:.*/, ""); row($0, 0, "skipped") }
        part == "fuzz" && /^[a-z_0-9]+: [0-9]+ runs in / { row(substr($1, 1, length($1) - 1), $2, "as it must") }
        part == "fuzz" && /^[a-z_0-9]+: FAILED/ { row(substr($1, 1, length($1) - 1), 1, "FAILED") }
        # A part that broke off is no success, whatever it had shown before.
        / ended with status [0-9]+$/ { broken = 1 }
        END { if (broken || !rows) row("all-of-it", 1, "FAILED") }' "$out/$part.log"
done >"$out/table.tsv"

awk -F '\t' -v json="$out/table.json" '
    BEGIN {
        printf "\n%-10s %-40s %9s  %s\n", "part", "what is tried", "tries", "outcome"
        printf "[" >json
    }
    {
        printf "%-10s %-40s %9d  %s\n", $1, $2, $3, $4
        printf "%s\n  {\"part\": \"%s\", \"check\": \"%s\", \"tries\": %d, \"outcome\": \"%s\"}",
            (NR > 1 ? "," : ""), $1, $2, $3, $4 >json
        tries += $3
        failed += $4 == "FAILED"
        skipped += $4 == "skipped"
    }
    END {
        printf "\n]\n" >json
        printf "\n%d checks, %d tries: %d failed, %d skipped\n", NR, tries, failed, skipped
        exit failed > 0
    }' "$out/table.tsv"
