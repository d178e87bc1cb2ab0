//! The network under an adapter: that of slots, for every method, and the fast one with pairs of thin matrices, for plain LoRA.

use ounce_model::weights::MemorySource;
use ounce_model::{Model, Tensor, Weights};
use ounce_train::graph::GraphNet;
use ounce_train::net::Net;
use ounce_train::{Param, Trainable};

use crate::{Error, Kind, Result, Settings};

/// One or the other.
pub(crate) enum Core {
    /// Any method.
    Slots(Box<GraphNet>),
    /// LoRA without dropout: backward passes written by hand, in planned buffers.
    Fast(Box<Net>),
}

/// Whether the fast network can train this.
pub(crate) fn is_fast(model: &Model, settings: &Settings) -> bool {
    let plain = settings.dropout == 0.0
        && !settings.pissa
        && settings.cloze.is_none()
        && settings.retrieval.is_none();
    settings.method == Kind::Lora && plain && model.spec.ranks.is_empty()
}

impl Core {
    pub fn params(&self) -> &[Param] {
        match self {
            Core::Slots(net) => net.params(),
            Core::Fast(net) => net.params(),
        }
    }

    pub fn params_mut(&mut self) -> &mut [Param] {
        match self {
            Core::Slots(net) => net.params_mut(),
            Core::Fast(net) => net.params_mut(),
        }
    }

    pub fn skeleton(&self) -> &Model {
        match self {
            Core::Slots(net) => net.skeleton(),
            Core::Fast(net) => net.skeleton(),
        }
    }

    pub fn workspace_bytes(&self, tokens: usize) -> usize {
        match self {
            Core::Slots(net) => net.workspace_bytes(tokens),
            Core::Fast(net) => net.workspace_bytes(tokens),
        }
    }

    /// The model with what was learned in its matrices; `scale` is the factor on LoRA's products.
    pub fn model(&self, scale: f64) -> Result<Model> {
        let net = match self {
            Core::Slots(net) => return Ok(net.model()?),
            Core::Fast(net) => net,
        };
        let model = net.model()?;
        let mut source = MemorySource::new(model.weights.path());
        for info in model.spec.tensors() {
            let pair = info.name.strip_suffix(".weight").and_then(|slot| {
                let find = |part: &str| {
                    let name = format!("{slot}.{part}");
                    self.params().iter().find(|param| param.name == name)
                };
                find("lora_a").zip(find("lora_b"))
            });
            let tensor = match pair {
                Some((a, b)) => {
                    let mut values = model.weights.f32(&info.name)?;
                    add_product(&mut values, a, b, scale as f32);
                    Tensor::from_f32(&info.shape, &values)
                }
                None => model.weights.get(&info.name)?,
            };
            source.insert(info.name, tensor);
        }
        Ok(Model { weights: Weights::in_memory(source), ..model })
    }

    /// The network of slots.
    ///
    /// # Errors
    /// If it is the other one.
    pub fn slots(&mut self) -> ounce_train::Result<&mut GraphNet> {
        match self {
            Core::Slots(net) => Ok(net.as_mut()),
            Core::Fast(_) => {
                Err(Error::Option("the fast network gives losses and scores only".into()).into())
            }
        }
    }
}

/// `w += scale · B A`.
fn add_product(w: &mut [f32], a: &Param, b: &Param, scale: f32) {
    let (rank, width) = (a.shape[0], a.shape[1]);
    for (row, b) in w.chunks_exact_mut(width).zip(b.value.chunks_exact(rank)) {
        for (factor, a) in b.iter().zip(a.value.chunks_exact(width)) {
            row.iter_mut().zip(a).for_each(|(w, a)| *w += scale * factor * a);
        }
    }
}
