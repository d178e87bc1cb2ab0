//! One function for all figures of a model: bytes, speed, energy, and how far it is from the original.

use ounce_compress::Result;
use ounce_engine::{Engine, Mode};
use ounce_eval::method::Row;
use ounce_eval::speed::{Work, run_once, scattered_ids};
use ounce_kernels::attention::KvType;
use ounce_kernels::softmax::log_sum_exp;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model, hf};

use super::super::inference::needs_folder;
use crate::footprint::meter::{Meter, Power};

/// What an original says, to compare with.
pub(super) struct Original {
    /// Logits of each text, `[tokens, vocabulary]`.
    logits: Vec<Vec<f32>>,
}

/// How far a model is from the original, and how good it is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quality {
    /// Of the text.
    pub perplexity: f64,
    /// Share of tokens for which both hold the same for the likeliest.
    pub loyalty: f64,
    /// One less the mean Jensen-Shannon divergence, in bits.
    pub fidelity: f64,
}

impl Original {
    /// Runs it over texts.
    pub fn of(model: &Model, texts: &[Vec<u32>]) -> Result<Original> {
        let engine = Engine::load(model, Mode::fast())?;
        let logits = texts.iter().map(|ids| engine.session().logits(&ids[..ids.len() - 1]));
        Ok(Original { logits: logits.collect::<ounce_engine::Result<_>>()? })
    }

    /// Compares a model on the same texts.
    pub fn compare(&self, engine: &Engine, texts: &[Vec<u32>]) -> Result<Quality> {
        let vocabulary = engine.spec().vocab_size;
        let (mut loss, mut same, mut divergence, mut count) = (0.0, 0usize, 0.0, 0usize);
        for (ids, original) in texts.iter().zip(&self.logits) {
            let own = engine.session().logits(&ids[..ids.len() - 1])?;
            let rows = own.chunks_exact(vocabulary).zip(original.chunks_exact(vocabulary));
            for ((own, original), &target) in rows.zip(&ids[1..]) {
                let own_all = log_sum_exp(own);
                loss += own_all - f64::from(own[target as usize]);
                same += usize::from(likeliest(own) == likeliest(original));
                divergence += jensen_shannon(own, own_all, original, log_sum_exp(original));
                count += 1;
            }
        }
        let count = count.max(1) as f64;
        Ok(Quality {
            perplexity: (loss / count).exp(),
            loyalty: same as f64 / count,
            fidelity: 1.0 - divergence / count,
        })
    }
}

fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, at| if logits[at] > logits[best] { at } else { best })
}

/// In bits, from 0 for equal to 1 for disjoint distributions.
fn jensen_shannon(a: &[f32], a_all: f64, b: &[f32], b_all: f64) -> f64 {
    let part = |p: f64, m: f64| if p > 0.0 { p * (p / m).log2() } else { 0.0 };
    let term = |(&a, &b): (&f32, &f32)| {
        let (p, q) = ((f64::from(a) - a_all).exp(), (f64::from(b) - b_all).exp());
        let middle = 0.5 * (p + q);
        0.5 * (part(p, middle) + part(q, middle))
    };
    a.iter().zip(b).map(term).sum()
}

/// Bytes of the model's file, or folder of weights, once it is written.
pub(super) fn file_bytes(model: &Model) -> Result<u64> {
    let folder = tempfile::tempdir().map_err(ounce_model::Error::io(std::env::temp_dir()))?;
    let options = WriteOptions::default();
    Ok(match needs_folder(model) {
        true => hf::write_model(model, &folder.path().join("variant"), &options, &mut |_, _| Ok(()))?,
        false => gguf_model::write_model(model, &folder.path().join("v.gguf"), &options, &mut |_, _| Ok(()))?,
    })
}

/// A model that is ready to be timed beside others.
pub(super) struct Candidate {
    label: String,
    engine: Engine,
    quality: Quality,
    file: u64,
    /// Seconds that making it took.
    made: f64,
    /// Tokens a second of a prompt and of an answer, the best so far, and joules of all of them: a single one is shorter than
    /// some ticks of the clock that processors' times are counted by.
    speeds: [f64; 2],
    joules: f64,
}

impl Candidate {
    /// Loads a model and compares it.
    pub fn new(
        label: &str,
        model: &Model,
        kv: KvType,
        original: &Original,
        texts: &[Vec<u32>],
        made: f64,
    ) -> Result<Candidate> {
        let mut engine = Engine::load(model, Mode::fast())?;
        engine.set_kv_type(kv);
        let (label, quality) = (label.to_string(), original.compare(&engine, texts)?);
        let (file, speeds, joules) = (file_bytes(model)?, [0.0; 2], 0.0);
        Ok(Candidate { label, engine, quality, file, made, speeds, joules })
    }

    /// All figures, as a row.
    fn row(&self, tokens: usize, rounds: usize) -> Result<Row> {
        let mut session = self.engine.session();
        session.feed(&scattered_ids(self.engine.spec().vocab_size, 0..tokens), |_| {})?;
        Ok(Row::new(&self.label)
            .with("file", self.file as f64, "bytes")
            .with("weights in memory", self.engine.packed_bytes() as f64, "bytes")
            .with("cache", session.cache_bytes() as f64, "bytes")
            .with("prompt", self.speeds[0], "tokens/s")
            .with("answer", self.speeds[1], "tokens/s")
            .with("energy", 1000.0 * self.joules / (2 * tokens * rounds) as f64, "J per 1000 tokens")
            .with("perplexity", self.quality.perplexity, "")
            .with("loyalty", self.quality.loyalty, "")
            .with("fidelity", self.quality.fidelity, "")
            .with("made in", self.made, "s"))
    }
}

/// Times all candidates in turn, so that what else the machine does meets all alike, and gives their rows.
pub(super) fn timed(mut candidates: Vec<Candidate>, tokens: usize, rounds: usize) -> Result<Vec<Row>> {
    for _ in 0..rounds {
        for it in &mut candidates {
            let meter = Meter::start(Power::default());
            for (speed, work) in it.speeds.iter_mut().zip([Work::Prompt(tokens), Work::Generation(tokens)]) {
                *speed = speed.max(run_once(&it.engine, work, 0, false)?.tokens_per_second);
            }
            it.joules += meter.stop().joules;
        }
    }
    candidates.iter().map(|it| it.row(tokens, rounds)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divergence_goes_from_equal_to_disjoint() {
        let all = |logits: &[f32]| log_sum_exp(logits);
        let (a, b) = ([1.0f32, 2.0, -1.0], [40.0f32, -40.0, -40.0]);
        assert!(jensen_shannon(&a, all(&a), &a, all(&a)).abs() < 1e-12);
        let c = [-40.0f32, 40.0, -40.0];
        assert!((jensen_shannon(&b, all(&b), &c, all(&c)) - 1.0).abs() < 1e-9);
        let half = jensen_shannon(&[0.0, 0.0, -80.0], all(&[0.0, 0.0, -80.0]), &b, all(&b));
        // p = (1/2, 1/2), q = (1, 0): 3/4 log2(4/3) ... by the definition.
        let expected =
            0.5 * (0.5 * (0.5f64 / 0.75).log2() + 0.5 * (0.5f64 / 0.25).log2() + (1.0f64 / 0.75).log2());
        assert!((half - expected).abs() < 1e-6, "{half} {expected}");
    }
}
