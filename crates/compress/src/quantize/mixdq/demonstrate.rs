//! Measures MixDQ on a denoiser of glyphs that is trained for it: content by a reader that never saw a generated drawing,
//! quality by the distance from the unquantized network's drawings.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_kernels::gemm::Compute;
use ounce_kernels::pool::Pool;
use ounce_train::diffusion::{Denoiser, Options, Pass, Plain, Prompt, Reader, Request, fit};
use ounce_train::graph::ops::Kernels;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::expectations::{self, Budget};
use super::plan::{FULL, Group, Plan, Side, uniform};
use super::search::{self, Options as Search};
use super::simulate::{First, Ranges};
use super::subject::{Drawing, similarity};
use super::table::{Metric, Originals, Row as Sensitivities, Subject, measure, squared_error};
use super::{NUMBER, file};
use crate::Result;

/// Mean bits of weights that are compared.
pub(super) const TARGETS: [f64; 3] = [5.0, 4.0, 3.5];
/// Mean bits of activations, where they are allocated.
const ACTIVATIONS: f64 = 6.0;
/// Drawings by which ranges, sensitivities and candidates are judged.
const CALIBRATION: usize = 72;
/// Drawings of every prompt in the test.
const REPEATS: usize = 2;
/// Share of layers whose activations stay as they are.
const KEPT: f64 = 0.01;

pub(super) const ORIGINAL: &str = "original, f32";
pub(super) const NAIVE: &str = "A8, first token quantized with the others";
pub(super) const RULE: &str = "A8, first token in full";
pub(super) const UNIFORM: &str = "uniform";
pub(super) const SQNR_ONLY: &str = "SQNR alone";
pub(super) const MIXED: &str = "MixDQ";

pub(super) const CONTENT: &str = "all words right";
pub(super) const ERROR: &str = "squared error";
pub(super) const SIMILARITY: &str = "SSIM";
pub(super) const FILE: &str = "file";

/// The label of a row.
pub(super) fn label(what: &str, bits: f64) -> String {
    format!("W{bits} A8: {what}")
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    run(lab).map_err(DemonstrationError::step(NUMBER, "quantizing a denoiser of glyphs"))
}

fn run(lab: &dyn Lab) -> Result<Evidence> {
    // Short products: a second thread costs more than it gives.
    let on = Kernels { pool: Pool::single(), compute: Compute::default() };
    let mut net = Denoiser::new(Options::default(), on, lab.seed());
    let training = fit::Options::denoiser();
    let loss = fit::denoiser(&mut net, &training, lab.seed(), &mut |step| {
        lab.progress("training the denoiser", 0.45 * step as f64 / training.steps as f64);
    })?;
    let mut reader = Reader::new(on, lab.seed() + 1);
    let reading = fit::Options::reader();
    fit::reader(&mut reader, &reading, lab.seed(), &mut |step| {
        lab.progress("training the reader", 0.45 + 0.05 * step as f64 / reading.steps as f64);
    })?;
    let pass = net.pass()?;
    let mut random = ChaCha8Rng::seed_from_u64(lab.seed());
    let prompts = (0..CALIBRATION).map(|_| Prompt::random(&mut random)).collect();
    let request = Request::new(prompts, lab.seed() + 2);
    let ranges = Ranges::of(&pass, &request)?;
    let mut subject = Drawing::new(&pass, &ranges, First::Full, request)?;
    let originals = Originals::of(&mut subject)?;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), ORIGINAL);
    let mut test = Test::new(&pass, &ranges, &reader, lab.seed() + 3)?;
    test.drawn(&mut random, &mut evidence)?;
    let study = Study { lab, net: &net, originals };
    study.measure(&mut subject, &mut test, &mut evidence)?;
    evidence.notes.push(format!(
        "The denoiser has {} layers of {} weights and gives 16 × 16 drawings in two steps; {} steps of {} drawings brought its \
         loss to {loss:.4} a pixel. Prompts are three words of 20; the first token's vector is 50 times as long as a word's. \
         {CALIBRATION} drawings calibrate and judge candidates; {} others, every prompt {REPEATS} times, test.",
        net.layers().len(),
        net.layers().iter().map(ounce_train::diffusion::Layer::weights).sum::<usize>(),
        training.steps,
        training.drawings,
        test.prompts().len(),
    ));
    expectations::notes(&mut evidence);
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// Drawings that no decision looked at.
struct Test<'n> {
    subject: Drawing<'n>,
    reader: &'n Reader,
    originals: Vec<f32>,
}

