//! AdaLoRA (Zhang et al., "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv 2303.10512): what is added
//! has the form of singular values, and those that matter least are given up while it trains, over all matrices together.
//!
//! `y = W x + b + α/r₀ · P Λ Q x` (equation 3), `P` and `Q` drawn from a narrow normal distribution, `Λ` zero at first; a penalty
//! `½ mean ‖PᵀP − I‖_F + ‖QQᵀ − I‖_F` keeps them nearly orthogonal (equation 4). A value's importance is its own plus the mean of
//! its vectors' (equation 8); that of a number is its smoothed sensitivity `|w ∂L/∂w|` times its smoothed uncertainty (equations 9
//! to 11). The budget falls from `r₀` to `r` a matrix along a cubic (equation 12), between a warm-up and a time in which it stays.
//!
//! Parameters: `Σ r₀ (in + out) + r₀` while it trains.

use std::collections::BTreeMap;

use candle_core::Tensor;
use ounce_model::spec::Spec;
use ounce_train::graph::ops::{Kernels, tensor};
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::net::normal;
use ounce_train::{Param, ParamKind};
use serde_json::{Map, Value, json};

use super::lora::times;
use crate::adapter::{Adapter, Array, Clock, Dropout, take_trained};
use crate::{Error, Result, Settings};

/// Deviation of the entries of `P` and `Q` at first.
const DEVIATION: f32 = 0.02;
/// The penalty's factor.
const ORTHOGONAL: f64 = 0.5;
/// How slowly sensitivity and uncertainty follow.
const SMOOTH: f32 = 0.85;
/// The share of the run before the budget falls, and that in which it has fallen.
const WARM_UP: f64 = 0.1;
const SETTLED: f64 = 0.3;
/// Steps between two looks at the budget.
const EVERY: u64 = 10;

/// Sensitivity and uncertainty of each number of a weight.
#[derive(Debug, Clone, Default)]
struct Felt {
    sensitivity: Vec<f32>,
    uncertainty: Vec<f32>,
}

/// AdaLoRA.
pub struct AdaLora {
    settings: Settings,
    clock: Clock,
    pairs: Vec<(Weight, Weight)>,
    felt: BTreeMap<String, Felt>,
}

impl AdaLora {
    /// AdaLoRA with these settings.
    ///
    /// # Errors
    /// If it were to end with more than it begins with.
    pub fn new(settings: Settings, clock: Clock) -> Result<AdaLora> {
        if settings.initial_rank < settings.rank || settings.rank == 0 {
            return Err(Error::Option(format!(
                "AdaLoRA begins with a rank of {} and ends with one of {}; the first should not be smaller, and the second 1 \
                 or more",
                settings.initial_rank, settings.rank
            )));
        }
        Ok(AdaLora { settings, clock, pairs: Vec::new(), felt: BTreeMap::new() })
    }

    /// The mean rank of a matrix that the budget allows at a step; none while nothing is to be given up.
    fn budget(&self, step: u64) -> Option<f64> {
        let total = self.settings.steps as f64;
        let (first, last) = (self.settings.initial_rank as f64, self.settings.rank as f64);
        if total == 0.0 {
            return None;
        }
        let (from, to) = (WARM_UP * total, (1.0 - SETTLED) * total);
        let step = step as f64;
        if step < from {
            return None;
        }
        let left = (1.0 - (step - from) / (to - from).max(1.0)).clamp(0.0, 1.0);
        Some(last + (first - last) * left.powi(3))
    }

    /// Follows the gradients of all numbers.
    fn feel(&mut self, params: &[Param]) {
        for param in params.iter().filter(|param| is_own(param)) {
            let felt = self.felt.entry(param.name.clone()).or_default();
            felt.sensitivity.resize(param.value.len(), 0.0);
            felt.uncertainty.resize(param.value.len(), 0.0);
            let own = felt.sensitivity.iter_mut().zip(&mut felt.uncertainty);
            for ((sensitivity, uncertainty), (value, gradient)) in
                own.zip(param.value.iter().zip(&param.grad))
            {
                let now = (value * gradient).abs();
                *sensitivity = SMOOTH * *sensitivity + (1.0 - SMOOTH) * now;
                *uncertainty = SMOOTH * *uncertainty + (1.0 - SMOOTH) * (now - *sensitivity).abs();
            }
        }
    }

