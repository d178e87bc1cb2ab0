//! Measures L4Q on the tiny built-in model, which has learned tales and is adapted to tales without articles: beside an adapter that is
//! quantized afterwards, an adapter on what was quantized before, and training of all weights through rounding.

mod arms;
mod domain;
pub(super) mod gradients;
mod slots;

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Reference;
use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row, Text};
use ounce_eval::perplexity;
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, hf};

use self::arms::{Arms, Learned};
use self::domain::terse;
use super::NUMBER;
use super::train::Options;
use crate::Result;
use crate::quantize::demonstration::{quantized, stories};
use crate::quantize::training::held_out;
use crate::quantize::{Method, Plan, gptq, units};

/// Text to learn from and to be judged by, as tales.
const TRAINING_BYTES: usize = 240_000;
const TEST_BYTES: usize = 60_000;

/// Values that share a step and an offset.
const GROUP: usize = 32;

const WIDTHS: [usize; 3] = [4, 3, 2];

/// The most bytes of the baseline's logits.
const LOGITS: u64 = 1 << 30;

const ORIGINAL: &str = "not adapted, bf16";
const ADAPTED: &str = "adapter, not quantized";
const AFTER: &str = "adapter, then rounded";
const AFTER_GPTQ: &str = "adapter, then GPTQ";
const BESIDE: &str = "GPTQ, then adapter, kept beside";
const MERGED: &str = "GPTQ, then adapter, merged and rounded again";
const MERGED_GPTQ: &str = "GPTQ, then adapter, merged and by GPTQ again";
const WHOLE: &str = "all weights trained through rounding (LSQ)";
const L4Q: &str = "L4Q";
const EXTREMES: &str = "L4Q, begun at the extremes of groups";

const PERPLEXITY: &str = "perplexity";
const TRAINED: &str = "numbers trained";
const HELD: &str = "gradients and optimizer";

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "adapting and quantizing the tiny built-in model"))
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let model = lab.model(Fixture::Tiny)?;
    let learn = stories(&model, &terse(&lab.text(Text::Train, TRAINING_BYTES)))?;
    let test = stories(&model, &terse(&lab.text(Text::HeldOut, TEST_BYTES)))?;
    let arms = Arms { learn, options: Options::default() };
    lab.progress(ADAPTED, 0.0);
    let every: Vec<String> = plan(&model, WIDTHS[0])?.formats.into_keys().collect();
    let (adapted, learned) = arms.adapter(&model, &every)?;
    let context = model.spec.context_length;
    let options = perplexity::Options { context, stride: context, prefix: None };
    let engine = Engine::load(&adapted, Mode::fast())?;
    let reference = Reference::of(&engine, &test, &options, LOGITS, |_, _| Ok(()))?;
    let mut study = Study {
        lab,
        model: &model,
        arms,
        reference,
        options,
        evidence: Evidence::new(NUMBER, lab.seed(), ADAPTED),
    };
    study.row(ORIGINAL, &model, None)?;
    study.row(ADAPTED, &adapted, Some(learned))?;
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        study.width(bits, &adapted, (index as f64 + 0.3) / (WIDTHS.len() as f64 + 0.3))?;
    }
    study.gradients()?;
    study.expect();
    study.notes(&test);
    lab.progress("done", 1.0);
    Ok(study.evidence)
}

/// The matrices of layers in groups.
fn plan(model: &Model, bits: usize) -> Result<Plan> {
    let dtype = DType::groups(bits, GROUP);
    let units = units(model)?;
    Plan::new(units.iter().map(|unit| (unit, dtype.filter(|_| !unit.is_outer()))))
}

fn label(what: &str, bits: usize) -> String {
    format!("{bits} bits: {what}")
}

struct Study<'s> {
    lab: &'s dyn Lab,
    model: &'s Model,
    arms: Arms,
    reference: Reference,
    options: perplexity::Options,
    evidence: Evidence,
}

