//! A trained model of many shapes in a file, beside the model that it is of: what leaves where, adapters, gate and biases.
//!
//! The layout is that of safetensors; what is no tensor is JSON under `amoeba` in its metadata. The model's own weights are
//! not in it.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use ounce_model::Model;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::storage::AtomicFile;
use ounce_model::weights::TensorSource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::depth::DepthSet;
use super::elastic::{Elastic, Settings, Shape, Way};
use super::smol::{self, Adapters, Smol};
use super::train::Trained;
use crate::prune::structured::LayerCut;
use crate::{Error, Result};

/// The key of the metadata.
const KEY: &str = "amoeba";

/// What is no tensor.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    settings: Settings,
    sets: Vec<DepthSet>,
    kept: Vec<Vec<LayerCut>>,
    adapters: smol::Options,
    /// Of each shape, in their order.
    losses: Vec<f64>,
}

/// Writes a trained model's file, whole or not at all. `losses` are those of its shapes in their order, by which one is chosen later.
///
/// # Errors
/// If the file can't be written.
pub fn write(trained: &Trained, losses: &[f64], path: &Path) -> Result<()> {
    let Trained { elastic, smol } = trained;
    let facts = Facts {
        settings: elastic.settings.clone(),
        sets: elastic.sets.clone(),
        kept: elastic.kept.clone(),
        adapters: smol.options,
        losses: losses.to_vec(),
    };
    let mut tensors: Vec<(String, &[f32])> = Vec::new();
    for adapters in &smol.adapters {
        tensors.push((format!("{}.a", adapters.name), &adapters.a));
        tensors.push((format!("{}.b", adapters.name), &adapters.b));
    }
    tensors
        .extend(smol.gate.iter().enumerate().map(|(at, values)| (format!("gate.{at}"), values.as_slice())));
    for (width, answers) in elastic.answers.iter().enumerate() {
        let mut named: Vec<_> =
            answers.iter().map(|(name, values)| (format!("{width}.{name}"), values.as_slice())).collect();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        tensors.extend(named);
    }
    let text = serde_json::to_string(&facts).map_err(|error| Error::Option(error.to_string()))?;
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ KEY: text }));
    let mut offset = 0;
    for (name, values) in &tensors {
        let end = offset + 4 * values.len();
        let entry = json!({"dtype": "F32", "shape": [values.len()], "data_offsets": [offset, end]});
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = AtomicFile::create(path)?;
    let mut put = |bytes: &[u8]| {
        file.write_all(bytes).map_err(|error| Error::from(ounce_model::Error::io(path)(error)))
    };
    put(&(text.len() as u64).to_le_bytes())?;
    put(&text)?;
    for (_, values) in tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        put(&bytes)?;
    }
    Ok(file.commit()?)
}