    /// The importance of every value of a layer.
    fn importance(&self, slot: &str, rank: usize) -> Vec<f32> {
        let score = |part: &str| -> Vec<f32> {
            let felt = self.felt.get(&format!("{slot}.{part}"));
            let products =
                felt.map(|felt| felt.sensitivity.iter().zip(&felt.uncertainty).map(|(a, b)| a * b));
            products.map(Iterator::collect).unwrap_or_default()
        };
        let (a, b, e) = (score("lora_a"), score("lora_b"), score("lora_e"));
        let (input, output) = (a.len() / rank, b.len() / rank);
        let of = |i: usize| {
            let of_a: f32 = a[i * input..(i + 1) * input].iter().sum::<f32>() / input as f32;
            let of_b: f32 = (0..output).map(|row| b[row * rank + i]).sum::<f32>() / output as f32;
            e[i] + of_a + of_b
        };
        (0..rank).map(of).collect()
    }
}

fn is_own(param: &Param) -> bool {
    param.is_trainable() && [".lora_a", ".lora_b", ".lora_e"].iter().any(|end| param.name.ends_with(end))
}

impl Adapter for AdaLora {
    fn parameters(&self, base: &Spec) -> u64 {
        let sides = self.settings.targets.of(base).into_iter().map(|(_, output, input)| output + input + 1);
        sides.map(|sides| (self.settings.initial_rank * sides) as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let (rank, input, output) = (self.settings.initial_rank, linear.input, linear.output);
        self.settings.check_rank(rank, name, output, input)?;
        let draw = |part: &str, shape: [usize; 2]| {
            let name = format!("{name}.{part}");
            let values = normal(DEVIATION, shape[0] * shape[1], self.settings.seed, &name);
            Weight::new(&name, &shape, ParamKind::Matrix, values)
        };
        let (a, b) = (draw("lora_a", [rank, input])?, draw("lora_b", [output, rank])?);
        let e = Weight::new(&format!("{name}.lora_e"), &[rank, 1], ParamKind::Norm, vec![0.0; rank])?;
        self.pairs.push((a.clone(), b.clone()));
        let (on, dropout) = (linear.on, Dropout::new(&self.settings, name, &self.clock));
        let scale = self.settings.alpha / (rank as f64 + 1e-5);
        Ok(Box::new(AdaLoraSlot { base: linear, a, b, e, scale, rank, on, dropout }))
    }

    fn penalty(&self) -> ounce_train::Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for (a, b) in &self.pairs {
            let (a, b) = (a.tensor()?, b.tensor()?);
            for product in [a.matmul(&a.t()?)?, b.t()?.contiguous()?.matmul(&b)?] {
                let rank = product.dims()[0];
                let mut identity = vec![0.0; rank * rank];
                (0..rank).for_each(|i| identity[i * rank + i] = 1.0);
                let norm = (product - tensor(identity, (rank, rank))?)?.sqr()?.sum_all()?.sqrt()?;
                sum = Some(match sum {
                    Some(sum) => (sum + norm)?,
                    None => norm,
                });
            }
        }
        let count = 2 * self.pairs.len().max(1);
        Ok(sum.map(|sum| sum * (ORTHOGONAL / count as f64)).transpose()?)
    }

    fn after_step(&mut self, step: u64, params: &mut [Param]) {
        self.feel(params);
        let Some(budget) = self.budget(step) else { return };
        let settled = step as f64 >= (1.0 - SETTLED) * self.settings.steps as f64;
        if !step.is_multiple_of(EVERY) && !settled {
            return;
        }
        let rank = self.settings.initial_rank;
        let slots: Vec<String> =
            params.iter().filter_map(|param| param.name.strip_suffix(".lora_e").map(str::to_owned)).collect();
        let mut all: Vec<(f32, usize, usize)> = Vec::new();
        for (at, slot) in slots.iter().enumerate() {
            all.extend(self.importance(slot, rank).into_iter().enumerate().map(|(i, score)| (score, at, i)));
        }
        let keep = ((budget * slots.len() as f64).round() as usize).min(all.len());
        // Of equals the first stays.
        all.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        for (_, at, i) in &all[keep..] {
            let name = format!("{}.lora_e", slots[*at]);
            if let Some(param) = params.iter_mut().find(|param| param.name == name) {
                param.value[*i] = 0.0;
            }
        }
    }

