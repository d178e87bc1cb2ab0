#!/usr/bin/env bash
# Installs on Debian what test.sh needs to build and run AArch64 programs on another machine. Root's work; other systems
# are left as they are. Debian's own Rust comes along, since its packages bring the target's standard library.
set -euo pipefail

if [ "$(uname -m)" = aarch64 ] || ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
    echo "nothing is installed: this is for root on Debian, on a machine that is not AArch64 itself"
    exit 0
fi

packages=(qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
# The newest that a release has: rustc-web follows what browsers need.
rust=(rustc-web cargo-web rust-web-clippy libstd-rust-web-dev libstd-rust-web-dev:arm64)
installed() { dpkg-query -W "$@" >/dev/null 2>&1; }

installed "${packages[@]}" "${rust[@]}" && exit 0
dpkg --add-architecture arm64
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" "${rust[@]}" >/dev/null
