//! Training with the preset: corrupted batches with and without the guard, fewer key/value heads, a smaller gradient at the
//! embedding.

use ounce_engine::{Engine, Mode};
use ounce_eval::method::{Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Scale;
use super::corpus::{VOCABULARY, texts};
use crate::checkpoint::Keep;
use crate::data::{BatchSource, Documents, LanguageStream, Layout, Position, StreamSettings};
use crate::methods::workbench::{cosine, fit, fit_watched, loss};
use crate::net::{Net, Options};
use crate::optim::{self, Optimizer};
use crate::trainer::guard::{self, Verdict};
use crate::trainer::{self, Guarded, Observer, Start, Trainer};
use crate::{Batch, Error, ParamKind, Result, Trainable};

/// The row that others are compared with.
pub(super) const CLEAN: &str = "cpu-lm, clean data";
const RATE: f64 = 4e-3;
const LOSS: &str = "held-out loss";

/// The settings of one training.
struct Run<'s> {
    scale: &'s Scale,
    train: &'s Documents,
    held_out: &'s Documents,
    seed: u64,
}

/// Trains in every way; gives a clean network.
pub(super) fn measure(lab: &dyn Lab, scale: &Scale, evidence: &mut Evidence) -> Result<Net> {
    let seed = lab.seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (train, held_out) = (texts(scale.texts[0], &mut random)?, texts(scale.texts[1], &mut random)?);
    let (mut clean, mut whole) = (Vec::new(), Vec::new());
    let (mut guarded, mut unguarded) = (Vec::new(), Vec::new());
    let mut kept = None;
    for repeat in 0..scale.repeats {
        let run = Run { scale, train: &train, held_out: &held_out, seed: seed * 100 + repeat };
        let done = |part: f64| 0.75 * (repeat as f64 + part) / scale.repeats as f64;
        lab.progress("a quarter of the key/value heads", done(0.0));
        let mut net = run.net(0, Some(0.1))?;
        fit(&mut net, &mut run.stream()?, cosine(RATE, scale.steps))?;
        clean.push(run.held_out(&mut net)?);
        kept = Some(net);
        lab.progress("as many key/value heads as heads", done(0.25));
        let mut net = run.net(scale.heads, Some(0.1))?;
        fit(&mut net, &mut run.stream()?, cosine(RATE, scale.steps))?;
        whole.push((run.held_out(&mut net)?, cache_bytes(&net, scale.context)?));
        lab.progress("corrupted batches, guarded", done(0.5));
        guarded.push(run.corrupted(true)?);
        lab.progress("corrupted batches, unguarded", done(0.75));
        unguarded.push(run.corrupted(false)?);
    }
    let net = kept.ok_or_else(|| Error::Settings("one training at least".to_string()))?;
    report_heads(&clean, &whole, cache_bytes(&net, scale.context)?, evidence);
    report_guard(&guarded, &unguarded, evidence);
    let run = Run { scale, train: &train, held_out: &held_out, seed: seed * 100 };
    report_embedding(&run, clean[0], evidence)?;
    Ok(net)
}

impl Run<'_> {
    fn net(&self, kv_heads: usize, embedding_gradient: Option<f32>) -> Result<Net> {
        let shape = self.scale.shape(kv_heads);
        let options = Options { embedding_gradient, ..Options::default() };
        Net::random(&shape.bare(VOCABULARY)?, options, shape.initial(), self.seed)
    }

    fn stream(&self) -> Result<LanguageStream> {
        stream(self.train, self.scale, self.seed, None)
    }

    fn held_out(&self, net: &mut Net) -> Result<f64> {
        Ok(loss(net, &mut stream(self.held_out, self.scale, 1, Some(1))?)?.mean())
    }

    /// Trains on data of which one batch in a hundred is noise, until as many sound batches were learned from.
    fn corrupted(&self, guarded: bool) -> Result<Ended> {
        let mut source = Corrupted { inner: self.stream()?, seed: self.seed, width: VOCABULARY as u32 };
        let mut net = self.net(0, Some(0.1))?;
        // A run that leaves nothing out learns from the noise on top of the sound batches.
        let mut total = self.scale.steps;
        if !guarded {
            while total - source.noise_before(total) < self.scale.steps {
                total += 1;
            }
        }
        let options = trainer::Options {
            schedule: cosine(RATE, total),
            accumulation: 1,
            clip: Some(1.0),
            guard: guarded.then(guard::Options::default),
            validate_every: 0,
            validation_batches: 0,
            sample_every: 0,
            log_every: 100,
            checkpoint_every: 100,
            permanent_every: 0,
            keep: Keep { last: 1, best: false },
            identity: "geb".to_string(),
        };
        let folder = tempfile::tempdir().map_err(Error::io("a temporary folder"))?;
        let optimizer = Optimizer::new(optim::Options::default(), net.params())?;
        let mut seen = Seen::default();
        let mut trainer =
            Trainer::new(&mut net, &mut source, None, optimizer, options, folder.path(), Start::Fresh)?;
        trainer.run(&mut seen)?;
        drop(trainer);
        let met = source.noise_before(source.inner.position().step);
        Ok(Ended {
            loss: self.held_out(&mut net)?,
            noise: met as f64,
            left_out: f64::from(seen.left_out),
            highest: seen.highest,
        })
    }
}

