//! Adapters that the engine runs beside the frozen weights, another one for each sequence: products of two thin matrices, narrow and
//! invertible networks, keys and values apart from the text's, and what stands in front of a text.

use ounce_engine::{Around, Changes, Front, Look, LowRank, Narrow};
use ounce_model::spec::Activation;
use ounce_model::{Model, Tensor};
use ounce_train::net::Options;
use ounce_train::{Param, Trainable};

use crate::folder::Folder;
use crate::methods::{bottleneck, compacter, language, parallel, prompt};
use crate::{Adapted, Error, Kind, Result};

/// What the adapter of a folder adds to a model, for [`Engine::adapter`](ounce_engine::Engine::adapter).
///
/// # Errors
/// If the adapter is of another model, of a method that the engine does not run beside weights, or trained weights of the model besides.
pub fn changes(model: &Model, folder: &Folder, any_base: bool) -> Result<Changes> {
    let adapted = Adapted::open(model, folder, Options::default(), &[], any_base)?;
    let changes = of(&adapted, folder)?;
    let own = trained(&adapted);
    if own.is_empty() {
        return Ok(changes);
    }
    let what = format!(
        "trained {} weights of the model itself, such as {}, which all sequences share; run it alone with --adapter",
        own.len(),
        own[0].name
    );
    Err(Error::folder(&folder.path, what))
}

/// As [`changes`], for a model that is not shared: with the weights of the model that were trained besides in their places.
///
/// # Errors
/// If the adapter is of another model, or of a method that the engine does not run beside weights.
pub fn alone(model: &Model, folder: &Folder, any_base: bool) -> Result<(Model, Changes)> {
    let adapted = Adapted::open(model, folder, Options::default(), &[], any_base)?;
    let changes = of(&adapted, folder)?;
    let base = adapted.skeleton();
    let own = trained(&adapted).into_iter();
    let tensors = own.map(|it| (it.name.clone(), Tensor::from_f32(&it.shape, &it.value)));
    let weights = base.weights.replaced(tensors)?;
    Ok((Model { weights, ..base.clone() }, changes))
}

/// Whether the engine runs a method beside the weights.
pub fn runs(kind: Kind) -> bool {
    let apart = [Kind::Sherl, Kind::Ssf, Kind::Mam, Kind::Aside, Kind::Cloze, Kind::Crosstune];
    !apart.contains(&kind) && (!kind.facts().merges || [Kind::Lora, Kind::Dylora].contains(&kind))
}

/// Weights of the model itself that were trained.
fn trained(adapted: &Adapted) -> Vec<&Param> {
    let tensors = adapted.skeleton().spec.tensors();
    let own = |param: &&Param| param.is_trainable() && tensors.iter().any(|it| it.name == param.name);
    adapted.params().iter().filter(own).collect()
}

