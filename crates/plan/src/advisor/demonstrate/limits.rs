//! Method 129: two cases, a training step that must fit into memory and an answer that must come sooner.

use std::time::Instant;

use ounce_compress::Result;
use ounce_engine::{Engine, Mode};
use ounce_eval::method::{Evidence, Lab, Row};
use ounce_eval::speed::{Work, run_once, scattered_ids};
use ounce_kernels::DType;
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_train::config;
use ounce_train::net::Net;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Kind, Optimizer};
use ounce_train::{Batch, Trainable};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::NUMBER_LIMITS;
use super::super::training::{self, Settings, choices};

/// Ids of the networks that are trained.
const VOCABULARY: usize = 512;
/// The share by which a forecast of bytes may be off.
const WITHIN: f64 = 0.25;
/// The least agreement of orders.
const TAU: f64 = 0.6;
/// The label of the row that others are compared with.
const BASELINE: &str = "training: plain";

/// A training step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub hidden: usize,
    pub layers: usize,
    pub context: usize,
    pub sequences: usize,
    /// Steps that are done; the first warms up.
    pub repetitions: usize,
}

impl Step {
    fn model(&self) -> Result<Model> {
        Ok(self.shape().bare(VOCABULARY)?)
    }

    fn shape(&self) -> config::Model {
        let (hidden, layers, context) = (self.hidden, self.layers, self.context);
        config::Model { hidden, layers, heads: hidden / 32, context, ..config::Model::default() }
    }
}

/// How large everything is.
pub(super) struct Scale {
    pub step: Step,
    /// The model that answers; its steps don't matter.
    pub answer: Step,
    /// Tokens of an answer.
    pub tokens: usize,
}

impl Scale {
    pub const FULL: Scale = Scale {
        step: Step { hidden: 256, layers: 8, context: 256, sequences: 8, repetitions: 3 },
        // 40 million weights: more than caches hold, so that reading them is what takes time.
        answer: Step { hidden: 640, layers: 8, context: 64, sequences: 1, repetitions: 0 },
        tokens: 48,
    };
}

/// What steps took.
pub(super) struct Taken {
    /// Weights, gradients, the optimizer's memory and buffers, at most.
    pub bytes: u64,
    /// Seconds of the quickest.
    pub seconds: f64,
    /// Loss of the last.
    pub loss: f64,
}

