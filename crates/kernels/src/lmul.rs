//! L-Mul: a floating-point product approximated by one integer addition, and the fp8 rounding it is compared with.
//!
//! f32 slices and values go in, f32 values come out. This is an emulation: it computes what hardware with such an
//! adder would compute and is slower than an ordinary product. It knows no model and counts no energy.
//!
//! For `x = ±(1 + x_m) 2^x_e` and `y = ±(1 + y_m) 2^y_e` the exact product is
//! `±(1 + x_m + y_m + x_m y_m) 2^(x_e + y_e)`. L-Mul puts a constant in the place of `x_m y_m`:
//!
//! ```text
//! ±(1 + x_m + y_m + 2^-l) 2^(x_e + y_e)      l = k for k <= 3,   3 for k = 4,   4 for k > 4
//! ```
//!
//! where `k` is the number of mantissa bits kept of each operand. There are two readings of it, and they differ:
//!
//! - [`mul_formula`], the formula as it stands;
//! - [`mul`], its integer form: the bit patterns of `|x|` and `|y|` are added as integers, one exponent bias is taken
//!   away and `2^(23 - l)` is added. When the mantissas sum to 1 or more they carry into the exponent, which gives
//!   `2^(e + 1) (x_m + y_m + 2^-l)` with that sum less one as its fraction, as in Mitchell's logarithmic product.
//!   This is what hardware would do, and it is the more accurate one.
//!
//! Zeros and subnormal operands count as zero, results below the smallest normal number become zero, results above
//! the largest finite number saturate there, NaN stays NaN and infinities stay infinite (times zero: NaN).

const MANTISSA: u32 = 23;
const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const SMALLEST_NORMAL: u32 = 1 << MANTISSA;
const BIAS: u32 = 127 << MANTISSA;

/// How many explicit mantissa bits of an operand are kept, 1 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MantissaBits(u32);

impl MantissaBits {
    /// All bits of an f32.
    pub const FULL: Self = Self(MANTISSA);

    /// `bits` mantissa bits, or nothing unless 1 to 23.
    pub const fn new(bits: u32) -> Option<Self> {
        if bits >= 1 && bits <= MANTISSA { Some(Self(bits)) } else { None }
    }

    /// The number of bits.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// `l`: the product of the two mantissas is replaced by `2^-l`.
    pub const fn offset(self) -> u32 {
        match self.0 {
            0..=3 => self.0,
            4 => 3,
            _ => 4,
        }
    }
}

/// `x` with its mantissa rounded to `bits` bits, to nearest and ties to even. Subnormal numbers become zero and
/// what would round to infinity becomes the largest number with so many bits; infinities and NaN stay as they are.
#[inline]
pub fn round_mantissa(x: f32, bits: MantissaBits) -> f32 {
    let sign = x.to_bits() & SIGN;
    let magnitude = x.to_bits() & !SIGN;
    if magnitude >= INFINITY {
        return x;
    }
    if magnitude < SMALLEST_NORMAL {
        return f32::from_bits(sign);
    }
    let dropped = MANTISSA - bits.0;
    if dropped == 0 {
        return x;
    }
    let odd = (magnitude >> dropped) & 1;
    let rounded = (magnitude + (1 << (dropped - 1)) - 1 + odd) >> dropped << dropped;
    let largest = (INFINITY - 1) >> dropped << dropped;
    f32::from_bits(sign | rounded.min(largest))
}

/// The L-Mul product of `x` and `y` by one integer addition, after both were rounded to `bits` mantissa bits.
#[inline]
pub fn mul(x: f32, y: f32, bits: MantissaBits) -> f32 {
    add_bits(round_mantissa(x, bits), round_mantissa(y, bits), 1 << (MANTISSA - bits.offset()))
}

