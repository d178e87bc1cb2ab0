//! Method 048: techniques without tuning, their bytes as forecast, and whether a model stays good at what it was not calibrated on.

use std::time::Instant;

use ounce_compress::{Error, Result};
use ounce_engine::{Engine, Mode};
use ounce_eval::method::{Evidence, Fixture, Lab, Row, Text};
use ounce_kernels::{DType, quant};
use ounce_model::{Model, Tensor};
use ounce_train::Batch;
use ounce_train::methods::workbench::cosine;
use ounce_train::net::{Net, Options};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::NUMBER_CLASSES;
use super::super::inference::{file_bytes as forecast_file, forecast_bytes};
use super::AS_IT_IS;
use super::measure::{Original, file_bytes};
use super::variants::{Way, make, plan, stories, way};
use crate::training::{Guidance, train};

/// How large everything is.
pub(super) struct Scale {
    /// Bytes of each text to calibrate on.
    pub calibration: usize,
    /// Bytes of each text to measure on.
    pub held_out: usize,
    /// Steps in which the model learns both domains, of so many sequences of 128 tokens.
    pub steps: u64,
    pub sequences: usize,
}

impl Scale {
    pub const FULL: Scale = Scale { calibration: 40_000, held_out: 30_000, steps: 500, sequences: 16 };
}

/// Tokens of a sequence, and the highest learning rate.
const CONTEXT: usize = 128;
const RATE: f64 = 2e-3;
/// The longest text that is looked at or measured on.
const LENGTH: usize = 256;

/// Ids of the registry; all train nothing.
const IDS: [&str; 9] = [
    "8-bit",
    "6-bit",
    "4-bit-rounded",
    "4-bit-gptq",
    "4-bit-awq",
    "3-bit-gptq",
    "rotation",
    "magnitude",
    "sparsegpt",
];
/// The share by which a forecast of bytes may be off, and 8 bits may raise the perplexity.
const BYTES: f64 = 0.03;
const EIGHT: f64 = 0.01;

/// Perplexities of two domains.
struct Domains {
    originals: [Original; 2],
    texts: [Vec<Vec<u32>>; 2],
}

impl Domains {
    fn perplexities(&self, model: &Model) -> Result<[f64; 2]> {
        let engine = Engine::load(model, Mode::fast())?;
        let mut found = [0.0; 2];
        for ((found, original), texts) in found.iter_mut().zip(&self.originals).zip(&self.texts) {
            *found = original.compare(&engine, texts)?.perplexity;
        }
        Ok(found)
    }
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER_CLASSES, lab.seed(), AS_IT_IS);
    let model = lab.model(Fixture::Tiny)?;
    let read = |text: &str| stories(&model, text, LENGTH);
    // The town has no text apart for measuring; its last documents are kept from learning and calibration.
    let size = scale.calibration + scale.held_out;
    let town = read(&lab.text(Text::Town, size))?;
    let (town_known, town_held) = town.split_at(town.len() * scale.calibration / size);
    let tales = read(&lab.text(Text::Train, scale.calibration))?;
    let texts = [read(&lab.text(Text::HeldOut, scale.held_out))?, town_held.to_vec()];
    let model = learned(lab, &model, &[&tales, town_known], scale)?;
    let originals = [Original::of(&model, &texts[0])?, Original::of(&model, &texts[1])?];
    let domains = Domains { originals, texts };
    let plain = domains.perplexities(&model)?;
    let as_it_is = file_bytes(&model)? as f64;
    evidence.rows.push(figures(AS_IT_IS, as_it_is, as_it_is, plain, plain, 0.0));
    let mut off: f64 = 0.0;
    for (at, id) in IDS.into_iter().enumerate() {
        lab.progress(id, 0.6 + 0.3 * at as f64 / IDS.len() as f64);
        let Some(way) = way(id) else { continue };
        let start = Instant::now();
        let made = make(&model, &way, &tales)?;
        let seconds = start.elapsed().as_secs_f64();
        let (forecast, written) = (forecast(&model, &way)? as f64, file_bytes(&made)? as f64);
        off = off.max((forecast / written - 1.0).abs());
        evidence.rows.push(figures(id, written, forecast, domains.perplexities(&made)?, plain, seconds));
    }
    evidence.expect(
        format!("bytes forecast from the architecture are within {:.0} % of each file's", 100.0 * BYTES),
        format!("{:.3} % at most", 100.0 * off),
        off <= BYTES,
    );
    judge(&mut evidence);
    lab.progress("calibrated on both", 0.92);
    generality(&model, &domains, &tales, town_known, plain, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "The model is the built-in one of {} thousand weights, which learned on for {} steps on tales and a made-up town. Perplexity A is of \
             tales, B of the town, both on text that it did not learn from. Calibration is on tales unless a row says otherwise. Forecasts \
             are of GGUF files, of a folder at 3 bits, and know of no values.",
            model.spec.parameters() / 1000,
            scale.steps
        ),
        "Not measured: the four tasks of the survey's basket beside two domains of text, the entries with two minutes of tuning (methods 30 \
         and 75 have evidence of their own), and models of other sizes."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// The model once it has learned both domains, its weights in bf16.
