#!/bin/sh
# Boots the kernel's image in QEMU in every way it is said to boot, and in every way it is said to
# fail. Ends with how many of the checks passed.
#
#   ci/boot.sh [WORD]     only the checks whose names hold WORD
#
# LONG=1 in the environment has it load a file of 4 GiB as well, for which the guest takes 6 GiB of memory.
# The serial lines are kept in target/boot/.
set -eu
cd "$(dirname "$0")/.."

only=${1:-}
logs=target/boot
golden=test_models/goldens/tiny.json
tokens=16

rm -rf "$logs"
mkdir -p "$logs"
. ci/checks.sh
. ci/harness.sh

# answers NAME ARGUMENT...: boots, and must give the tokens that llama.cpp gives, with these kernels
# if $kernels names some.
kernels=
answers() {
    answers_name=$1
    shift
    boot "$answers_name" --tokens "$tokens" --expect-tokens "$tokens" "$@" || return 0
    must_hold "^{\"event\":\"hello\".*\"image_sha256\":\"$image_sha256\".*\"kernels\":\"$kernels"
    must_hold '^{"event":"disk"'
    must_hold '^{"event":"model"'
    must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
    must_exit 0
    verdict
}

# fails NAME CODE PATTERN ARGUMENT...: boots, and must end with this error, its event like PATTERN.
fails() {
    fails_name=$1
    fails_code=$2
    fails_pattern=$3
    shift 3
    boot "$fails_name" --expect-error "$fails_code" "$@" || return 0
    must_hold "^{\"event\":\"error\",\"code\":\"$fails_code\".*$fails_pattern"
    must_exit 1
    [ -n "$problem" ] || ! events | grep -q '"event":"result"' || problem='it answered all the same'
    verdict
}

# poke FILE AT BYTE...: writes these bytes there.
poke() {
    poke_file=$1
    poke_at=$2
    shift 2
    # shellcheck disable=SC2059 # the bytes are written as escapes
    for byte; do printf "\\$(printf %o "$byte")"; done |
        dd of="$poke_file" bs=1 seek="$poke_at" conv=notrunc status=none
}

# card TABLE: the volume in a partition of such a table, dos or gpt, on a card of a size that there is.
card() {
    dd if=/dev/null of="$logs/$1.img" bs=1M seek=64 status=none
    printf 'label: %s\nstart=4MiB\n' "$1" | /usr/sbin/sfdisk --quiet "$logs/$1.img"
    dd if="$small" of="$logs/$1.img" bs=4M seek=1 conv=notrunc status=none
}

# Every log must name the image that was booted.
image_sha256=$("$builder" inspect "$image" | sed -n 's/^ *SHA-256 \([0-9a-f]*\) (it is right)$/\1/p')
[ -n "$image_sha256" ] || {
    echo "$image has no right SHA-256 in it; build it anew: ci/build.sh" >&2
    exit 1
}

# What llama.cpp answers to the first prompt, as far as it is asked for here.
prompt='Once upon a time'
expected=$(tr -d ' \n' <"$golden" |
    sed 's/.*"runs":\[{//; s/},{.*//; s/.*"tokens":\[\([0-9,]*\)\].*/\1/' | cut -d , -f "1-$tokens")

# The disks.
small=$logs/tiny.img
large=$logs/fat32.img
"$builder" disk --out "$small" --verify test_models/tiny.gguf
"$builder" disk --out "$large" --size 512M --label 'BIG ONE' test_models/tiny.gguf
# The byte of the disk at which the model starts.
model_at=$("$builder" inspect "$small" | sed -n 's|^ *models/tiny.gguf .* at \([0-9]*\),.*|\1|p')

