//! Reading memory in order, as a step of a model reads its weights, with as little else as possible.

use crate::isa::Isa;

/// Bytes of one turn of a loop: eight cache lines, each with a sum of its own.
const TURN: usize = 512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const CACHE_LINE: usize = 64;

/// Whether a path can ask for memory ahead of its use; elsewhere [`read`] takes no notice of `ahead`.
pub fn prefetches(isa: Isa) -> bool {
    isa != Isa::Plain
}

/// Reads every byte, and asks the processor, unless `ahead` is 0, for what lies that many bytes further on. Returns
/// the exclusive or of all little-endian 64-bit words; a last word that is cut short counts as filled up with zeros.
///
/// # Panics
/// If this processor does not have the path.
pub fn read(isa: Isa, data: &[u8], ahead: usize) -> u64 {
    assert!(isa.is_available(), "the processor has the path");
    let (turns, rest) = data.split_at(data.len() / TURN * TURN);
    // SAFETY: the processor has the path, just checked, and the loops read whole turns inside the slice.
    let folded = unsafe {
        match (isa.vectors(), ahead) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, 0) => x86::zmm::<false>(turns, 0),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, _) => x86::zmm::<true>(turns, ahead),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, 0) => x86::ymm::<false>(turns, 0),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, _) => x86::ymm::<true>(turns, ahead),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon | Isa::NeonDot, 0) => neon::<false>(turns, 0),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon | Isa::NeonDot, _) => neon::<true>(turns, ahead),
            _ => plain(turns),
        }
    };
    folded ^ plain(rest)
}

/// Portable loop.
fn plain(data: &[u8]) -> u64 {
    const LANES: usize = 8;
    let mut sums = [0u64; LANES];
    let (lines, rest) = data.as_chunks::<{ LANES * 8 }>();
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line.as_chunks().0) {
            *sum ^= u64::from_le_bytes(*word);
        }
    }
    for part in rest.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        sums[0] ^= u64::from_le_bytes(word);
    }
    fold(&sums)
}

fn fold(words: &[u64]) -> u64 {
    words.iter().fold(0, |all, word| all ^ word)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{CACHE_LINE, TURN, fold};

    /// A loop on one kind of register.
    macro_rules! register_loop {
        ($name:ident, $features:literal, $bytes:literal, $zero:ident, $load:ident, $xor:ident, $store:ident) => {
            /// # Safety
            /// The slice is whole turns.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name<const PREFETCH: bool>(data: &[u8], ahead: usize) -> u64 {
                let mut sums = [$zero(); TURN / CACHE_LINE];
                for turn in data.as_chunks::<TURN>().0 {
                    let at = turn.as_ptr();
                    for (line, sum) in sums.iter_mut().enumerate() {
                        let line = at.wrapping_add(line * CACHE_LINE);
                        if PREFETCH {
                            // Beyond the end it is a hint that goes unheard. Eight in a row before eight lines,
                            // in place of one before each, were measured to give 15 GB/s in place of 18.
                            _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(ahead).cast());
                        }
                        for part in 0..CACHE_LINE / $bytes {
                            // SAFETY: inside the turn.
                            *sum = $xor(*sum, unsafe { $load(line.add(part * $bytes).cast()) });
                        }
                    }
                }
                let mut words = [[0u64; $bytes / 8]; TURN / CACHE_LINE];
                for (words, &sum) in words.iter_mut().zip(&sums) {
                    // SAFETY: as many words as the register has.
                    unsafe { $store(words.as_mut_ptr().cast(), sum) };
                }
                fold(words.as_flattened())
            }
        };
    }

    register_loop!(
        zmm,
        "avx512f",
        64,
        _mm512_setzero_si512,
        _mm512_loadu_si512,
        _mm512_xor_si512,
        _mm512_storeu_si512
    );
    register_loop!(
        ymm,
        "avx2",
        32,
        _mm256_setzero_si256,
        _mm256_loadu_si256,
        _mm256_xor_si256,
        _mm256_storeu_si256
    );
}

/// # Safety
/// The slice is whole turns.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon<const PREFETCH: bool>(data: &[u8], ahead: usize) -> u64 {
    use std::arch::aarch64::{vdupq_n_u64, veorq_u64, vld1q_u64, vst1q_u64};
    use std::arch::asm;
    let mut sums = [vdupq_n_u64(0); TURN / CACHE_LINE];
    for turn in data.as_chunks::<TURN>().0 {
        let at = turn.as_ptr();
        for (line, sum) in sums.iter_mut().enumerate() {
            let line = at.wrapping_add(line * CACHE_LINE);
            if PREFETCH {
                let target = line.wrapping_add(ahead);
                // SAFETY: a prefetch touches no memory that the program can see; beyond the end it goes unheard.
                unsafe {
                    asm!("prfm pldl1keep, [{target}]", target = in(reg) target,
                        options(readonly, nostack, preserves_flags));
                }
            }
            for part in 0..CACHE_LINE / 16 {
                // SAFETY: inside the turn.
                *sum = veorq_u64(*sum, unsafe { vld1q_u64(line.add(part * 16).cast()) });
            }
        }
    }
    let mut words = [[0u64; 2]; TURN / CACHE_LINE];
    for (words, &sum) in words.iter_mut().zip(&sums) {
        // SAFETY: two words are a register.
        unsafe { vst1q_u64(words.as_mut_ptr(), sum) };
    }
    fold(words.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One word after the other.
    fn slowly(data: &[u8]) -> u64 {
        let mut words = vec![0u64; data.len().div_ceil(8)];
        for (index, &byte) in data.iter().enumerate() {
            words[index / 8] |= u64::from(byte) << (index % 8 * 8);
        }
        fold(&words)
    }

    #[test]
    fn every_path_reads_every_byte() {
        let data: Vec<u8> =
            (0..4 * TURN as u64 + 77).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8).collect();
        for isa in Isa::available() {
            for length in [0, 1, 7, 8, 63, TURN - 1, TURN, TURN + 1, 3 * TURN + 64, data.len()] {
                // Unaligned too.
                for data in [&data[..length], &data[data.len() - length..]] {
                    for ahead in [0, 64, 1 << 20] {
                        let what = format!("{} bytes on {}, {ahead} ahead", length, isa.name());
                        assert_eq!(read(isa, data, ahead), slowly(data), "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_single_bit_anywhere_is_noticed() {
        let mut data = vec![0u8; 2 * TURN + 9];
        for isa in Isa::available() {
            for at in 0..data.len() {
                data[at] = 1;
                assert_eq!(read(isa, &data, 512), 1 << (at % 8 * 8), "byte {at} on {}", isa.name());
                data[at] = 0;
            }
        }
    }
}
