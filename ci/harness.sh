# shellcheck shell=sh
# What the scripts that boot the kernel's image by the harness share: they source this file behind
# `ci/checks.sh`.

image=target/anchorite.img
harness=target/debug/anchorite-qemu
builder=target/debug/image-builder
# Nothing from the surroundings may change what is generated.
unset PROMPT SYSTEM ANCHORITE_QEMU

# start ARGUMENT...: boots for the check that has begun.
start() {
    shown=$logs/$name.out
    "$harness" --kernel "$image" --keep-log "$log" --report "$logs/$name.json" \
        --timeout "${timeout:-120}" "$@" >"$shown" 2>&1 </dev/null ||
        problem="the harness ends with status $?"
}

# chat ARGUMENT...: holds a chat for the check that has begun, with the lines in $logs/$name.in.
chat() {
    shown=$logs/$name.out
    timeout "${timeout:-120}" "$harness" chat --kernel "$image" --keep-log "$log" "$@" \
        >"$shown" 2>&1 <"$logs/$name.in" || problem="the harness ends with status $?"
}

# boot NAME ARGUMENT...: starts a check and boots; false if it was not asked for.
boot() {
    begin "$1" || return 1
    shift
    start "$@"
}

# find_pi4 NAME: sets $pi4 to the arguments that boot QEMU's Raspberry Pi 4. Where there is none, says
# that the checks NAME are skipped, and is false.
find_pi4() {
    if qemu=$(ci/boards.sh 2>"$logs/boards.out"); then
        pi4="--qemu $qemu --board raspi4b --dtb target/boards/bcm2711-rpi-4-b.dtb"
    else
        echo "skipped     $1: no QEMU with a Raspberry Pi 4: $(tail -n 1 "$logs/boards.out")"
        return 1
    fi
}
