#!/usr/bin/env bash
# Brings what tests/projects.rs needs: tools and googletest's source, which go to /usr and need root where they are
# missing, and below a directory the sources of real projects as Debian has them, which need no root.
set -euo pipefail
prefix=${1:?usage: setup.sh DIRECTORY, by default of the tests: target/projects}
packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need gcc gcc
need g++ g++
need make make
need cmake cmake
need ninja ninja-build
need strace strace
need dpkg-source dpkg-dev
[ -e /usr/src/googletest/CMakeLists.txt ] || packages+=(googletest)
if [ ${#packages[@]} -gt 0 ]; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
fi

mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
wanted=()
for name in zlib bzip2 libzstd fmtlib; do
  [ -d "$prefix/$name" ] || wanted+=("$name")
done
[ ${#wanted[@]} -gt 0 ] || exit 0

# The machine's own lists as lists of sources, in a place of apt's that ends with this script.
work=$(mktemp -d "$prefix/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache}/partial "$work"/{parts,sources}
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [ ! -f "$list" ] || sed -n 's/^deb[[:space:]]/deb-src /p' "$list" >"$work/parts/$(basename "$list" .list).list"
done
for list in /etc/apt/sources.list.d/*.sources; do
  [ ! -f "$list" ] || sed 's/^Types:.*/Types: deb-src/' "$list" >"$work/parts/$(basename "$list")"
done
apt() {
  apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" -o Dir::Cache="$work/cache" \
    -o Dir::State::lists="$work/lists" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update
(cd "$work/sources" && apt source --only-source "${wanted[@]}")
for name in "${wanted[@]}"; do
  mv "$work/sources/$name"-*/ "$prefix/$name"
done
# zlib's cmake names this file of Windows, which Debian's source lacks, and passes over it.
mkdir -p "$prefix/zlib/win32" && touch "$prefix/zlib/win32/zlib1.rc"
