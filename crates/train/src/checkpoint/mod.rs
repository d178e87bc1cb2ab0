//! Checkpoints: everything that a run needs to go on as if it had never been interrupted.
//!
//! `checkpoints/step-N/` is a model's folder like any other, which other commands open, with a folder `training/`:
//!
//! - `optimizer.safetensors`: the optimizer's memory, `<weight>.<part>`;
//! - `weights.safetensors`: the f32 weights, if the model's folder stores them in fewer bits; those that are trained, if the
//!   folder is an adapter's;
//! - `state.json`: step, schedule, position in the data, the spike guard's memory ([`State`]). The position is the only
//!   random state there is: the order of the data follows from it, and steps draw no random numbers;
//! - `manifest.json`: sizes and checksums. It is written last.
//!
//! A checkpoint is written under a temporary name, brought to the disk and renamed. A disk that runs full, or a process
//! that is killed, leaves the older ones as they were.

mod manifest;
mod store;
pub mod tensors;

use std::fs;
use std::path::Path;

use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::storage::AtomicFile;
use ounce_model::weights::TensorSource;
use serde::{Deserialize, Serialize};

use crate::data::Position;
use crate::optim::{Optimizer, SlotType};
use crate::schedule::{Schedule, Stage};
use crate::trainer::guard;
use crate::{Error, Param, Result, Trainable};
use manifest::Manifest;
pub use store::{Keep, Kept, Store};
use tensors::Piece;

/// Larger states are not read.
const MAX_STATE_BYTES: u64 = 16 << 20;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Targets learned from.
    pub tokens: u64,
    /// Seconds spent training.
    pub seconds: f64,
    /// Where the next batch begins.
    pub data: Position,
    /// The learning rates the run follows.
    pub schedule: Schedule,
    /// The part of the schedule that the last step belonged to.
    pub stage: Option<Stage>,
    /// Whether this checkpoint is never removed: the end of a stable part, or one in every so many.
    pub permanent: bool,
    /// What must be the same to continue: see [`crate::trainer::Options::identity`].
    pub config: String,
    /// The validation loss at this very step, if it was measured.
    pub validation: Option<f64>,
    /// The best validation loss so far, and its step.
    pub best: Option<(f64, u64)>,
    /// What the spike guard remembers.
    pub guard: guard::Memory,
    /// Length of the log at this step.
    pub log_bytes: u64,
    /// What the loss has learnt of the steps: see [`Trainable::memory`].
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub memory: serde_json::Value,
}

/// Writes the weights, the optimizer's memory and the state into `folder`, which must not exist. Not atomic: see [`Store`].
fn write(folder: &Path, net: &dyn Trainable, optimizer: &Optimizer, state: &State) -> Result<()> {
    net.save(folder)?;
    let training = folder.join("training");
    fs::create_dir_all(&training).map_err(Error::io(&training))?;
    let params = net.params();
    if !stores_f32(folder, params) {
        // What is no model but an adapter has its base elsewhere, which stays as it is.
        let adapter = !folder.join("config.json").is_file();
        let pieces: Vec<Piece<'_>> = params
            .iter()
            .filter(|param| !adapter || param.is_trainable())
            .map(|param| Piece {
                name: param.name.clone(),
                dtype: "F32",
                shape: param.shape.clone(),
                bytes: bytemuck::cast_slice(&param.value),
            })
            .collect();
        tensors::write(&training.join("weights.safetensors"), &pieces)?;
    }
    let slots = optimizer.slots(params);
    let pieces: Vec<Piece<'_>> = slots
        .iter()
        .map(|slot| {
            let (dtype, size) = match slot.dtype {
                SlotType::F32 => ("F32", 4),
                SlotType::U8 => ("U8", 1),
            };
            let name = format!("{}.{}", slot.param, slot.part);
            Piece { name, dtype, shape: vec![slot.bytes.len() / size], bytes: slot.bytes }
        })
        .collect();
    tensors::write(&training.join("optimizer.safetensors"), &pieces)?;
    write_json(&training.join("state.json"), state)?;
    Manifest::seal(folder)
}

