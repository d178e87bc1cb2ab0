//! Activations as the kernels want them: f32, bf16, or int8 with shared scales ([`int8`](super::int8)).

use half::bf16;

use super::int8::{Int8, Ints, IntsAt, OCTET};
use crate::isa::Isa;
use crate::pool::Pool;
use crate::vector::dispatch;

/// Bytes between two tokens' bf16 values: without them the same columns of many tokens would meet in few places of the
/// first-level cache, since row lengths are multiples of powers of two.
const PADDING: usize = 64;

/// Fewer values than this are prepared sooner than threads are woken for them.
const SHARED_FROM: usize = 1 << 14;

/// The form that activations are brought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16.
    Bf16,
    /// Int8 with shared scales.
    Int8(Int8),
}

impl Form {
    /// Bytes that so many tokens take in this form on the path in use.
    pub fn bytes(self, tokens: usize, columns: usize) -> usize {
        match self {
            Form::Bf16 if takes_halves(columns) => tokens * (columns * size_of::<bf16>() + PADDING),
            Form::F32 | Form::Bf16 => {
                tokens.next_multiple_of(tokens.next_power_of_two().clamp(1, OCTET))
                    * columns
                    * size_of::<f32>()
            }
            Form::Int8(form) => form.bytes(tokens, columns),
        }
    }
}

/// Activations of some tokens, `[tokens, columns]`; the buffers are used again.
#[derive(Debug, Default)]
pub struct Activations {
    tokens: usize,
    columns: usize,
    form: Form,
    /// Whether paths other than the one in use can read them too.
    every_path: bool,
    /// f32, and bf16 widened to it: up to eight tokens side by side, `[octet][column][width]`.
    floats: Vec<f32>,
    width: usize,
    /// bf16, a token after another.
    halves: Vec<bf16>,
    /// Values from one token's bf16 to the next.
    stride: usize,
    ints: Ints,
}

/// Where a kernel reads the f32 of the tokens from one on.
#[derive(Clone, Copy)]
pub(super) struct FloatsAt {
    pub values: *const f32,
    /// Values from one column to the next.
    pub width: usize,
}

impl Activations {
    /// An empty set.
    pub fn new() -> Activations {
        Activations::default()
    }

    /// An empty set that every path of the processor can read, not only the one in use; for tests and benchmarks.
    pub fn for_every_path() -> Activations {
        Activations { every_path: true, ..Activations::default() }
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values of a token.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of the buffers in use.
    pub fn bytes(&self) -> usize {
        self.floats.len() * size_of::<f32>() + self.halves.len() * size_of::<bf16>() + self.ints.bytes()
    }

    /// The form they were brought to.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Takes `x`, `[tokens, columns]`, in the wanted form.
    pub(crate) fn fill(&mut self, x: &[f32], columns: usize, form: Form, pool: &Pool) {
        assert!(x.len().is_multiple_of(columns), "whole tokens");
        self.tokens = x.len() / columns;
        self.columns = columns;
        self.form = form;
        let shared = if x.len() < SHARED_FROM { Pool::single() } else { pool };
        match form {
            Form::F32 => self.fill_floats(x, shared, |x| x),
            Form::Bf16 => {
                let halves = takes_halves(columns);
                if halves || self.every_path {
                    self.fill_halves(x, shared);
                }
                if !halves || self.every_path {
                    self.fill_floats(x, shared, |x| bf16::from_bits(round(x)).to_f32());
                }
            }
            Form::Int8(form) => self.ints.fill(x, columns, form, pool),
        }
    }

    fn fill_floats(&mut self, x: &[f32], pool: &Pool, function: impl Fn(f32) -> f32 + Sync) {
        let (columns, tokens) = (self.columns, self.tokens);
        let width = tokens.next_power_of_two().min(OCTET);
        self.width = width;
        let length = tokens.next_multiple_of(width) * columns;
        self.floats.resize(self.floats.len().max(length), 0.0);
        pool.split_chunks(&mut self.floats[..length], width * columns, |octet, out| {
            let x = &x[octet * width * columns..];
            for (token, x) in x.chunks_exact(columns).take(width).enumerate() {
                for (out, &x) in out[token..].iter_mut().step_by(width).zip(x) {
                    *out = function(x);
                }
            }
        });
    }

    fn fill_halves(&mut self, x: &[f32], pool: &Pool) {
        let columns = self.columns;
        self.stride = columns + PADDING / size_of::<bf16>();
        let length = self.tokens * self.stride;
        self.halves.resize(self.halves.len().max(length), bf16::ZERO);
        pool.split_chunks(&mut self.halves[..length], self.stride, |token, halves| {
            to_bf16(&x[token * columns..(token + 1) * columns], halves);
        });
    }

    /// Values from one token's bf16 to the next.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Where the f32 of the tokens from `first` on are, if the form has them.
    #[inline]
    pub(super) fn floats_at(&self, first: usize) -> FloatsAt {
        let (octet, place) = (first / self.width, first % self.width);
        FloatsAt {
            values: self.floats[octet * self.columns * self.width + place..].as_ptr(),
            width: self.width,
        }
    }

    /// Where the int8 values of the tokens from `first` on are, if they are int8.
    #[inline]
    pub(super) fn ints_at(&self, first: usize) -> IntsAt {
        self.ints.at(first)
    }

    /// The values of a token, if they are bf16.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn halves(&self, token: usize) -> &[bf16] {
        &self.halves[token * self.stride..][..self.columns]
    }

