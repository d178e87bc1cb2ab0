//! From sums of products of codes back to codes, in integers only (Jacob et al., "Quantization and Training of Neural
//! Networks for Efficient Integer-Arithmetic-Only Inference", 2018, section 2.2).

/// A positive factor below 2^30 as `m · 2^−n`, m of 31 bits: a dyadic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplier {
    /// m, from 2^30 to 2^31 − 1; 0 for factors that nothing in 32 bits makes into more than 0.
    pub factor: i32,
    /// n, from 1 to 62.
    pub shift: u32,
}

impl Multiplier {
    /// The nearest to a factor; one that is not above zero gives 0.
    ///
    /// # Panics
    /// If the factor is 2^30 or more, or no number.
    pub fn new(factor: f64) -> Multiplier {
        assert!(factor < f64::from(1 << 30), "a factor below 2^30, not {factor}");
        if factor <= 0.0 {
            return Multiplier { factor: 0, shift: 1 };
        }
        // factor = m / 2^31 · 2^exponent with m from 2^30 on.
        let mut exponent = factor.log2().floor() as i32 + 1;
        let mut mantissa = (factor * 2f64.powi(31 - exponent)).round();
        if mantissa >= 2f64.powi(31) {
            (mantissa, exponent) = (mantissa / 2.0, exponent + 1);
        }
        match 31 - exponent {
            shift if shift > 62 => Multiplier { factor: 0, shift: 1 },
            shift => Multiplier { factor: mantissa as i32, shift: shift as u32 },
        }
    }

    /// The factor.
    pub fn value(self) -> f64 {
        f64::from(self.factor) * 2f64.powi(-(self.shift as i32))
    }

    /// `sum · m · 2^−n`, rounded to the nearest, halves up; saturates at the ends of i32.
    #[inline(always)]
    pub fn apply(self, sum: i32) -> i32 {
        let product = i64::from(sum) * i64::from(self.factor);
        let rounded = (product + (1 << (self.shift - 1))) >> self.shift;
        rounded.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_multiplier_is_its_factor_to_31_bits(exponent in -40.0f64..29.0, sum in any::<i32>()) {
            let factor = 2f64.powf(exponent);
            let multiplier = Multiplier::new(factor);
            if multiplier.factor != 0 {
                prop_assert!((multiplier.value() / factor - 1.0).abs() < 2f64.powi(-31));
            }
            let exact = f64::from(sum) * factor;
            if exact.abs() < 2e9 {
                prop_assert!((f64::from(multiplier.apply(sum)) - exact).abs() <= 0.5 + exact.abs() * 2f64.powi(-30));
            }
        }
    }

    #[test]
    fn simple_factors_are_exact_and_halves_go_up() {
        let half = Multiplier::new(0.5);
        assert_eq!([3, -3, 4, 5].map(|sum| half.apply(sum)), [2, -1, 2, 3]);
        assert_eq!(Multiplier::new(1.0).apply(i32::MIN), i32::MIN);
        assert_eq!(Multiplier::new(4.0).apply(i32::MAX), i32::MAX);
        assert_eq!(Multiplier::new(0.0).apply(77), 0);
        assert_eq!(Multiplier::new(1.0 - 1e-16).value(), 1.0);
    }
}