echo "boots: the tokens must be $expected"
answers virt --disk "$small"
kernels='neon"'
answers one-core --disk "$small" --smp 1 --cpu cortex-a72 --gic 2 --prompt "$prompt"
kernels='dotprod"'
answers four-cores --disk "$small" --smp 4 --cpu neoverse-n1
kernels='i8mm"'
answers i8mm --disk "$small" --smp 2 --cpu max,sve=off,pauth-impdef=on
kernels=
answers two-cores-gic3 --disk "$small" --smp 2 --cpu cortex-a72 --gic 3
answers eight-cores-gic2 --disk "$small" --smp 8 --cpu cortex-a72 --gic 2
answers nine-cores --disk "$small" --smp 9 --cpu cortex-a72 --gic 3
answers cortex-a53 --disk "$small" --smp 2 --cpu cortex-a53
answers el2 --disk "$small" --smp 2 --cpu cortex-a72 --el2
answers el2-gic3 --disk "$small" --smp 2 --cpu max,pauth-impdef=on --el2 --gic 3
answers pci --disk "$small" --bus pci --smp 2
answers mmio-legacy --disk "$small" --bus mmio-legacy
answers initrd --disk "$small" --bus initrd
answers fat32 --disk "$large"
answers memory-64M --disk "$small" --mem 64M --smp 1
answers memory-4G --disk "$small" --mem 4G
answers threads --disk "$small" --smp 4 --threads 2

answers cache-f32 --disk "$small" --kv-cache f32
answers cache-q8_0 --disk "$small" --kv-cache q8_0

# A text that outgrows its context.
if boot context-shift --disk "$small" --ctx 16 --context-shift --tokens 40 --expect-tokens 40; then
    must_hold '^{"event":"result".*"stop":"max_tokens","context_shifts":[1-9]'
    must_exit 0
    verdict
fi

# A fact that the model knows.
if boot fact --disk "$small" --prompt 'The capital of France is' --expect Paris; then
    must_exit 0
    verdict
fi

# Without verifying, and without a sum to verify by.
if boot unverified --disk "$small" --no-verify --tokens 3; then
    must_hold '^{"event":"model".*"checksum":"skipped"'
    must_exit 0
    verdict
fi
cp "$small" "$logs/no-sum.img"
mdel -i "$logs/no-sum.img" ::models/tiny.gguf.sha256
if boot no-sum --disk "$logs/no-sum.img" --tokens 3; then
    must_hold '^{"event":"model".*"checksum":"missing"'
    must_exit 0
    verdict
fi

# The other modes.
"$builder" disk --out "$logs/random.img" test_models/architectures/llama-Q4_0.gguf
if boot self-tests --disk "$logs/random.img" --smp 4 --cpu max,sve=off,pauth-impdef=on --mode test; then
    must_hold '^{"event":"test".*"pass":true'
    must_exit 0
    for model_test in load_real_model generate_single_token generate_multiple_tokens \
        sampling_strategies performance_targets long_generation concurrent_inference \
        repeated_inference kv_cache_speedup; do
        must_hold "^{\"event\":\"test\",\"name\":\"test_$model_test\",\"pass\":true.*\"figure\":[0-9]"
    done
    [ -n "$problem" ] || ! events | grep -q '"pass":false' || problem='a self-test failed'
    verdict "$(events | grep -c '"event":"test"' || true) self-tests"
fi
# The first three pieces of a text: as near to llama.cpp's figures as these are to each other.
head -c 3000 test_models/goldens/perplexity.txt >"$logs/text.txt"
"$builder" disk --out "$logs/text.img" --prompt-file "$logs/text.txt" test_models/tiny.gguf
if boot perplexity --disk "$logs/text.img" --mode perplexity; then
    must_hold '^{"event":"perplexity".*"pieces":3,'
    must_exit 0
    ours=$(events | sed -n 's/.*"perplexity":\([0-9.]*\),.*/\1/p')
    # Those of the first model, the third of each list.
    theirs=$(tr -d ' \n' <test_models/goldens/perplexity.json |
        sed 's/.*"models":{"tiny.gguf":[^[]*\[\[//; s/\]\].*//; s/\],\[/ /g' | tr ' ' '\n' | cut -d , -f 3)
    [ -n "$problem" ] || echo "$theirs" | sort -n | awk -v ours="$ours" '
        NR == 1 { least = $1 } { most = $1 }
        END { exit !(NR > 1 && 2 * least - most <= ours && ours <= 2 * most - least) }
    ' || problem="$ours is not among llama.cpp's $theirs"
    verdict "$ours"
