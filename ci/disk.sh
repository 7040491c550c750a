#!/bin/sh
# Makes the disk for a model, unless there is one already, and prints its path.
#
#   ci/disk.sh MODEL.gguf [anchorite.toml [prompt.txt]]     an empty name is none
set -eu
cd "$(dirname "$0")/.."

model=$1
config=${2:-}
prompt=${3:-}

# Name, size, time of change and place of each file that the disk depends on; GNU or BSD.
describe() { stat -L -c '%n %s %Y %i' "$@" 2>/dev/null || stat -L -f '%N %z %m %i' "$@"; }

mkdir -p target/disks
set -- "$model"
[ ! -e "$model.sha256" ] || set -- "$@" "$model.sha256"
[ -z "$config" ] || set -- "$@" "$config"
[ -z "$prompt" ] || set -- "$@" "$prompt"
made_from=$(describe target/debug/image-builder "$@")

name=$(basename "$model" .gguf)
disk=target/disks/$name.img
if [ ! -e "$disk" ] || [ "$made_from" != "$(cat "$disk.from" 2>/dev/null)" ]; then
    rm -f "$disk.from"
    target/debug/image-builder disk --out "$disk" ${config:+--config "$config"} \
        ${prompt:+--prompt-file "$prompt"} -- "$model" >&2
    printf '%s\n' "$made_from" >"$disk.from"
fi
printf '%s\n' "$disk"
