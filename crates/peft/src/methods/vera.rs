//! VeRA (Kopiczko et al., "VeRA: Vector-based Random Matrix Adaptation", arXiv 2310.11454, equation 2): all layers share two random
//! matrices that stay as they are; each layer learns a vector for what lies between them and one for what comes out.
//!
//! `y = W x + b + λ_b ⊙ (B (λ_d ⊙ (A x)))`, `λ_d` begins at 0.1, `λ_b` at 0. Layers of other sizes take the first columns of `A` and
//! the first rows of `B`.
//!
//! Parameters: `Σ r + out`.

use std::sync::Arc;

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::graph::ops::{Kernels, tensor};
use ounce_train::graph::{Linear, Slot, Weight};
use ounce_train::{Param, ParamKind};
use serde_json::{Map, Value, json};

use super::lora::times;
use crate::adapter::{Adapter, Array, Clock, Dropout};
use crate::random::uniform;
use crate::{Error, Result, Settings};

/// What `λ_d` begins at.
const BEGUN: f64 = 0.1;

/// `A` and `B`, and their sizes: filled when the layers are known.
#[derive(Debug, Default)]
struct Shared {
    /// `[r, widest input]`.
    a: Vec<f32>,
    /// `[widest output, r]`.
    b: Vec<f32>,
    input: usize,
    output: usize,
}

/// VeRA.
pub struct Vera {
    settings: Settings,
    clock: Clock,
    shared: Option<Arc<std::sync::RwLock<Shared>>>,
}

impl Vera {
    /// VeRA with these settings.
    pub fn new(settings: Settings, clock: Clock) -> Vera {
        Vera { settings, clock, shared: None }
    }

    fn shared(&self) -> Result<&Arc<std::sync::RwLock<Shared>>> {
        self.shared.as_ref().ok_or_else(|| Error::Option("VeRA was not begun with a model".into()))
    }
}