/// Does some steps and counts what they hold.
pub(super) fn steps(step: &Step, settings: &Settings, seed: u64) -> Result<Taken> {
    let mut net = Net::random(&step.model()?, training::options(settings), step.shape().initial(), seed)?;
    let options = optim::Options { kind: settings.optimizer, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(options, net.params())?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut seconds, mut loss) = (f64::INFINITY, 0.0);
    for _ in 0..step.repetitions.max(1) {
        // Each letter follows from the one before, so that there is something to learn.
        let ids: Vec<Vec<u32>> = (0..step.sequences)
            .map(|_| {
                let mut id = rng.random_range(0..VOCABULARY as u32);
                let next = |_| {
                    id = (id * 5 + 7) % VOCABULARY as u32;
                    id
                };
                (0..=step.context).map(next).collect()
            })
            .collect();
        let start = Instant::now();
        net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        let scale = 1.0 / (step.sequences * step.context) as f32;
        let part = step.sequences.div_ceil(settings.accumulation.max(1));
        let mut sum = 0.0;
        for part in ids.chunks(part) {
            sum += net.accumulate(&Batch::next_token(part.iter().map(Vec::as_slice)), scale)?.sum;
        }
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), 1e-3, clip);
        seconds = start.elapsed().as_secs_f64().min(seconds);
        loss = sum * f64::from(scale);
    }
    let held: usize = net.params().iter().map(|param| 4 * (param.value.len() + param.grad.len())).sum();
    let bytes = (held + optimizer.bytes() + net.peak_buffer_bytes()) as u64;
    Ok(Taken { bytes, seconds, loss })
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER_LIMITS, lab.seed(), BASELINE);
    training_case(lab, scale, &mut evidence)?;
    inference_case(lab, scale, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "Case a: steps of a decoder of {} layers of width {}, {} sequences of {}. Bytes are counted: weights, gradients, the \
             optimizer's memory and the buffers of the pass, without what the program itself needs.",
            scale.step.layers, scale.step.hidden, scale.step.sequences, scale.step.context
        ),
        format!(
            "Case b: a decoder of {} layers of width {} with random weights; the forecast of a token's time is the bytes of packed weights \
             that it reads. Of models that fit into the processor's caches it would say little.",
            scale.answer.layers, scale.answer.hidden
        ),
        "Not measured: parallel training, offload and serving of the review, which are not built, and its selection of papers.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn training_case(lab: &dyn Lab, scale: &Scale, evidence: &mut Evidence) -> Result<()> {
    let Step { context, sequences, .. } = scale.step;
    let spec = scale.step.model()?.spec;
    let plain = Settings::PLAIN;
    let tried = [
        plain,
        Settings { checkpointing: true, ..plain },
        Settings { accumulation: 4, ..plain },
        Settings { optimizer: Kind::AdamW8bit, ..plain },
        Settings { checkpointing: true, accumulation: 4, ..plain },
        Settings { checkpointing: true, accumulation: 8, optimizer: Kind::AdamW8bit },
    ];
    let (mut forecasts, mut measured) = (Vec::new(), Vec::new());
    let mut off: f64 = 0.0;
    for (at, settings) in tried.iter().enumerate() {
        lab.progress(&format!("training: {}", settings.name()), 0.6 * at as f64 / tried.len() as f64);
        let forecast = training::bytes(&spec, sequences, context, settings) as f64;
        let taken = steps(&scale.step, settings, lab.seed())?;
        let bytes = taken.bytes as f64;
        off = off.max((forecast / bytes - 1.0).abs());
        let row = Row::new(format!("training: {}", settings.name())).with("peak", bytes, "bytes");
        evidence.rows.push(row.with("forecast", forecast, "bytes").with("a step", taken.seconds, "s"));
        forecasts.push(forecast);
        measured.push(bytes);
    }
    evidence.expect(
        format!("the memory of each step is forecast within {:.0} %", 100.0 * WITHIN),
        format!("{:.1} % at most", 100.0 * off),
        off <= WITHIN,
    );
    let agreement = kendall(&forecasts, &measured);
    evidence.expect(
        format!("the forecast order of memory agrees with the measured: Kendall's tau is {TAU} at least"),
        format!("{agreement:.3}"),
        agreement >= TAU,
    );
    let cap = 0.55 * measured[0];
    let advised = choices(&spec, sequences, context, Some(cap as u64));
    lab.progress("training: as advised", 0.62);
    let taken = steps(&scale.step, &advised[0].settings, lab.seed())?;
    let row = Row::new(format!("training, as advised: {}", advised[0].settings.name()));
    let row =
        row.with("peak", taken.bytes as f64, "bytes").with("forecast", advised[0].bytes as f64, "bytes");
    evidence.rows.push(row.with("a step", taken.seconds, "s"));
    evidence.expect(
        "what is advised for a cap of 55 % of a plain step keeps it, and the plain step does not",
        format!("{} against a cap of {cap:.0} bytes; plain {:.0}", taken.bytes, measured[0]),
        advised[0].fits && taken.bytes as f64 <= cap && measured[0] > cap,
    );
    let impossible = choices(&spec, sequences, context, Some(1 << 20));
    let smallest = impossible.iter().map(|it| it.bytes).min().unwrap_or(0);
    evidence.expect(
        "a cap that nothing keeps is answered with the nearest plan",
        format!("{}, {} bytes", impossible[0].settings.name(), impossible[0].bytes),
        !impossible[0].fits && impossible[0].bytes == smallest,
    );
    Ok(())
}

