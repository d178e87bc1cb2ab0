//! Adapters that the engine runs beside the frozen weights, another one for each sequence: those that are products of two thin matrices.

use ounce_engine::LowRank;
use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::net::Options;

use crate::folder::Folder;
use crate::{Adapted, Error, Kind, Result};

/// What the adapter of a folder adds to each linear layer of a model, for [`Engine::adapter`](ounce_engine::Engine::adapter).
///
/// # Errors
/// If the adapter is of another model, of a method that is no product of two matrices, or trained weights of the model besides.
pub fn low_rank(model: &Model, folder: &Folder, any_base: bool) -> Result<Vec<LowRank>> {
    let adapted = Adapted::open(model, folder, Options::default(), &[], any_base)?;
    let settings = adapted.settings();
    if !matches!(settings.method, Kind::Lora | Kind::Dylora) {
        return Err(Error::folder(
            &folder.path,
            format!(
                "is a {} adapter, and only products of two thin matrices run beside the weights; ounce adapters export writes it as one \
                 where it can be, ounce merge puts it into the weights",
                settings.method
            ),
        ));
    }
    if !settings.trains.is_empty() {
        let what = format!("trained {} of the model too; merge it (ounce merge)", settings.trains.join(", "));
        return Err(Error::folder(&folder.path, what));
    }
    let params = adapted.params();
    let find = |slot: &str, part: &str| {
        let name = format!("{slot}.{part}");
        params.iter().find(|param| param.name == name)
    };
    let slots = params.iter().filter_map(|param| param.name.strip_suffix(".lora_a"));
    let pairs = slots.filter_map(|slot| Some((slot, find(slot, "lora_a")?, find(slot, "lora_b")?)));
    let changes = pairs.map(|(slot, a, b)| {
        let rank = a.shape[0];
        LowRank {
            name: slot.to_owned(),
            rank,
            reduce: a.value.clone(),
            expand: b.value.clone(),
            scale: settings.scale(rank) as f32,
        }
    });
    Ok(changes.collect())
}
