#!/bin/sh
# Makes the disk for a model, unless there is one with all the same on it, and prints its path.
#
#   ci/disk.sh MODEL.gguf [anchorite.toml [prompt.txt]]     an empty name is none
set -eu
cd "$(dirname "$0")/.."

model=$1
config=${2:-}
prompt=${3:-}

said=$(target/debug/image-builder cached --folder target/disks ${config:+"--config=$config"} \
    ${prompt:+"--prompt-file=$prompt"} -- "$model")
# What comes before the path is for people.
newline='
'
disk=${said##*"$newline"}
printf '%s' "${said%"$disk"}" >&2
printf '%s\n' "$disk"
