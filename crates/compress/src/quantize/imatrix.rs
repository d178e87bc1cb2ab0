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

/// The file for importance that [`super::sensitivity::observed()`] found on these sequences. Experts have sums and counts of the
/// tokens that were sent to them; those that saw none have zeros, which readers take for no preference.
///
/// # Errors
/// If GGUF has no place for the model, or the numbers are not finite.
pub fn to_file(
    observed: &HashMap<String, (Vec<f32>, usize)>,
    model: &Model,
    dataset: &str,
    calibration: &[Vec<u32>],
) -> Result<Imatrix> {
    let (sequences, length) = (calibration.len(), calibration.first().map_or(0, Vec::len));
    let mut entries = BTreeMap::new();
    for (name, parts) in gguf_model::matrices(model)? {
        let Some((first, _)) = parts.iter().find_map(|part| observed.get(part)) else { continue };
        let none = (vec![0.0; first.len()], 0);
        // Fused projections share their input; experts do not.
        let several = parts.iter().any(|part| part.contains(".experts."));
        let shown = if several { &parts[..] } else { &parts[..1] };
        let shown: Vec<_> = shown.iter().map(|part| observed.get(part).unwrap_or(&none)).collect();
        let sums = |(means, tokens): &(Vec<f32>, usize)| -> Vec<f32> {
            means.iter().map(|mean| mean * *tokens as f32).collect()
        };
        let counts = shown.iter().map(|(_, tokens)| *tokens as f32).collect();
        let sums = shown.iter().flat_map(|it| sums(it)).collect();
        let entry = Entry::new(sums, counts).map_err(|what| Error::matrix(&name, what))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::sensitivity;

    #[test]
    fn experts_have_the_counts_of_their_own_tokens_and_are_read_back() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/models/mixtral");
        let model = Model::open(folder).unwrap();
        let moe = model.config.get("num_experts_per_tok").and_then(|it| it.as_u64()).unwrap() as f32;
        let vocab = model.spec.vocab_size as u32;
        // Few tokens, so that some expert sees none.
        let calibration = vec![vec![1, 5 % vocab, 9 % vocab]];
        let observed = sensitivity::observed(&model, calibration.clone(), |_, _| Ok(())).unwrap();
        let file = to_file(&observed, &model, "text", &calibration).unwrap();
        let mut experts = 0;
        for (name, parts) in gguf_model::matrices(&model).unwrap() {
            let Some(entry) = file.entries.get(&name) else { continue };
            if !parts[0].contains(".experts.") {
                assert_eq!(entry.counts, [3.0], "{name}");
                continue;
            }
            experts += 1;
            assert_eq!(entry.counts.len(), parts.len(), "{name}");
            assert_eq!(entry.counts.iter().sum::<f32>(), 3.0 * moe, "{name}: {:?}", entry.counts);
            for (part, count) in parts.iter().zip(&entry.counts) {
                assert_eq!(observed.get(part).map_or(0, |it| it.1) as f32, *count, "{part}");
            }
        }
        assert!(experts >= 3, "{:?}", file.entries.keys());
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("im.gguf");
        file.write(&path).unwrap();
        let read = importance(&Imatrix::open(&path).unwrap(), &model).unwrap();
        for (name, found) in &read {
            let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs();
            match observed.get(name) {
                Some((means, _)) => {
                    assert!(found.iter().zip(means).all(|(a, b)| near(*a, *b)), "{name}");
                }
                None => assert!(found.iter().all(|it| *it == 1.0), "{name} saw nothing"),
            }
        }
        assert!(read.keys().any(|name| name.contains(".experts.")));
    }
}
