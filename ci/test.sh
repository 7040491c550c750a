#!/bin/sh
# Runs the checks and tests, step by step.
#
#   ci/test.sh             the steps of `make test`
#   ci/test.sh all         the steps of `make test-all`: in their long form, and those that take long
#   ci/test.sh STEP...     these steps alone
#
# A step that fails stops no other one, so a single run shows all that is wrong. Only where the build
# fails are the boots skipped, since there is nothing to boot. The end is a table of the steps with
# their seconds, the skipped checks with their reasons, and the line `N passed, N failed, N skipped`.
# Each step's output is kept in target/ci/steps/STEP.log.
#
# Two steps run at a time. Compilers often keep one core busy, and boots wait for time to pass. Steps
# beside each other build into different folders, so that neither waits for the other's lock.
#
# A step ends with the line `NAME: N passed, N failed` or `NAME: N passed, N failed, N skipped`. Each
# of its skipped checks has a line `skipped  CHECK: REASON`.
set -eu
cd "$(dirname "$0")/.."

# A build from nothing does not write what a later build would start from.
export CARGO_INCREMENTAL=0

began=$(date +%s)
logs=${TEST_LOGS:-target/ci/steps}
rm -rf "$logs"
mkdir -p "$logs"
table=$logs/table
skipped=$logs/skipped
: >"$table"
: >"$skipped"

# The steps that were named, with a blank before and behind each.
only=" $* "
all=
case $only in
'  ') only= ;;
' all ')
    only=
    all=1
    # Steps have a long form: `LONG` leaves nothing out that takes long.
    export LONG=1
    ;;
# The tests are built in a step of their own.
*' host-tests '*) only="${only}host-build " ;;
esac

# wanted STEP: whether the step is to run.
wanted() {
    [ -z "$only" ] || case $only in *" $1 "*) ;; *) return 1 ;; esac
}

# step STEP COMMAND...: runs the step, and adds a row to the table. False if the step failed.
step() {
    name=$1
    wanted "$name" || return 0
    shift
    echo "==> $name: $*"
    started=$(date +%s)
    # A pipe ends with the status of its last command, so the step's own is left in a file.
    {
        status=0
        "$@" 2>&1 </dev/null || status=$?
        echo "$status" >"$logs/$name.status"
    } | tee "$logs/$name.log" | while IFS= read -r line; do printf '%s| %s\n' "$name" "$line"; done
    count "$name" "$(cat "$logs/$name.status")" $(($(date +%s) - started))
}

# boot STEP COMMAND...: the same for a step that boots what was built.
boot() {
    if ! grep -q '^build .* [1-9][0-9]* [0-9]*$' "$table"; then
        step "$@" || return 0
    elif wanted "$1"; then
        echo "==> $1: skipped"
        echo "skipped     $1: the build failed" >"$logs/$1.log"
        count "$1" 0 0
    fi
}

# count STEP STATUS SECONDS: adds a row of what the step's log counts. False if the step failed.
count() {
    sed -n "s/^skipped   *\([^ ].*\)/$1: \1/p" "$logs/$1.log" >>"$skipped"
    awk -v step="$1" -v status="$2" -v seconds="$3" '
        /^([a-z0-9 -]+: )?[0-9]+ passed, [0-9]+ failed/ {
            passed = failed = 0
            skipped = ""
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed/) passed = $(i - 1)
                if ($i ~ /^failed/) failed = $(i - 1)
                if ($i ~ /^skipped/) skipped = $(i - 1)
            }
        }
        /^skipped  / { lines++ }
        END {
            if (skipped == "") skipped = lines
            # A step that broke off has failed, whatever it counted before.
            if (status != 0 && failed == 0) failed = 1
            printf "%s %d %d %d %d\n", step, seconds, passed, failed, skipped
            exit failed > 0
        }' "$logs/$1.log" >>"$table"
}

# second: the host's tests and the boots with the other toolchain.
second() {
    first=$(ci/toolchain.sh which bare)
    [ "$first" = rustup ] && other=debian || other=rustup
    if [ "${TOOLCHAIN:-}" ]; then
        echo "skipped     $other: TOOLCHAIN=$TOOLCHAIN rules it out"
        return
    fi
    unset LONG COMMANDS_BUILT
    export TOOLCHAIN="$other"
    if ci/toolchain.sh which host && ci/toolchain.sh which bare; then
        TEST_LOGS=$logs/second ci/test.sh host-tests features build boots
    else
        echo "skipped     $other: it is not installed (make setup TOOLCHAIN=$other)"
    fi
}

# bare: the kernel, the probe and the stub of m1n1, which `build` and `boots` make images of.
bare() {
    ci/toolchain.sh bare build --release -p kernel --bins
    ci/toolchain.sh bare build --release -p m1n1-stub
}

# The steps beside the others: they build into target/fuzz and target/bare.
beside() {
    step fuzz ci/fuzz.sh "$([ "$all" ] && echo 60 || echo 3)" || :
    step miri ci/miri.sh || :
    # What fails here fails in `build`, which reports it.
    [ "$only" ] || bare >"$logs/bare.log" 2>&1 || :
}

# The list of steps, the quick ones first.
step deny ci/deny.sh || :
beside &
step check ci/check.sh || :
step features ci/features.sh || :
# The commands for the host are built with their tests, so that `ci/build.sh` has none to build.
if wanted host-build && step host-build ci/host-tests.sh build; then
    export COMMANDS_BUILT=1
fi
wait
# The tests and the boots run side by side.
step host-tests ci/host-tests.sh &
step build ci/build.sh || :
# shellcheck disable=SC2046 # the groups are words
boot boots ci/boots.sh $([ ! "$all" ] || echo --group quick --group long --group endurance)
wait
if [ "$all" ] || [ "$only" ]; then
    step second-toolchain second || :
fi

for name in $only; do
    grep -q "^$name " "$table" || {
        echo "there is no step $name" >&2
        exit 2
    }
done

awk -v took=$(($(date +%s) - began)) '
    function minutes(seconds) { return sprintf("%d:%02d", seconds / 60, seconds % 60) }
    BEGIN { printf "\n%-18s %9s %8s %8s %8s\n", "step", "min:s", "passed", "failed", "skipped" }
    {
        printf "%-18s %9s %8d %8d %8d\n", $1, minutes($2), $3, $4, $5
    }
    END { printf "%-18s %9s\n\n", "in all", minutes(took) }' "$table"
failures=$(awk -v logs="$logs" '$4 > 0 { print "    " $1 ": see " logs "/" $1 ".log" }' "$table")
[ ! "$failures" ] || printf 'What failed:\n%s\n\n' "$failures"
[ ! -s "$skipped" ] || {
    echo 'What was skipped:'
    sed 's/^/    /' "$skipped"
    echo
}
awk '
    { passed += $3; failed += $4; skipped += $5 }
    END {
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
        exit failed > 0
    }' "$table"
