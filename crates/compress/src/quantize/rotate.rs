//! Rotation of the residual stream, in the manner of QuaRot (Ashkboos et al., 2024, "QuaRot: Outlier-Free 4-Bit Inference
//! in Rotated LLMs"): outliers are spread over all channels before anything is rounded.
//!
//! RMSNorm without weights commutes with every orthogonal R `[hidden, hidden]`. So norm weights are multiplied into the
//! columns of the linears behind them and become ones, and the stream h becomes `h R` everywhere at once: rows of
//! embeddings `← row R`, linears that read it (query, key, value, gate, up, router, head) `W ← W R`, linears that add to
//! it (output, down) `W ← Rᵀ W` with their biases. Between value and output each head has a rotation of its own width:
//! `W_v ← R_hᵀ W_v` head by head, `W_o ← W_o R_h`. The model computes what it did, up to rounding in f32, with an ordinary
//! file and no work more: this is the part of QuaRot that can be fused. Its rotations at run time, of keys, queries and
//! the input of down, serve quantized activations and caches, which are not touched here.
//!
//! `R = diag(±1) · (H ⊗ Q) / √p`: H the Hadamard matrix of the largest power of two p that divides the width, Q a random
//! orthogonal matrix of the odd rest (Gram-Schmidt on Gaussian numbers), which is 1 for powers of two.
//!
//! The final norm goes into the head, so a tied head gets a matrix of its own ([`untied`]), which costs its bytes.

use std::f64::consts::TAU;

use ounce_model::spec::{Norm, NormKind, Scored, Spec};
use ounce_model::{Model, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::fold::{Changes, mlps, readers};
use crate::{Error, Result};

/// Options of [`Rotations::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Of the random signs.
    pub seed: u64,
}

/// An orthogonal matrix that is multiplied in `n log n` steps.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// With the factor `1/√p`.
    signs: Vec<f32>,
    power: usize,
    /// `[odd, odd]`.
    rest: Vec<f32>,
}

impl Rotation {
    /// A random one.
    pub fn new(width: usize, rng: &mut ChaCha8Rng) -> Rotation {
        let power = 1 << width.trailing_zeros();
        let size = 1.0 / (power as f32).sqrt();
        let signs = (0..width).map(|_| if rng.random::<bool>() { size } else { -size }).collect();
        let odd = width / power;
        let rest = if odd == 1 { vec![1.0] } else { orthogonal(odd, rng) };
        Rotation { signs, power, rest }
    }

    /// Width of the vectors it rotates.
    pub fn width(&self) -> usize {
        self.signs.len()
    }

    /// Rotates every vector of its width in `x`: `x ← x R`.
    ///
    /// # Panics
    /// If `x` is no whole number of such vectors.
    pub fn rows(&self, x: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.width()), "whole vectors");
        x.par_chunks_exact_mut(self.width()).for_each(|x| self.vector(x));
    }

    /// Rotates the channels of a matrix `[rows, columns]`, rows being channels in whole groups of the width: `W ← Rᵀ W`.
    ///
    /// # Panics
    /// As [`Rotation::rows`].
    pub fn columns(&self, matrix: &mut [f32], columns: usize) {
        let rows = matrix.len() / columns;
        let mut turned = transposed(matrix, columns);
        self.rows(&mut turned);
        matrix.copy_from_slice(&transposed(&turned, rows));
    }

    fn vector(&self, x: &mut [f32]) {
        let odd = self.width() / self.power;
        x.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
        // Butterflies over the first index of [power, odd].
        let mut half = 1;
        while half < self.power {
            for pair in x.chunks_exact_mut(2 * half * odd) {
                let (a, b) = pair.split_at_mut(half * odd);
                a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
            half *= 2;
        }
        if odd > 1 {
            let mut out = vec![0.0f32; odd];
            for part in x.chunks_exact_mut(odd) {
                out.fill(0.0);
                for (x, row) in part.iter().zip(self.rest.chunks_exact(odd)) {
                    out.iter_mut().zip(row).for_each(|(out, q)| *out += x * q);
                }
                part.copy_from_slice(&out);
            }
        }
    }
}

fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let mut out = vec![0.0; matrix.len()];
    out.par_chunks_exact_mut(rows).enumerate().for_each(|(column, out)| {
        out.iter_mut().enumerate().for_each(|(row, x)| *x = matrix[row * columns + column]);
    });
    out
}

/// A random orthogonal matrix `[n, n]`: Gaussian rows, made orthogonal one after another, twice against rounding.
fn orthogonal(n: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut done: Vec<Vec<f64>> = Vec::with_capacity(n);
    while done.len() < n {
        let mut row: Vec<f64> = (0..n)
            .map(|_| {
                let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
                (-2.0 * a.ln()).sqrt() * (TAU * b).cos()
            })
            .collect();
        for _ in 0..2 {
            for other in &done {
                let along: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
        }
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        // One that lies in the others' span says nothing; the next will do.
        if length > 1e-6 {
            row.iter_mut().for_each(|x| *x /= length);
            done.push(row);
        }
    }
    done.into_iter().flatten().map(|x| x as f32).collect()
}

/// Why a model's residual stream can't be rotated, if so; in half a sentence.
fn obstacle(spec: &Spec) -> Option<&'static str> {
    let bad = |norm: Norm| norm.kind != NormKind::Rms || norm.bias;
    let halves = spec.layers.iter().flat_map(|layer| {
        let attention = layer.attention.as_ref().map(|it| it.norms);
        attention.into_iter().chain(layer.feed_forward.as_ref().map(|it| it.norms))
    });
    let norms: Vec<_> = halves.collect();
    if norms.iter().filter_map(|it| it.before).chain(spec.final_norm).any(bad) {
        return Some("it has norms that subtract the mean or add a bias, which a rotation does not pass");
    }
    if norms.iter().any(|it| it.after.is_some() || it.residual.is_some()) {
        return Some(
            "it has norms behind attention or feed-forward, whose weights belong to single channels",
        );
    }
    if spec.embedding.norm.is_some() || spec.embedding.projected_from.is_some() {
        return Some("its token vectors are normed or projected before the first layer");
    }
    if spec.head.as_ref().is_some_and(|head| head.transform.is_some()) {
        return Some("its head has a layer of its own in front");
    }
    if spec.pooling.is_some() || (spec.head.is_none() && spec.classifier.is_none()) {
        return Some("its hidden states are its result, which would come out rotated");
    }
    None
}

/// The model with an output matrix of its own, if it has a tied one; refuses models that can't be rotated.
///
/// # Errors
/// If the stream can't be rotated, or the token vectors can't be read.
pub fn untied(model: &Model) -> Result<Model> {
    if let Some(why) = obstacle(&model.spec) {
        return Err(Error::Option(format!("this model can't be rotated: {why}; leave rotation out")));
    }
    let mut model = model.clone();
    if let Some(head) = model.spec.head.as_mut().filter(|head| head.tied) {
        head.tied = false;
        let tensor: Tensor = model.weights.get("embed.tokens.weight")?;
        model.weights = model.weights.extended([("head.weight".to_owned(), tensor)])?;
        model.config.map_mut().insert("tie_word_embeddings".to_owned(), false.into());
    }
    Ok(model)
}

/// The rotations of a model.
#[derive(Debug)]
pub struct Rotations {
    stream: Rotation,
    /// Of the heads of each layer with attention.
    heads: Vec<Option<Rotation>>,
}

impl Rotations {
    /// Random ones for a model of this kind.
    pub fn new(spec: &Spec, options: &Options) -> Rotations {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let stream = Rotation::new(spec.hidden_size, &mut rng);
        let heads = spec.layers.iter().map(|layer| {
            let attention = layer.attention.as_ref().filter(|_| layer.shares.is_none())?;
            Some(Rotation::new(attention.head_dim, &mut rng))
        });
        Rotations { heads: heads.collect(), stream }
    }