impl<'n> Test<'n> {
    fn new(pass: &'n Pass<'n>, ranges: &'n Ranges, reader: &'n Reader, seed: u64) -> Result<Test<'n>> {
        let all = Prompt::all();
        let prompts = all.iter().cycle().take(REPEATS * all.len()).copied().collect();
        let request = Request::new(prompts, seed);
        let originals = request.draw(pass, &mut Plain)?;
        Ok(Test { subject: Drawing::new(pass, ranges, First::Full, request)?, reader, originals })
    }

    fn prompts(&self) -> &[Prompt] {
        &self.subject.request().prompts
    }

    /// What the reader finds in true drawings: the most that can be asked for.
    fn drawn(&self, random: &mut ChaCha8Rng, evidence: &mut Evidence) -> Result<()> {
        let drawings: Vec<f32> = self.prompts().iter().flat_map(|prompt| prompt.draw(random)).collect();
        let found = self.reader.read(&drawings, self.prompts())?;
        evidence.notes.push(format!(
            "Of drawings made by the program that the network learned from, the reader gets {:.1} % right.",
            found.agreement * 100.0
        ));
        Ok(())
    }

    fn row(&mut self, label: &str, plan: &Plan, first: First) -> Result<Row> {
        self.subject.set_first(first);
        let drawings = self.subject.images(plan)?;
        let found = self.reader.read(&drawings, self.prompts())?;
        let units = self.subject.units();
        Ok(Row::new(label)
            .with("weights", plan.mean_bits(Side::Weights, units), "bits")
            .with("activations", plan.mean_bits(Side::Activations, units), "bits")
            .with(ERROR, squared_error(&drawings, &self.originals), "")
            .with(SIMILARITY, similarity(&drawings, &self.originals), "")
            .with(CONTENT, found.agreement * 100.0, "%")
            .with("words right", found.words * 100.0, "%")
            .with("surprise", found.surprise, "nats"))
    }
}

/// The bits that the paper tries for a group's weights.
fn weight_bits(group: Group) -> Vec<u32> {
    match group {
        Group::Quality => vec![4, 8],
        Group::Content => vec![2, 4, 8],
    }
}

struct Study<'s> {
    lab: &'s dyn Lab,
    net: &'s Denoiser,
    originals: Originals,
}

