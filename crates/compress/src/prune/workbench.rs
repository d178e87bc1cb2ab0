//! What demonstrations of pruning share: texts in parts, held-out loss, shapes drawn by hand, speeds side by side.

use ounce_engine::{Engine, Mode};
use ounce_eval::method::{Fixture, Lab, Text};
use ounce_eval::speed::{Work, run_once};
use ounce_model::{Config, Model, families};
use ounce_train::net::{Init, Net, Options as NetOptions};
use serde_json::json;

use super::learning::mean_loss;
use crate::Result;
use crate::quantize::demonstration::stories;

/// Tokens that are generated to compare speeds, and how often.
const SPEED_TOKENS: usize = 96;
const SPEED_RUNS: usize = 7;

/// Training text in equal parts, one a seed, and held-out text.
pub(crate) struct Texts {
    pub parts: Vec<Vec<Vec<u32>>>,
    held_out: Vec<Vec<u32>>,
}

impl Texts {
    /// At least `bytes` of text a part.
    pub fn new(lab: &dyn Lab, model: &Model, parts: usize, bytes: usize, held_out: usize) -> Result<Texts> {
        let all = stories(model, &lab.text(Text::Train, parts * bytes))?;
        let each = all.len() / parts.max(1);
        let parts = (0..parts).map(|part| all[part * each..(part + 1) * each].to_vec()).collect();
        Ok(Texts { parts, held_out: stories(model, &lab.text(Text::HeldOut, held_out))? })
    }

    /// Nats a token on held-out text.
    pub fn loss(&self, model: &Model) -> Result<f64> {
        mean_loss(model, &self.held_out)
    }
}

/// Text as numbers of its letters.
pub(crate) struct Letters {
    /// To learn from, one part a seed; sequences of the context's length.
    pub parts: Vec<Vec<Vec<u32>>>,
    /// To be judged by.
    pub held_out: Vec<Vec<u32>>,
    /// How many letters there are.
    pub count: usize,
}

impl Letters {
    /// At least `bytes` of text a part.
    pub fn new(lab: &dyn Lab, parts: usize, bytes: usize, held_out: usize, context: usize) -> Letters {
        let texts = [lab.text(Text::Train, parts * bytes), lab.text(Text::HeldOut, held_out)];
        let mut known: Vec<char> = texts.iter().flat_map(|text| text.chars()).collect();
        known.sort_unstable();
        known.dedup();
        let [train, held_out] = texts.map(|text| {
            let ids: Vec<u32> =
                text.chars().filter_map(|it| known.binary_search(&it).ok()).map(|at| at as u32).collect();
            ids.chunks(context).map(<[u32]>::to_vec).collect::<Vec<_>>()
        });
        let each = train.len() / parts.max(1);
        let parts = (0..parts).map(|part| train[part * each..(part + 1) * each].to_vec()).collect();
        Letters { parts, held_out, count: known.len() }
    }

    /// A Llama of so many letters with random weights: every layer has four key/value heads, each a quarter of the width wide
    /// in all, and a feed-forward half of 8/3 of the width.
    pub fn model(&self, lab: &dyn Lab, hidden: usize, layers: usize, context: usize) -> Result<Model> {
        let keys = [
            ("vocab_size", self.count),
            ("hidden_size", hidden),
            ("num_hidden_layers", layers),
            ("num_key_value_heads", 4),
            ("head_dim", hidden / 4),
            ("intermediate_size", hidden * 8 / 3),
            ("max_position_embeddings", context),
        ];
        reshaped(&lab.model(Fixture::Tiny)?, &keys, lab.seed())
    }
}

/// A Llama of another shape, with random weights and no tokenizer: these keys of the configuration take the place of the model's.
pub(crate) fn reshaped(model: &Model, keys: &[(&str, usize)], seed: u64) -> Result<Model> {
    let mut config = model.config.clone();
    for (key, value) in keys {
        config.map_mut().insert((*key).into(), json!(value));
    }
    let (_, spec) = families::spec_of(&config)?;
    let model = Model { spec, config, tokenizer: None, ..model.clone() };
    Ok(Net::random(&model, NetOptions::default(), Init::default(), seed)?.model()?)
}

/// The largest difference of two models' logits, as a share of the largest logit.
pub(crate) fn difference(models: [&Model; 2], ids: &[u32]) -> Result<f64> {
    let logits = |model: &Model| -> Result<Vec<f32>> { Ok(Engine::new(model)?.session().logits(ids)?) };
    let [a, b] = [logits(models[0])?, logits(models[1])?];
    let scale = a.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    Ok(f64::from(a.iter().zip(&b).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / scale))
}

/// A Llama as a person would draw it, of the same vocabulary and depth: the widest that has at most so many parameters, its
/// width a multiple of 8, with four heads in two groups and feed-forward halves of two and a half times the width. Random weights.
pub(crate) fn drawn(model: &Model, most: u64, seed: u64) -> Result<Model> {
    let sized = |hidden: usize| -> Result<Model> {
        let mut config: Config = model.config.clone();
        let keys = config.map_mut();
        keys.insert("hidden_size".into(), json!(hidden));
        keys.insert("num_attention_heads".into(), json!(4));
        keys.insert("num_key_value_heads".into(), json!(2));
        keys.insert("head_dim".into(), json!(hidden / 4));
        keys.insert("intermediate_size".into(), json!(hidden * 5 / 2));
        keys.remove("ounce_layers");
        let (_, spec) = families::spec_of(&config)?;
        Ok(Model { spec, config, ..model.clone() })
    };
    let mut fitting = sized(8)?;
    for hidden in (16..=model.spec.hidden_size).step_by(8) {
        let wider = sized(hidden)?;
        if wider.spec.parameters() > most {
            break;
        }
        fitting = wider;
    }
    Ok(Net::random(&fitting, NetOptions::default(), Init::default(), seed)?.model()?)
}

/// Tokens a second of models that generate in turn, the best of several runs each.
pub(crate) fn speeds(models: &[&Model]) -> Result<Vec<f64>> {
    let engines: Vec<Engine> =
        models.iter().map(|model| Engine::load(model, Mode::fast())).collect::<Result<_, _>>()?;
    let mut speeds = vec![0.0f64; engines.len()];
    for _ in 0..SPEED_RUNS {
        for (engine, speed) in engines.iter().zip(&mut speeds) {
            let run = run_once(engine, Work::Generation(SPEED_TOKENS), 0, false)?;
            *speed = speed.max(run.tokens_per_second);
        }
    }
    Ok(speeds)
}

/// Several numbers for people.
pub(crate) fn listed(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ")
}