fn learned(lab: &dyn Lab, model: &Model, domains: &[&[Vec<u32>]; 2], scale: &Scale) -> Result<Model> {
    let context = CONTEXT.min(model.spec.context_length);
    let mut net = Net::from_model(model, Options::default())?;
    let mut rng = ChaCha8Rng::seed_from_u64(lab.seed());
    let joined = domains.map(|texts| texts.concat());
    if joined.iter().any(|ids| ids.len() <= context + 1) {
        return Err(Error::Option("the texts to learn from are shorter than a sequence".into()));
    }
    let mut batch = || {
        let sequence = |at: usize| {
            let ids = &joined[at % 2];
            let start = rng.random_range(0..ids.len() - context - 1);
            &ids[start..=start + context]
        };
        Batch::next_token((0..scale.sequences).map(sequence))
    };
    let mut behind = |_: &mut Net, done: f64| lab.progress("learning both domains", 0.6 * done);
    let guidance = Guidance { behind: Some(&mut behind), ..Guidance::default() };
    train(&mut net, cosine(RATE, scale.steps), &mut batch, guidance)?;
    let made = net.model()?;
    let half = |name: &str| -> Result<(String, Tensor)> {
        let tensor = made.weights.get(name)?;
        let values = tensor.to_f32().map_err(|error| Error::matrix(name, error))?;
        let mut data = Vec::new();
        quant::encode_rows(DType::BF16, &values, tensor.row_len(), &mut data)
            .map_err(|error| Error::matrix(name, error))?;
        Ok((name.to_owned(), Tensor { dtype: DType::BF16, data: data.into(), ..tensor }))
    };
    let tensors: Vec<(String, Tensor)> = made.weights.names().map(half).collect::<Result<_>>()?;
    Ok(Model { weights: made.weights.replaced(tensors)?, ..made })
}

/// Bytes of a variant's file, before it is made.
fn forecast(model: &Model, way: &Way) -> Result<u64> {
    match way {
        Way::Zeros(..) => forecast_bytes(model),
        Way::Bits(dtype, _, preparations) => {
            let shaped = preparations.iter().try_fold(model.clone(), |model, step| step.shaped(&model))?;
            forecast_bytes(&plan(&shaped, *dtype)?.placeholder(&shaped)?)
        }
    }
}

fn figures(label: &str, file: f64, forecast: f64, found: [f64; 2], plain: [f64; 2], seconds: f64) -> Row {
    let worst = (0..2).map(|at| found[at] / plain[at] - 1.0).fold(f64::NEG_INFINITY, f64::max);
    Row::new(label)
        .with("file", file, "bytes")
        .with("forecast", forecast, "bytes")
        .with("perplexity A", found[0], "")
        .with("perplexity B", found[1], "")
        .with("worst rise", 100.0 * worst, "%")
        .with("made in", seconds, "s")
}

fn judge(evidence: &mut Evidence) {
    let of = |label: &str| evidence.row(label).and_then(|row| row.get("perplexity A")).unwrap_or(f64::NAN);
    let (plain, eight) = (of(AS_IT_IS), of("8-bit"));
    let (rounded, gptq, awq) = (of("4-bit-rounded"), of("4-bit-gptq"), of("4-bit-awq"));
    evidence.expect(
        format!("8 bits without tuning raise the perplexity by {:.0} % at most", 100.0 * EIGHT),
        format!("{:+.2} %", 100.0 * (eight / plain - 1.0)),
        eight / plain - 1.0 <= EIGHT,
    );
    evidence.expect(
        "at 4 bits GPTQ and AWQ lose less than rounding",
        format!("perplexities {gptq:.4} and {awq:.4} against {rounded:.4}"),
        gptq < rounded && awq < rounded,
    );
}

/// The same bits, calibrated on one domain and on as much text of both.
fn generality(
    model: &Model,
    domains: &Domains,
    tales: &[Vec<u32>],
    town: &[Vec<u32>],
    plain: [f64; 2],
    evidence: &mut Evidence,
) -> Result<()> {
    let Some(way) = way("3-bit-gptq") else { return Ok(()) };
    let half = tales.len() / 2;
    let tokens = |texts: &[Vec<u32>]| texts.iter().map(Vec::len).sum::<usize>();
    let wanted = tokens(&tales[half..]);
    let mut both = tales[..half].to_vec();
    let mut taken = 0;
    for text in town {
        if taken < wanted {
            taken += text.len();
            both.push(text.clone());
        }
    }
    let made = make(model, &way, &both)?;
    let bytes = file_bytes(&made)? as f64;
    let found = domains.perplexities(&made)?;
    evidence.rows.push(figures(
        "3-bit-gptq, calibrated on both",
        bytes,
        forecast(model, &way)? as f64,
        found,
        plain,
        0.0,
    ));
    let alone = evidence.row("3-bit-gptq").and_then(|row| row.get("perplexity B")).unwrap_or(f64::NAN);
    evidence.expect(
        "calibrated on A alone, 3 bits cost more on B than calibrated on as much text of A and B",
        format!("perplexity B {alone:.3} against {:.3}", found[1]),
        alone > found[1],
    );
    // The advisor's own forecast is the same as this one's.
    let units = ounce_compress::quantize::units(model)?;
    let advised = forecast_file(model, &units, Some(DType::Q8_0))?.unwrap_or(0) as f64;
    let written = evidence.row("8-bit").and_then(|row| row.get("file")).unwrap_or(f64::NAN);
    evidence.expect(
        "what the advisor forecasts for 8 bits is the file's size",
        format!("{advised} against {written} bytes"),
        advised == written,
    );
    Ok(())
}
