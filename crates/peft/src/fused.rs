//! Layers that files have in one matrix, as the query, key and value of GPT-2 and Phi-3: a pair of thin matrices for the whole of them is
//! the pairs of its parts, `A` one below the other and `B` along the diagonal.

use std::collections::BTreeMap;

use ounce_model::spec::Spec;

use crate::adapter::Array;
use crate::names::{Names, OWN, STEM};
use crate::{Error, Result};

const OF_A: &str = "lora_A.weight";
const OF_B: &str = "lora_B.weight";
const LENGTHS: &str = "lora_magnitude_vector";

/// Outputs of every linear layer.
fn outputs(spec: &Spec) -> BTreeMap<String, usize> {
    let tensors = spec.tensors().into_iter().filter(|tensor| tensor.shape.len() == 2);
    tensors.filter_map(|it| Some((it.name.strip_suffix(".weight")?.to_owned(), it.shape[0]))).collect()
}

/// A file's arrays with those of whole modules taken apart. `present` are the parts that have pairs of their own in a module that ounce
/// wrote; peft's have one pair for all.
///
/// # Errors
/// If an array does not fit its module.
pub fn split(
    arrays: Vec<Array>,
    names: &Names,
    spec: &Spec,
    present: Option<&dyn Fn(&str) -> bool>,
) -> Result<Vec<Array>> {
    let outputs = outputs(spec);
    let mut apart = Vec::new();
    for array in arrays {
        let found = [OF_A, OF_B, LENGTHS].into_iter().find_map(|part| {
            let module = array.name.strip_prefix(STEM)?.strip_suffix(part)?.strip_suffix('.')?;
            Some((names.parts_of(module)?, part))
        });
        let Some((slots, part)) = found else {
            apart.push(array);
            continue;
        };
        let own: Vec<&String> =
            slots.iter().filter(|slot| present.is_none_or(|present| present(slot))).collect();
        let misfit = || {
            Error::Option(format!(
                "{} has the shape {:?}, which does not fit its parts",
                array.name, array.shape
            ))
        };
        let sizes: Vec<usize> = slots.iter().map(|slot| outputs.get(slot).copied().unwrap_or(0)).collect();
        let whole: usize = sizes.iter().sum();
        let mut row = 0;
        for (slot, &rows) in slots.iter().zip(&sizes) {
            let place = own.iter().position(|it| *it == slot);
            let first = row;
            row += rows;
            let Some(place) = place else { continue };
            let name = format!("{OWN}{slot}.{part}");
            let (shape, values) = match part {
                OF_A => {
                    let (all, width) = (array.shape[0], array.values.len() / array.shape[0].max(1));
                    let (begin, rank) = block(all, place, own.len(), present.is_some()).ok_or_else(misfit)?;
                    (vec![rank, width], array.values[begin * width..(begin + rank) * width].to_vec())
                }
                OF_B => {
                    if array.shape.len() != 2 || array.shape[0] != whole {
                        return Err(misfit());
                    }
                    let all = array.shape[1];
                    let (begin, rank) = block(all, place, own.len(), present.is_some()).ok_or_else(misfit)?;
                    let lines = array.values[first * all..(first + rows) * all].chunks_exact(all.max(1));
                    (vec![rows, rank], lines.flat_map(|line| line[begin..begin + rank].to_vec()).collect())
                }
                _ if array.values.len() == whole => (vec![rows], array.values[first..first + rows].to_vec()),
                _ => return Err(misfit()),
            };
            apart.push(Array { name, shape, values });
        }
    }
    Ok(apart)
}

/// Where the ranks of a part begin among all, and how many they are.
fn block(all: usize, place: usize, parts: usize, stacked: bool) -> Option<(usize, usize)> {
    match stacked {
        false => Some((0, all)),
        true => all.is_multiple_of(parts).then(|| (place * all / parts, all / parts)),
    }
}

/// A file's arrays with the pairs of parts put together, and by how many times the rank of each module is that of a part.
pub fn join(arrays: Vec<Array>, names: &Names, spec: &Spec) -> (Vec<Array>, BTreeMap<String, usize>) {
    let outputs = outputs(spec);
    let mut rest: BTreeMap<String, Array> =
        arrays.into_iter().map(|array| (array.name.clone(), array)).collect();
    let (mut joined, mut times) = (Vec::new(), BTreeMap::new());
    for (module, slots) in names.modules_of_parts() {
        let has = |slot: &String, part: &str| rest.contains_key(&format!("{OWN}{slot}.{part}"));
        let own: Vec<&String> = slots.iter().filter(|slot| has(slot, OF_A) && has(slot, OF_B)).collect();
        let lengths = slots.iter().filter(|slot| has(slot, LENGTHS)).count();
        // The lengths of rows that are not adapted are not known here.
        if own.is_empty() || (lengths > 0 && (lengths < slots.len() || own.len() < slots.len())) {
            continue;
        }
        let mut take = |slot: &str, part: &str| rest.remove(&format!("{OWN}{slot}.{part}"));
        let (mut a, mut pairs) = (Vec::new(), BTreeMap::new());
        let (mut rank, mut width) = (0, 0);
        for slot in &own {
            let (Some(of_a), Some(of_b)) = (take(slot, OF_A), take(slot, OF_B)) else { continue };
            (rank, width) = (of_a.shape[0], of_a.shape[1]);
            a.extend(of_a.values);
            pairs.insert((*slot).clone(), of_b.values);
        }
        let all = rank * own.len();
        let whole: usize = slots.iter().map(|slot| outputs.get(slot).copied().unwrap_or(0)).sum();
        let (mut b, mut row) = (vec![0.0; whole * all], 0);
        for slot in slots {
            let rows = outputs.get(slot).copied().unwrap_or(0);
            if let (Some(values), Some(place)) = (pairs.get(slot), own.iter().position(|it| *it == slot)) {
                for (line, values) in values.chunks_exact(rank.max(1)).enumerate() {
                    let begin = (row + line) * all + place * rank;
                    b[begin..begin + rank].copy_from_slice(values);
                }
            }
            row += rows;
        }
        let name = |part: &str| format!("{STEM}{module}.{part}");
        times.insert(module.clone(), own.len());
        joined.push(Array { name: name(OF_A), shape: vec![all, width], values: a });
        joined.push(Array { name: name(OF_B), shape: vec![whole, all], values: b });
        if lengths > 0 {
            let values: Vec<f32> =
                slots.iter().filter_map(|slot| take(slot, LENGTHS)).flat_map(|array| array.values).collect();
            joined.push(Array { name: name(LENGTHS), shape: vec![whole], values });
        }
    }
    joined.extend(rest.into_values());
    joined.sort_by(|a, b| a.name.cmp(&b.name));
    (joined, times)
}