    /// What a value stands for; for tests.
    #[cfg(test)]
    pub(super) fn value(&self, token: usize, column: usize) -> f64 {
        match self.form {
            Form::Int8(_) => {
                let (value, scale) = self.ints.value(token, column);
                f64::from(value) * f64::from(scale)
            }
            Form::F32 | Form::Bf16 => {
                let at = (token / self.width * self.columns + column) * self.width + token % self.width;
                f64::from(self.floats[at])
            }
        }
    }
}

/// Whether the kernel for bf16 reads bf16 values; else it reads them widened to f32, where no instruction for bf16 is the
/// faster one.
fn takes_halves(columns: usize) -> bool {
    let isa = Isa::current();
    let tiles = isa == Isa::Amx && columns.is_multiple_of(super::TILE_COLUMNS);
    tiles || isa.vectors() == Isa::Avx512 && crate::isa::bf16_pays()
}

/// The bits of the nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { rounded as u16 }
}

/// Rounds to bf16, to nearest, ties to even; NaN stays NaN. What of `out` is longer stays as it is.
fn to_bf16(x: &[f32], out: &mut [bf16]) {
    #[inline(always)]
    fn run<const FUSED: bool>(x: &[f32], out: &mut [bf16]) {
        for (x, out) in x.iter().zip(out) {
            *out = bf16::from_bits(round(*x));
        }
    }
    dispatch!(run(x: &[f32], out: &mut [bf16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_the_half_crate_does() {
        let mut x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 10f32.powi(i % 70 - 35)).collect();
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
            1.0 + 1.0 / 256.0,
        ]);
        let mut out = vec![bf16::ZERO; x.len()];
        to_bf16(&x, &mut out);
        assert!(x.iter().zip(&out).all(|(&x, out)| out.to_bits() == bf16::from_f32(x).to_bits()));
        to_bf16(&[f32::NAN], &mut out);
        assert!(out[0].is_nan());
    }

    #[test]
    fn floats_of_many_tokens_lie_side_by_side() {
        let x: Vec<f32> = (0..11 * 5).map(|i| i as f32).collect();
        for tokens in [1, 2, 3, 8, 11] {
            let mut activations = Activations::new();
            activations.fill(&x[..tokens * 5], 5, Form::F32, &Pool::new(2));
            for (index, &x) in x[..tokens * 5].iter().enumerate() {
                assert_eq!(activations.value(index / 5, index % 5), f64::from(x));
            }
        }
    }
}