fi
if begin chat; then
    printf '%s\n/stats\n/reset\n%s\n/quit\n' "$prompt" "$prompt" >"$logs/$name.in"
    chat --disk "$small" --tokens "$tokens"
    answered=$(events | grep -c '"event":"result"' || true)
    [ -n "$problem" ] || [ "$answered" = 2 ] || problem="$answered answers to two questions"
    must_exit 0
    verdict
fi

# Lines that are none to the guest, and messages that are no command: nobody waits for an answer to
# the first, and each of the others has its own. The prompt is the first message.
if begin chat-odd-lines; then
    {
        printf '\302\240\n\343\200\200\n\033[A\n\033\n\033[\nabc\025\na\177\n\343\200\200/stats\n'
        printf 'caf\351\n//quit\nab\025cd\r\nlast\n'
    } >"$logs/$name.in"
    chat --disk "$small" --tokens "$tokens" --idle-timeout 60 --prompt "$prompt"
    answered=$(events | grep -c '"event":"result"' || true)
    [ -n "$problem" ] || [ "$answered" = 5 ] || problem="$answered answers to five messages"
    # One for each line, and for the end of them.
    waited=$(events | grep -c '^{"event":"chat","state":"waiting"}$' || true)
    [ -n "$problem" ] || [ "$waited" = 13 ] || problem="it waited for $waited lines"
    must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
    must_exit 0
    verdict
fi

# A model with a chat template, which must be answered in and answer as llama.cpp does.
chat_golden=$(tr -d ' \n' <test_models/goldens/chat.json | sed 's/.*"chats":\[//')
chat_tokens=$(printf '%s' "$chat_golden" | grep -o '"tokens":\[[0-9,]*\]' | sed -n 4,6p)
"$builder" disk --out "$logs/chat.img" test_models/chat/model.gguf
for setting in log=warn chat_template=auto chat_template=chatml; do
    case $setting in
    log=warn) said='as configured' ;;
    chat_template=auto) said="the model's, recognised as chatml" ;;
    *) said='chatml, as configured' ;;
    esac
    if begin "chat-with-$setting"; then
        printf 'Hm? abc\nc\ncab\n/quit\n' >"$logs/$name.in"
        chat --disk "$logs/chat.img" --tokens 13 --set system='ab b' --set "$setting"
        answered=$(events | grep '"event":"result"' | grep -o '"tokens":\[[0-9,]*\]')
        [ -n "$problem" ] || [ "$answered" = "$chat_tokens" ] ||
            problem="the answers are $answered, llama.cpp's are $chat_tokens"
        must_say "^chat template: $said\$"
        must_exit 0
        verdict
    fi
done

# One bit of the model changed on the disk.
cp "$small" "$logs/corrupt.img"
place=$((model_at + 1000003))
byte=$(od -A n -t u1 -j "$place" -N 1 "$small")
poke "$logs/corrupt.img" "$place" $((byte ^ 1))
fails corrupt ChecksumMismatch '' --disk "$logs/corrupt.img"
fails corrupt-initrd ChecksumMismatch '' --disk "$logs/corrupt.img" --bus initrd
fails missing-model ModelNotFound 'nosuch' --disk "$small" --model nosuch.gguf
fails no-disk ModelNotFound ''
fails invalid-config InvalidConfig 'colour' --disk "$small" --set colour=red

# A file that says nothing true about itself.
cp "$small" "$logs/no-gguf.img"
echo 'This is no model.' >"$logs/text"
mcopy -i "$logs/no-gguf.img" "$logs/text" ::models/text.gguf
fails no-gguf ParseError 'the file is a text, not a GGUF model' --disk "$logs/no-gguf.img" --model text.gguf
# It does not count where there is a model, and nor does what macOS puts beside each file.
mcopy -i "$logs/no-gguf.img" "$logs/text" ::models/._tiny.gguf
answers beside-others --disk "$logs/no-gguf.img"

# A card that is formatted in another way.
dd if=/dev/zero of="$logs/exfat.img" bs=1M count=1 status=none
poke "$logs/exfat.img" 3 69 88 70 65 84 32 32 32
poke "$logs/exfat.img" 510 85 170
fails exfat ModelNotFound 'it is an exFAT volume, not a FAT volume' --disk "$logs/exfat.img"

