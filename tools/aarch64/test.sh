#!/usr/bin/env bash
# Builds ounce-kernels for AArch64 on another machine, lints it, and runs its tests under qemu's user emulation: once
# on each processor named in QEMU_CPUS, one with int8 dot products (FEAT_DotProd) and one without.
#
#     bash tools/aarch64/test.sh [name of a test …]
#     QEMU_CPUS="neoverse-n1" bash tools/aarch64/test.sh packed
#
# Needs, and installs none of it (tools/aarch64/install.sh does, on Debian):
#   the target's standard library   rustup target add aarch64-unknown-linux-gnu, or Debian's Rust with its own
#   a linker and C library          Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross
#   the emulator                    Debian: qemu-user, or qemu-user-static
# Where one is missing it says so and succeeds, so that it can be a step of any check.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=aarch64-unknown-linux-gnu

skip() {
    echo "skipped: $*"
    exit 0
}

# The first of the given programs that is installed.
first_of() {
    local program
    for program in "$@"; do
        if command -v "$program" >/dev/null 2>&1; then
            echo "$program"
            return
        fi
    done
}

if [ "$(uname -m)" = aarch64 ]; then
    skip "this machine is AArch64 itself, cargo test runs these tests as they are"
fi

# Whether the rustc that is found has the target. Without it, it names the folder all the same, or gives nothing.
has_target() {
    local library
    library=$(rustc --print target-libdir --target "$target" 2>/dev/null || true)
    compgen -G "$library/libstd-*.rlib" >/dev/null
}

# Warnings are errors of the toolchain that all other code is linted with; Debian's may know other ones.
deny=(-D warnings)
if ! has_target; then
    PATH=/usr/bin:$PATH
    deny=()
    has_target || skip "Rust's standard library for $target is missing (rustup target add $target)"
    echo "-- Debian's $(rustc --version)"
fi

linker=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-$(first_of aarch64-linux-gnu-gcc)}
if [ -z "$linker" ]; then
    skip "a linker for AArch64 is missing (Debian: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
fi
if ! "$linker" -xc -static -o /dev/null - 2>/dev/null <<<'#include <stdio.h>
int main(void) { return puts("") < 0; }'; then
    skip "$linker finds no static C library for AArch64 (Debian: apt install libc6-dev-arm64-cross)"
fi

emulator=$(first_of qemu-aarch64 qemu-aarch64-static)
if [ -z "$emulator" ]; then
    skip "the emulator is missing (Debian: apt install qemu-user)"
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker
# Static programs need no AArch64 system beside them.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_PROFILE_DEV_DEBUG=none CARGO_INCREMENTAL=0
# An emulated instruction takes some twenty of the machine's own.
export PROPTEST_CASES=${PROPTEST_CASES:-24}

echo "-- lints"
if cargo clippy --version >/dev/null 2>&1; then
    cargo clippy -p ounce-kernels --all-targets --locked --target "$target" -- "${deny[@]}"
else
    echo "clippy is not installed here: the code for $target is not linted in this run (rustup component add clippy)"
fi

for cpu in ${QEMU_CPUS:-max cortex-a72}; do
    echo "-- tests on $cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$emulator -cpu $cpu"
    cargo test -p ounce-kernels --lib --tests --locked --target "$target" -- "$@"
done
