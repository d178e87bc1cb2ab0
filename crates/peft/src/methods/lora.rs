//! LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, equation 3): a product of two thin
//! matrices beside a frozen one.
//!
//! `y = W x + b + s · B (A x)`, `A` `[r, in]` begins as Kaiming has it, `B` `[out, r]` as zeros, `s = α/r`.
//!
//! - rsLoRA (arXiv 2312.03732): `s = α/√r`.
//! - LoRA+ (arXiv 2402.12354): `B` learns faster than `A`; a factor on its rate, which is the optimizer's.
//! - PiSSA (arXiv 2404.02948): `A` and `B` begin with the largest singular vectors, `s B₀ A₀ = Σ_{i ≤ r} sᵢ uᵢ vᵢᵀ`, and the frozen part is
//!   what remains of `W`. Here `W` stays and `s B₀ A₀` is taken away: `y = W x + s (B A − B₀ A₀) x`, which is the same, leaves a
//!   quantized `W` packed, and is written as LoRA of twice the rank.
//!
//! Parameters: `Σ r (in + out)` over the matrices.

use std::collections::BTreeMap;

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::graph::ops::{self, Factor, Kernels};
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::{Param, ParamKind};
use serde_json::{Map, Value, json};

use crate::adapter::{Adapter, Array, Clock, Dropout};
use crate::random::kaiming;
use crate::svd::svd;
use crate::{Result, Settings};

/// `x · matrixᵀ`.
pub(crate) fn times(on: Kernels, x: &Tensor, matrix: Tensor) -> ounce_train::Result<Tensor> {
    ops::linear(on, x, &Factor::Dense(matrix), None)
}

/// `Σ r (in + out)` over the layers that are adapted.
pub(crate) fn pairs(settings: &Settings, base: &Spec) -> u64 {
    let sides = settings.targets.of(base).into_iter().map(|(_, output, input)| output + input);
    sides.map(|sides| (settings.rank * sides) as u64).sum()
}

/// What LoRA's weights are called in peft's files.
pub(crate) const PARTS: &[(&str, &str)] = &[("lora_a", "lora_A.weight"), ("lora_b", "lora_B.weight")];

