//! Loops that find a processor's limits: what no kernel can exceed.
//!
//! - [`read`]: reads memory and does nothing else with it.
//! - [`arithmetic`]: multiplies and adds in registers, without touching memory.
//! - [`rates`]: runs either on threads for a time and tells how much a second was done.
//!
//! Every loop returns something that can be known beforehand, so that a test can tell that it did the work it claims,
//! and a compiler can't leave the work out.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "aarch64")]
mod neon;
mod plain;
mod rate;
mod read;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use rate::rates;
pub use read::{prefetches, read};

use crate::isa::Isa;

/// Independent sums of a vector loop: more than the latency of a multiply-add times the instructions that start in a
/// cycle, and few enough for sixteen registers to hold them with their operands.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const CHAINS: usize = 12;

/// Multiply-adds of each sum in one run, some five to fifty microseconds' worth. Sums of ones stay exact in f32 up to 2²⁴.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const STEPS: usize = 4096;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// f32, by fused multiply-adds where there are any.
    F32,
    /// Pairs of bf16, summed in f32, with vector instructions.
    Bf16,
    /// int8 summed in i32, with vector instructions.
    Int8,
    /// bf16 summed in f32, with matrix instructions (AMX; `bfmmla` on Arm).
    MatrixBf16,
    /// int8 summed in i32, with matrix instructions (AMX; `smmla` on Arm).
    MatrixInt8,
}

impl Kind {
    /// Every kind, cheapest hardware first.
    pub const ALL: [Kind; 5] = [Kind::F32, Kind::Bf16, Kind::Int8, Kind::MatrixBf16, Kind::MatrixInt8];
}

/// A loop of multiply-adds on registers, long enough that calling it costs nothing beside.
#[derive(Debug, Clone, Copy)]
pub struct Loop {
    instruction: &'static str,
    operations: u64,
    run: fn() -> f64,
}

impl Loop {
    /// The instruction it is made of.
    pub fn instruction(&self) -> &'static str {
        self.instruction
    }

    /// Operations of one run; a multiply-add counts as two.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Runs it once and returns the sum of all its sums. All factors are 1, so that is the number of multiply-adds.
    pub fn run(&self) -> f64 {
        (self.run)()
    }
}

/// The fastest loop of a kind on a path; none where the processor has no instruction for it, or the system does not
/// let this process use it.
///
/// # Panics
/// If this processor does not have the path.
pub fn arithmetic(kind: Kind, isa: Isa) -> Option<Loop> {
    assert!(isa.is_available(), "the processor has the path");
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => amx::arithmetic(kind).or_else(|| x86::avx512(kind)),
        Isa::Plain => plain::arithmetic(kind),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => x86::avx2(kind),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => x86::avx512(kind).or_else(|| amx::arithmetic(kind)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot => neon::arithmetic(kind),
        // Paths of other processors, which `is_available` has ruled out.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_does_the_operations_that_it_counts() {
        for isa in Isa::available() {
            for kind in Kind::ALL {
                let Some(it) = arithmetic(kind, isa) else { continue };
                assert_eq!(it.run() * 2.0, it.operations() as f64, "{kind:?} on {}: {it:?}", isa.name());
            }
        }
    }

    #[test]
    fn every_path_multiplies_floats_and_bytes() {
        for isa in Isa::available() {
            for kind in [Kind::F32, Kind::Int8] {
                assert!(arithmetic(kind, isa).is_some(), "{kind:?} on {}", isa.name());
            }
        }
    }
}