fn lock<T>(shared: &std::sync::RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Adapter for Vera {
    fn begin(&mut self, base: &Model) -> Result<()> {
        let layers = self.settings.targets.of(&base.spec);
        let input = layers.iter().map(|it| it.2).max().unwrap_or(0);
        let output = layers.iter().map(|it| it.1).max().unwrap_or(0);
        let rank = self.settings.rank;
        if rank == 0 {
            return Err(Error::Option("the rank should be 1 or more".into()));
        }
        // Kaiming's bound for weights without a slope behind them: `√3 · √2 / √inputs`.
        let bound = |inputs: usize| (6.0 / inputs.max(1) as f32).sqrt();
        let seed = self.settings.seed;
        let shared = Shared {
            a: uniform(bound(input), rank * input, seed, "vera_a"),
            b: uniform(bound(rank), output * rank, seed, "vera_b"),
            input,
            output,
        };
        self.shared = Some(Arc::new(shared.into()));
        Ok(())
    }

    fn parameters(&self, base: &Spec) -> u64 {
        let layers = self.settings.targets.of(base).into_iter();
        layers.map(|(_, output, _)| (self.settings.rank + output) as u64).sum()
    }

    fn slot(&mut self, name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        if !self.settings.targets.chooses(name) {
            return Ok(Box::new(linear));
        }
        let (rank, output) = (self.settings.rank, linear.output);
        Ok(Box::new(VeraSlot {
            d: Weight::new(
                &format!("{name}.vera_lambda_d"),
                &[rank],
                ParamKind::Norm,
                vec![BEGUN as f32; rank],
            )?,
            b: Weight::new(&format!("{name}.vera_lambda_b"), &[output], ParamKind::Norm, vec![0.0; output])?,
            shared: self.shared()?.clone(),
            rank,
            on: linear.on,
            base: linear,
            dropout: Dropout::new(&self.settings, name, &self.clock),
        }))
    }

    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[("vera_lambda_d", "vera_lambda_d"), ("vera_lambda_b", "vera_lambda_b")]
    }

    fn file_values(&self, params: &[Param]) -> Result<Vec<Array>> {
        let mut arrays: Vec<Array> =
            params.iter().filter(|param| param.is_trainable()).map(Array::of).collect();
        let shared = lock(self.shared()?);
        let array = |name: &str, shape: [usize; 2], values: &[f32]| Array {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        arrays.push(array("vera_A", [self.settings.rank, shared.input], &shared.a));
        arrays.push(array("vera_B", [shared.output, self.settings.rank], &shared.b));
        Ok(arrays)
    }

    fn keeps(&self, weight: &str) -> bool {
        ["vera_A", "vera_B"].contains(&weight)
    }

    fn take_values(&mut self, values: &[Array], params: &mut [Param]) -> Result<()> {
        let find = |name: &str| {
            values.iter().find(|value| value.name == name).ok_or_else(|| {
                Error::Option(format!(
                    "{name} is missing in the adapter's file, so its random matrices are not known; save it with \
                     save_projection"
                ))
            })
        };
        let (a, b) = (find("vera_A")?, find("vera_B")?);
        let mut shared = self.shared()?.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (rank, input, output) = (self.settings.rank, shared.input, shared.output);
        if a.shape != [rank, input] || b.shape != [output, rank] {
            return Err(Error::Option(format!(
                "the random matrices of the adapter are {:?} and {:?}, and this model needs {:?} and {:?}; it was made for \
                 another model",
                a.shape,
                b.shape,
                [rank, input],
                [output, rank]
            )));
        }
        shared.a.clone_from(&a.values);
        shared.b.clone_from(&b.values);
        drop(shared);
        crate::adapter::take_trained(values, params)
    }

    fn config(&self, _base: &Spec) -> Map<String, Value> {
        Map::from_iter([
            ("r".to_owned(), json!(self.settings.rank)),
            ("vera_dropout".to_owned(), json!(self.settings.dropout)),
            ("d_initial".to_owned(), json!(BEGUN)),
            ("projection_prng_key".to_owned(), json!(self.settings.seed)),
            ("save_projection".to_owned(), json!(true)),
            ("bias".to_owned(), json!("none")),
            ("fan_in_fan_out".to_owned(), json!(false)),
            ("init_weights".to_owned(), json!(true)),
        ])
    }
}

struct VeraSlot {
    base: Linear,
    d: Weight,
    b: Weight,
    shared: Arc<std::sync::RwLock<Shared>>,
    rank: usize,
    on: Kernels,
    dropout: Dropout,
}

impl VeraSlot {
    /// The part of `A` and `B` that is this layer's.
    fn matrices(&self) -> ounce_train::Result<[Tensor; 2]> {
        let shared = lock(&self.shared);
        let (input, output) = (self.base.input, self.base.output);
        let a = shared.a.chunks_exact(shared.input).flat_map(|row| row[..input].iter().copied()).collect();
        let b = shared.b[..output * self.rank].to_vec();
        Ok([tensor(a, (self.rank, input))?, tensor(b, (output, self.rank))?])
    }
}

impl Slot for VeraSlot {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let [a, b] = self.matrices()?;
        let d = self.d.tensor()?;
        let seen = self.dropout.apply(x, &d)?;
        let between = times(self.on, &seen, a)?.broadcast_mul(&d)?;
        let added = times(self.on, &between, b)?.broadcast_mul(&self.b.tensor()?)?;
        Ok((self.base.forward(x)? + added)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.base.vars();
        weights.extend([self.d.clone(), self.b.clone()]);
        weights
    }

    fn merged(&self) -> ounce_train::Result<Option<Tensor>> {
        let [a, b] = self.matrices()?;
        let scaled = a.broadcast_mul(&self.d.tensor()?.reshape((self.rank, 1))?)?;
        let added = b.matmul(&scaled)?.broadcast_mul(&self.b.tensor()?.reshape((self.base.output, 1))?)?;
        Ok(Some((self.base.dense()? + added)?))
    }
}