/// The integer form, for operands that are already rounded.
#[inline]
fn add_bits(x: f32, y: f32, offset: u32) -> f32 {
    let (a, b) = (x.to_bits() & !SIGN, y.to_bits() & !SIGN);
    let sign = (x.to_bits() ^ y.to_bits()) & SIGN;
    if a >= INFINITY || b >= INFINITY {
        // Infinity and NaN follow the ordinary rules; a flushed subnormal is zero here, so infinity times it is NaN.
        return x * y;
    }
    // Two finite patterns are below 2^31 each and the offset is at most 2^22: the sum fits into 32 bits.
    let sum = a + b + offset;
    if a < SMALLEST_NORMAL || b < SMALLEST_NORMAL || sum < BIAS + SMALLEST_NORMAL {
        return f32::from_bits(sign);
    }
    f32::from_bits(sign | (sum - BIAS).min(INFINITY - 1))
}

/// The L-Mul product by the formula as it stands, after both operands were rounded to `bits` mantissa bits.
pub fn mul_formula(x: f32, y: f32, bits: MantissaBits) -> f32 {
    let (x, y) = (round_mantissa(x, bits), round_mantissa(y, bits));
    if !x.is_finite() || !y.is_finite() || x == 0.0 || y == 0.0 {
        return x * y;
    }
    let exponent = |v: f32| ((v.to_bits() & !SIGN) >> MANTISSA) as i32 - 127;
    let fraction = |v: f32| f64::from(v.to_bits() & (SMALLEST_NORMAL - 1)) / f64::from(SMALLEST_NORMAL);
    let mantissa = 1.0 + fraction(x) + fraction(y) + f64::from(bits.offset()).exp2().recip();
    let value = mantissa * f64::from(exponent(x) + exponent(y)).exp2();
    let value = if value < f64::from(f32::MIN_POSITIVE) { 0.0 } else { value.min(f64::from(f32::MAX)) };
    let sign = if (x < 0.0) != (y < 0.0) { -1.0 } else { 1.0 };
    (sign * value) as f32
}

/// Inner product of two vectors of one length: L-Mul products (integer form) of operands rounded to `bits` mantissa
/// bits, summed in f32 from the first to the last. The result doesn't depend on threads.
pub fn dot(x: &[f32], y: &[f32], bits: MantissaBits) -> f32 {
    debug_assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(&x, &y)| mul(x, y, bits)).sum()
}

/// The two usual 8-bit floating-point formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fp8 {
    /// 4 exponent and 3 mantissa bits, largest value 448, no infinity.
    E4m3,
    /// 5 exponent and 2 mantissa bits, largest finite value 57344.
    E5m2,
}

impl Fp8 {
    /// Mantissa bits, exponent of the smallest normal number, largest finite value.
    const fn limits(self) -> (i32, i32, f32) {
        match self {
            Fp8::E4m3 => (3, -6, 448.0),
            Fp8::E5m2 => (2, -14, 57344.0),
        }
    }
}

/// `x` rounded to an fp8 format, to nearest and ties to even, with the format's subnormal numbers. What is too large
/// saturates, infinities too; NaN stays NaN.
pub fn round_fp8(x: f32, format: Fp8) -> f32 {
    if x.is_nan() {
        return x;
    }
    let (mantissa, lowest, largest) = format.limits();
    let x = x.clamp(-largest, largest);
    let exponent = ((x.to_bits() & !SIGN) >> MANTISSA) as i32 - 127;
    // The distance between neighbours at x is a power of two, so that dividing and multiplying by it is exact.
    let step = f32::from_bits(((exponent.max(lowest) - mantissa + 127) as u32) << MANTISSA);
    (x / step).round_ties_even() * step
}

/// Inner product of operands rounded to fp8, with exact products summed in f32.
pub fn dot_fp8(x: &[f32], y: &[f32], format: Fp8) -> f32 {
    debug_assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(&x, &y)| round_fp8(x, format) * round_fp8(y, format)).sum()
}

