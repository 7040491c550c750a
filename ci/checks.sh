# shellcheck shell=sh
# Counts checks. The scripts that run several checks source this file.

passed=0
failed=0

# check NAME COMMAND...: runs the command, and counts it by its status.
check() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
    fi
}

# total NAME: prints the counts. False if a check failed.
total() {
    echo "$1: $passed passed, $failed failed"
    [ "$failed" = 0 ]
}