/// Whether the folder is a model whose weights are these, in f32.
fn stores_f32(folder: &Path, params: &[Param]) -> bool {
    let Ok(model) = Model::open(folder) else { return false };
    let exact = |param: &Param| {
        model
            .weights
            .info(&param.name)
            .is_some_and(|(dtype, shape)| dtype == DType::F32 && *shape == param.shape)
    };
    params.iter().all(exact)
}

/// Reads a checkpoint's state alone.
///
/// # Errors
/// If the folder is no checkpoint.
pub fn read_state(folder: &Path) -> Result<State> {
    if !folder.join("training").is_dir() {
        return Err(Error::checkpoint(
            folder,
            "is no checkpoint of a training run; name a folder checkpoints/step-N",
        ));
    }
    read_json(&folder.join("training/state.json"), MAX_STATE_BYTES)
}

/// Brings the network and the optimizer to where they were. All files are checked first.
///
/// # Errors
/// If a file is damaged or missing, or belongs to another network or optimizer.
pub fn load(folder: &Path, net: &mut dyn Trainable, optimizer: &mut Optimizer) -> Result<State> {
    let state = read_state(folder)?;
    Manifest::check(folder)?;
    load_weights(folder, net.params_mut())?;
    let path = folder.join("training/optimizer.safetensors");
    let file = SafetensorsFile::open(&path)?;
    let slots = optimizer.slots_mut(net.params());
    if slots.len() != file.names().len() {
        let what = format!(
            "holds {} tensors where the optimizer has {}; it was written by another optimizer",
            file.names().len(),
            slots.len()
        );
        return Err(Error::checkpoint(path, what));
    }
    for slot in slots {
        let tensor = file.tensor(&slot.name)?;
        let dtype = match slot.dtype {
            SlotType::F32 => DType::F32,
            SlotType::U8 => DType::U8,
        };
        if tensor.dtype != dtype || tensor.data.len() != slot.bytes.len() {
            let what = format!("{} does not fit the optimizer; it was written by another one", slot.name);
            return Err(Error::checkpoint(path, what));
        }
        slot.bytes.copy_from_slice(&tensor.data);
    }
    optimizer.set_steps(state.step);
    net.remember(&state.memory)?;
    Ok(state)
}

/// Reads a checkpoint's weights at full precision.
///
/// # Errors
/// If one is missing or has another shape.
pub fn load_weights(folder: &Path, params: &mut [Param]) -> Result<()> {
    let path = folder.join("training/weights.safetensors");
    if path.is_file() {
        let file = SafetensorsFile::open(&path)?;
        let frozen = |param: &Param| !param.is_trainable() && file.info(&param.name).is_none();
        let mut kept: Vec<&mut Param> = params.iter_mut().filter(|param| !frozen(param)).collect();
        return copy(&mut kept, &path, |name| file.tensor(name));
    }
    let model = Model::open(folder)?;
    copy(&mut params.iter_mut().collect::<Vec<_>>(), folder, |name| model.weights.get(name))
}

fn copy(
    params: &mut [&mut Param],
    path: &Path,
    tensor: impl Fn(&str) -> ounce_model::Result<ounce_model::Tensor>,
) -> Result<()> {
    for param in params {
        let tensor = tensor(&param.name)?;
        if tensor.shape != param.shape {
            let what = format!(
                "{} has the shape {:?}, the network's is {:?}; the checkpoint is of another model",
                param.name, tensor.shape, param.shape
            );
            return Err(Error::checkpoint(path, what));
        }
        param.value = tensor.to_f32().map_err(|error| Error::checkpoint(path, error.to_string()))?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::checkpoint(path, error.to_string()))?;
    let mut file = AtomicFile::create(path)?;
    std::io::Write::write_all(&mut file, &text).map_err(Error::io(path))?;
    Ok(file.commit()?)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, limit: u64) -> Result<T> {
    let size = fs::metadata(path).map_err(Error::io(path))?.len();
    if size > limit {
        return Err(Error::checkpoint(path, "is too large to be what its name says"));
    }
    let text = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(|error| {
        Error::checkpoint(path, format!("can't be read ({error}); the checkpoint is damaged"))
    })
}
