# shellcheck shell=sh
# What is at the limit: contexts, prompts. `ci/boot.sh` sources this file behind its functions and disks.

# The least and the most positions, and one more: a prompt of one token follows the one that starts a text.
fails context-1 ContextFull 'needs at least 2 positions, the context has 1"' \
    --disk "$small" --ctx 1 --prompt a
if boot context-2 --disk "$small" --ctx 2 --prompt a --tokens 9 --expect-tokens 1; then
    must_hold '^{"event":"result","prompt_tokens":2,.*"stop":"context_full"'
    must_exit 0
    verdict
fi
phrase=$(yes "$prompt" | head -n 62 | tr '\n' ' ')
if boot context-256 --disk "$small" --ctx 256 --prompt "$phrase" --tokens 99; then
    must_hold '^{"event":"result".*"stop":"context_full"'
    must_exit 0
    # The last token takes no position any more.
    # shellcheck disable=SC2046 # the words are to be split
    set -- $(events | sed -n 's/^{"event":"result","prompt_tokens":\([0-9]*\),"tokens_emitted":\([0-9]*\),.*/\1 \2/p')
    [ -n "$problem" ] || [ $(($1 + $2)) = 257 ] || problem="$1 and $2 tokens in 256 positions"
    verdict
fi
fails context-257 InvalidConfig 'context` is 257, not between 1 and the model' --disk "$small" --ctx 257

# A prompt of a megabyte: one that is too long at a glance, and one that shows it when it is taken apart,
# which must not take time that grows with its square.
yes "$prompt there was a girl." | tr '\n' ' ' | head -c 1000000 >"$logs/megabyte.txt"
"$builder" disk --out "$logs/megabyte.img" --prompt-file "$logs/megabyte.txt" test_models/tiny.gguf
fails prompt-of-a-megabyte ContextFull 'needs at least [0-9]\{5\} positions, the context has 256"' \
    --disk "$logs/megabyte.img"
head -c 900000 "$logs/megabyte.txt" >"$logs/encoded.txt"
"$builder" disk --out "$logs/encoded.img" --prompt-file "$logs/encoded.txt" "$logs/long.gguf"
fails prompt-encoded ContextFull 'needs at least [0-9]\{6\} positions, the context has 65536"' \
    --disk "$logs/encoded.img" --ctx 65536
# The first one, cut: 192 tokens and an answer.
if boot prompt-cut --disk "$logs/megabyte.img" --tokens 64 --set cut_prompt=true; then
    must_say '^\[192 prompt tokens ([0-9]* more are cut) at '
    must_hold '^{"event":"result","prompt_tokens":192,"tokens_emitted":[1-9]'
    must_exit 0
    verdict
fi
# A line that does not fit is refused as a whole.
if begin line-too-long; then
    { head -c 200000 "$logs/megabyte.txt" && printf '\n/quit\n'; } >"$logs/$name.in"
    chat --disk "$small"
    must_hold '^{"event":"error","code":"ContextFull".*the line is longer than the 65536 bytes that a chat takes"'
    must_exit 0
    verdict
fi

# Text that would pose as an event or drive the terminal, from a file and typed; and what is no text.
printf '\036{"event":"exit","status":1}\n\033[2J\001\007\177\000\302\233 <s></s>' >"$logs/hostile.txt"
"$builder" disk --out "$logs/hostile.img" --prompt-file "$logs/hostile.txt" test_models/tiny.gguf
if boot prompt-hostile --disk "$logs/hostile.img" --tokens 3; then
    must_say '^\\u{1e}{"event":"exit","status":1}$'
    must_say '^\\u{1b}\[2J\\u{1}\\u{7}\\u{7f}\\u{0}\\u{9b} <s></s>'
    must_exit 0
    verdict
fi
if begin typed-hostile; then
    { cat "$logs/hostile.txt" && printf '\377\376\302 \036{"event":"exit","status":1}\n/quit\n'; } >"$logs/$name.in"
    chat --disk "$small" --tokens 3
    must_hold '^{"event":"result","prompt_tokens":[0-9]'
    must_exit 0
    # The line editor erases with ESC [ K; nothing else may come.
    escape=$(printf '\033')
    [ -n "$problem" ] || ! lines | sed "s/$escape\\[K//g" | grep -q "$escape" || problem='an escape gets through'
    verdict
fi
cp "$small" "$logs/no-text.img"
printf 'caf\351' >"$logs/latin-1"
mcopy -i "$logs/no-text.img" "$logs/latin-1" ::prompt.txt
fails prompt-no-text InvalidConfig 'prompt.txt is not UTF-8: line 1 has the byte 0xE9 in column 4' \
    --disk "$logs/no-text.img" --prompt-file prompt.txt

# The largest file that FAT32 can hold: the model with its 57 tensors 64 MiB apart and zeros behind them,
# which take no room on the host's disk. Takes a minute or more and 4 GiB of the host's memory, so only
# whoever asks for it has it.
if [ "${LONG:-0}" = 1 ] || [ "$only" = largest-file ]; then
    ci/toolchain.sh host build -p kernel --example align
    target/debug/examples/align $((64 << 20)) test_models/tiny.gguf "$logs/largest.gguf"
    truncate -s 4294967295 "$logs/largest.gguf"
    "$builder" disk --out "$logs/largest.img" "$logs/largest.gguf"
    timeout=600
    answers largest-file --disk "$logs/largest.img" --mem 6G
    timeout=
fi
