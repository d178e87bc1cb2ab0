//! What an adapter is trained on, by what the data has.

use anyhow::bail;
use ounce_model::Model;
use ounce_peft::Settings;
use ounce_train::config::{Config, Objective};
use ounce_train::net::{Net, Options};

use super::super::train::labelled;
use super::super::train::setup::{self, Fed};
use super::retrieve::Judged;
use super::{Args, cloze, retrieve};

/// What [`feed`] gives, or pairs to find passages by, with what is judged by them.
pub(super) fn fed(
    args: &Args,
    config: &Config,
    model: &Model,
    settings: &mut Settings,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Model, Fed, Option<Judged>)> {
    if config.data.objective == Objective::Retrieve {
        let config = with_context(config, model);
        let (fed, judged) = retrieve::fed(&args.retrieve, &config, model, settings, notes)?;
        return Ok((model.clone(), fed, judged));
    }
    let (model, fed) = feed(config, model, settings, notes)?;
    Ok((model, fed, None))
}

/// The usual length of texts where none is said.
fn with_context(config: &Config, model: &Model) -> Config {
    let mut config = config.clone();
    if config.data.context == 0 {
        config.data.context = model.spec.context_length.min(512);
    }
    config
}

/// The model, with a head where the data has labels, and what it is fed with.
///
/// # Errors
/// If the data does not suit the model.
pub(in super::super) fn feed(
    config: &Config,
    model: &Model,
    settings: &mut Settings,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Model, Fed)> {
    if config.data.objective == Objective::Retrieve {
        bail!("pairs to find passages by are for ounce tune --objective retrieve");
    }
    let config = with_context(config, model);
    if let Some(cloze) = &settings.cloze {
        return Ok((model.clone(), cloze::fed(&config, model, cloze, notes)?));
    }
    if let Some(task) = labelled::task(&config, model)? {
        let new = model.spec.classifier.is_none();
        let (made, fed) = labelled::fed(&config, model, task, notes)?;
        if new {
            let heads = ["classifier", "token_classifier", "span_classifier"];
            settings.trains = heads.iter().map(|head| format!("{head}.")).collect();
        }
        return Ok((made, fed));
    }
    let mut net = Net::with_frozen(model, Options::default(), &|_| false)?;
    let fed = setup::texts(&config, &mut net)?;
    Ok((model.clone(), fed))
}
