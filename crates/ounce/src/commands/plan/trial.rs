//! Short trials: a candidate's weights are made as its recipe makes them, on less text, and its predictions compared with the
//! original's on text that they did not see.

use std::time::{Duration, Instant};

use anyhow::bail;
use ounce_compress::quantize::{Method, Plan, Quantizer, Store, gptq};
use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Reference;
use ounce_eval::perplexity::Options;
use ounce_kernels::attention::KvType;
use ounce_model::account::Formats;
use ounce_model::{Model, Weights};
use ounce_plan::budget::Quality;
use ounce_plan::search::{self, Basis, Candidate, Expected};
use serde_json::json;

use super::super::quantize::allocation::{Table, look};
use super::budget::{Asked, quality};
use super::candidates::{Base, Subject, Way};
use crate::compute;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};

/// Tokens of calibration that a trial quantizes with, and on which it is judged.
const LEARN: usize = 8192;
const JUDGE: usize = 8192;

/// Memory that the original's logits may take.
const LOGITS: u64 = 2 << 30;

/// Seconds that GPTQ takes for a weight, roughly: larger models are rounded in trials.
const GPTQ_SECONDS: f64 = 400e-9;

/// What trials stand on.
pub struct Trials<'m> {
    /// What is quantized with.
    learn: &'m [Vec<u32>],
    reference: Reference,
    judged: usize,
    table: Table,
    /// Seconds in which the original's layers ran over a token.
    pace: f64,
    watch: Watch,
}

impl<'m> Trials<'m> {
    /// Measures sensitivities, and runs the original over the text that trials are judged on.
    ///
    /// # Errors
    /// If the text is too short, the model can't be run, or the user stops the work.
    pub fn new(subject: &mut Subject<'_>, calibration: &'m [Vec<u32>]) -> anyhow::Result<Trials<'m>> {
        let model = subject.model;
        let of = |tokens: usize| tokens.div_ceil(calibration.first().map_or(1, Vec::len).max(1));
        // The last sequences judge, so that no trial has seen them.
        let judges = of(JUDGE).min(calibration.len() / 2);
        if judges == 0 {
            bail!(
                "the calibration text is too short to try anything on it; give one of some thousand tokens"
            );
        }
        let (learn, judge) = calibration.split_at(calibration.len() - judges);
        let start = Instant::now();
        let importance = look(model, learn)?;
        let pace = start.elapsed().as_secs_f64() / learn.iter().map(Vec::len).sum::<usize>().max(1) as f64;
        let table = Table::measure(model, &subject.bases[0].units, subject.is_gguf(), learn, &importance)?;
        subject.bases[0].importance = importance;
        let watch = Watch::start();
        let original = engine(model, compute::usual_kv_type(&Formats::of(&model.weights), Mode::fast()))?;
        let context = judge.iter().map(Vec::len).max().unwrap_or(1);
        let options = Options { context, stride: context, prefix: None };
        let reference = Reference::of(&original, judge, &options, LOGITS, |_, _| Ok(watch.check()?))?;
        let judged = judge.iter().map(Vec::len).sum();
        Ok(Trials { learn: &learn[..of(LEARN).min(learn.len())], reference, judged, table, pace, watch })
    }

    /// The text that candidates are made with.
    pub fn learn(&self) -> &'m [Vec<u32>] {
        self.learn
    }

    /// Seconds in which the original's layers ran over a token.
    pub fn pace(&self) -> f64 {
        self.pace
    }

    /// Tokens that trials are judged on.
    pub fn tokens(&self) -> usize {
        self.judged
    }

    /// The sensitivities.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Tries those that are expected to meet the budget, the most promising first, until the deadline; one at least.
    ///
    /// # Errors
    /// If a candidate can't be made or run, or the user stops the work.
    pub fn run(
        &self,
        subject: &Subject<'_>,
        ways: &mut [Way],
        asked: &Asked,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        let mut order: Vec<usize> = (0..ways.len()).filter(|&it| ways[it].candidate.fits()).collect();
        let loss = |way: &Way| way.candidate.expected.map_or(f64::INFINITY, |it| it.kl);
        order.sort_by(|&a, &b| loss(&ways[a]).total_cmp(&loss(&ways[b])));
        order.retain(|&it| !ways[it].candidate.was_tried());
        let weights: usize = subject.bases[0].units.iter().map(|unit| unit.values()).sum();
        let left = deadline.saturating_duration_since(Instant::now());
        // The real way if half of the time is enough for four candidates.
        let exact = weights as f64 * GPTQ_SECONDS * 4.0 < left.as_secs_f64();
        let mut bar = Progress::new("trying candidates", Unit::Items);
        let mut made: Vec<(usize, Plan, Weights)> = Vec::new();
        let mut longest = Duration::ZERO;
        // Losses in trials by those that were reckoned.
        let mut ratios = Vec::new();
        for (done, &index) in order.iter().enumerate() {
            if done > 0 && Instant::now() + longest > deadline {
                break;
            }
            let start = Instant::now();
            bar.say(&ways[index].candidate.name);
            bar.set(done as u64, order.len() as u64);
            let way = &ways[index];
            let base = &subject.bases[way.base];
            let weights = match &way.plan {
                None => base.model.weights.clone(),
                Some(plan) => match made.iter().find(|it| it.0 == way.base && it.1 == *plan) {
                    Some((.., weights)) => weights.clone(),
                    None => {
                        let weights = self.quantized(base, plan, exact)?;
                        // The same weights come again with another cache.
                        made.truncate(3);
                        made.insert(0, (way.base, plan.clone(), weights.clone()));
                        weights
                    }
                },
            };
            let quality = self.judge(&Model { weights, ..base.model.clone() }, way.kv)?;
            let basis = if exact || way.plan.is_none() { Basis::Trial } else { Basis::RoundedTrial };
            let candidate: &mut Candidate = &mut ways[index].candidate;
            if let Some(reckoned) = candidate.expected.filter(|it| it.basis == Basis::Sensitivities) {
                ratios.push(quality.kl / reckoned.kl);
            }
            candidate.expected = Some(Expected { kl: quality.kl, quality: Some(quality), basis });
            candidate.judge(&asked.budget);
            longest = longest.max(start.elapsed());
        }
        search::scale_reckoned(ways.iter_mut().map(|it| &mut it.candidate), &ratios);
        Ok(())
    }

    fn quantized(&self, base: &Base, plan: &Plan, exact: bool) -> anyhow::Result<Weights> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(&folder.path().join("parts"), &json!({}))?;
        let mut observer = |_: Option<&_>, _: u64, _: u64| Ok(self.watch.check()?);
        let method = if exact { Method::Gptq(gptq::Options::default()) } else { Method::Weighted };
        let quantizer = Quantizer::new(&base.model, plan, method, &store, &mut observer);
        let calibration = if exact { self.learn.to_vec() } else { Vec::new() };
        let weights = quantizer.with_importance(&base.importance).run(calibration)?;
        // The files stay mapped when their folder is gone.
        store.remove()?;
        Ok(weights)
    }

    /// The quality of a model's predictions beside the original's.
    ///
    /// # Errors
    /// If the model can't be run or the user stops the work.
    pub fn judge(&self, model: &Model, kv: KvType) -> anyhow::Result<Quality> {
        let engine = engine(model, kv)?;
        let found = self.reference.compare(&engine, |_, _| Ok(self.watch.check()?))?;
        Ok(quality(&found))
    }
}

fn engine(model: &Model, kv: KvType) -> anyhow::Result<Engine> {
    let mut engine = Engine::load(model, Mode::fast())?;
    engine.set_kv_type(kv);
    Ok(engine)
}