    /// Rotates a layer that has weights of its own.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn layer(&self, changes: &mut Changes<'_>, spec: &Spec, index: usize) -> Result<()> {
        for (norm, linears) in readers(spec, index) {
            self.read(changes, norm.as_ref().map(|(name, norm)| (name.as_str(), *norm)), &linears)?;
        }
        let layer = &spec.layers[index];
        if let (Some(attention), Some(rotation)) =
            (&layer.attention, self.heads.get(index).and_then(Option::as_ref))
        {
            let name = |part: &str| format!("layers.{index}.attention.{part}");
            rotation.columns(changes.edit(&name("value.weight"))?, spec.hidden_size);
            if attention.qkv_bias {
                rotation.rows(changes.edit(&name("value.bias"))?);
            }
            rotation.rows(changes.edit(&name("output.weight"))?);
            self.write(changes, &name("output"), attention.query_width(), attention.output_bias)?;
        }
        if let Some(feed_forward) = &layer.feed_forward {
            for (part, mlp) in mlps(&format!("layers.{index}.feed_forward"), feed_forward) {
                self.write(changes, &format!("{part}.down"), mlp.width, mlp.bias)?;
            }
        }
        Ok(())
    }

    /// Rotates what is outside the layers: embeddings, and what reads the final norm.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn outer(&self, changes: &mut Changes<'_>, spec: &Spec) -> Result<()> {
        self.stream.rows(changes.edit("embed.tokens.weight")?);
        if spec.embedding.positions.is_some() {
            self.stream.rows(changes.edit("embed.positions.weight")?);
        }
        if spec.embedding.token_types > 0 {
            self.stream.rows(changes.edit("embed.types.weight")?);
        }
        let classifier = spec.classifier.map(|classifier| match classifier.of {
            Scored::Text { dense: Some(_), .. } => "classifier.dense",
            Scored::Text { dense: None, .. } => "classifier",
            Scored::Tokens => "token_classifier",
            Scored::Spans => "span_classifier",
        });
        let linears: Vec<String> =
            spec.head.iter().map(|_| "head").chain(classifier).map(str::to_owned).collect();
        self.read(changes, spec.final_norm.map(|norm| ("final_norm", norm)), &linears)
    }

    /// Moves a norm's weight into the linears that read it, and rotates their inputs.
    fn read(&self, changes: &mut Changes<'_>, norm: Option<(&str, Norm)>, linears: &[String]) -> Result<()> {
        if let Some((name, norm)) = norm {
            let one = if norm.plus_one { 1.0 } else { 0.0 };
            let weight = changes.edit(&format!("{name}.weight"))?;
            let scales: Vec<f32> = weight.iter().map(|w| w + one).collect();
            weight.fill(1.0 - one);
            linears.iter().try_for_each(|linear| changes.multiply_columns(linear, &scales))?;
        }
        for linear in linears {
            self.stream.rows(changes.edit(&format!("{linear}.weight"))?);
        }
        Ok(())
    }

    /// Rotates what a linear with `columns` inputs adds to the stream.
    fn write(&self, changes: &mut Changes<'_>, linear: &str, columns: usize, bias: bool) -> Result<()> {
        self.stream.columns(changes.edit(&format!("{linear}.weight"))?, columns);
        if bias {
            self.stream.rows(changes.edit(&format!("{linear}.bias"))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_orthogonal_and_spread_single_channels() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for width in [1, 3, 8, 12, 24, 40, 64, 96] {
            let rotation = Rotation::new(width, &mut rng);
            let mut r = vec![0.0; width * width];
            (0..width).for_each(|i| r[i * width + i] = 1.0);
            rotation.rows(&mut r);
            for (i, a) in r.chunks_exact(width).enumerate() {
                for (j, b) in r.chunks_exact(width).enumerate() {
                    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                    let expected = if i == j { 1.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 2e-6, "{width}: {i} {j} {dot}");
                }
            }
            if width == 64 {
                assert!(r.iter().all(|x| (x.abs() - 0.125).abs() < 1e-6));
            }
            // `Rᵀ W` undoes what `W Rᵀ` … does: columns of the identity give the transpose.
            let mut turned = vec![0.0; width * width];
            (0..width).for_each(|i| turned[i * width + i] = 1.0);
            rotation.columns(&mut turned, width);
            assert_eq!(turned, transposed(&r, width));
        }
    }
}