impl Study<'_> {
    fn measure(&self, subject: &mut Drawing<'_>, test: &mut Test<'_>, evidence: &mut Evidence) -> Result<()> {
        let units = subject.units().to_vec();
        let full = Plan::full(units.len());
        let eight = full.clone().with(Side::Activations, vec![8; units.len()]);
        self.lab.progress("the first token", 0.5);
        evidence.rows.push(test.row(ORIGINAL, &full, First::Full)?);
        evidence.rows.push(test.row(NAIVE, &eight, First::Quantized)?);
        evidence.rows.push(test.row(RULE, &eight, First::Full)?);
        let coarse = full.clone().with(Side::Activations, vec![4; units.len()]);
        evidence.rows.push(test.row("A4, first token in full", &coarse, First::Full)?);
        let tables = self.tables(subject)?;
        let kept = search::most_sensitive(&tables.activations_sqnr, KEPT);
        let mut eight = eight;
        kept.iter().for_each(|&layer| eight.activations[layer] = FULL);
        let budget = Budget::new(self.net);
        let mut tried = Vec::new();
        for (number, bits) in TARGETS.into_iter().enumerate() {
            let done = 0.7 + 0.07 * number as f64;
            let options = Search::default();
            let side = Side::Weights;
            let alike = eight.clone().with(side, uniform(side, &units, bits));
            let plans = search::together(&tables.sqnr, &units, side, bits, &eight, &options);
            let alone = self.best(subject, plans, done)?;
            let plans = search::decoupled(&tables.decoupled, &units, side, bits, &eight, &options);
            let mixed = self.best(subject, plans, done + 0.03)?;
            tried.push(format!("W{bits} {} of {}", mixed.candidates, options.splits * options.budgets));
            for (what, plan) in [(UNIFORM, &alike), (SQNR_ONLY, &alone.plan), (MIXED, &mixed.plan)] {
                let bytes = file::bytes(self.net, plan).len() as f64;
                let row = test.row(&label(what, bits), plan, First::Full)?;
                let row = row.with(FILE, bytes / 1024.0, "KiB").with(
                    "of the budget",
                    bytes / budget.bytes(bits) * 100.0,
                    "%",
                );
                evidence.rows.push(row);
            }
            if number == 0 {
                self.activations(subject, test, &tables, &mixed.plan, &kept, evidence)?;
            }
        }
        expectations::check(evidence, &tables.decoupled, &units, &budget);
        evidence.notes.push(format!(
            "Different plans that the scan of splits and budgets gave: {}. Activations of {} stay as they are in all rows with \
             quantized weights.",
            tried.join(", "),
            kept.iter().map(|&layer| units[layer].name.as_str()).collect::<Vec<_>>().join(", "),
        ));
        Ok(())
    }

    fn best(&self, subject: &mut Drawing<'_>, plans: Vec<Plan>, done: f64) -> Result<search::Found> {
        search::best(subject, &self.originals, plans, &mut |at, of| {
            self.lab.progress("judging plans", done + 0.03 * at as f64 / of.max(1) as f64);
        })
    }

    fn tables(&self, subject: &mut Drawing<'_>) -> Result<Tables> {
        let mut table = |side, from: f64, rule: &dyn Fn(Group) -> (Vec<u32>, Metric)| {
            measure(subject, &self.originals, side, rule, &mut |at, of| {
                self.lab.progress("measuring sensitivities", from + 0.05 * at as f64 / of as f64);
            })
        };
        let sqnr = table(Side::Weights, 0.5, &|group| (weight_bits(group), Metric::Sqnr))?;
        // The quality group's rows are the same in both.
        let similarity = table(Side::Weights, 0.55, &|group| match group {
            Group::Content => (weight_bits(group), Metric::Ssim),
            Group::Quality => (Vec::new(), Metric::Ssim),
        })?;
        let choose = |(one, other): (&Sensitivities, Sensitivities)| {
            if other.scores.is_empty() { one.clone() } else { other }
        };
        let decoupled = sqnr.iter().zip(similarity).map(choose).collect();
        let activations_sqnr = table(Side::Activations, 0.6, &|_| (vec![4, 8], Metric::Sqnr))?;
        let activations = table(Side::Activations, 0.65, &|group| (vec![4, 8], group.metric()))?;
        Ok(Tables { sqnr, decoupled, activations_sqnr, activations })
    }

    /// Activations given the weights' plan: the same number of bits for all, and allocated.
    fn activations(
        &self,
        subject: &mut Drawing<'_>,
        test: &mut Test<'_>,
        tables: &Tables,
        weights: &Plan,
        kept: &[usize],
        evidence: &mut Evidence,
    ) -> Result<()> {
        let (side, units) = (Side::Activations, subject.units().to_vec());
        let keep = |mut plan: Plan| {
            kept.iter().for_each(|&layer| plan.activations[layer] = FULL);
            plan
        };
        let alike = keep(weights.clone().with(side, uniform(side, &units, ACTIVATIONS)));
        let plans =
            search::decoupled(&tables.activations, &units, side, ACTIVATIONS, weights, &Search::default());
        let found = self.best(subject, plans.into_iter().map(keep).collect(), 0.76)?;
        for (what, plan) in [("uniform activations", &alike), ("activations by MixDQ", &found.plan)] {
            evidence.rows.push(test.row(&format!("W5 A{ACTIVATIONS}: {what}"), plan, First::Full)?);
        }
        Ok(())
    }
}

/// Sensitivities of all layers.
struct Tables {
    /// Of weights, by SQNR throughout.
    sqnr: Vec<Sensitivities>,
    /// Of weights, each group by its measure.
    decoupled: Vec<Sensitivities>,
    /// Of activations, by SQNR throughout.
    activations_sqnr: Vec<Sensitivities>,
    /// Of activations, each group by its measure.
    activations: Vec<Sensitivities>,
}
