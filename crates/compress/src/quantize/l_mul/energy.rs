//! What arithmetic costs in energy, for hardware that would add integers where today's multiplies.
//!
//! Only the arithmetic is counted. Moving data costs more than any of it in most models, and no processor offers an
//! L-Mul instruction, so these are bounds on what such a processor could save and no forecast for a real one.

use ounce_model::Spec;
use ounce_model::spec::{FeedForwardKind, Mlp};

/// Picojoules per operation in a 45 nm process at 0.9 V: M. Horowitz, "Computing's energy problem (and what we can
/// do about it)", ISSCC 2014, which the L-Mul paper uses as well.
pub mod picojoules {
    /// Multiply two f32 numbers.
    pub const F32_MULTIPLY: f64 = 3.7;
    /// Add two f32 numbers.
    pub const F32_ADD: f64 = 0.9;
    /// Multiply two f16 numbers.
    pub const F16_MULTIPLY: f64 = 1.1;
    /// Add two f16 numbers.
    pub const F16_ADD: f64 = 0.4;
    /// Add two 32-bit integers.
    pub const I32_ADD: f64 = 0.1;
    /// Add two 16-bit integers; interpolated between the source's 8 and 32 bits.
    pub const I16_ADD: f64 = 0.05;
}

/// Energy of `products` multiplications and as many additions to a sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DotEnergy {
    /// All of it, in joules.
    pub joules: f64,
    /// The share of the multiplications alone, in joules.
    pub multiply_joules: f64,
}

/// How the products of an inner product are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// f32 multiply, f32 add.
    F32,
    /// f16 multiply, f16 add.
    F16,
    /// L-Mul on f32 operands: one 32-bit integer addition, f32 add.
    LMul32,
    /// L-Mul on 16-bit operands: one 16-bit integer addition, f32 add.
    LMul16,
}

impl Unit {
    /// Picojoules of one product.
    pub const fn multiply_picojoules(self) -> f64 {
        match self {
            Unit::F32 => picojoules::F32_MULTIPLY,
            Unit::F16 => picojoules::F16_MULTIPLY,
            Unit::LMul32 => picojoules::I32_ADD,
            Unit::LMul16 => picojoules::I16_ADD,
        }
    }

    /// Picojoules of one addition to the sum.
    pub const fn add_picojoules(self) -> f64 {
        match self {
            Unit::F16 => picojoules::F16_ADD,
            Unit::F32 | Unit::LMul32 | Unit::LMul16 => picojoules::F32_ADD,
        }
    }

    /// Energy of inner products that make so many products in all.
    pub fn dot(self, products: u64) -> DotEnergy {
        let products = products as f64 * 1e-12;
        let multiply_joules = products * self.multiply_picojoules();
        DotEnergy { joules: multiply_joules + products * self.add_picojoules(), multiply_joules }
    }
}

/// Products that one token of a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenProducts {
    /// Scores of queries and keys and the weighted sum of values.
    pub attention: u64,
    /// Projections, feed-forward parts, routers and the head.
    pub linear: u64,
}

/// Products of one token that attends to `context` positions (fewer in layers with a window). Norms, softmax,
/// rotations, biases and element-wise products aren't counted.
pub fn token_products(spec: &Spec, context: usize) -> TokenProducts {
    let hidden = spec.hidden_size as u64;
    let mlp = |mlp: &Mlp| hidden * mlp.width as u64 * if mlp.gated { 3 } else { 2 };
    let mut count = TokenProducts { attention: 0, linear: 0 };
    for layer in &spec.layers {
        if let Some(attention) = &layer.attention {
            let seen = attention.window.map_or(context, |window| window.min(context)) as u64;
            let (query, kv) = (attention.query_width() as u64, attention.kv_width() as u64);
            count.attention += 2 * query * seen;
            count.linear += hidden * (2 * query + 2 * kv);
        }
        match layer.feed_forward.as_ref().map(|part| &part.kind) {
            Some(FeedForwardKind::Dense(dense)) => count.linear += mlp(dense),
            Some(FeedForwardKind::Experts(experts)) => {
                count.linear += hidden * experts.count as u64 + experts.used as u64 * mlp(&experts.expert);
                count.linear += experts.shared.as_ref().map_or(0, mlp);
            }
            None => {}
        }
    }
    count.linear += spec.head.as_ref().map_or(0, |_| hidden * spec.vocab_size as u64);
    count
}

/// Share of the energy that `cheap` saves of what `dear` needs, for single products.
pub fn product_saving(cheap: Unit, dear: Unit) -> f64 {
    1.0 - cheap.multiply_picojoules() / dear.multiply_picojoules()
}

/// Share of the energy that `cheap` saves of what `dear` needs, for inner products.
pub fn dot_saving(cheap: Unit, dear: Unit) -> f64 {
    1.0 - cheap.dot(1).joules / dear.dot(1).joules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn savings_follow_from_the_table() {
        for (got, wanted) in [
            (product_saving(Unit::LMul32, Unit::F32), 1.0 - 0.1 / 3.7),
            (dot_saving(Unit::LMul32, Unit::F32), 1.0 - 1.0 / 4.6),
            (product_saving(Unit::LMul16, Unit::F16), 1.0 - 0.05 / 1.1),
            (dot_saving(Unit::F32, Unit::F32), 0.0),
        ] {
            assert!((got - wanted).abs() < 1e-12, "{got} but {wanted}");
        }
    }

    #[test]
    fn energy_grows_with_the_number_of_products() {
        let energy = Unit::F32.dot(1_000_000_000_000);
        assert!((energy.joules - 4.6).abs() < 1e-9 && (energy.multiply_joules - 3.7).abs() < 1e-9);
        assert_eq!(Unit::F32.dot(0).joules, 0.0);
    }
}