/// Inner product of operands rounded to fp8 whose products are rounded to fp8, too, and summed in f32.
pub fn dot_fp8_rounded(x: &[f32], y: &[f32], format: Fp8) -> f32 {
    debug_assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(&x, &y)| round_fp8(round_fp8(x, format) * round_fp8(y, format), format)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(k: u32) -> MantissaBits {
        MantissaBits::new(k).expect("1 to 23")
    }

    /// The integer form computed in f64 from its definition, for normal operands and results.
    fn mitchell(x: f32, y: f32, k: MantissaBits) -> f64 {
        let (x, y) = (f64::from(round_mantissa(x, k)), f64::from(round_mantissa(y, k)));
        let exponent = x.abs().log2().floor() + y.abs().log2().floor();
        let fraction = |v: f64| v.abs() / v.abs().log2().floor().exp2() - 1.0;
        let sum = fraction(x) + fraction(y) + (-f64::from(k.offset())).exp2();
        let magnitude = match sum {
            s if s < 1.0 => (1.0 + s) * exponent.exp2(),
            s if s < 2.0 => s * (exponent + 1.0).exp2(),
            s => (s - 1.0) * (exponent + 2.0).exp2(),
        };
        x.signum() * y.signum() * magnitude
    }

    #[test]
    fn mantissa_bits_and_offsets_are_those_of_the_paper() {
        assert!(MantissaBits::new(0).is_none() && MantissaBits::new(24).is_none());
        let offsets: Vec<u32> = [1, 2, 3, 4, 5, 6, 23].map(|k| bits(k).offset()).to_vec();
        assert_eq!(offsets, [1, 2, 3, 3, 4, 4, 4]);
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_ties_to_even() {
        for (x, k, wanted) in [
            (1.0, 1, 1.0),
            (1.25, 1, 1.0),
            (1.75, 1, 2.0),
            (1.3, 1, 1.5),
            (-1.3, 1, -1.5),
            (1.124, 3, 1.125),
            (f32::MAX, 23, f32::MAX),
            (f32::MAX, 3, 1.875 * 2f32.powi(127)),
            (0.0, 3, 0.0),
            (1e-45, 3, 0.0),
            (f32::INFINITY, 3, f32::INFINITY),
        ] {
            assert_eq!(round_mantissa(x, bits(k)), wanted, "{x} to {k} bits");
        }
        assert!(round_mantissa(f32::NAN, bits(3)).is_nan());
        assert!(round_mantissa(-1e-45, bits(3)).is_sign_negative());
    }

    #[test]
    fn products_of_chosen_numbers() {
        // 1 x 1 with l = 3 is 1 + 1/8 in both readings; 1.75 x 1.75 carries in the integer form.
        for (x, y, k, integer, formula) in [
            (1.0, 1.0, 3, 1.125, 1.125),
            (1.0, -1.0, 6, -1.0625, -1.0625),
            (1.5, 2.0, 4, 3.25, 3.25),
            (1.75, 1.75, 3, 3.25, 2.625),
            (-1.5, -1.5, 3, 2.25, 2.125),
        ] {
            assert_eq!(mul(x, y, bits(k)), integer, "integer form of {x} x {y} at {k} bits");
            assert_eq!(mul_formula(x, y, bits(k)), formula, "formula of {x} x {y} at {k} bits");
        }
    }

    #[test]
    fn special_values_follow_the_documented_rules() {
        type Product = fn(f32, f32, MantissaBits) -> f32;
        for product in [mul as Product, mul_formula as Product] {
            let k = bits(4);
            for (x, y, wanted) in [
                (0.0, 5.0, 0.0f32),
                (-0.0, 5.0, -0.0),
                (1e-40, 1e30, 0.0),
                (-1e-30, 1e-30, -0.0),
                (1e30, 1e30, f32::MAX),
                (-1e30, 1e30, -f32::MAX),
                (f32::INFINITY, -2.0, f32::NEG_INFINITY),
                (f32::INFINITY, f32::INFINITY, f32::INFINITY),
            ] {
                assert_eq!(product(x, y, k).to_bits(), wanted.to_bits(), "{x} x {y}");
            }
            for (x, y) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, 0.0), (f32::INFINITY, 1e-40)] {
                assert!(product(x, y, k).is_nan(), "{x} x {y}");
            }
        }
    }

    #[test]
    fn the_border_to_zero_is_the_smallest_normal_number() {
        let half = 2f32.powi(-63);
        assert_eq!(mul(half, half, bits(3)), 1.125 * 2f32.powi(-126));
        assert_eq!(mul(half, 2f32.powi(-64), bits(3)), 0.0);
    }

    #[test]
    fn fp8_rounding_of_chosen_numbers() {
        for (x, e4m3, e5m2) in [
            (1.0, 1.0, 1.0),
            (1.0625, 1.0, 1.0),
            (1.1875, 1.25, 1.25),
            (500.0, 448.0, 512.0),
            (1e6, 448.0, 57344.0),
            (-1e9, -448.0, -57344.0),
            (f32::INFINITY, 448.0, 57344.0),
            (2f32.powi(-9), 2f32.powi(-9), 2f32.powi(-9)),
            (2f32.powi(-10), 0.0, 2f32.powi(-10)),
            (1.5 * 2f32.powi(-9), 2f32.powi(-8), 1.5 * 2f32.powi(-9)),
            (2f32.powi(-17), 0.0, 0.0),
        ] {
            assert_eq!(round_fp8(x, Fp8::E4m3), e4m3, "{x} to e4m3");
            assert_eq!(round_fp8(x, Fp8::E5m2), e5m2, "{x} to e5m2");
        }
        assert!(round_fp8(f32::NAN, Fp8::E4m3).is_nan());
    }

    #[test]
    fn dots_sum_their_products() {
        let (x, y) = ([1.0, 2.0, -3.0, 0.0], [0.5, 1.0, 1.0, 9.0]);
        let summed: f32 = x.iter().zip(&y).map(|(&x, &y)| mul(x, y, bits(3))).sum();
        assert_eq!(dot(&x, &y, bits(3)), summed);
        assert_eq!(dot_fp8(&x, &y, Fp8::E4m3), -0.5);
        assert_eq!(dot_fp8_rounded(&[1.125], &[1.125], Fp8::E4m3), 1.25);
        assert_eq!(dot(&[], &[], bits(3)), 0.0);
    }

    fn normal() -> impl Strategy<Value = f32> {
        (-18i32..18, 0u32..1 << 23, any::<bool>()).prop_map(|(exponent, fraction, negative)| {
            let bits = ((exponent + 127) as u32) << 23 | fraction | if negative { SIGN } else { 0 };
            f32::from_bits(bits)
        })
    }

    proptest! {
        #[test]
        fn integer_form_equals_its_definition_in_f64(x in normal(), y in normal(), k in 1u32..=23) {
            let (got, wanted) = (f64::from(mul(x, y, bits(k))), mitchell(x, y, bits(k)));
            prop_assert!((got - wanted).abs() <= wanted.abs() * 1e-6, "{} x {}: {} but {}", x, y, got, wanted);
        }

        #[test]
        fn relative_error_stays_within_its_bound(x in normal(), y in normal()) {
            // With all bits kept the sum of mantissas misses x_m y_m by at most 2^-4 upwards and 1/9 downwards.
            let exact = f64::from(x) * f64::from(y);
            let error = f64::from(mul(x, y, MantissaBits::FULL)) / exact - 1.0;
            prop_assert!((-0.1112..=0.0626).contains(&error), "{} x {}: {}", x, y, error);
        }

        #[test]
        fn fp8_error_is_at_most_half_a_step(x in normal()) {
            prop_assume!((0.016..=448.0).contains(&x.abs()));
            let error = (round_fp8(x, Fp8::E4m3) / x - 1.0).abs();
            prop_assert!(error <= 1.0 / 16.0 + 1e-6, "{}: {}", x, error);
        }

        #[test]
        fn no_pattern_panics(a in any::<u32>(), b in any::<u32>(), k in 1u32..=23) {
            let (x, y) = (f32::from_bits(a), f32::from_bits(b));
            let (integer, formula) = (mul(x, y, bits(k)), mul_formula(x, y, bits(k)));
            prop_assert_eq!(integer.is_nan(), formula.is_nan());
            round_fp8(x, Fp8::E5m2);
        }
    }
}