/// How a training on corrupted data ended.
struct Ended {
    loss: f64,
    /// Batches of noise met.
    noise: f64,
    /// Batches left out.
    left_out: f64,
    /// The highest loss of a batch learned from after the first hundred.
    highest: f64,
}

#[derive(Default)]
struct Seen {
    left_out: u32,
    highest: f64,
}

impl Observer for Seen {
    fn step(&mut self, step: &trainer::Step) -> Result<()> {
        if step.step > 100 {
            self.highest = self.highest.max(step.loss);
        }
        Ok(())
    }

    fn guarded(&mut self, what: &Guarded) {
        self.left_out += u32::from(what.verdict != Verdict::Capped);
    }
}

/// A source of which one batch in a hundred is noise.
struct Corrupted {
    inner: LanguageStream,
    seed: u64,
    width: u32,
}

impl Corrupted {
    fn is_noise(&self, number: u64) -> bool {
        ChaCha8Rng::seed_from_u64(self.seed ^ (number << 20)).random_range(0..100) == 0
    }

    fn noise_before(&self, number: u64) -> u64 {
        (0..number).filter(|&number| self.is_noise(number)).count() as u64
    }
}

impl BatchSource for Corrupted {
    fn next(&mut self) -> Result<Option<Batch>> {
        let number = self.inner.position().step;
        let Some(mut batch) = self.inner.next()? else { return Ok(None) };
        if self.is_noise(number) {
            let mut random = ChaCha8Rng::seed_from_u64(number);
            let both = batch.tokens.iter_mut().chain(&mut batch.targets);
            both.for_each(|id| *id = random.random_range(0..self.width));
        }
        Ok(Some(batch))
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn seek(&mut self, position: &Position) -> Result<()> {
        self.inner.seek(position)
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.inner.tokens_per_epoch()
    }
}

fn stream(documents: &Documents, scale: &Scale, seed: u64, epochs: Option<u64>) -> Result<LanguageStream> {
    let (context, sequences, layout) = (scale.context, scale.batch, Layout::Documents);
    let settings = StreamSettings { context, sequences, seed, shuffle: true, epochs, layout };
    LanguageStream::new(documents.clone(), settings)
}

/// Bytes of keys and values of so many tokens, as the engine has them.
fn cache_bytes(net: &Net, tokens: usize) -> Result<f64> {
    let failed = |error: ounce_engine::Error| Error::Unsupported(error.to_string());
    let engine = Engine::load(&net.model()?, Mode::Reference).map_err(failed)?;
    let mut session = engine.session();
    let ids: Vec<u32> = (0..tokens as u32).map(|token| token % VOCABULARY as u32).collect();
    session.feed(&ids, |_| {}).map_err(failed)?;
    Ok(session.cache_bytes() as f64)
}

fn report_heads(clean: &[f64], whole: &[(f64, f64)], bytes: f64, evidence: &mut Evidence) {
    let losses: Vec<f64> = whole.iter().map(|it| it.0).collect();
    let whole_bytes = whole[0].1;
    for (label, losses, bytes) in
        [(CLEAN, clean, bytes), ("as many key/value heads as heads", losses.as_slice(), whole_bytes)]
    {
        let (loss, error) = mean_and_error(losses);
        let row = Row::new(label).with(LOSS, loss, "nats a token").with("standard error", error, "nats");
        evidence.rows.push(row.with("perplexity", loss.exp(), "").with("cache", bytes, "bytes"));
    }
    let times = whole_bytes / bytes;
    evidence.expect(
        "a quarter of the key/value heads makes the cache 4 times smaller",
        format!("{times:.2} times"),
        (times - 4.0).abs() < 0.05,
    );
    let cost = (mean_and_error(clean).0 - mean_and_error(&losses).0).exp_m1();
    evidence.expect("and raises perplexity by at most 2 %", format!("{:+.2} %", 100.0 * cost), cost <= 0.02);
}

fn report_guard(guarded: &[Ended], unguarded: &[Ended], evidence: &mut Evidence) {
    for (label, runs) in [("1 % noise, guarded", guarded), ("1 % noise, unguarded", unguarded)] {
        let mean = |of: fn(&Ended) -> f64| mean_and_error(&runs.iter().map(of).collect::<Vec<_>>());
        let (loss, error) = mean(|it| it.loss);
        evidence.rows.push(
            Row::new(label)
                .with(LOSS, loss, "nats a token")
                .with("standard error", error, "nats")
                .with("batches of noise", mean(|it| it.noise).0, "")
                .with("batches left out", mean(|it| it.left_out).0, "")
                .with("highest loss learned from after step 100", mean(|it| it.highest).0, "nats"),
        );
    }
    let differences: Vec<f64> = guarded.iter().zip(unguarded).map(|(a, b)| a.loss - b.loss).collect();
    let words: Vec<String> = differences.iter().map(|it| format!("{it:+.4}")).collect();
    evidence.expect(
        "with one batch in a hundred noise, the guarded run ends with a lower loss than the unguarded one after as many \
         sound tokens, in every repeat",
        format!("{} nats", words.join(", ")),
        differences.iter().all(|difference| *difference < 0.0),
    );
    let highest = guarded.iter().map(|it| it.highest).fold(0.0, f64::max);
    let uniform = (VOCABULARY as f64).ln();
    evidence.expect(
        "the guarded run never learns from noise after step 100, nor diverges (losses stay below half of a uniform guess)",
        format!("at most {highest:.2} nats, a uniform guess has {uniform:.2}"),
        highest < 0.5 * uniform,
    );
}

/// The mean norm of the embedding's gradient with a tenth of it and with all of it.
fn report_embedding(run: &Run<'_>, known: f64, evidence: &mut Evidence) -> Result<()> {
    let mut norms = Vec::new();
    for (label, gradient) in [("a tenth of the embedding's gradient", Some(0.1)), ("all of it", None)] {
        let mut net = run.net(0, gradient)?;
        let (mut sum, mut count) = (0.0, 0.0);
        // Half of the steps: what happens is to be seen from the first on.
        let schedule = cosine(RATE, run.scale.steps / 2);
        fit_watched(&mut net, &mut run.stream()?, schedule, &mut |net| {
            let table = net.params().iter().find(|param| param.kind == ParamKind::Embedding);
            let squares =
                table.map_or(0.0, |table| table.grad.iter().map(|&it| f64::from(it).powi(2)).sum::<f64>());
            sum += squares.sqrt();
            count += 1.0;
        })?;
        norms.push(sum / count);
        let loss = run.held_out(&mut net)?;
        let row = Row::new(label).with(LOSS, loss, "nats a token");
        evidence.rows.push(row.with("mean norm of the embedding's gradient", sum / count, ""));
    }
    let factor = norms[0] / norms[1];
    evidence.expect(
        "a tenth of the embedding's gradient lowers the mean of its norm in training to less than half",
        format!("to {factor:.3} of it (held-out loss after twice the steps: {known:.3})"),
        factor < 0.5,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quiet;

    impl Lab for Quiet {
        fn seed(&self) -> u64 {
            1
        }

        fn text(&self, _kind: ounce_eval::method::Text, _bytes: usize) -> String {
            String::new()
        }

        fn model(&self, _fixture: ounce_eval::method::Fixture) -> ounce_model::Result<ounce_model::Model> {
            Err(ounce_model::Error::unsupported("there is none"))
        }

        fn progress(&self, _message: &str, _done: f64) {}
    }

    #[test]
    fn trainings_of_a_tiny_model_give_whole_evidence() {
        let scale = Scale {
            hidden: 32,
            layers: 1,
            heads: 4,
            steps: 150,
            texts: [200, 10],
            repeats: 1,
            ..Scale::WHOLE
        };
        let mut evidence = Evidence::new(121, 1, CLEAN);
        measure(&Quiet, &scale, &mut evidence).unwrap();
        evidence.check().unwrap();
        let noise = evidence.row("1 % noise, guarded").and_then(|row| row.get("batches of noise"));
        assert!(noise > Some(0.0), "{evidence:?}");
        for word in ["4 times smaller", "less than half"] {
            let holds = evidence.expectations.iter().any(|it| it.text.contains(word) && it.holds);
            assert!(holds, "{word}: {evidence:?}");
        }
    }
}