/// peft's settings of LoRA.
pub(crate) fn config(settings: &Settings, dora: bool) -> Map<String, Value> {
    let value = json!({
        "r": settings.rank, "lora_alpha": settings.alpha, "lora_dropout": settings.dropout, "use_rslora": settings.rslora,
        "use_dora": dora, "bias": "none", "fan_in_fan_out": false, "init_lora_weights": true, "rank_pattern": {},
        "alpha_pattern": {}, "layers_to_transform": null, "layers_pattern": null,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// `A` and `B` of a layer.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub a: Weight,
    pub b: Weight,
    pub scale: f64,
    pub on: Kernels,
}

impl Pair {
    /// A pair whose product is zero.
    pub fn new(settings: &Settings, name: &str, linear: &Linear) -> Result<Pair> {
        let (rank, input, output) = (settings.rank, linear.input, linear.output);
        settings.check_rank(rank, name, output, input)?;
        let of_a = format!("{name}.lora_a");
        let a = kaiming(input, rank * input, settings.seed, &of_a);
        Ok(Pair {
            a: Weight::new(&of_a, &[rank, input], ParamKind::Matrix, a)?,
            b: Weight::new(
                &format!("{name}.lora_b"),
                &[output, rank],
                ParamKind::Matrix,
                vec![0.0; output * rank],
            )?,
            scale: settings.scale(rank),
            on: linear.on,
        })
    }

    /// `s B (A x)`.
    pub fn apply(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let thin = times(self.on, x, self.a.tensor()?)?;
        Ok((times(self.on, &thin, self.b.tensor()?)? * self.scale)?)
    }

    /// `s B A`, `[out, in]`.
    pub fn product(&self) -> ounce_train::Result<Tensor> {
        Ok((self.b.tensor()?.matmul(&self.a.tensor()?)? * self.scale)?)
    }
}

/// The same for the fast network.
pub(crate) fn beside(
    settings: &Settings,
    name: &str,
    (output, input): (usize, usize),
) -> Result<ounce_train::net::Pair> {
    let rank = settings.rank;
    settings.check_rank(rank, name, output, input)?;
    let of_a = format!("{name}.lora_a");
    let a = kaiming(input, rank * input, settings.seed, &of_a);
    Ok(ounce_train::net::Pair {
        a: Param::new(of_a, &[rank, input], ParamKind::Matrix, a),
        b: Param::new(format!("{name}.lora_b"), &[output, rank], ParamKind::Matrix, vec![0.0; output * rank]),
        scale: settings.scale(rank) as f32,
    })
}

/// LoRA.
pub struct Lora {
    settings: Settings,
    clock: Clock,
    /// `A₀` and `B₀` of PiSSA, by layer.
    begun: BTreeMap<String, [Vec<f32>; 2]>,
}

impl Lora {
    /// LoRA with these settings.
    pub fn new(settings: Settings, clock: Clock) -> Lora {
        Lora { settings, clock, begun: BTreeMap::new() }
    }

    /// The largest singular vectors as a pair whose scaled product is their part of `W`.
    fn principal(&self, name: &str, linear: &Linear) -> Result<[Vec<f32>; 2]> {
        let (rank, scale) = (self.settings.rank, self.settings.scale(self.settings.rank));
        let w = linear.dense()?.flatten_all()?.to_vec1::<f32>()?;
        let parts = svd(name, &w, linear.output, linear.input)?;
        let (mut a, mut b) = (vec![0.0; rank * linear.input], vec![0.0; linear.output * rank]);
        for i in 0..rank {
            let root = (parts.values[i] / scale).sqrt();
            for (out, v) in
                a[i * linear.input..].iter_mut().zip(&parts.right[i * linear.input..(i + 1) * linear.input])
            {
                *out = (root * v) as f32;
            }
            for (row, u) in parts.left[i * linear.output..(i + 1) * linear.output].iter().enumerate() {
                b[row * rank + i] = (root * u) as f32;
            }
        }
        Ok([a, b])
    }
}

impl Adapter for Lora {
    fn parameters(&self, base: &Spec) -> u64 {
        pairs(&self.settings, base)
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let mut pair = Pair::new(&self.settings, name, &linear)?;
        let mut begun = None;
        if self.settings.pissa {
            let (rank, input, output) = (self.settings.rank, linear.input, linear.output);
            let [a, b] = self.principal(name, &linear)?;
            begun = Some([ops::tensor(a.clone(), (rank, input))?, ops::tensor(b.clone(), (output, rank))?]);
            pair.a = Weight::new(&format!("{name}.lora_a"), &[rank, input], ParamKind::Matrix, a.clone())?;
            pair.b = Weight::new(&format!("{name}.lora_b"), &[output, rank], ParamKind::Matrix, b.clone())?;
            self.begun.insert(name.to_owned(), [a, b]);
        }
        let dropout = Dropout::new(&self.settings, name, &self.clock);
        Ok(Box::new(LoraSlot { base: linear, pair, begun, dropout }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        PARTS
    }

    fn file_settings(&self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        if settings.pissa {
            settings.alpha *= if settings.rslora { 2f64.sqrt() } else { 2.0 };
            (settings.rank, settings.pissa) = (2 * settings.rank, false);
        }
        settings
    }

    fn file_values(&self, params: &[Param]) -> Result<Vec<Array>> {
        let arrays = params.iter().filter(|param| param.is_trainable()).map(Array::of);
        Ok(arrays.map(|array| self.doubled(array)).collect())
    }

    fn config(&self, _base: &Spec) -> Map<String, Value> {
        config(&self.file_settings(&self.settings), false)
    }
}

impl Lora {
    /// `[A; A₀]` or `[B, −B₀]` where PiSSA began with a pair.
    fn doubled(&self, mut array: Array) -> Array {
        let Some((slot, part)) = array.name.rsplit_once('.') else { return array };
        let Some([a, b]) = self.begun.get(slot) else { return array };
        let rank = self.settings.rank;
        if part == "lora_a" {
            array.values.extend(a);
            array.shape[0] = 2 * rank;
        } else if part == "lora_b" {
            let rows = array.values.chunks_exact(rank).zip(b.chunks_exact(rank));
            array.values =
                rows.flat_map(|(now, begun)| now.iter().copied().chain(begun.iter().map(|x| -x))).collect();
            array.shape[1] = 2 * rank;
        }
        array
    }
}

struct LoraSlot {
    base: Linear,
    pair: Pair,
    begun: Option<[Tensor; 2]>,
    dropout: Dropout,
}

impl Slot for LoraSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let seen = self.dropout.apply(x, &self.pair.a.tensor()?)?;
        let mut y = (self.base.forward(x)? + self.pair.apply(&seen)?)?;
        if let Some([a, b]) = &self.begun {
            let on = self.pair.on;
            let begun = times(on, &times(on, &seen, a.clone())?, b.clone())?;
            y = (y - (begun * self.pair.scale)?)?;
        }
        Ok(y)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.pair.a.clone(), self.pair.b.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let mut added = self.pair.product()?;
        if let Some([a, b]) = &self.begun {
            added = (added - (b.matmul(a)? * self.pair.scale)?)?;
        }
        Ok(Some((self.base.dense()? + added)?))
    }
}
