#!/bin/sh
# Fetches packages of Debian, of another suite or architecture too, and unpacks them into a folder.
# The system stays as it is.
#
#   ci/debian.sh FOLDER ARCHITECTURE SUITE PACKAGE...
#
# ARCHITECTURE is amd64, arm64, ...; SUITE is `-` for that of the system, or `backports`. Of names
# that a PACKAGE like 'linux-image-*-arm64' stands for, the last one is taken. What a package depends
# on is not fetched. Ends with status 1 where this is no Debian or there is no way to the network.
set -eu
say() { echo "debian: $*" >&2; }

folder=$1
architecture=$2
suite=$3
shift 3

sources=/etc/apt/sources.list.d/debian.sources
if [ ! -f "$sources" ] || ! command -v apt-get >/dev/null 2>&1; then
    say "there is no $sources: this is no Debian 12 or later"
    exit 1
fi
# shellcheck disable=SC1091 # it is the system's
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")$(echo "-$suite" | sed 's/^--$//')

# An apt of its own, which knows of no package that is installed, but of firmware that is not free too.
# Security updates are another archive; there is none for backports.
apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/sources"
awk -v RS= '!/security/ { print $0 "\n" }' "$sources" |
    sed "s/^Suites:.*/Suites: $suite/; s/^Components:.*/Components: main non-free-firmware/" >"$apt/sources/debian.sources"
: >"$apt/status"
set_up() {
    echo "APT::Architecture \"$architecture\"; APT::Architectures { \"$architecture\"; };"
    echo "Dir::Etc::SourceList \"/dev/null\"; Dir::Etc::SourceParts \"$apt/sources\";"
    echo "Dir::Etc::Preferences \"/dev/null\"; Dir::Etc::PreferencesParts \"$apt/sources\";"
    echo "Dir::State \"$apt\"; Dir::State::status \"$apt/status\"; Dir::Cache \"$apt\";"
    echo 'APT::Sandbox::User "root"; Acquire::Retries "3";'
}
case $apt in /*) ;; *) apt=$PWD/$apt ;; esac
set_up >"$apt/apt.conf"
APT_CONFIG=$apt/apt.conf
export APT_CONFIG
if ! apt-get -qq update </dev/null >&2; then
    say "the list of $suite's packages cannot be fetched, see above"
    exit 1
fi

for package; do
    regex="^$(echo "$package" | sed 's/[.+]/\\&/g; s/\*/[0-9.+-]*/g')\$"
    name=$(apt-cache pkgnames | grep -x -e "$regex" | sort -V | tail -n 1)
    [ -n "$name" ] || {
        say "$suite has no package $package for $architecture"
        exit 1
    }
    (cd "$apt/archives" && apt-get -qq download "$name" </dev/null >&2) || {
        say "$name cannot be fetched, see above"
        exit 1
    }
    dpkg-deb --extract "$apt/archives/$name"_*.deb "$folder"
    rm "$apt/archives/$name"_*.deb
done
