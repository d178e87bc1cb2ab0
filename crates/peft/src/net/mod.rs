//! An adapted model: the general network with an adapter in its slots, as the training loop knows it.

mod answers;
mod files;
mod passes;

pub use self::answers::Draw;

use std::collections::HashSet;
use std::sync::Arc;

use ounce_model::Model;
use ounce_train::Param;
use ounce_train::graph::GraphNet;
use ounce_train::loss::Choices;
use ounce_train::net::{Net, Options, Pair};
use sha2::{Digest, Sha256};

use crate::adapter::{Adapter, Clock, adapter};
use crate::core::{Core, is_fast};
use crate::folder::Base;
use crate::methods::cloze::Gap;
use crate::names::Names;
use crate::{Error, Kind, Result, Settings, Targets};

/// A model with an adapter.
pub struct Adapted {
    net: Core,
    adapter: Box<dyn Adapter>,
    /// The gap that labels fill.
    gap: Option<Arc<Gap>>,
    settings: Settings,
    names: Names,
    base: Base,
    clock: Clock,
    /// Steps done.
    step: u64,
    /// Whether a step has begun.
    begun: bool,
    beta: f64,
    choices: Option<Choices>,
}

impl std::fmt::Debug for Adapted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Adapted({} by {})", self.base.name, self.settings.method)
    }
}

/// Bytes of a weight that its model is known by.
const KNOWN_BY: usize = 4096;

/// Of which model an adapter is; weights for which `other` holds are none of it.
///
/// # Errors
/// If a weight can't be read.
pub fn identify(model: &Model, other: &dyn Fn(&str) -> bool) -> Result<Base> {
    let mut hash = Sha256::new();
    for info in model.spec.tensors().into_iter().filter(|info| !other(&info.name)) {
        hash.update(format!("{}\0{:?}\0", info.name, info.shape));
        let tensor = model.weights.get(&info.name)?;
        hash.update(&tensor.data[..tensor.data.len().min(KNOWN_BY)]);
    }
    let name = model.origin.path.display().to_string();
    Ok(Base { name, fingerprint: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect() })
}

impl Adapted {
    /// A model with a new adapter.
    ///
    /// # Errors
    /// If the model or a setting does not suit the method.
    pub fn new(model: &Model, settings: &Settings, options: Options) -> Result<Adapted> {
        let clock = Clock::default();
        let made = adapter(settings, &clock)?;
        Adapted::with(model, settings, options, made, clock)
    }

    /// As [`Adapted::new`], on the fast network where the method allows it: it gives losses, scores, folders and merged models, no
    /// logits.
    ///
    /// # Errors
    /// As [`Adapted::new`].
    pub fn fast(model: &Model, settings: &Settings, options: Options) -> Result<Adapted> {
        if !is_fast(model, settings) {
            return Adapted::new(model, settings, options);
        }
        let clock = Clock::default();
        let made = adapter(settings, &clock)?;
        let trained = heads(model, settings);
        let pairs = |slot: &str, output: usize, input: usize| -> ounce_train::Result<Option<Pair>> {
            match settings.targets.chooses(slot) {
                true => Ok(Some(crate::methods::lora::beside(settings, slot, (output, input))?)),
                false => Ok(None),
            }
        };
        let net = Net::with_pairs(model, options, &|name| trained.contains(name), &pairs)?;
        Adapted::finished(model, settings, Core::Fast(Box::new(net)), made, clock, options)
    }

    /// A model with an adapter that was made before.
    ///
    /// # Errors
    /// As [`Adapted::new`].
    pub(crate) fn with(
        model: &Model,
        settings: &Settings,
        options: Options,
        mut adapter: Box<dyn Adapter>,
        clock: Clock,
    ) -> Result<Adapted> {
        adapter.begin(model)?;
        let heads = heads(model, settings);
        let tensors = model.spec.tensors();
        let trained: HashSet<String> = tensors
            .iter()
            .map(|info| info.name.clone())
            .filter(|name| adapter.trains(name) || heads.contains(name))
            .collect();
        let options = Options { checkpointing: false, ..options };
        let wrapped = std::cell::RefCell::new(&mut adapter);
        let mut net =
            GraphNet::with_frozen(model, options, &|name| trained.contains(name), &mut |name, linear| {
                Ok(wrapped.borrow_mut().slot(name, linear)?)
            })?;
        for weight in adapter.weights(model)? {
            net.add(weight)?;
        }
        let gap = settings.cloze.as_ref().map(|cloze| Gap::new(cloze, model)).transpose()?;
        for weight in gap.iter().flat_map(Gap::weights) {
            net.add(weight.clone())?;
        }
        let made = Adapted::finished(model, settings, Core::Slots(Box::new(net)), adapter, clock, options)?;
        Ok(Adapted { gap: gap.map(Arc::new), ..made })
    }

