# shellcheck shell=sh
# What the scripts that boot an image in QEMU share: they source this file and set $logs, the folder
# that keeps the serial lines, and $only, a part of the names of those checks that were asked for.
#
# A check starts with `begin`, boots something that writes its serial line to $log, states what must
# hold of that, and ends with `verdict`. The first thing that does not hold is kept in $problem, and what
# follows is not looked at.

passed=0
failed=0

# begin NAME: starts a check; false if it was not asked for.
begin() {
    name=$1
    log=$logs/$name.log
    # What is shown of a check that fails.
    shown=$log
    problem=
    started=$(date +%s)
    case $name in *"$only"*) ;; *) return 1 ;; esac
}

# The byte that starts an event.
separator=$(printf '\036')

# lines [LOG]: the lines of a serial line.
lines() { tr -d '\r' <"${1:-$log}"; }

# events [LOG]: the events among them, without the byte that starts each.
events() { lines "$@" | sed -n "s/^$separator//p"; }

# must_hold PATTERN: some event must match it.
must_hold() {
    [ -n "$problem" ] || events | grep -q "$1" || problem="no event matches $1"
}

# must_say PATTERN: some line must match it.
must_say() {
    [ -n "$problem" ] || lines | grep -q "$1" || problem="no line matches $1"
}

# must_exit STATUS [LINE]: there must be this exit, no other one, and nothing behind it but LINE.
must_exit() {
    must_hold "^{\"event\":\"exit\",\"status\":$1}\$"
    [ -z "$problem" ] || return 0
    [ "$(events | grep -c '"event":"exit"')" = 1 ] || problem='it exits twice'
    behind=$(lines | sed "1,/^$separator{\"event\":\"exit\"/d")
    [ "$behind" = "${2:-}" ] || problem="behind the exit there is '$behind'"
}

# The text on a screen, line by line, is kept in $logs/NAME.screen.

return=$(printf '\r')

# What a screen says at a good end.
good_end='Anchorite has ended.'

# must_show PATTERN: some line on the screen must match it.
must_show() {
    [ -z "$problem" ] || return 0
    shown=$logs/$name.screen
    grep -q "$1" "$shown" || problem="no line on the screen matches $1"
}

# must_show_all: the screen must show the serial line's text, but for events; of them, the good end.
# Blanks are not compared, as long lines are cut.
must_show_all() {
    [ -z "$problem" ] || return 0
    shown=$logs/$name.screen
    # Of a line that was drawn anew, the last form.
    sed -e "s/$return\$//" -e "s/^$separator.*\"event\":\"exit\".*/$good_end/" \
        -e "/^$separator/d" -e "s/.*$return//" "$log" | tr -d ' \n' >"$logs/$name.expected"
    tr -d ' \n' <"$shown" | cmp -s - "$logs/$name.expected" ||
        problem='the screen does not show what the serial line says'
}

# verdict [REMARK]: ends the check; without a problem it has passed.
verdict() {
    seconds=$(($(date +%s) - started))
    if [ -z "$problem" ]; then
        passed=$((passed + 1))
        printf 'ok      %2s s  %s%s\n' "$seconds" "$name" "${1:+ ($1)}"
    else
        failed=$((failed + 1))
        printf 'FAILED  %2s s  %s: %s\n' "$seconds" "$name" "$problem"
        sed -e '/^$/d' -e 's/^/        | /' "$shown" | tail -n 20
    fi
}

# total NAME: ends the script with how many checks passed, and its status.
total() {
    [ $((passed + failed)) -gt 0 ] || {
        echo "no check has $only in its name" >&2
        exit 2
    }
    echo "$1: $passed passed, $failed failed"
    [ "$failed" = 0 ]
}