impl Study<'_> {
    fn row(&mut self, label: &str, model: &Model, learned: Option<Learned>) -> Result<()> {
        let found = self.reference.compare(&Engine::load(model, Mode::fast())?, |_, _| Ok(()))?;
        let error = found.ln_perplexity_ratio.stderr.unwrap_or(0.0);
        let mut row = Row::new(label)
            .with(PERPLEXITY, found.perplexity.value, "a token")
            .with("of the baseline's", found.perplexity_ratio, "times")
            .with("standard error of that", error * 100.0, "%");
        if let Some(learned) = learned {
            row =
                row.with(TRAINED, learned.trained as f64, "").with(HELD, learned.held as f64 / 1024.0, "KiB");
        }
        self.evidence.rows.push(row);
        Ok(())
    }

    /// Every variant at so many bits. `done` is the share of the work before.
    fn width(&mut self, bits: usize, adapted: &Model, done: f64) -> Result<()> {
        let plan = plan(self.model, bits)?;
        let every: Vec<String> = plan.formats.keys().cloned().collect();
        let gptq = Method::Gptq(gptq::Options::default());
        let part = 1.0 / (WIDTHS.len() as f64 + 0.3);
        let lab = self.lab;
        let step = |what: &str, share: f64| lab.progress(&label(what, bits), done + part * share);
        let round = |model: &Model, method| {
            Ok::<_, crate::Error>(quantized(model, &plan, method, &self.arms.learn, None)?.0)
        };
        step(AFTER, 0.0);
        let rounded = round(adapted, Method::Round)?;
        let by_gptq = round(adapted, gptq)?;
        let begin = round(self.model, gptq)?;
        self.row(&label(AFTER, bits), &rounded, None)?;
        self.row(&label(AFTER_GPTQ, bits), &by_gptq, None)?;
        step(BESIDE, 0.05);
        let (with, learned) = self.arms.adapter(&begin, &every)?;
        self.row(&label(BESIDE, bits), &with, Some(learned))?;
        for (what, method) in [(MERGED, Method::Round), (MERGED_GPTQ, gptq)] {
            let again = quantized(&with, &plan, method, &self.arms.learn, None)?.0;
            self.row(&label(what, bits), &again, None)?;
        }
        step(WHOLE, 0.35);
        let (whole, learned) = self.arms.whole(self.model, &plan, Some(&begin.weights))?;
        self.row(&label(WHOLE, bits), &whole, Some(learned))?;
        if bits == 3 {
            step(EXTREMES, 0.6);
            let (packed, learned, _) = self.arms.l4q(self.model, &plan, None)?;
            self.row(&label(EXTREMES, bits), &packed, Some(learned))?;
        }
        step(L4Q, 0.7);
        let (packed, learned, after) = self.arms.l4q(self.model, &plan, Some(&begin.weights))?;
        self.row(&label(L4Q, bits), &packed, Some(learned))?;
        self.export(bits, &packed, after)
    }

    /// Whether a folder that is written and read again says of the judging sequences what training said.
    fn export(&mut self, bits: usize, packed: &Model, after: f64) -> Result<()> {
        let folder = tempfile::tempdir().map_err(ounce_model::Error::io(std::env::temp_dir()))?;
        let path = folder.path().join("packed");
        hf::write_model(packed, &path, &WriteOptions::default(), &mut |_, _| Ok(()))?;
        let read = Model::open(&path)?;
        let sequences = &self.arms.learn;
        let judged = &sequences[sequences.len() - held_out(sequences.len())?..];
        let engine = Engine::load(&read, Mode::Reference)?;
        let scores = perplexity::score(&engine, judged, &self.options, |_, _| Ok(()))?;
        let (sum, tokens) =
            scores.iter().fold((0.0, 0), |(sum, tokens), it| (sum + it.log_likelihood, tokens + it.tokens));
        let found = (-sum / tokens as f64).exp();
        let off = (found / after.exp() - 1.0).abs();
        let groups = plan(self.model, bits)?.formats.keys().all(|name| {
            read.weights
                .info(name)
                .is_some_and(|(dtype, _)| dtype.group_shape().is_some_and(|it| it.0 == bits))
        });
        self.evidence.expect(
            format!("{bits} bits: the folder holds codes alone and has the perplexity that training had, within 0.1 %"),
            format!("{found:.5} for {:.5}, {:.4} %", after.exp(), off * 100.0),
            off <= 1e-3 && groups,
        );
        Ok(())
    }

    fn gradients(&mut self) -> Result<()> {
        let (mut worst, mut ranges) = (0.0f64, [0; 3]);
        for bits in WIDTHS {
            let Some(dtype) = DType::groups(bits, GROUP) else { continue };
            let found = gradients::check(dtype)?;
            let kinds = found.worst;
            worst =
                [kinds.a, kinds.b, kinds.steps, kinds.offsets, found.input].into_iter().fold(worst, f64::max);
            ranges.iter_mut().zip(found.ranges).for_each(|(sum, count)| *sum += count);
        }
        let [below, inside, above] = ranges;
        self.evidence.expect(
            "gradients of A, B, steps, offsets and inputs are finite differences of the straight-through surrogate, within \
             0.1 % of the largest, with weights in range and on both sides of it",
            format!("{:.4} % at worst; {below} weights below, {inside} in, {above} above", worst * 100.0),
            worst <= 1e-3 && ranges.iter().all(|count| *count > 0),
        );
        Ok(())
    }

    fn value(&self, name: &str, what: &str, bits: usize) -> f64 {
        self.evidence.row(&label(what, bits)).and_then(|row| row.get(name)).unwrap_or(f64::NAN)
    }

    fn expect(&mut self) {
        for bits in [3, 2] {
            let perplexity = |what| self.value(PERPLEXITY, what, bits);
            let [found, merged, by_gptq, after] = [L4Q, MERGED, MERGED_GPTQ, AFTER].map(perplexity);
            self.evidence.expect(
                format!(
                    "{bits} bits: perplexity of L4Q is below that of adapters merged and quantized again"
                ),
                format!("{found:.3} < {merged:.3} (rounded), {by_gptq:.3} (GPTQ)"),
                found < merged && found < by_gptq,
            );
            self.evidence.expect(
                format!(
                    "{bits} bits: perplexity of L4Q is at most that of an adapter that is rounded afterwards"
                ),
                format!("{found:.3} <= {after:.3}"),
                found <= after,
            );
        }
        for bits in WIDTHS {
            let [found, whole] = [L4Q, WHOLE].map(|what| self.value(PERPLEXITY, what, bits));
            self.evidence.expect(
                format!("{bits} bits: perplexity of L4Q is within 3 % of that of training all weights through rounding"),
                format!("{found:.3} for {whole:.3}, {:+.1} %", (found / whole - 1.0) * 100.0),
                found <= 1.03 * whole,
            );
        }
        let share = |name| self.value(name, L4Q, 3) / self.value(name, WHOLE, 3);
        let (trained, held) = (share(TRAINED), share(HELD));
        self.evidence.expect(
            "L4Q trains at most 5 % of the numbers that training all weights through rounding trains",
            format!("{:.1} %", trained * 100.0),
            trained <= 0.05,
        );
        self.evidence.expect(
            "gradients and optimizer take at most half of the bytes of training all weights through rounding",
            format!("{:.3} times", held),
            held <= 0.5,
        );
    }

    fn notes(&mut self, test: &[Vec<u32>]) {
        let tokens = |sequences: &[Vec<u32>]| sequences.iter().map(Vec::len).sum::<usize>();
        let options = self.arms.options;
        self.evidence.notes = vec![
            format!(
                "The tiny built-in model has {} layers of width {} and has learned tales; it is adapted to other tales without \
                 articles. {} tokens to learn from, a tenth of which judges, {} to test. All trained variants do {} passes of \
                 steps of {} tokens and keep what was best on the judging tenth; rank {}. Matrices of layers are in groups of \
                 {GROUP}, all else stays bf16. GPTQ sees the text to learn from.",
                self.model.spec.layers.len(),
                self.model.spec.hidden_size,
                tokens(&self.arms.learn),
                tokens(test),
                options.epochs,
                options.tokens,
                options.rank,
            ),
            "L4Q and the training of all weights begin at the codes, steps and offsets of GPTQ, weights moved as little as that needs; \
             one row has L4Q begin as in the paper, where every weight is in range and offsets are 0."
                .into(),
            format!(
                "With groups of {GROUP} steps and offsets alone are 2/{GROUP} = {:.1} % of the weights, and adapters of rank {} on \
                 matrices this narrow are as many again: 5 % can't be met here. A 4096 × 4096 matrix in groups of 128, the paper's, \
                 has {:.1} %.",
                200.0 / GROUP as f64,
                options.rank,
                100.0 * (2.0 / 128.0 + options.rank as f64 * 2.0 / 4096.0),
            ),
            "Learning rates are round numbers after few trials on this model with other tales; nobody searched for the best of any variant."
                .into(),
            "Claims on LLaMA and Mistral, on accuracy in tasks, and on time beside LoRA weren't measured.".into(),
        ];
    }
}
