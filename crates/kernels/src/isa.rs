//! Which instruction set the kernels use: chosen once, at the first question.
//!
//! `OUNCE_ISA=amx|avx512|avx2|neon-dot|neon|plain` forces a path that the processor has; tests run every one of them.

pub mod amx;
mod features;

use std::sync::OnceLock;

pub use features::features;

/// A family of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Portable code.
    Plain,
    /// 128-bit NEON of AArch64.
    Neon,
    /// NEON with the int8 dot products of ARMv8.2.
    NeonDot,
    /// 256-bit AVX2 with FMA and F16C.
    Avx2,
    /// 512-bit AVX-512 (F, BW, VL, DQ) with VNNI's integer products.
    Avx512,
    /// AVX-512, and AMX's tiles for products of bf16, and of int8 with many tokens.
    Amx,
}

impl Isa {
    /// The name that `OUNCE_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Plain => "plain",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// The path for work that has no kernel of its own on this one: all but products on AMX's tiles.
    pub fn vectors(self) -> Isa {
        match self {
            Isa::Amx => Isa::Avx512,
            other => other,
        }
    }

    /// Every path that this processor can run, slowest first.
    pub fn available() -> Vec<Isa> {
        let all = [Isa::Plain, Isa::Neon, Isa::NeonDot, Isa::Avx2, Isa::Avx512, Isa::Amx];
        all.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Plain => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::NeonDot => has_dot_products(),
            Isa::Avx2 => has_avx2(),
            Isa::Avx512 => has_avx2() && has_avx512(),
            Isa::Amx => Isa::Avx512.is_available() && amx::permitted().int8 && amx::permitted().bf16,
        }
    }

    /// The path in use: the fastest, or the one that `OUNCE_ISA` names. An unknown or unavailable name is
    /// reported once on standard error and the fastest is used.
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let available = Isa::available();
            let fastest = available.last().copied().unwrap_or(Isa::Plain);
            let Ok(wanted) = std::env::var("OUNCE_ISA") else { return fastest };
            match available.iter().find(|isa| isa.name().eq_ignore_ascii_case(&wanted)) {
                Some(isa) => *isa,
                None => {
                    let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
                    eprintln!(
                        "OUNCE_ISA={wanted} is not available here ({}); using {}",
                        names.join(", "),
                        fastest.name()
                    );
                    fastest
                }
            }
        })
    }
}

/// Whether the processor has AVX512_BF16 and it is faster than widening to f32. Intel's cores take as long for one
/// instruction as for four f32 ones (measured: 105 against 200 GFLOP/s); AMD's double the rate of f32.
#[cfg(target_arch = "x86_64")]
pub(crate) fn bf16_pays() -> bool {
    static PAYS: OnceLock<bool> = OnceLock::new();
    *PAYS.get_or_init(|| std::arch::is_x86_feature_detected!("avx512bf16") && !is_intel())
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let id = std::arch::x86_64::__cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn bf16_pays() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("fma") && has!("f16c")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") && has!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx512() -> bool {
    false
}

#[cfg(target_arch = "aarch64")]
fn has_dot_products() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

#[cfg(not(target_arch = "aarch64"))]
fn has_dot_products() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_path_is_always_there_and_the_current_one_is_available() {
        assert_eq!(Isa::available()[0], Isa::Plain);
        assert!(Isa::current().is_available());
    }
}
