//! Folders that Python's peft wrote: its settings as ounce's, its weights as ounce's methods have them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::adapter::Array;
use crate::folder::Folder;
use crate::names::Names;
use crate::settings::Targets;
use crate::{Error, Kind, Result, Settings};

/// Settings of a folder that has none of ounce's.
///
/// # Errors
/// If the method or one of its options is none that ounce knows.
pub fn settings(folder: &Folder, names: &Names) -> Result<Settings> {
    let config = &folder.config;
    let wrong = |what: String| Error::folder(&folder.path, what);
    let number = |key: &str| config.get(key).and_then(Value::as_f64);
    let size = |key: &str| number(key).map(|it| it as usize);
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let need =
        |key: &str| size(key).ok_or_else(|| wrong(format!("adapter_config.json says nothing of {key}")));
    let kind = match folder.peft_type() {
        "LORA" if flag("use_dora") => Kind::Dora,
        "LORA" => Kind::Lora,
        "ADALORA" => Kind::Adalora,
        "VERA" => Kind::Vera,
        "IA3" => Kind::Ia3,
        "PROMPT_TUNING" => Kind::Prompt,
        "P_TUNING" => Kind::PTuning,
        "PREFIX_TUNING" => Kind::Prefix,
        other => {
            let known = "LORA, ADALORA, VERA, IA3, PROMPT_TUNING, P_TUNING and PREFIX_TUNING";
            return Err(wrong(format!("is an adapter of type {other:?}; ounce reads {known} of peft")));
        }
    };
    let mut settings = Settings::of(kind);
    match kind {
        Kind::Lora | Kind::Dora => {
            (settings.rank, settings.rslora) = (need("r")?, flag("use_rslora"));
            settings.alpha = number("lora_alpha").unwrap_or(8.0);
        }
        Kind::Adalora => {
            (settings.rank, settings.initial_rank) = (need("target_r")?, need("init_r")?);
            settings.alpha = number("lora_alpha").unwrap_or(8.0);
        }
        Kind::Vera => settings.rank = need("r")?,
        Kind::Prompt | Kind::PTuning | Kind::Prefix => {
            settings.tokens = need("num_virtual_tokens")?;
            return Ok(settings);
        }
        _ => {}
    }
    let mut slots = BTreeSet::new();
    for array in &folder.tensors {
        let ends = [".lora_", ".ia3_", ".vera_"];
        let Some(at) = ends.iter().find_map(|end| array.name.rfind(end)) else { continue };
        let Some(module) = array.name[..at].strip_prefix("base_model.model.") else { continue };
        let parts = names.parts_of(module).filter(|_| matches!(kind, Kind::Lora | Kind::Dora));
        match (names.slot(module), parts) {
            (Some(slot), _) => slots.insert(slot.to_owned()),
            (None, Some(parts)) => {
                slots.extend(parts.iter().cloned());
                true
            }
            (None, None) => {
                return Err(wrong(format!(
                    "adapts {module}, which is no linear layer of this model; it was made for another model"
                )));
            }
        };
    }
    settings.targets = Targets::Slots(slots.into_iter().collect());
    if kind == Kind::Ia3 {
        check_ia3(folder, &settings, names)?;
    }
    if matches!(kind, Kind::Lora | Kind::Dora) {
        let widest =
            folder.tensors.iter().filter(|it| it.name.ends_with("lora_A.weight")).map(|it| it.shape[0]);
        settings.rank = widest.max().unwrap_or(settings.rank);
    }
    Ok(settings)
}

/// ounce scales what enters `down` and what leaves other layers; peft does as `feedforward_modules` says.
fn check_ia3(folder: &Folder, settings: &Settings, names: &Names) -> Result<()> {
    let Targets::Slots(slots) = &settings.targets else { return Ok(()) };
    for slot in slots {
        let Some(module) = names.module(slot) else { continue };
        let key = format!("base_model.model.{module}.ia3_l");
        let Some(array) = folder.tensors.iter().find(|it| it.name == key) else { continue };
        let input = array.shape.first() == Some(&1);
        if input != crate::methods::ia3::scales_input(slot) {
            return Err(Error::folder(
                &folder.path,
                format!(
                    "scales {} {module}, which ounce does the other way round",
                    if input { "what enters" } else { "what leaves" }
                ),
            ));
        }
    }
    Ok(())
}

/// LoRA's pairs at one rank and scale, where peft gave layers ranks and scales of their own: what is missing is zero, and `B` takes up
/// the difference of scales.
///
/// # Errors
/// If a pattern is no list of numbers.
pub fn even_out(folder: &Folder, settings: &Settings) -> Result<Vec<Array>> {
    let mut tensors = folder.tensors.clone();
    let whole = settings.scale(settings.rank);
    for at in 0..tensors.len() {
        let Some(module) = tensors[at].name.strip_suffix(".lora_A.weight").map(str::to_owned) else {
            continue;
        };
        let own = tensors[at].shape[0];
        let alpha = alpha_of(folder, &module, settings.alpha)?;
        let scale = Settings { alpha, ..settings.clone() }.scale(own);
        if own == settings.rank && scale == whole {
            continue;
        }
        let width = tensors[at].shape[1];
        tensors[at].values.resize(settings.rank * width, 0.0);
        tensors[at].shape[0] = settings.rank;
        let of_b = format!("{module}.lora_B.weight");
        if let Some(b) = tensors.iter_mut().find(|it| it.name == of_b) {
            let factor = (scale / whole) as f32;
            let widened = |row: &[f32]| {
                let mut row: Vec<f32> = row.iter().map(|x| x * factor).collect();
                row.resize(settings.rank, 0.0);
                row
            };
            b.values = b.values.chunks(own.max(1)).flat_map(widened).collect();
            b.shape[1] = settings.rank;
        }
    }
    Ok(tensors)
}

fn alpha_of(folder: &Folder, module: &str, usual: f64) -> Result<f64> {
    let Some(Value::Object(patterns)) = folder.config.get("alpha_pattern") else { return Ok(usual) };
    for (pattern, alpha) in patterns {
        if module.ends_with(pattern.trim_start_matches('^')) {
            return alpha.as_f64().ok_or_else(|| {
                Error::folder(&folder.path, format!("alpha_pattern gives {pattern:?} no number"))
            });
        }
        if pattern.contains(['*', '(', '[', '\\']) {
            return Err(Error::folder(
                &folder.path,
                format!(
                    "alpha_pattern has the regular expression {pattern:?}, which ounce does not read; name modules"
                ),
            ));
        }
    }
    Ok(usual)
}
