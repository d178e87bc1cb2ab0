//! Adapters of any method that merges, as LoRA: the best pair of a rank for what each matrix became.

use std::path::Path;

use serde_json::Value;

use crate::adapter::{Array, adapter};
use crate::folder::{Folder, Own};
use crate::names::Names;
use crate::svd::svd;
use crate::{Adapted, Error, Kind, Result, Settings, Targets};

/// The adapter as LoRA of a rank, not yet written, and the part of what was learned that does not fit into it, by squares.
///
/// # Errors
/// If the method can't be merged, or the rank is above the smaller side of a matrix.
pub fn as_lora(adapted: &Adapted, rank: usize, path: &Path) -> Result<(Folder, f64)> {
    let whole = adapted.merged()?;
    let base = adapted.skeleton();
    let slots: Vec<(String, usize, usize)> = adapted.settings().targets.of(&base.spec);
    let names = Names::of(base)?;
    // α is the rank, so that nothing is scaled.
    let settings = Settings {
        rank,
        alpha: rank as f64,
        targets: Targets::Slots(slots.iter().map(|it| it.0.clone()).collect()),
        trains: adapted.settings().trains.clone(),
        ..Settings::of(Kind::Lora)
    };
    let made = adapter(&settings, &Default::default())?;
    let (mut tensors, mut lost, mut all) = (Vec::new(), 0.0, 0.0);
    for (slot, output, input) in slots {
        settings.check_rank(rank, &slot, output, input)?;
        let name = format!("{slot}.weight");
        let (before, after) = (base.weights.f32(&name)?, whole.weights.f32(&name)?);
        let moved: Vec<f32> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let parts = svd(&name, &moved, output, input)?;
        let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
        (lost, all) = (lost + square(&parts.values[rank..]), all + square(&parts.values));
        let (mut a, mut b) = (vec![0.0; rank * input], vec![0.0; output * rank]);
        for i in 0..rank {
            let root = parts.values[i].sqrt();
            for (out, v) in a[i * input..(i + 1) * input].iter_mut().zip(&parts.right[i * input..]) {
                *out = (root * v) as f32;
            }
            for (row, u) in parts.left[i * output..(i + 1) * output].iter().enumerate() {
                b[row * rank + i] = (root * u) as f32;
            }
        }
        let key = |part: &str| names.key(&format!("{slot}.{part}"), made.parts());
        tensors.push(Array { name: key("lora_a"), shape: vec![rank, input], values: a });
        tensors.push(Array { name: key("lora_b"), shape: vec![output, rank], values: b });
    }
    let now = adapted.folder(path)?;
    let heads =
        now.tensors.iter().filter(|array| {
            adapted.settings().trains.iter().any(|stem| {
                names.weight(&array.name, &[]).is_some_and(|ours| ours.starts_with(stem.as_str()))
            })
        });
    tensors.extend(heads.cloned());
    let mut config = made.config(&base.spec);
    for key in [
        "task_type",
        "base_model_name_or_path",
        "inference_mode",
        "revision",
        "target_modules",
        "modules_to_save",
    ] {
        config.insert(key.into(), now.config.get(key).cloned().unwrap_or(Value::Null));
    }
    config.insert("peft_type".into(), "LORA".into());
    let own = now.own.ok_or_else(|| Error::Option("the adapter's base is unknown".into()))?;
    let own = Own { settings, ..own };
    let share = if all > 0.0 { lost / all } else { 0.0 };
    Ok((Folder { path: path.to_path_buf(), config, own: Some(own), tensors }, share))
}
