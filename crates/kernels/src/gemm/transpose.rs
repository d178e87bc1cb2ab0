//! From sixteen lines to one whose neighbours come from sixteen.

use crate::isa::Isa;

/// Lines that are turned at once: the lanes of a vector.
pub(super) const LINES: usize = 16;

/// Writes value `i` of all lines to `out[i · stride..][..16]`, for all `i` below `length`. Lines hold `length` values or
/// none; one of none counts as zeros.
///
/// # Panics
/// If a line or `out` is too short.
pub(super) fn transpose(isa: Isa, lines: &[&[f32]; LINES], length: usize, out: &mut [f32], stride: usize) {
    if length == 0 {
        return;
    }
    assert!(out.len() >= (length - 1) * stride + LINES && stride >= LINES, "room for all values");
    let whole = lines.iter().all(|line| line.len() >= length);
    let done = match isa.vectors() {
        // SAFETY: the path is chosen only where the processor has its features; lines and output are long enough.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if whole => unsafe { x86::avx512(lines, length, out, stride) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if whole => unsafe { x86::avx2(lines, length, out, stride) },
        _ => 0,
    };
    let _ = whole;
    for (lane, line) in lines.iter().enumerate() {
        if line.is_empty() {
            (done..length).for_each(|index| out[index * stride + lane] = 0.0);
        } else {
            let line = &line[..length];
            (done..length).for_each(|index| out[index * stride + lane] = line[index]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::LINES;

    /// Turns sixteen values of each line at a time; returns how many of each are done.
    ///
    /// # Safety
    /// The processor has AVX-512F; each line has `length` values and `out` room for them.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512(
        lines: &[&[f32]; LINES],
        length: usize,
        out: &mut [f32],
        stride: usize,
    ) -> usize {
        let done = length / LINES * LINES;
        for first in (0..done).step_by(LINES) {
            // SAFETY: `first + 16` is at most `length`.
            let rows: [__m512; LINES] =
                std::array::from_fn(|line| unsafe { _mm512_loadu_ps(lines[line].as_ptr().add(first)) });
            // In quarters of a register: pairs of rows, then fours, then fours of fours.
            let twos: [__m512; LINES] = std::array::from_fn(|i| {
                let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
                if i % 2 == 0 { _mm512_unpacklo_ps(a, b) } else { _mm512_unpackhi_ps(a, b) }
            });
            let fours: [__m512; LINES] = std::array::from_fn(|i| {
                let at = i / 4 * 4 + i % 4 / 2;
                let (a, b) = (_mm512_castps_pd(twos[at]), _mm512_castps_pd(twos[at + 2]));
                _mm512_castpd_ps(if i % 2 == 0 { _mm512_unpacklo_pd(a, b) } else { _mm512_unpackhi_pd(a, b) })
            });
            for column in 0..4 {
                let [a, b, c, d] = std::array::from_fn(|rows| fours[rows * 4 + column]);
                let even = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
                let odd = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
                let turned = [
                    _mm512_shuffle_f32x4::<0x88>(even.0, even.1),
                    _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1),
                    _mm512_shuffle_f32x4::<0xdd>(even.0, even.1),
                    _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1),
                ];
                for (quarter, turned) in turned.into_iter().enumerate() {
                    let at = (first + quarter * 4 + column) * stride;
                    // SAFETY: `at + 16` is at most the output's length.
                    unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(at), turned) };
                }
            }
        }
        done
    }

    /// Turns eight values of each line at a time; returns how many of each are done.
    ///
    /// # Safety
    /// The processor has AVX2; each line has `length` values and `out` room for them.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(
        lines: &[&[f32]; LINES],
        length: usize,
        out: &mut [f32],
        stride: usize,
    ) -> usize {
        let done = length / 8 * 8;
        for first in (0..done).step_by(8) {
            for half in 0..2 {
                let rows: [__m256; 8] = std::array::from_fn(|line| {
                    // SAFETY: `first + 8` is at most `length`.
                    unsafe { _mm256_loadu_ps(lines[half * 8 + line].as_ptr().add(first)) }
                });
                let twos: [__m256; 8] = std::array::from_fn(|i| {
                    let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
                    if i % 2 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
                });
                let fours: [__m256; 8] = std::array::from_fn(|i| {
                    let at = i / 4 * 4 + i % 4 / 2;
                    let (a, b) = (_mm256_castps_pd(twos[at]), _mm256_castps_pd(twos[at + 2]));
                    _mm256_castpd_ps(if i % 2 == 0 {
                        _mm256_unpacklo_pd(a, b)
                    } else {
                        _mm256_unpackhi_pd(a, b)
                    })
                });
                for column in 0..8 {
                    let (a, b) = (fours[column % 4], fours[4 + column % 4]);
                    let turned = if column < 4 {
                        _mm256_permute2f128_ps::<0x20>(a, b)
                    } else {
                        _mm256_permute2f128_ps::<0x31>(a, b)
                    };
                    let at = (first + column) * stride + half * 8;
                    // SAFETY: `at + 8` is at most the output's length.
                    unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(at), turned) };
                }
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_finds_its_place_on_every_path() {
        for isa in Isa::available() {
            for (length, count, stride) in [(0, 16, 16), (1, 16, 16), (37, 16, 16), (64, 16, 48), (40, 5, 20)]
            {
                let values: Vec<f32> = (0..LINES * length).map(|i| i as f32 + 1.0).collect();
                let lines: [&[f32]; LINES] = std::array::from_fn(|line| {
                    if line < count { &values[line * length..(line + 1) * length] } else { &[] }
                });
                let mut out = vec![f32::NAN; length * stride];
                transpose(isa, &lines, length, &mut out, stride);
                for (index, out) in out.chunks_exact(stride).enumerate() {
                    for (lane, &found) in out.iter().enumerate() {
                        match lane {
                            lane if lane < count => assert_eq!(found, values[lane * length + index]),
                            lane if lane < LINES => assert_eq!(found, 0.0),
                            _ => assert!(found.is_nan(), "{isa:?}: what lies between is left alone"),
                        }
                    }
                }
            }
        }
    }
}
