#!/bin/sh
# The shortest check of a boot, as an example for your own CI: boots with `make run`, keeps the
# serial log, and finds the events in it. Each event is a line that starts with the byte 0x1E.
set -eu
cd "$(dirname "$0")/.."

log=target/smoke.log
event=$(printf '\036{"event":')
make run PROMPT='Once upon a time' TOKENS=8 LOG="$log"
for wanted in '"result",.*"tokens_emitted":8,' '"exit","status":0}'; do
    grep "^$event$wanted" "$log" || { echo "no event like $wanted in $log" >&2 && exit 1; }
done
echo 'smoke: the model has answered'
