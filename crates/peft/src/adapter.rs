//! What a method is made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_train::Param;
use ounce_train::graph::{Hook, Linear, NoHook, Slot, Weight};
use serde_json::{Map, Value};

use crate::{Kind, Result, Settings, methods};

/// A way to adapt a model: what it puts into the places of linear layers, in front of a text and around layers; how many
/// numbers it trains; what it is called in files.
pub trait Adapter: Send {
    /// Looks at the model before its slots are made.
    ///
    /// # Errors
    /// If the model does not suit the method.
    fn begin(&mut self, _base: &Model) -> Result<()> {
        Ok(())
    }

    /// How many numbers it trains on a model, by the paper's formula; new heads are not counted.
    fn parameters(&self, base: &Spec) -> u64;

    /// Whether it trains this weight of the model itself.
    fn trains(&self, _weight: &str) -> bool {
        false
    }

    /// What takes the place of a linear layer.
    ///
    /// # Errors
    /// If the layer does not suit the method.
    fn slot(&mut self, _name: &str, linear: Linear) -> Result<Box<dyn Slot>> {
        Ok(Box::new(linear))
    }

    /// Weights that no slot has. Asked for once, after all slots.
    ///
    /// # Errors
    /// If the model does not suit the method.
    fn weights(&mut self, _base: &Model) -> Result<Vec<Weight>> {
        Ok(Vec::new())
    }

    /// Places in front of each text that hold no token.
    fn virtual_tokens(&self) -> usize {
        0
    }

    /// What goes along with a pass; `lengths` are those of its sequences.
    fn hook(&self, _lengths: &[usize]) -> Box<dyn Hook + '_> {
        Box::new(NoHook)
    }

    /// What the head is given, from what the last norm gave.
    ///
    /// # Errors
    /// Outside a pass.
    fn finish(&self, hidden: Tensor) -> ounce_train::Result<Tensor> {
        Ok(hidden)
    }

    /// A loss of its own, for each target that counts.
    ///
    /// # Errors
    /// Outside a pass.
    fn penalty(&self) -> ounce_train::Result<Option<Tensor>> {
        Ok(None)
    }

    /// Called before the first gradient of a step, counted from 0.
    fn before_step(&mut self, _step: u64, _params: &[Param]) {}

    /// Called behind a step, with the gradients that it went by.
    fn after_step(&mut self, _step: u64, _params: &mut [Param]) {}

    /// What it has learnt of the steps, for checkpoints.
    fn memory(&self) -> Value {
        Value::Null
    }

    /// Takes up what [`Adapter::memory`] gave.
    fn remember(&mut self, _memory: &Value) {}

    /// What its weights are called in peft's files, behind the module's name: pairs of ounce's name and peft's.
    fn parts(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The settings that files have.
    fn file_settings(&self, settings: &Settings) -> Settings {
        settings.clone()
    }

    /// The weights as files have them, from those that are trained; the same unless they are made of others.
    ///
    /// # Errors
    /// If they can't be made.
    fn file_values(&self, params: &[Param]) -> Result<Vec<Array>> {
        Ok(params.iter().filter(|param| param.is_trainable()).map(Array::of).collect())
    }

    /// Whether files have a weight of this name, though it does not learn.
    fn keeps(&self, _weight: &str) -> bool {
        false
    }

    /// Takes what files have into the weights.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    fn take_values(&mut self, values: &[Array], params: &mut [Param]) -> Result<()> {
        take_trained(values, params)
    }

    /// peft's settings, besides those that all methods share.
    fn config(&self, _base: &Spec) -> Map<String, Value> {
        Map::new()
    }
}

/// A tensor of an adapter's file, under ounce's name.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its name.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

impl Array {
    /// A parameter's.
    pub fn of(param: &Param) -> Array {
        Array { name: param.name.clone(), shape: param.shape.clone(), values: param.value.clone() }
    }
}

/// Takes the values of all trained weights.
///
/// # Errors
/// If a weight is missing or has another shape.
pub(crate) fn take_trained(values: &[Array], params: &mut [Param]) -> Result<()> {
    for param in params.iter_mut().filter(|param| param.is_trainable()) {
        let found = values.iter().find(|value| value.name == param.name).ok_or_else(|| {
            crate::Error::Option(format!("{} is missing in the adapter's file", param.name))
        })?;
        if found.values.len() != param.value.len() {
            return Err(crate::Error::Option(format!(
                "{} has the shape {:?} in the adapter's file and {:?} in this model; the adapter was made for another model",
                param.name, found.shape, param.shape
            )));
        }
        param.value.clone_from(&found.values);
    }
    Ok(())
}