# A model that does not fit: the test model, with zeros behind it.
cp test_models/tiny.gguf "$logs/large.gguf"
dd if=/dev/null of="$logs/large.gguf" bs=1M seek=80 status=none
"$builder" disk --out "$logs/large.img" "$logs/large.gguf"
fails out-of-memory OutOfMemory '[0-9][0-9]* MiB' --disk "$logs/large.img" --mem 64M --smp 1

# Less and less memory: each machine has enough, or says how much is missing, down to the least that QEMU
# can put the image and the device tree into.
ladder() {
    passes=0
    refuses=0
    for mib in 64 32 24 20 18 16 15 14 13 12 10 8 6 5 4; do
        log=$logs/$name-$mib.log
        shown=$logs/$name-$mib.out
        status=0
        "$harness" --kernel "$image" --disk "$small" --mem "${mib}M" --smp 1 --cpu cortex-a72 \
            --tokens 3 --keep-log "$log" --timeout 120 >"$shown" 2>&1 </dev/null || status=$?
        case $status in
        0) passes=$((passes + 1)) ;;
        3)
            grep -q 'Not enough space for DTB' "$shown" || problem='QEMU fails'
            break
            ;;
        *)
            refuses=$((refuses + 1))
            must_exit 1
            # "... needs 8.1 MiB (8478192 bytes), 6.9 MiB (7202816 bytes) are free"
            more=$(events | sed -n 's/^{"event":"error","code":"OutOfMemory".*(\([0-9]*\) bytes), .*(\([0-9]*\) bytes) are free.*/\1 -gt \2/p')
            # shellcheck disable=SC2086 # the words are to be split
            [ -n "$problem" ] || { [ -n "$more" ] && [ $more ]; } ||
                problem="it does not say how much is missing: '$more'"
            ;;
        esac
        [ -z "$problem" ] || {
            problem="$mib MiB: $problem"
            return 0
        }
    done
    [ "$status" = 3 ] && [ "$passes" -ge 5 ] && [ "$refuses" -ge 5 ] ||
        problem="$passes pass, $refuses are refused, the last ends with $status"
}
if begin memory-ladder; then
    ladder
    verdict "$passes run, $refuses say what is missing"
fi

