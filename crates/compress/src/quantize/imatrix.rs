//! Importance by matrix, from and to the files that llama.cpp's tools exchange.

use std::collections::{BTreeMap, HashMap};

use ounce_model::Model;
use ounce_model::formats::gguf_model;
use ounce_model::formats::imatrix::{Entry, Imatrix};

use crate::{Error, Result};

/// Mean squares of the inputs by ounce's matrix names, of those matrices that the file names. Matrices that lie in one
/// tensor of a GGUF file (experts, fused projections) get what the file says of it.
///
/// # Errors
/// If none of the model's matrices is named, or one has another width.
pub fn importance(file: &Imatrix, model: &Model) -> Result<HashMap<String, Vec<f32>>> {
    let mut all = HashMap::new();
    for (name, parts) in gguf_model::matrices(model)? {
        let Some(found) = file.importance(&name) else { continue };
        for (index, part) in parts.iter().enumerate() {
            let columns = model.weights.info(part).and_then(|(_, shape)| shape.last().copied()).unwrap_or(0);
            let own = match found.len() {
                len if len == columns => &found[..],
                len if len == parts.len() * columns => &found[index * columns..][..columns],
                len => {
                    let what = format!(
                        "rows have {columns} values; the importance matrix has {len} for it and is another model's"
                    );
                    return Err(Error::matrix(&name, what));
                }
            };
            all.insert(part.clone(), own.to_vec());
        }
    }
    if all.is_empty() {
        let named = file.entries.keys().next().map_or("nothing", String::as_str);
        return Err(Error::Option(format!(
            "the importance matrix names none of this model's matrices (it names {named} …)"
        )));
    }
    Ok(all)
}

/// The file for importance that [`super::sensitivity::importance()`] found on these sequences.
///
/// # Errors
/// If GGUF has no place for the model, or the numbers are not finite.
pub fn to_file(
    importance: &HashMap<String, Vec<f32>>,
    model: &Model,
    dataset: &str,
    calibration: &[Vec<u32>],
) -> Result<Imatrix> {
    let (sequences, length) = (calibration.len(), calibration.first().map_or(0, Vec::len));
    let mut entries = BTreeMap::new();
    let tokens = (sequences * length).max(1) as f32;
    for (name, parts) in gguf_model::matrices(model)? {
        let found: Option<Vec<&Vec<f32>>> = parts.iter().map(|part| importance.get(part)).collect();
        let Some(found) = found.filter(|found| !found.is_empty()) else { continue };
        // Fused projections share their input; experts do not.
        let several = parts.iter().any(|part| part.contains(".experts."));
        let shown = if several { &found[..] } else { &found[..1] };
        let sums = shown.iter().flat_map(|row| row.iter().map(|x| x * tokens)).collect();
        let entry = Entry::new(sums, vec![tokens; shown.len()]).map_err(|what| Error::matrix(&name, what))?;
        entries.insert(name, entry);
    }
    let chunk = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Imatrix {
        datasets: vec![dataset.to_owned()],
        chunk_count: chunk(sequences),
        chunk_size: chunk(length),
        entries,
    })
}