fn inference_case(lab: &dyn Lab, scale: &Scale, evidence: &mut Evidence) -> Result<()> {
    let model = scale.answer.model()?;
    let weights = scale.answer.shape().initial().weights(&model.spec, lab.seed());
    let model = Model { weights, ..model };
    let ways = [DType::F32, DType::BF16, DType::Q8_0, DType::Q4_0];
    let engines: Vec<Engine> = ways
        .iter()
        .map(|&dtype| Engine::load(&model, Mode::Fast { quantize: Some(dtype) }).map_err(Into::into))
        .collect::<Result<_>>()?;
    let mut speeds = vec![0.0f64; ways.len()];
    let rounds = 5;
    // In turn, so that what else the machine does meets all.
    for round in 0..rounds {
        lab.progress("answers", 0.7 + 0.2 * f64::from(round) / f64::from(rounds));
        for (speed, engine) in speeds.iter_mut().zip(&engines) {
            *speed = speed.max(run_once(engine, Work::Generation(scale.tokens), 0, false)?.tokens_per_second);
        }
    }
    lab.progress("an answer without a cache", 0.9);
    let naive = without_cache(&engines[0], scale.tokens)?;
    evidence.rows.push(Row::new("answer: F32, no cache").with("speed", naive, "tokens/s"));
    let (mut forecasts, mut measured) = (Vec::new(), Vec::new());
    for ((dtype, engine), speed) in ways.iter().zip(&engines).zip(&speeds) {
        let row = Row::new(format!("answer: {}", dtype.name())).with(
            "weights read",
            engine.packed_bytes() as f64,
            "bytes",
        );
        evidence.rows.push(row.with("speed", *speed, "tokens/s"));
        forecasts.push(-(engine.packed_bytes() as f64));
        measured.push(*speed);
    }
    let agreement = kendall(&forecasts, &measured);
    evidence.expect(
        format!("fewer bytes, more tokens a second: Kendall's tau of the orders is {TAU} at least"),
        format!("{agreement:.3}"),
        agreement >= TAU,
    );
    evidence.expect(
        "8 bits and a cache at least double the speed of F32 without a cache",
        format!("{:.0} against {naive:.0} tokens/s", speeds[2]),
        speeds[2] >= 2.0 * naive,
    );
    Ok(())
}

/// Tokens a second where each token runs all before it again.
fn without_cache(engine: &Engine, tokens: usize) -> Result<f64> {
    let ids = scattered_ids(engine.spec().vocab_size, 0..tokens);
    let start = Instant::now();
    for end in 1..=ids.len() {
        engine.session().feed(&ids[..end], |_| {})?;
    }
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}

/// Kendall's tau-b of two orders.
fn kendall(a: &[f64], b: &[f64]) -> f64 {
    let (mut agree, mut ties_a, mut ties_b, mut pairs) = (0.0, 0.0, 0.0, 0.0);
    let sign = |x: f64, y: f64| if x == y { 0.0 } else { (x - y).signum() };
    for at in 0..a.len() {
        for other in 0..at {
            let (x, y) = (sign(a[at], a[other]), sign(b[at], b[other]));
            agree += x * y;
            ties_a += f64::from(u8::from(x == 0.0));
            ties_b += f64::from(u8::from(y == 0.0));
            pairs += 1.0;
        }
    }
    let spread = ((pairs - ties_a) * (pairs - ties_b)).sqrt();
    if spread > 0.0 { agree / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_compared() {
        // scipy.stats.kendalltau of the same lists.
        assert!((kendall(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(kendall(&[1.0, 2.0], &[5.0, 4.0]), -1.0);
        assert!((kendall(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]) - 2.0 / 6f64.sqrt()).abs() < 1e-12);
        assert_eq!(kendall(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }

    #[test]
    fn steps_of_all_settings_are_forecast_and_learn() {
        let step = Step { hidden: 64, layers: 3, context: 64, sequences: 4, repetitions: 2 };
        let spec = step.model().expect("a shape").spec;
        let plain = steps(&step, &Settings::PLAIN, 1).expect("steps");
        for settings in [
            Settings { checkpointing: true, ..Settings::PLAIN },
            Settings { accumulation: 4, ..Settings::PLAIN },
            Settings { optimizer: Kind::AdamW8bit, ..Settings::PLAIN },
        ] {
            let taken = steps(&step, &settings, 1).expect("steps");
            assert!(
                taken.bytes < plain.bytes,
                "{}: {} against {}",
                settings.name(),
                taken.bytes,
                plain.bytes
            );
            let forecast = training::bytes(&spec, 4, 64, &settings) as f64;
            assert!((forecast / taken.bytes as f64 - 1.0).abs() < 0.25, "{}: {forecast}", settings.name());
        }
        // Parts of a batch give the gradient of the whole.
        let parts = steps(&step, &Settings { accumulation: 4, ..Settings::PLAIN }, 1).expect("steps");
        assert!((parts.loss - plain.loss).abs() < 1e-4, "{} against {}", parts.loss, plain.loss);
    }
}
