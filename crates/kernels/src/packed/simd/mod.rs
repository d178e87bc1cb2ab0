//! The vector operations that the packed kernels are written in: sixteen lanes of 32 bits, or the 64 bytes that lie in
//! them, on whatever registers an instruction set has. Each kernel is written once over [`Simd`] and compiled for
//! every path.
//!
//! All functions are `unsafe` for one reason: they may be called only where the processor has the path's instructions,
//! inside a function that is compiled for them; pointers must be readable over what is loaded.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use scalar::Scalar;

/// Bytes ahead of the one being read that are asked for: weights are read once a token, in order, and hardware stops
/// following them at page borders. Measured with Q4_0 on a quiet machine, two threads, 76 MiB of weights in the last-level
/// cache: 58 GB/s, and 55 with 4096; 700 MiB in memory: 27 to 29 GB/s with 2048, 4096 and 8192 alike.
const AHEAD: usize = 8192;

/// Sixteen lanes of 32 bits.
pub(crate) trait Simd: Copy + 'static {
    /// 64 bytes.
    type Bytes: Copy;
    /// Sixteen i32.
    type Ints: Copy;
    /// Sixteen f32.
    type Floats: Copy;

    /// Whether signed bytes are multiplied as unsigned ones, 128 added to each: [`Simd::dot_signed`] then gives
    /// `128 · Σ x` too much.
    const FLIPPED: bool;

    /// Reads 64 bytes.
    unsafe fn bytes(at: *const u8) -> Self::Bytes;
    /// The same byte 64 times.
    unsafe fn splat_byte(byte: u8) -> Self::Bytes;
    /// Bitwise and.
    unsafe fn and(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bitwise or.
    unsafe fn or(a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Each byte shifted right. Bits of its neighbour may come in: mask them.
    unsafe fn shift_right<const BITS: u32>(a: Self::Bytes) -> Self::Bytes;
    /// Each byte shifted left. Bits of its neighbour may come in: mask them.
    unsafe fn shift_left<const BITS: u32>(a: Self::Bytes) -> Self::Bytes;
    /// `table[index]` for indices below 16.
    unsafe fn lookup(table: &[i8; 16], index: Self::Bytes) -> Self::Bytes;

    /// Signed bytes in the form that [`Simd::dot_signed`] takes.
    unsafe fn signed(weights: Self::Bytes) -> Self::Bytes;
    /// Adds to each lane its four weights (0..=127) times the four int8 values at `four`.
    unsafe fn dot(sum: Self::Ints, weights: Self::Bytes, four: *const i8) -> Self::Ints;
    /// As [`Simd::dot`] for what [`Simd::signed`] gave; see [`Simd::FLIPPED`].
    unsafe fn dot_signed(sum: Self::Ints, weights: Self::Bytes, four: *const i8) -> Self::Ints;

    /// Adds to each lane the products of all groups' weights with consecutive values from `values` on: [`Simd::dot`]
    /// for weights of 1 to 6 `bits`, [`Simd::dot_signed`] for those of 8. Groups come in fours. A path that sums the
    /// products of small weights in sixteen bits writes its own.
    #[inline(always)]
    unsafe fn dots(
        mut sum: Self::Ints,
        weights: &[Self::Bytes],
        bits: usize,
        values: *const i8,
    ) -> Self::Ints {
        for (group, weights) in weights.iter().enumerate() {
            // SAFETY: the same contract.
            sum = unsafe {
                let four = values.add(group * 4);
                if bits == 8 { Self::dot_signed(sum, *weights, four) } else { Self::dot(sum, *weights, four) }
            };
        }
        sum
    }

    /// [`Simd::dots`] for `T` tokens whose values are 32 bytes apart, `values` those of the first. A path with
    /// registers for the sums of many takes turns with the tokens, so that no product waits for the one before.
    #[inline(always)]
    unsafe fn dots_of<const T: usize>(
        mut sums: [Self::Ints; T],
        weights: &[Self::Bytes],
        bits: usize,
        values: *const i8,
    ) -> [Self::Ints; T] {
        for (t, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the same contract.
            *sum = unsafe { Self::dots(*sum, weights, bits, values.add(t * 32)) };
        }
        sums
    }

    /// The same number in all lanes.
    unsafe fn splat_int(value: i32) -> Self::Ints;
    /// Sixteen bytes as numbers 0..=255.
    unsafe fn widen_unsigned(at: *const u8) -> Self::Ints;
    /// Sixteen bytes as numbers −128..=127.
    unsafe fn widen_signed(at: *const u8) -> Self::Ints;
    /// Two numbers that fit 16 bits in each lane: `low` below, `high` above.
    unsafe fn pair(low: Self::Ints, high: Self::Ints) -> Self::Ints;
    /// Adds to each lane the products of its two 16-bit numbers with the two at `two`.
    unsafe fn dot_pair(sum: Self::Ints, pairs: Self::Ints, two: *const i16) -> Self::Ints;
    /// `a − (b << BITS)`.
    unsafe fn subtract_shifted<const BITS: u32>(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// As f32.
    unsafe fn to_floats(a: Self::Ints) -> Self::Floats;

    /// What the sum of products of one of a unit's `parts` with a token begins with, for [`Simd::scaled`]: weights are
    /// `offset` too large. `start` and `sums` are what the activations hold for the part (see
    /// [`int8`](super::int8)); a path takes what suits it.
    #[inline(always)]
    unsafe fn start(offset: u8, start: *const i32, sums: *const i16, parts: usize) -> Self::Ints {
        let _ = start;
        let negative = -i32::from(offset);
        // SAFETY: the same contract.
        unsafe {
            match (offset, parts) {
                (0, _) => Self::splat_int(0),
                (_, 1) => {
                    let offsets = Self::pair(Self::splat_int(negative), Self::splat_int(negative));
                    Self::dot_pair(Self::splat_int(0), offsets, sums)
                }
                _ => Self::splat_int(negative * i32::from(*sums)),
            }
        }
    }

    /// A sum that began with [`Simd::start`], times a token's scale.
    #[inline(always)]
    unsafe fn scaled(sum: Self::Ints, scale: *const [f32; 2]) -> Self::Floats {
        // SAFETY: the same contract.
        unsafe { Self::multiply(Self::to_floats(sum), Self::splat((*scale)[0])) }
    }

    /// The same number in all lanes.
    unsafe fn splat(value: f32) -> Self::Floats;
    /// Reads sixteen f32.
    unsafe fn floats(at: *const u8) -> Self::Floats;
    /// Reads sixteen f16.
    unsafe fn halves(at: *const u8) -> Self::Floats;
    /// Reads sixteen bytes e as `2^(e − 127)`; e = 0 gives 0.
    unsafe fn powers(at: *const u8) -> Self::Floats;
    /// Reads sixteen pairs of bf16: the first ones, the second ones.
    unsafe fn bf16_pairs(at: *const u8) -> (Self::Floats, Self::Floats);
    /// `a · b`.
    unsafe fn multiply(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`.
    unsafe fn multiply_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c − a · b`.
    unsafe fn subtract_product(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// Writes sixteen f32.
    unsafe fn store(a: Self::Floats, to: *mut f32);

    /// Asks for the cache line a little ahead of `at`, which may lie outside what can be read.
    unsafe fn prefetch(at: *const u8);
}

/// The address that is asked for when `at` is read.
#[inline(always)]
fn ahead(at: *const u8) -> *const u8 {
    at.wrapping_add(AHEAD)
}