    fn memory(&self) -> Value {
        let felt =
            self.felt.iter().map(|(name, felt)| (name.clone(), json!([felt.sensitivity, felt.uncertainty])));
        Value::Object(felt.collect())
    }

    fn remember(&mut self, memory: &Value) {
        let numbers =
            |value: &Value| -> Vec<f32> { serde_json::from_value(value.clone()).unwrap_or_default() };
        let felt = memory.as_object().into_iter().flatten();
        self.felt = felt
            .map(|(name, it)| {
                (name.clone(), Felt { sensitivity: numbers(&it[0]), uncertainty: numbers(&it[1]) })
            })
            .collect();
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("lora_a", "lora_A"), ("lora_b", "lora_B"), ("lora_e", "lora_E")]
    }

    /// Files of peft leave out what was given up; here it is there, as zeros.
    fn take_values(&mut self, values: &[Array], params: &mut [Param]) -> Result<()> {
        let rank = self.settings.initial_rank;
        let whole: Vec<Array> = values.iter().map(|array| padded(array, rank)).collect();
        take_trained(&whole, params)
    }

    fn config(&self, _base: &Spec) -> Map<String, Value> {
        let steps = self.settings.steps.max(1) as f64;
        let value = json!({
            "init_r": self.settings.initial_rank, "target_r": self.settings.rank,
            "lora_alpha": self.settings.alpha, "lora_dropout": self.settings.dropout, "tinit": (WARM_UP * steps) as u64,
            "tfinal": (SETTLED * steps) as u64, "deltaT": EVERY, "beta1": SMOOTH, "beta2": SMOOTH,
            "orth_reg_weight": ORTHOGONAL, "total_step": self.settings.steps.max(1), "rank_pattern": null,
            "bias": "none", "fan_in_fan_out": false, "init_lora_weights": true,
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// The array at its full rank.
fn padded(array: &Array, rank: usize) -> Array {
    let mut array = array.clone();
    match array.name.rsplit('.').next() {
        Some("lora_a" | "lora_e") if array.shape[0] < rank => {
            let width = array.values.len() / array.shape[0].max(1);
            array.values.resize(rank * width, 0.0);
            array.shape[0] = rank;
        }
        Some("lora_b") if array.shape.len() == 2 && array.shape[1] < rank => {
            let kept = array.shape[1];
            let rows = array.values.chunks(kept.max(1));
            let row = |row: &[f32]| {
                let mut row = row.to_vec();
                row.resize(rank, 0.0);
                row
            };
            array.values = rows.flat_map(row).collect();
            array.shape[1] = rank;
        }
        _ => {}
    }
    array
}

struct AdaLoraSlot {
    base: Linear,
    a: Weight,
    b: Weight,
    e: Weight,
    scale: f64,
    rank: usize,
    on: Kernels,
    dropout: Dropout,
}

impl Slot for AdaLoraSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let (a, e) = (self.a.tensor()?, self.e.tensor()?.reshape((1, self.rank))?);
        let seen = self.dropout.apply(x, &a)?;
        let between = times(self.on, &seen, a)?.broadcast_mul(&e)?;
        let added = (times(self.on, &between, self.b.tensor()?)? * self.scale)?;
        Ok((self.base.forward(x)? + added)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.a.clone(), self.b.clone(), self.e.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let scaled = self.a.tensor()?.broadcast_mul(&self.e.tensor()?)?;
        Ok(Some((self.base.dense()? + (self.b.tensor()?.matmul(&scaled)? * self.scale)?)?))
    }
}
