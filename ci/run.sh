#!/bin/sh
# Boots a model in QEMU, and sets up, builds and makes before that what is missing.
#
#   ci/run.sh run|chat|debug
#
# The settings come in the environment: `make help` lists them. Ends with the harness's exit status
# (`make` makes a 2 of each failure): 0 all well, 1 the run failed, 2 a wrong setting, 3 QEMU is
# missing or died, 4 a timeout.
set -eu
cd "$(dirname "$0")/.."
action=$1

. ci/settings.sh
if [ -n "${PROMPT_FILE:-}" ] && [ -n "${PROMPT+given}" ]; then
    stop 'PROMPT and PROMPT_FILE exclude each other.'
fi
for switch in "VERIFY=${VERIFY:-1}" "EL2=${EL2:-0}" "CONTEXT_SHIFT=${CONTEXT_SHIFT:-0}"; do
    case $switch in *=0 | *=1) ;; *) stop "$switch: expected 0 or 1" ;; esac
done

if [ "$action" = debug ]; then
    ci/setup.sh debug
    ci/build.sh debugger
else
    ci/setup.sh run
    ci/build.sh
fi
disk=$(ci/disk.sh "$model" "${CONFIG:-}" "${PROMPT_FILE:-}")

# Values are joined to their flags, or the harness would take `-1` for a flag. A text may be empty; of
# the other settings, one that is empty is as good as none.
set -- --kernel target/anchorite.img --disk "$disk"
[ -z "${PROMPT+given}" ] || set -- "$@" "--prompt=$PROMPT"
[ -z "${PROMPT_FILE:-}" ] || set -- "$@" "--prompt-file=${PROMPT_FILE##*/}"
[ -z "${SYSTEM+given}" ] || set -- "$@" "--set=system=$SYSTEM"
[ -z "${TOKENS:-}" ] || set -- "$@" "--tokens=$TOKENS"
[ -z "${CTX:-}" ] || set -- "$@" "--ctx=$CTX"
[ -z "${KV_CACHE:-}" ] || set -- "$@" "--kv-cache=$KV_CACHE"
[ "${CONTEXT_SHIFT:-0}" = 0 ] || set -- "$@" --context-shift
[ -z "${KEEP:-}" ] || set -- "$@" "--keep=$KEEP"
[ -z "${TEMPERATURE:-}" ] || set -- "$@" "--temperature=$TEMPERATURE"
[ -z "${TOP_K:-}" ] || set -- "$@" "--top-k=$TOP_K"
[ -z "${TOP_P:-}" ] || set -- "$@" "--top-p=$TOP_P"
[ -z "${MIN_P:-}" ] || set -- "$@" "--min-p=$MIN_P"
[ -z "${REPEAT_PENALTY:-}" ] || set -- "$@" "--repeat-penalty=$REPEAT_PENALTY"
[ -z "${SEED:-}" ] || set -- "$@" "--seed=$SEED"
[ -z "${MODE:-}" ] || set -- "$@" "--mode=$MODE"
[ "${VERIFY:-1}" = 1 ] || set -- "$@" --no-verify
[ -z "${SMP:-}" ] || set -- "$@" "--smp=$SMP"
[ -z "${MEM:-}" ] || set -- "$@" "--mem=$MEM"
[ -z "${CPU:-}" ] || set -- "$@" "--cpu=$CPU"
[ -z "${GIC:-}" ] || set -- "$@" "--gic=$GIC"
[ "${EL2:-0}" = 0 ] || set -- "$@" --el2
[ -z "${BUS:-}" ] || set -- "$@" "--bus=$BUS"
[ -z "${LOG:-}" ] || set -- "$@" "--keep-log=$LOG"
[ -z "${REPORT:-}" ] || set -- "$@" "--report=$REPORT"
[ -z "${TIMEOUT:-}" ] || set -- "$@" "--timeout=$TIMEOUT"

case $action in
run | chat)
    # shellcheck disable=SC2086 # ARGS is a list
    exec target/debug/anchorite-qemu "$action" "$@" ${ARGS:-}
    ;;
debug)
    exec ci/debug.sh "$@"
    ;;
esac
