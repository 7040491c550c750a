# shellcheck shell=sh
# Disks that fail and disks that lie: `ci/boot.sh` sources this file behind its functions and disks.
#
# QEMU's blkdebug fails requests, as often and when it is told to; its throttling keeps them waiting.

# Arguments for a disk on $small whose requests blkdebug fails. Rules are to follow.
blkdebug="driver=raw,node-name=d,file.driver=blkdebug,file.image.driver=file,file.image.filename=$small"
# The first rule: reads fail.
fail_reads=file.inject-error.0.event=read_aio,file.inject-error.0.errno=5
# on_blkdebug RULES: sets $disk to QEMU's words for that disk, none of which holds a space.
on_blkdebug() { disk="-device virtio-blk-device,drive=d -blockdev $blkdebug,$1"; }

# after N: rules that count reads, so that those with state=N+1 hold when N reads have been made.
after() {
    i=1
    while [ "$i" -le "$1" ]; do
        state=file.set-state.$((i - 1))
        printf '%s.event=read_aio,%s.state=%s,%s.new_state=%s,' "$state" "$state" "$i" "$state" $((i + 1))
        i=$((i + 1))
    done
}

# A sector in the middle of the model that cannot be read; that can, the second time; and a disk that is
# pulled out after so many reads: of the volume, of the model's sum, of the model.
sector=$((place / 512))
on_blkdebug "$fail_reads,file.inject-error.0.sector=$sector"
# shellcheck disable=SC2086 # the words are to be split, here and below
fails bad-sector DiskError "$sector" -- $disk
on_blkdebug "$fail_reads,file.inject-error.0.sector=$sector,file.inject-error.0.once=on"
# shellcheck disable=SC2086
if boot passing-fault --tokens "$tokens" --expect-tokens "$tokens" -- $disk; then
    must_say 'failed reads: 1, the first at sector [0-9]*; each came when tried again'
    must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
    must_exit 0
    verdict
fi
if begin vanishing-disk; then
    tries=0
    for reads in 1 2 3 5 8 12 15; do
        log=$logs/$name-$reads.log
        on_blkdebug "$(after $reads)$fail_reads,file.inject-error.0.state=$((reads + 1))"
        # shellcheck disable=SC2086
        start --expect-error DiskError -- $disk
        must_hold '^{"event":"error","code":"DiskError".*sector [0-9]* cannot be read'
        must_exit 1
        [ -z "$problem" ] || {
            problem="after $reads reads: $problem"
            break
        }
        tries=$((tries + 1))
    done
    verdict "$tries tries"
fi

# A device that never completes what it is asked: at first, and in the middle of the model.
# Where instructions make the guest's clock, half a minute passes while QEMU waits in vain.
throttled="-device virtio-blk-device,drive=d -drive if=none,id=d,format=raw,read-only=on,file=$small"
silence='no answer from the device within 30 s'
# shellcheck disable=SC2086
fails silent-disk DiskError "$silence (sector [0-9]*)" --icount --smp 1 -- \
    $throttled,throttling.bps-total=1
# shellcheck disable=SC2086
fails silent-disk-in-model DiskError "$silence (sector [1-9][0-9]*)" --icount --smp 1 -- \
    $throttled,throttling.bps-total=1,throttling.bps-total-max=2000000

# An image that was not copied whole, bare and in a partition; and one whose end goes while it is read.
cp "$small" "$logs/truncated.img"
truncate -s 4M "$logs/truncated.img"
fails truncated DiskError 'it has 8388608 bytes, but its device or partition ends at 4194304' \
    --disk "$logs/truncated.img"
for table in dos gpt; do
    card "$table"
    truncate -s 8M "$logs/$table.img"
    fails "truncated-$table" DiskError 'it has 8388608 bytes, but its device or partition ends at 4194304' \
        --disk "$logs/$table.img"
done
if begin shrinking; then
    cp "$small" "$logs/shrinking.img"
    {
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            ! events 2>/dev/null | grep -q '"event":"disk"' || break
            sleep 1
        done
        truncate -s $((model_at + 5000000)) "$logs/shrinking.img"
    } &
    # shellcheck disable=SC2086
    start --expect-error ChecksumMismatch -- \
        ${throttled%=*}="$logs/shrinking.img",throttling.bps-total=1000000
    wait $!
    must_hold '^{"event":"error","code":"ChecksumMismatch"'
    must_exit 1
    verdict
fi

# Damage to the volume: copies of the disk that works, with a few bytes changed.
# number AT BYTES: a number on the disk.
number() { od -A n -t "u$2" -j "$1" -N "$2" "$small" | tr -d ' '; }
cluster_bytes=$(($(number 11 2) * $(number 13 1)))
table_at=$(($(number 14 2) * $(number 11 2)))
entry_at=$(grep -abo 'TINY~1  GGU' "$small" | head -n 1 | cut -d : -f 1)
cluster=$(number $((entry_at + 26)) 2)
bytes=$(number $((entry_at + 28)) 4)
last_cluster=$((cluster + (bytes - 1) / cluster_bytes))
# anchorite.toml has the cluster before the model's.
settings_cluster=$((cluster - 1))
[ "$(number $((table_at + 2 * settings_cluster)) 2)" = 65535 ] &&
    [ "$(number $((table_at + 2 * last_cluster)) 2)" = 65535 ] ||
    { echo "$small is not laid out as ci/disk-faults.sh expects" >&2 && exit 1; }

# damaged NAME AT BYTE...: makes $logs/NAME.img, with these bytes poked into it.
damaged() {
    damaged_name=$1
    shift
    cp "$small" "$logs/$damaged_name.img"
    poke "$logs/$damaged_name.img" "$@"
}
# linked NAME CLUSTER NEXT: the same, with NEXT behind CLUSTER in the table of a FAT16.
linked() { damaged "$1" $((table_at + 2 * $2)) $(($3 % 256)) $(($3 / 256)); }

linked fat-circle $((cluster + 1009)) "$cluster"
linked fat-outside $((cluster + 1009)) 9001
linked fat-cut $((cluster + 1009)) 0
linked fat-crossed $((last_cluster - 1)) "$settings_cluster"
damaged fat-size $((entry_at + 29)) $(((bytes >> 8 & 255) + 8))
damaged fat-boot-sector 13 3
fails fat-circle DiskError 'a file runs in a circle' --disk "$logs/fat-circle.img"
fails fat-outside DiskError 'a cluster lies outside the volume' --disk "$logs/fat-outside.img"
fails fat-cut DiskError 'a file is shorter than its directory says' --disk "$logs/fat-cut.img"
fails fat-size DiskError 'a file is shorter than its directory says' --disk "$logs/fat-size.img"
fails fat-boot-sector DiskError 'its FAT volume is damaged: its boot sector gives 3 sectors per cluster' \
    --disk "$logs/fat-boot-sector.img"
# Only the sum can tell that another file's cluster is among the model's.
fails fat-crossed ChecksumMismatch 'SHA-256' --disk "$logs/fat-crossed.img"