/// Counts gradients that were asked for, so that every one can have random numbers of its own.
pub type Clock = Arc<AtomicU64>;

/// The method that settings ask for.
///
/// # Errors
/// If the settings contradict themselves.
pub fn adapter(settings: &Settings, clock: &Clock) -> Result<Box<dyn Adapter>> {
    settings.check()?;
    let (settings, clock) = (settings.clone(), clock.clone());
    Ok(match settings.method {
        Kind::Lora => Box::new(methods::lora::Lora::new(settings, clock)),
        Kind::LoraFa => Box::new(methods::lora_fa::LoraFa::new(settings, clock)),
        Kind::Krona => Box::new(methods::krona::KronA::new(settings, clock)),
        Kind::Dora => Box::new(methods::dora::Dora::new(settings, clock)),
        Kind::Dylora => Box::new(methods::dylora::DyLora::new(settings)),
        Kind::Adalora => Box::new(methods::adalora::AdaLora::new(settings, clock)?),
        Kind::Vera => Box::new(methods::vera::Vera::new(settings, clock)),
        Kind::Svfit => Box::new(methods::svfit::SvFit::new(settings)),
        Kind::Flora => Box::new(methods::flora::Flora::new(settings, clock)),
        Kind::Ia3 => Box::new(methods::ia3::Ia3::new(settings)),
        Kind::Ssf => Box::new(methods::ssf::Ssf::new(settings)),
        Kind::Bitfit => Box::new(methods::bitfit::BitFit),
        Kind::Bottleneck => Box::new(methods::bottleneck::Bottleneck::new(settings)),
        Kind::Parallel => Box::new(methods::parallel::Parallel::new(settings)),
        Kind::Mam => Box::new(methods::mam::Mam::new(settings)?),
        Kind::Compacter => Box::new(methods::compacter::Compacter::new(settings)?),
        Kind::Language => Box::new(methods::language::Language::new(settings)),
        Kind::Prompt => Box::new(methods::prompt::Prompt::new(settings)?),
        Kind::PTuning => Box::new(methods::p_tuning::PTuning::new(settings)?),
        Kind::Prefix => Box::new(methods::prefix::Prefix::new(settings)?),
        Kind::GatedPrefix => Box::new(methods::gated_prefix::GatedPrefix::new(settings)?),
        Kind::Sherl => Box::new(methods::sherl::Sherl::new(settings)),
        Kind::Aside => Box::new(methods::aside::Aside::new(settings)),
        Kind::Crosstune => {
            return Err(crate::Error::Option(
                "crosstune stands on a model's states and has no part in it; ounce tune --descriptions FILE trains it".into(),
            ));
        }
        Kind::Cloze => Box::new(methods::cloze::Alone),
    })
}

/// Hides some of a layer's inputs from an adapter while it is trained.
#[derive(Debug, Clone)]
pub struct Dropout {
    share: f64,
    seed: u64,
    clock: Clock,
}

impl Dropout {
    /// Of the layer of that name.
    pub fn new(settings: &Settings, name: &str, clock: &Clock) -> Dropout {
        // FNV-1a; only has to differ from layer to layer.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Dropout { share: settings.dropout, seed: settings.seed ^ hash, clock: clock.clone() }
    }

    /// `x` with the hidden inputs at 0 and the others scaled up; as it is where gradients are not asked for, which `weight`,
    /// one of the adapter's, tells.
    ///
    /// # Errors
    /// Outside a pass.
    pub fn apply(&self, x: &Tensor, weight: &Tensor) -> ounce_train::Result<Tensor> {
        use rand::{RngExt, SeedableRng};
        if self.share == 0.0 || !weight.is_variable() {
            return Ok(x.clone());
        }
        let step = self.clock.load(Ordering::Relaxed);
        let seed = self.seed ^ step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let kept = (1.0 / (1.0 - self.share)) as f32;
        let mask = (0..x.elem_count())
            .map(|_| if random.random::<f64>() < self.share { 0.0 } else { kept })
            .collect();
        Ok((x * ounce_train::graph::ops::tensor(mask, x.shape())?)?)
    }

    /// Whether it hides anything.
    pub fn is_active(&self) -> bool {
        self.share > 0.0
    }
}
