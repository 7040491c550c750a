#!/bin/sh
# Boots a model in QEMU, and sets up, builds and makes before that what is missing.
#
#   ci/run.sh run|chat|serve|debug [KEY=VALUE]...
#
# The settings come in the environment: `make help` lists them. Ends with the harness's exit status
# (`make` makes a 2 of each failure): 0 all well, 1 the run failed, 2 a wrong setting, 3 QEMU is
# missing or died, 4 a timeout.
set -eu
cd "$(dirname "$0")/.."
action=$1
shift

. ci/settings.sh
case ${EL2:-0} in 0 | 1) ;; *) stop "EL2=$EL2: expected 0 or 1" ;; esac

if [ "$action" = debug ]; then
    ci/setup.sh debug
    ci/build.sh debugger
else
    ci/setup.sh run
    ci/build.sh
fi
disk=$(ci/disk.sh "$model" "${CONFIG:-}" "${PROMPT_FILE:-}")

# The harness knows the settings of the guest, by both names, and checks them.
# shellcheck disable=SC2013 # names have no blanks
for name in $(sed -n 's/^variable\..* := //p' ci/settings.mk); do
    eval "[ -z \"\${$name+given}\" ] || set -- \"\$@\" \"$name=\$$name\""
done
for key in ${SET_KEYS:-}; do
    eval "[ -z \"\${SET_$key+given}\" ] || set -- \"\$@\" \"$key=\$SET_$key\""
done
[ -z "${PROMPT_FILE:-}" ] || set -- "$@" "prompt_file=${PROMPT_FILE##*/}"
# The others are the harness's own. One that is empty is as good as none.
set -- "$@" --kernel target/anchorite.img --disk "$disk"
[ -z "${SMP:-}" ] || set -- "$@" "--smp=$SMP"
[ -z "${MEM:-}" ] || set -- "$@" "--mem=$MEM"
[ -z "${CPU:-}" ] || set -- "$@" "--cpu=$CPU"
[ -z "${GIC:-}" ] || set -- "$@" "--gic=$GIC"
[ "${EL2:-0}" = 0 ] || set -- "$@" --el2
[ -z "${BUS:-}" ] || set -- "$@" "--bus=$BUS"
[ -z "${LOG:-}" ] || set -- "$@" "--keep-log=$LOG"
[ -z "${REPORT:-}" ] || set -- "$@" "--report=$REPORT"
[ -z "${TIMEOUT:-}" ] || set -- "$@" "--timeout=$TIMEOUT"

[ "$action" != serve ] || [ -z "${PORT:-}" ] || set -- "$@" "--forward=$PORT:${SET_port:-8080}"

case $action in
run | chat | serve)
    # shellcheck disable=SC2086 # ARGS is a list
    exec target/debug/anchorite-qemu "$action" "$@" ${ARGS:-}
    ;;
debug)
    exec ci/debug.sh "$@"
    ;;
esac
