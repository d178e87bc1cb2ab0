#!/usr/bin/env bash
# Runs the unit tests of ounce-kernels under LLVM's address sanitizer: a read or a write of one byte beyond a slice
# ends the run. Every path of this processor runs: the tests of packed products and attention loop over all of them,
# and what only takes the path in use (vector.rs, the rounding of activations) runs once for each OUNCE_ISA.
#
#     bash tools/sanitize.sh [name of a test …]
#     ISAS="avx2" bash tools/sanitize.sh packed
#
# Needs a nightly toolchain (rustup toolchain install nightly --profile minimal) and nothing else: the kernels' own
# code is instrumented, the standard library's is not. The thread sanitizer is not run: rustc refuses it without an
# instrumented standard library (-Zbuild-std). Forced to, it does not see what the standard library's contended locks and
# thread ends order, and calls that races.
# Where the toolchain is missing it says so and succeeds, so that it can be a step of any check.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() {
    echo "skipped: $*"
    exit 0
}

target=$(rustc -vV | sed -n 's/^host: //p')
case $target in
x86_64-unknown-linux-gnu) paths="plain avx2 avx512" ;;
aarch64-unknown-linux-gnu) paths="plain neon neon-dot" ;;
*) skip "on $target this script does not know the paths to run" ;;
esac

# Without the sanitizer's runtime in it, a toolchain can't link the tests.
library=$(rustc +nightly --print target-libdir 2>/dev/null || true)
if ! compgen -G "$library/librustc*_rt.asan.a" >/dev/null; then
    skip "a nightly toolchain with the address sanitizer is missing (rustup toolchain install nightly --profile minimal)"
fi

# With the cfg, packed weights are single allocations; within their usual slabs the sanitizer sees no end of a matrix.
export RUSTFLAGS="-Zsanitizer=address --cfg ounce_asan"
# Leaks are none of these tests' business, and finding them needs ptrace, which containers often forbid.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}

for isa in ${ISAS:-$paths}; do
    echo "== OUNCE_ISA=$isa"
    # Named target, so that build scripts and macros stay as they are.
    OUNCE_ISA=$isa cargo +nightly test --locked -p ounce-kernels --lib --target "$target" -- "$@"
done
