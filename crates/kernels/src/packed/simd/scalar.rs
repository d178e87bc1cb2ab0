//! The operations in portable loops, which compilers turn into whatever vectors the target has.

use super::Simd;

/// Arrays in place of registers.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

/// Little-endian pairs of a byte array, mapped.
#[inline(always)]
fn pairs(a: [u8; 64], map: impl Fn(u16) -> u16) -> [u8; 64] {
    let mut out = [0; 64];
    for (out, a) in out.as_chunks_mut::<2>().0.iter_mut().zip(a.as_chunks::<2>().0) {
        *out = map(u16::from_le_bytes(*a)).to_le_bytes();
    }
    out
}

/// # Safety
/// `N` values can be read at `at`.
#[inline(always)]
unsafe fn read<T: Copy, const N: usize>(at: *const u8) -> [T; N] {
    // SAFETY: the caller's promise; the read needs no alignment.
    unsafe { at.cast::<[T; N]>().read_unaligned() }
}

// SAFETY of the blocks below: every function reads only what its contract lets it read.
impl Simd for Scalar {
    type Bytes = [u8; 64];
    type Ints = [i32; 16];
    type Floats = [f32; 16];

    const FLIPPED: bool = false;

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> [u8; 64] {
        // SAFETY: as promised.
        unsafe { read(at) }
    }
    #[inline(always)]
    unsafe fn splat_byte(byte: u8) -> [u8; 64] {
        [byte; 64]
    }
    #[inline(always)]
    unsafe fn and(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: u32>(a: [u8; 64]) -> [u8; 64] {
        pairs(a, |pair| pair >> BITS)
    }
    #[inline(always)]
    unsafe fn shift_left<const BITS: u32>(a: [u8; 64]) -> [u8; 64] {
        pairs(a, |pair| pair << BITS)
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], index: [u8; 64]) -> [u8; 64] {
        index.map(|index| table[usize::from(index & 15)] as u8)
    }

    #[inline(always)]
    unsafe fn signed(weights: [u8; 64]) -> [u8; 64] {
        weights
    }
    #[inline(always)]
    unsafe fn dot(sum: [i32; 16], weights: [u8; 64], four: *const i8) -> [i32; 16] {
        // SAFETY: as promised.
        let four: [i8; 4] = unsafe { read(four.cast()) };
        std::array::from_fn(|lane| {
            let products = (0..4).map(|i| i32::from(weights[lane * 4 + i]) * i32::from(four[i]));
            sum[lane] + products.sum::<i32>()
        })
    }
    #[inline(always)]
    unsafe fn dot_signed(sum: [i32; 16], weights: [u8; 64], four: *const i8) -> [i32; 16] {
        // SAFETY: as promised.
        let four: [i8; 4] = unsafe { read(four.cast()) };
        std::array::from_fn(|lane| {
            let products = (0..4).map(|i| i32::from(weights[lane * 4 + i] as i8) * i32::from(four[i]));
            sum[lane] + products.sum::<i32>()
        })
    }

    #[inline(always)]
    unsafe fn splat_int(value: i32) -> [i32; 16] {
        [value; 16]
    }
    #[inline(always)]
    unsafe fn widen_unsigned(at: *const u8) -> [i32; 16] {
        // SAFETY: as promised.
        unsafe { read::<u8, 16>(at) }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn widen_signed(at: *const u8) -> [i32; 16] {
        // SAFETY: as promised.
        unsafe { read::<i8, 16>(at) }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn pair(low: [i32; 16], high: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|lane| low[lane] & 0xffff | high[lane] << 16)
    }
    #[inline(always)]
    unsafe fn dot_pair(sum: [i32; 16], pairs: [i32; 16], two: *const i16) -> [i32; 16] {
        // SAFETY: as promised.
        let two: [i16; 2] = unsafe { read(two.cast()) };
        std::array::from_fn(|lane| {
            let (low, high) = (i32::from(pairs[lane] as i16), pairs[lane] >> 16);
            sum[lane] + low * i32::from(two[0]) + high * i32::from(two[1])
        })
    }
    #[inline(always)]
    unsafe fn subtract_shifted<const BITS: u32>(a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|lane| a[lane] - (b[lane] << BITS))
    }
    #[inline(always)]
    unsafe fn to_floats(a: [i32; 16]) -> [f32; 16] {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 16] {
        [value; 16]
    }
    #[inline(always)]
    unsafe fn floats(at: *const u8) -> [f32; 16] {
        // SAFETY: as promised.
        unsafe { read(at) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> [f32; 16] {
        // SAFETY: as promised.
        unsafe { read::<u16, 16>(at) }.map(|bits| half::f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn powers(at: *const u8) -> [f32; 16] {
        // SAFETY: as promised.
        unsafe { read::<u8, 16>(at) }.map(|e| f32::from_bits(u32::from(e) << 23))
    }
    #[inline(always)]
    unsafe fn bf16_pairs(at: *const u8) -> ([f32; 16], [f32; 16]) {
        // SAFETY: as promised.
        let pairs: [u32; 16] = unsafe { read(at) };
        (pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & 0xffff_0000)))
    }
    #[inline(always)]
    unsafe fn multiply(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        // Every AArch64 processor fuses; elsewhere a fused operation without the instruction is a slow call.
        std::array::from_fn(|lane| {
            if cfg!(target_arch = "aarch64") {
                a[lane].mul_add(b[lane], c[lane])
            } else {
                a[lane] * b[lane] + c[lane]
            }
        })
    }
    #[inline(always)]
    unsafe fn subtract_product(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        // SAFETY: needs no instruction set.
        unsafe { Self::multiply_add(a.map(|a| -a), b, c) }
    }
    #[inline(always)]
    unsafe fn store(a: [f32; 16], to: *mut f32) {
        // SAFETY: as promised.
        unsafe { to.cast::<[f32; 16]>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