fn of(adapted: &Adapted, folder: &Folder) -> Result<Changes> {
    let (settings, found) = (adapted.settings(), Params(adapted.params()));
    let mut changes = Changes::default();
    match settings.method {
        Kind::Lora | Kind::Dylora => {
            for (slot, a) in found.slots("lora_a") {
                let b = found.get(&format!("{slot}.lora_b"))?;
                let rank = a.shape[0];
                changes.low_rank.push(LowRank {
                    name: slot.to_owned(),
                    rank,
                    reduce: a.value.clone(),
                    expand: b.value.clone(),
                    scale: settings.scale(rank) as f32,
                });
            }
        }
        Kind::Bottleneck | Kind::Language if settings.below.is_empty() => {
            let slots = found.slots(&format!("{}_down", bottleneck::TOP));
            for (slot, down) in slots.filter(|(slot, _)| slot.starts_with("layers.")) {
                changes.narrow.push(found.network(slot, down)?);
            }
            if settings.method == Kind::Language {
                let network =
                    |slot: &str| found.network(slot, found.get(&format!("{slot}.{}_down", bottleneck::TOP))?);
                let [first, second] = language::NAMES;
                changes.around.push(Around { first: network(first)?, second: network(second)? });
            }
        }
        Kind::Parallel => {
            for (slot, down) in found.slots(&format!("{}_down", bottleneck::TOP)) {
                let half = slot.trim_end_matches(".down").to_owned();
                let scale = parallel::SCALE as f32;
                changes.narrow.push(Narrow { name: half, scale, ..found.network(slot, down)? });
            }
        }
        Kind::Compacter => {
            let rule = found.get(compacter::RULE)?;
            for (slot, _) in found.slots("down_s") {
                let part = |end: &str| Ok::<_, Error>(&found.get(&format!("{slot}.{end}"))?.value);
                let (bias, out) = (part("down_bias")?, part("up_bias")?);
                let n = rule.shape[0];
                let dense = |s, t, k, m| compacter::dense_turned(&rule.value, s, t, (k, m, n));
                changes.narrow.push(Narrow {
                    name: slot.to_owned(),
                    width: bias.len(),
                    reduce: dense(part("down_s")?, part("down_t")?, out.len(), bias.len()),
                    reduce_bias: bias.clone(),
                    expand: dense(part("up_s")?, part("up_t")?, bias.len(), out.len()),
                    expand_bias: out.clone(),
                    // candle's GELU.
                    activation: Activation::GeluTanh,
                    scale: 1.0,
                });
            }
        }
        Kind::GatedPrefix => {
            let base = adapted.skeleton();
            for (slot, prefix) in found.slots("gated_prefix") {
                let layer = slot.trim_start_matches("layers.").parse();
                let layer: usize = layer.map_err(|_| Error::Option(format!("{slot} names no layer")))?;
                let gate = found.get(&format!("{slot}.prefix_gate"))?.value.first().copied().unwrap_or(0.0);
                let projected = |part: &str| project(base, &format!("{slot}.attention.{part}"), prefix);
                let (keys, values) = (projected("key")?, projected("value")?);
                changes.looks.push(Look { layer, keys, values, gate: gate.tanh() });
            }
        }
        Kind::Prompt | Kind::PTuning => {
            changes.front = Some(Front::Vectors(found.get(prompt::PROMPT)?.value.clone()));
        }
        Kind::Prefix => {
            let prefix = found.get(prompt::PROMPT)?;
            let (count, layers) = (prefix.shape[0], adapted.skeleton().spec.layers.len());
            let width = prefix.shape[1] / (2 * layers).max(1);
            let part = |at: usize| -> Vec<f32> {
                let rows = prefix.value.chunks_exact(prefix.shape[1]);
                rows.flat_map(|row| row[at * width..(at + 1) * width].iter().copied()).collect()
            };
            let layers = (0..layers).map(|layer| [part(2 * layer), part(2 * layer + 1)]).collect();
            changes.front = Some(Front::KeysAndValues { count, layers });
        }
        kind => {
            let what = match kind.facts().merges {
                true => {
                    "which runs beside the weights as a product of two thin matrices only: ounce adapters export writes it as one where it \
                     can be, ounce merge puts it into the weights"
                }
                false => "which is trained and judged by ounce tune, but not run by the engine",
            };
            let lies = if settings.below.is_empty() { "" } else { " on language adapters" };
            return Err(Error::folder(&folder.path, format!("is a {kind} adapter{lies}, {what}")));
        }
    }
    Ok(changes)
}

/// Vectors `[n, hidden]` through a linear layer of the base.
fn project(base: &Model, name: &str, vectors: &Param) -> Result<Vec<f32>> {
    let matrix = base.weights.f32(&format!("{name}.weight"))?;
    let width = vectors.shape[1];
    let bias = format!("{name}.bias");
    let bias = match base.weights.contains(&bias) {
        true => base.weights.f32(&bias)?,
        false => vec![0.0; matrix.len() / width],
    };
    let row = |x: &[f32]| -> Vec<f32> {
        let outputs = matrix.chunks_exact(width).zip(&bias);
        outputs.map(|(w, b)| b + w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()).collect()
    };
    Ok(vectors.value.chunks_exact(width).flat_map(row).collect())
}

/// An adapter's weights by their names.
struct Params<'p>(&'p [Param]);

impl<'p> Params<'p> {
    fn get(&self, name: &str) -> Result<&'p Param> {
        let found = self.0.iter().find(|param| param.name == name);
        found.ok_or_else(|| Error::Option(format!("{name} is missing in the adapter")))
    }

    /// Slots that have a weight of this name, with it.
    fn slots(&self, part: &str) -> impl Iterator<Item = (&'p str, &'p Param)> + use<'p> {
        let end = format!(".{part}");
        self.0.iter().filter_map(move |param| Some((param.name.strip_suffix(&end)?, param)))
    }

    /// The narrow network behind a slot.
    fn network(&self, slot: &str, down: &Param) -> Result<Narrow> {
        let part = |end: &str| self.get(&format!("{slot}.{}_{end}", bottleneck::TOP));
        Ok(Narrow {
            name: slot.to_owned(),
            width: down.shape[0],
            reduce: down.value.clone(),
            reduce_bias: part("down_bias")?.value.clone(),
            expand: part("up")?.value.clone(),
            expand_bias: part("up_bias")?.value.clone(),
            activation: Activation::Relu,
            scale: 1.0,
        })
    }
}