/// Reads the file of a model: it trained, and the losses of its shapes.
///
/// # Errors
/// If the file can't be read, is no such file, or is of another model.
pub fn read(model: &Model, path: &Path) -> Result<(Trained, Vec<f64>)> {
    let wrong = |what: &str| Error::Option(format!("{}: {what}", path.display()));
    let file = SafetensorsFile::open(path)?;
    let text = file.metadata().get(KEY);
    let text =
        text.ok_or_else(|| wrong("holds no shapes; make such a file with ounce prune MODEL --train amoeba"))?;
    let facts: Facts = serde_json::from_str(text)
        .map_err(|error| wrong(&format!("its shapes can't be read ({error}); make it anew")))?;
    let layers = model.spec.layers.len();
    let widths = facts.settings.widths.len();
    let fits = facts.kept.len() == widths
        && facts.kept.iter().all(|kept| kept.len() == layers)
        && !facts.sets.is_empty()
        && facts.sets.iter().all(|set| set.removed.iter().all(|layer| *layer < layers))
        && facts.losses.len() == facts.sets.len() * widths;
    let other = || wrong("is of a model of another shape; name the model that it was trained on");
    if !fits {
        return Err(other());
    }
    let values = |name: &str, count: usize| -> Result<Vec<f32>> {
        let tensor = file.tensor(name).map_err(|_| other())?;
        let values = tensor.to_f32().map_err(|error| wrong(&format!("{name}: {error}")))?;
        if values.len() == count { Ok(values) } else { Err(other()) }
    };
    let spec = &model.spec;
    let size = |name: &str| match spec.tensors().into_iter().find(|tensor| tensor.name == name) {
        Some(tensor) => tensor.shape.iter().product(),
        // A bias that the model itself has none of.
        None => spec.hidden_size,
    };
    let answers = (0..widths)
        .map(|width| {
            let prefix = format!("{width}.");
            let own = file.names().into_iter().filter_map(|name| Some((name, name.strip_prefix(&prefix)?)));
            own.map(|(name, answer)| Ok((answer.to_owned(), values(name, size(answer))?)))
                .collect::<Result<HashMap<_, _>>>()
        })
        .collect::<Result<_>>()?;
    let elastic = Elastic::of_parts(model, facts.settings, facts.sets, facts.kept, answers)?;
    let fresh = Trained::begin(elastic, facts.adapters, 0)?;
    let adapters = (fresh.smol.adapters.iter())
        .map(|it| {
            let a = values(&format!("{}.a", it.name), it.a.len())?;
            let b = values(&format!("{}.b", it.name), it.b.len())?;
            Ok(Adapters { a, b, ..it.clone() })
        })
        .collect::<Result<Vec<_>>>()?;
    let [g0, g1, g2] = &fresh.smol.gate;
    let gate = [values("gate.0", g0.len())?, values("gate.1", g1.len())?, values("gate.2", g2.len())?];
    let smol = Smol { options: facts.adapters, adapters, gate };
    // Whatever the file says, a shape must be one that can be cut.
    for shape in fresh.elastic.shapes() {
        fresh.elastic.parameters(shape)?;
    }
    Ok((Trained { smol, ..fresh }, facts.losses))
}

/// The shape of the lowest loss among those of at most so many parameters.
///
/// # Errors
/// If there is none.
pub fn within(trained: &Trained, losses: &[f64], most: u64) -> Result<Shape> {
    let mut best: Option<(f64, Shape)> = None;
    let mut least = u64::MAX;
    for (shape, loss) in trained.elastic.shapes().into_iter().zip(losses) {
        let parameters = trained.elastic.parameters(shape)?;
        least = least.min(parameters);
        if parameters <= most && best.is_none_or(|(lowest, _)| *loss < lowest) {
            best = Some((*loss, shape));
        }
    }
    best.map(|(_, shape)| shape).ok_or_else(|| {
        Error::Option(format!(
            "{most} parameters are fewer than the smallest shape has, {least}; ask for more, or train with a higher --ratio"
        ))
    })
}

/// The settings whose smallest width loses a share of the layers' weights where four tenths or less leave, in four even steps, and one layer may leave besides;
/// where more leave, the usual widths and as many layers as that needs.
///
/// # Errors
/// If no number of layers does.
pub fn settings(model: &Model, share: f64, multiple: usize, way: Way) -> Result<Settings> {
    let usual = Settings { multiple, way, ..Settings::default() };
    let layers = model.spec.layers.len();
    let most = layers.saturating_sub(usual.protected);
    if share <= 0.4 && most > 0 {
        let widths = (0..4).map(|step| 1.0 - share * f64::from(step) / 3.0).collect();
        return Ok(Settings { widths, most_removed: 1, ..usual });
    }
    let narrowest = usual.widths.last().copied().unwrap_or(1.0);
    let enough = (0..=most).find(|removed| {
        let left = (layers - removed) as f64 / layers as f64 * narrowest;
        *removed < layers && 1.0 - left >= share
    });
    match enough {
        Some(most_removed) => Ok(Settings { most_removed, ..usual }),
        None => Err(Error::Option(format!(
            "a share of {share} can't leave a model of {layers} layers, of which one stays at {narrowest} of its width; ask for less"
        ))),
    }
}