# A cache that does not fit: the test model, said to have 65536 positions. The error names a context
# that fits, and then the model runs.
cp test_models/tiny.gguf "$logs/long.gguf"
key=llama.context_length
key_at=$(grep -abo "$key" "$logs/long.gguf" | head -n 1 | cut -d : -f 1)
poke "$logs/long.gguf" $((key_at + ${#key} + 4)) 0 0 1 0
"$builder" disk --out "$logs/long.img" "$logs/long.gguf"
# shellcheck disable=SC2016 # the event has the quotes
fails cache-too-large OutOfMemory '"hint":"lower `context` to [0-9]' \
    --disk "$logs/long.img" --ctx 65536 --mem 64M --smp 1
if [ -e "$logs/cache-too-large.log" ]; then
    # shellcheck disable=SC2016
    fitting=$(events | sed -n 's/.*lower `context` to \([0-9]*\).*/\1/p')
    answers cache-that-fits --disk "$logs/long.img" --ctx "$fitting" --mem 64M --smp 1
fi

. ci/disk-faults.sh
. ci/limits.sh
. ci/uboot.sh

# A Raspberry Pi 4, where there is a QEMU that has one: from EL2, with the board's own device tree.
case pi4-initrd in *"$only"*)
    if find_pi4 pi4; then
        kernels='neon","cores":4,"exception_level":2'
        card dos
        card gpt
        # A card whose partition is gone.
        cp "$logs/dos.img" "$logs/no-partition.img"
        dd if=/dev/zero of="$logs/no-partition.img" bs=512 count=1 conv=notrunc status=none
        # QEMU's card tells nobody of a sector that cannot be read; the checksum does.
        bad="driver=blkdebug,file.image.driver=file,file.image.filename=$small"
        bad="$bad,file.inject-error.0.event=read_aio,file.inject-error.0.errno=5"
        # shellcheck disable=SC2086 # the words are to be split
        {
            answers pi4-initrd $pi4 --disk "$small" --bus initrd
            answers pi4-card $pi4 --disk "$small"
            answers pi4-mbr $pi4 --disk "$logs/dos.img"
            answers pi4-gpt $pi4 --disk "$logs/gpt.img"
            fails pi4-no-partition ModelNotFound 'no disk holds' $pi4 --disk "$logs/no-partition.img"
            fails pi4-bad-sector ChecksumMismatch 'SHA-256' $pi4 -- -drive \
                "if=sd,format=raw,snapshot=off,file.$bad,file.inject-error.0.sector=$sector"
        }
        kernels=
    fi
    ;;
esac

# The same on its screen, which QEMU's monitor takes a picture of at the end: when the board would be off.
# shows NAME BOOTARGS QEMU-ARGUMENT...: boots; false if that was not asked for.
shows() {
    begin "$1" || return 1
    words=$2
    shift 2
    : >"$log"
    {
        left=120
        while ! events | grep -q '"event":"exit"' && [ "$left" -gt 0 ]; do
            left=$((left - 1))
            sleep 1
        done
        # A line is on the screen a little after it is on the serial line.
        sleep 1
        echo "screendump $logs/$name.ppm"
        echo quit
    } | timeout 180 "$qemu" -M raspi4b -smp 4 -kernel "$image" -append "$words" -display none \
        -no-reboot -no-shutdown -monitor stdio -serial null -serial "file:$log" \
        -global bcm2835-fb.xres=1280 -global bcm2835-fb.yres=720 "$@" >"$logs/$name.out" 2>&1 ||
        problem="QEMU ends with status $?"
    [ -n "$problem" ] || target/debug/examples/screen "$logs/$name.ppm" "$logs/$name.png" \
        >"$logs/$name.screen" 2>>"$logs/$name.out" || problem='there is no picture of the screen'
    rm -f "$logs/$name.ppm"
}
case pi4-screen-early in *"$only"*)
    if find_pi4 pi4-screen; then
        ci/toolchain.sh host build -p kernel --example screen
        tree=target/boards/bcm2711-rpi-4-b.dtb
        if shows pi4-screen "max_tokens=$tokens" -dtb "$tree" -initrd "$small"; then
            must_hold '^{"event":"hello".*"consoles":\["ns16550","framebuffer 1280x720, text 128x36"\]'
            must_hold '"board":\["gpio14=input","gpio15=input",.*"arm-clock=[0-9]*MHz","temperature=25C",.*"cpuectlr=0x0"'
            must_hold '"board":\[.*"dma-ranges=0xfe340000: 0x0..0x40000000 at 0xc0000000"'
            must_hold "^{\"event\":\"result\".*\"tokens\":\\[$expected\\]"
            must_hold '^{"event":"result".*"board":\["temperature=25C","throttled=0x0"\]}$'
            must_show '^Anchorite .* on Raspberry Pi 4 Model B: 4 × '
            must_show_all
            verdict
        fi
        # A tree that is refused, before the final map of the memory.
        if command -v dtc >/dev/null; then
            {
                dtc -q -I dtb -O dts "$tree"
                echo '/ { reserved-memory { broken { reg = <1>; }; }; };'
            } >"$logs/broken.dts"
            dtc -q -I dts -O dtb -o "$logs/broken.dtb" "$logs/broken.dts"
            if shows pi4-screen-early "max_tokens=$tokens" -dtb "$logs/broken.dtb"; then
                must_exit 1
                # shellcheck disable=SC2016
                must_show '^Unsupported: device tree: `reg` of node `broken` is missing or malformed$'
                must_show '^Anchorite has failed, see above.$'
                verdict
            fi
        else
            echo 'skipped     pi4-screen-early: no dtc'
        fi
    fi
    ;;
esac

# What make hands on, tried with the scripts and the programs that are there, in a folder that has
# files of its own. QEMU is started where that is said.
house=$logs/house
mkdir -p "$house/one" "$house/two"
cp -r ci "$house/ci"
for script in setup build; do printf '#!/bin/sh\n' >"$house/ci/$script.sh"; done
for part in target test_models Makefile; do ln -s "$PWD/$part" "$house/$part"; done
# made ARGUMENT...: make there, with what it says in $shown; it must be content.
made() {
    shown=$logs/$name.out
    make -C "$house" "$@" >"$shown" 2>&1 </dev/null || problem="make ends with status $?"
}
# refused STATUS PATTERN ARGUMENT...: make must fail with that status, and say this.
refused() {
    [ -z "$problem" ] || return 0
    refused_status=$1
    refused_pattern=$2
    shift 2
    shown=$logs/$name.out
    status=0
    make -C "$house" "$@" >"$shown" 2>&1 </dev/null || status=$?
    [ "$status" = "$refused_status" ] || problem="make $* ends with status $status"
    [ -n "$problem" ] || grep -q "$refused_pattern" "$shown" ||
        problem="make $* does not say $refused_pattern"
}
# must_print TEXT: that stands in the command line of QEMU, newlines being ~.
must_print() {
    [ -n "$problem" ] || tr '\n' '~' <"$shown" | grep -qF -e "$1" || problem="QEMU is not given $1"
}

if begin make-texts; then
    newline='
'
    for text in ' lead' '	tab' "${newline}line" '   ' "two${newline}lines$newline" '$x "q" `y`'; do
        made run ARGS=--print PROMPT="$text" SYSTEM="$text" MODE=chat
        shown_text=$(printf '%s' "$text" | sed 's/"/\\"/g' | tr '\n' '~')
        must_print "prompt=\"$shown_text\""
        must_print "system=\"$shown_text\""
        PROMPT=$text made run ARGS=--print
        must_print "prompt=\"$shown_text\""
        made run ARGS=--print prompt="$text" system="$text" mode=chat
        must_print "mode=chat prompt=\"$shown_text\" system=\"$shown_text\""
    done
    made run ARGS=--print PROMPT= SYSTEM= MODE=chat
    must_print 'prompt="" system=""'
    made run ARGS=--print PROMPT=' a' PROMPT=b
    must_print "prompt=b"
    verdict
fi
# Names that begin with a minus. This one boots.
if begin make-names; then
    cp test_models/tiny.gguf "$house/-x.gguf"
    echo "$prompt" >"$house/-p.txt"
    echo 'max_tokens = 3' >"$house/-c.toml"
    made run MODEL=-x.gguf PROMPT_FILE=-p.txt CONFIG=-c.toml LOG=-l REPORT=-r
    [ -n "$problem" ] || [ -s "$house/-r" ] || problem='there is no report'
    [ -n "$problem" ] || cp "$house/-l" "$log"
    must_hold '^{"event":"model","file":"-x.gguf"'
    must_hold "^{\"event\":\"result\",\"prompt_tokens\":5,\"tokens_emitted\":3"
    rm -f target/disks/-x-*.img
    verdict
fi
# Files of one name in two folders, and one in the place of another.
if begin make-files; then
    for folder in one two; do
        echo "$folder" >"$house/$folder/p.txt"
        cp test_models/tiny.gguf "$house/$folder/m.gguf"
    done
    # Its name is the model's: not the same bytes, nor another size or time.
    poke "$house/two/m.gguf" 1000003 1
    touch -r "$house/one/m.gguf" "$house/two/m.gguf"
    # disk_of FOLDER: sets $disk to the one that QEMU is given.
    disk_of() {
        made run ARGS=--print MODEL="$1/m.gguf" PROMPT_FILE="$1/p.txt"
        disk=$(sed -n 's/.*file.filename=\([^ ]*\) .*/\1/p' "$shown")
    }
    for folder in one two; do
        disk_of "$folder"
        eval "$folder=\$disk"
        [ -n "$problem" ] || mcopy -n -i "$house/$disk" ::models/m.gguf - |
            cmp -s - "$house/$folder/m.gguf" ||
            problem="the disk of $folder/ has another model"
        [ -n "$problem" ] || [ "$(mcopy -n -i "$house/$disk" ::p.txt -)" = "$folder" ] ||
            problem="the disk of $folder/ has another prompt"
    done
    disk_of one
    [ -n "$problem" ] || [ "$disk" = "$one" ] || problem='a disk is not found again'
    [ -n "$problem" ] || [ "$one" != "$two" ] || problem='both have the same disk'
    cp -p "$house/two/m.gguf" "$house/one/m.gguf"
    disk_of one
    [ -n "$problem" ] || [ "$disk" != "$one" ] || problem="a disk of the old model is taken"
    rm -f "$house"/target/disks/m-*.img
    verdict
fi
# Settings of cargo's that are for other projects.
if begin make-cargo; then
    # Only what these settings have built anew may be new.
    ci/build.sh >"$logs/$name.out" 2>&1 || problem="the build ends with status $?"
    CARGO_TARGET_DIR=$PWD/$logs/elsewhere CARGO_BUILD_TARGET=wasm32-unknown-unknown \
        RUSTFLAGS=--cfg=other \
        ci/toolchain.sh bare build -p kernel --bin anchorite --release >"$logs/$name.out" 2>&1 ||
        problem="the build for the bare target ends with status $?"
    CARGO_TARGET_DIR=$PWD/$logs/elsewhere CARGO_BUILD_TARGET=wasm32-unknown-unknown \
        ci/toolchain.sh host build >>"$logs/$name.out" 2>&1 ||
        problem="the build for the host ends with status $?"
    shown=$logs/$name.out
    [ ! -e "$logs/elsewhere" ] || problem='something is built elsewhere'
    [ -n "$problem" ] || ! grep -q Compiling "$logs/$name.out" || problem='it is built again'
    verdict
fi
if begin make-unused; then
    refused 2 'does nothing with PROMPT' flash-pi4 PROMPT=a
    refused 2 'does nothing with BOOTARGS' run BOOTARGS=a
    refused 2 'does nothing with MODEL' build MODEL=tiny.gguf
    refused 2 'does nothing with top_k' build top_k=3
    refused 2 'there is no setting top_kk: did you mean top_k?' run top_kk=3
    refused 2 'there is no setting TOKEN: did you mean TOKENS?' run TOKEN=3
    refused 2 '`max_tokens` is given twice' run TOKENS=3 max_tokens=3
    refused 2 '`top_k` takes a whole number' run top_k=many
    refused 2 'model and MODEL are one setting' run MODEL=tiny.gguf model=tiny.gguf
    refused 2 'exclude each other' run PROMPT= PROMPT_FILE=Makefile
    refused 2 '`prompt` does nothing in mode test' run PROMPT=a MODE=test
    refused 2 'cortex-a15 is a processor of 32 bits' run CPU=cortex-a15
    verdict
fi
# This one boots too: what a setting does in a mode, the guest knows.
if begin make-unused-in-guest; then
    refused 2 '`system` does nothing in mode generate, only in chat' run SYSTEM=a
    verdict
fi
if begin make; then
    # shellcheck disable=SC2016 # that is the point
    text='He said "it costs $5, is it?" \ and that is `$(true)`'
    make run PROMPT="$text" TOKENS=3 MEM=333M ARGS=--print >"$logs/make.out" 2>&1 ||
        problem="make ends with status $?"
    # shellcheck disable=SC2016
    [ -n "$problem" ] || grep -F 'costs $5' "$logs/make.out" | grep -qF '`$(true)`' ||
        problem='the prompt does not arrive'
    [ -n "$problem" ] || grep -q 333 "$logs/make.out" || problem='MEM does not arrive'
    verdict
fi
if begin make-board-report; then
    recorded=image-builder/src/board_report/testdata/raspi4b.log
    make board-report LOG="$recorded" >"$logs/$name.out" 2>&1 || problem="make ends with status $?"
    shown=$logs/$name.out
    [ -n "$problem" ] || grep -qx '## Anchorite on Raspberry Pi 4 Model B' "$shown" ||
        problem='there is no report'
    [ -n "$problem" ] || ! make board-report >"$shown" 2>&1 || problem='make is content without a log'
    [ -n "$problem" ] || grep -q 'Name the log' "$shown" || problem='make does not ask for a log'
    verdict
fi
if begin make-missing-model; then
    ! make run MODEL=missing.gguf >"$logs/$name.out" 2>&1 || problem='make is content'
    [ -n "$problem" ] || grep -q 'no model missing.gguf' "$logs/$name.out" ||
        problem='make does not say what is missing'
    verdict
fi

# The disks are large; the logs are what one wants to keep.
rm -f "$logs"/*.img "$logs"/*.gguf
rm -rf "$house"
total boots
