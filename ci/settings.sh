# shellcheck shell=sh
# The scripts' share of make's settings: they source this file in the project's folder.
#
# Settings in capitals come in the environment under their names. Settings in small letters come as
# SET_KEY, and $SET_KEYS lists them. ci/settings.mk has the names of both kinds.

# stop MESSAGE: a setting is wrong.
stop() {
    echo "$*" >&2
    exit 2
}

# make cuts blanks, tabs and newlines off the start of what its command line sets. Where a system shows
# the command lines of its processes, texts and names of files are taken from there, as they were
# given. A value that is not make's, but for these, is someone else's.
given=/proc/${MAKE_PID:-none}/cmdline
cut=
[ ! -r "$given" ] ||
    cut=$(LC_ALL=C sed -z -n 's/^\([A-Za-z][A-Za-z0-9_]*\)=[[:space:]].*/\1/p' "$given" | tr '\0' '\n')
for setting in $cut; do
    case $setting in
    PROMPT | SYSTEM | MODEL | PROMPT_FILE | CONFIG | LOG | REPORT) name=$setting ;;
    DEVICE | FIRMWARE | M1N1 | USB | OUT) name=$setting ;;
    *) case " ${SET_KEYS:-} " in *" $setting "*) name=SET_$setting ;; *) continue ;; esac ;;
    esac
    # The last one counts. The point keeps newlines at the end.
    last="/^$setting=/h; \${x; s/^$setting=//p;}"
    whole=$(LC_ALL=C sed -z -n "$last" "$given" | tr -d '\0' && echo .)
    whole=${whole%.}
    of_make=
    eval "of_make=\${$name-}"
    [ "${whole#"${whole%%[![:space:]]*}"}" != "$of_make" ] || export "$name=$whole"
done

# These two settings also say what goes on the disk, by either name.
for setting in model:MODEL prompt_file:PROMPT_FILE; do
    key=${setting%:*} name=${setting#*:}
    eval "[ -n \"\${SET_$key+given}\" ]" || continue
    eval "[ -z \"\${$name-}\" ]" || stop "$key and $name are one setting: give one of them."
    eval "export $name=\"\$SET_$key\""
    unset "SET_$key"
done

# No command may take the name of a file for an option.
for setting in MODEL PROMPT_FILE CONFIG LOG REPORT FIRMWARE M1N1 USB OUT; do
    name=
    eval "name=\${$setting-}"
    case $name in -*) export "$setting=./$name" ;; esac
done

# is_given NAME: whether the user has set NAME, or the same setting by its other name.
is_given() {
    other="s/^variable\.\(.*\) := $1\$/\1/p; s/^variable\.$1 := //p"
    for name in "$1" $(sed -n "$other" ci/settings.mk); do
        case $name in [a-z]*) name=SET_$name ;; esac
        eval "[ -z \"\${$name+given}\" ]" || return 0
    done
    return 1
}

# What must be there.
model=${MODEL:-tiny.gguf}
# A model that is fetched by name brings settings that suit it. Those that the user set stay, and so do
# those of a configuration file, which has all that is not the machine's. A card or a file for a board
# takes none of them.
if [ ! -f "$model" ] && ci/models.sh has "$model"; then
    suits=
    for setting in $([ -z "${action:-}" ] || ci/models.sh settings "$model" "$action"); do
        key=${setting%%=*}
        [ -z "${CONFIG:-}" ] || [ "$key" = MEM ] || continue
        ! is_given "$key" || continue
        case $key in
        [A-Z]*) eval "$key=\${setting#*=}" ;;
        *)
            eval "SET_$key=\${setting#*=}"
            SET_KEYS="${SET_KEYS:-} $key"
            ;;
        esac
        suits="$suits $setting"
    done
    [ -z "$suits" ] || echo "$model: settings that suit it:$suits" >&2
    model=$(ci/models.sh path "$model")
fi
if [ ! -f "$model" ]; then
    [ -f "test_models/$model" ] || {
        echo "There is no model $model, neither at that path nor in test_models/." >&2
        echo "In test_models/ there are: $(cd test_models && echo *.gguf)" >&2
        stop "Fetched by name are: $(ci/models.sh names | xargs)"
    }
    model=test_models/$model
fi
[ -z "${CONFIG:-}" ] || [ -f "$CONFIG" ] || stop "There is no configuration file $CONFIG."
[ -z "${PROMPT_FILE:-}" ] || [ -f "$PROMPT_FILE" ] || stop "There is no prompt file $PROMPT_FILE."