    fn finished(
        model: &Model,
        settings: &Settings,
        net: Core,
        adapter: Box<dyn Adapter>,
        clock: Clock,
        options: Options,
    ) -> Result<Adapted> {
        if !net.params().iter().any(Param::is_trainable) {
            return Err(Error::Option(format!(
                "none of this {} model's layers are among the targets, so {} has nothing to train; name others",
                model.spec.family, settings.method
            )));
        }
        let heads = heads(model, settings);
        Ok(Adapted {
            net,
            adapter,
            gap: None,
            settings: settings.clone(),
            names: Names::of(model)?,
            base: identify(model, &|name| heads.contains(name))?,
            clock,
            step: 0,
            begun: false,
            beta: options.beta,
            choices: None,
        })
    }

    /// The adapter's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The model without the adapter.
    pub fn skeleton(&self) -> &Model {
        self.net.skeleton()
    }

    /// How many numbers are trained, new heads included.
    pub fn trained(&self) -> u64 {
        self.net.params().iter().filter(|param| param.is_trainable()).map(|it| it.value.len() as u64).sum()
    }

    /// How many numbers the method trains by its formula.
    pub fn parameters(&self) -> u64 {
        let spec = &self.skeleton().spec;
        self.adapter.parameters(spec) + self.settings.cloze.as_ref().map_or(0, |it| it.parameters(spec))
    }

    /// Places in front of each text that hold no token.
    pub(crate) fn virtual_tokens(&self) -> usize {
        self.adapter.virtual_tokens()
    }

    /// A hash of all that is not trained.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn frozen(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        for param in self.net.params().iter().filter(|param| !param.is_trainable()) {
            hash.update(param.name.as_bytes());
            hash.update(bytemuck::cast_slice::<f32, u8>(&param.value));
        }
        for info in self.skeleton().spec.tensors() {
            if !self.net.params().iter().any(|param| param.name == info.name) {
                hash.update(info.name.as_bytes());
                hash.update(&*self.skeleton().weights.get(&info.name)?.data);
            }
        }
        Ok(hash.finalize().into())
    }

    /// The model with what was learned in its matrices, f32 where they changed.
    ///
    /// # Errors
    /// If the method's parts can't become part of matrices.
    pub fn merged(&self) -> Result<Model> {
        if !self.settings.method.facts().merges {
            let kinds: Vec<&str> =
                Kind::ALL.iter().filter(|kind| kind.facts().merges).map(|kind| kind.name()).collect();
            return Err(Error::Option(format!(
                "what {} learned is no change of matrices and can't be merged; {} can",
                self.settings.method,
                kinds.join(", ")
            )));
        }
        self.net.model(self.settings.scale(self.settings.rank))
    }

    /// Whether a weight of the base may have become another.
    pub(crate) fn changes(&self, weight: &str) -> bool {
        let own = self.net.params().iter().any(|param| param.name == weight && param.is_trainable());
        own || weight.strip_suffix(".weight").is_some_and(|slot| {
            !matches!(self.settings.targets, Targets::Parts(ref parts) if parts.is_empty())
                && self.settings.targets.chooses(slot)
        })
    }
}

/// The model's own weights that settings train besides the adapter.
fn heads(model: &Model, settings: &Settings) -> HashSet<String> {
    let tensors = model.spec.tensors().into_iter().map(|info| info.name);
    tensors.filter(|name| settings.trains.iter().any(|stem| name.starts_with(stem.as_str()))).collect()
}
