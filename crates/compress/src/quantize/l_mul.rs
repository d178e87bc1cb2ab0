//! L-Mul (method 020): run a model with its multiplications replaced by integer additions.
//!
//! "Addition is All You Need for Energy-efficient Language Models", arXiv 2410.00907. The product of
//! `x = (1 + x_m) 2^x_e` and `y = (1 + y_m) 2^y_e` becomes `(1 + x_m + y_m + 2^-l(k)) 2^(x_e + y_e)`, where `k` is the
//! number of mantissa bits kept; [`ounce_kernels::lmul`] has the arithmetic and says how the formula and its integer
//! form differ.
//!
//! [`Options`] go in, an [`Arithmetic`] for the engine comes out; weights aren't changed. What it shows is accuracy.
//! The energy of [`energy`] is that of hardware that doesn't exist yet: **on an ordinary processor the emulation is
//! slower than plain f32**, and nothing is saved.

pub mod energy;

mod demonstrate;

use ounce_engine::{Arithmetic, Product};
use ounce_eval::method::{Family, Method};
use ounce_kernels::lmul::{self, Fp8, MantissaBits};

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: 20,
    name: "L-Mul",
    family: Family::Quantization,
    paper: "Addition is All You Need for Energy-efficient Language Models",
    arxiv: Some("2410.00907"),
    gives: "A model runs with its multiplications replaced by emulated integer additions, so that the loss in accuracy \
            and the energy that such hardware would save are known.",
    claim: "95 % less energy for element-wise products and 80 % for dot products; 4 mantissa bits are about as precise \
            as e4m3, 3 bits more than e5m2.",
    command: Some("ounce eval MODEL --perplexity FILE --l-mul attention"),
    demonstrate: Some(demonstrate::demonstrate),
};

/// Which products of the model are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Scores of queries and keys and the weighted sum of values.
    Attention,
    /// Projections, feed-forward parts and the head.
    Linear,
    /// Both. Norms, softmax, rotations and element-wise products stay exact.
    Everything,
}

/// How a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Mantissa bits kept of each operand; fewer are cheaper and less exact. 4 by default.
    pub bits: MantissaBits,
    /// What is replaced; attention by default, which costs the least accuracy.
    pub replace: Replace,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bits: const { MantissaBits::new(4).expect("4 is within 1 to 23") },
            replace: Replace::Attention,
        }
    }
}

impl Options {
    /// The arithmetic to give to [`ounce_engine::Engine::with_arithmetic`].
    pub fn arithmetic(self) -> Arithmetic {
        replace(self.replace, l_mul_product(self.bits))
    }
}

/// Puts a product where `what` says, and exact ones elsewhere.
fn replace(what: Replace, product: Product) -> Arithmetic {
    let (attention, linear) = match what {
        Replace::Attention => (product, Product::Exact),
        Replace::Linear => (Product::Exact, product),
        Replace::Everything => (product, product),
    };
    Arithmetic { attention, linear }
}

/// The inner product with L-Mul. The engine takes plain functions, so there is one for each number of bits.
fn l_mul_product(bits: MantissaBits) -> Product {
    fn dot<const BITS: u32>(x: &[f32], y: &[f32]) -> f32 {
        lmul::dot(x, y, const { MantissaBits::new(BITS).expect("the table has 1 to 23") })
    }
    type Dot = fn(&[f32], &[f32]) -> f32;
    #[rustfmt::skip]
    const BY_BITS: [Dot; 23] = [
        dot::<1>, dot::<2>, dot::<3>, dot::<4>, dot::<5>, dot::<6>, dot::<7>, dot::<8>,
        dot::<9>, dot::<10>, dot::<11>, dot::<12>, dot::<13>, dot::<14>, dot::<15>, dot::<16>,
        dot::<17>, dot::<18>, dot::<19>, dot::<20>, dot::<21>, dot::<22>, dot::<23>,
    ];
    Product::Emulated(BY_BITS[bits.get() as usize - 1])
}

/// The inner product of operands rounded to an fp8 format, with which L-Mul is compared.
fn fp8_product(format: Fp8) -> Product {
    Product::Emulated(match format {
        Fp8::E4m3 => |x, y| lmul::dot_fp8(x, y, Fp8::E4m3),
        Fp8::E5m2 => |x, y| lmul::dot_fp8(x, y, Fp8::E5m2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: [f32; 3] = [1.3, -0.7, 2.9];
    const Y: [f32; 3] = [0.4, 1.9, 1.1];

    #[test]
    fn every_number_of_bits_reaches_its_own_product() {
        for k in 1..=23 {
            let bits = MantissaBits::new(k).expect("1 to 23");
            assert_eq!(l_mul_product(bits).dot(&X, &Y), lmul::dot(&X, &Y, bits), "{k} bits");
        }
    }

    #[test]
    fn only_what_was_asked_for_is_replaced() {
        let bits = MantissaBits::new(3).expect("1 to 23");
        let exact = Product::Exact.dot(&X, &Y);
        for (replace, attention, linear) in [
            (Replace::Attention, true, false),
            (Replace::Linear, false, true),
            (Replace::Everything, true, true),
        ] {
            let arithmetic = Options { bits, replace }.arithmetic();
            assert_eq!(arithmetic.attention.dot(&X, &Y) != exact, attention, "{replace:?}: attention");
            assert_eq!(arithmetic.linear.dot(&X, &Y) != exact, linear, "{replace:?}: linear");
        }
    }
}
