//! Measures EfficientQAT on the tiny built-in model: perplexity and divergence on held-out tales of both phases, each alone
//! and one behind the other, beside rounding and GPTQ; memory beside training the whole model at once; sizes.

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Reference;
use ounce_eval::method::{DemonstrationError, Evidence, Fixture, Lab, Row, Text};
use ounce_eval::perplexity;
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::weights::bytes_of;
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Trainable};

use super::NUMBER;
use super::block_ap::{self, Trained};
use super::end_to_end::{self, Tuned};
use crate::Result;
use crate::quantize::demonstration::{self, stories};
use crate::quantize::training::memory::Memory;
use crate::quantize::training::quantizer::{self, Quantized, Start};
use crate::quantize::{Method, Plan, gptq, units};

/// Text to learn from and to be judged by.
const CALIBRATION_BYTES: usize = 200_000;
const TEST_BYTES: usize = 60_000;

/// Values that share a step size.
const GROUP: usize = 64;

/// The most bytes of the original's logits.
const LOGITS: u64 = 1 << 30;

const ORIGINAL: &str = "original, bf16";
const PERPLEXITY: &str = "perplexity";
const RATIO: &str = "of the original's";
const ROUND: &str = "rounded to nearest";
const GPTQ: &str = "GPTQ";
const BLOCKS: &str = "GPTQ, Block-AP";
const SCALES: &str = "rounded, E2E-QP";
const GPTQ_SCALES: &str = "GPTQ, E2E-QP";
const BOTH: &str = "GPTQ, Block-AP, E2E-QP";

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "quantizing the tiny built-in model"))
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let model = lab.model(Fixture::Tiny)?;
    let test = stories(&model, &lab.text(Text::HeldOut, TEST_BYTES))?;
    let context = model.spec.context_length;
    let options = perplexity::Options { context, stride: context, prefix: None };
    lab.progress("the original", 0.0);
    let engine = Engine::load(&model, Mode::fast())?;
    let reference = Reference::of(&engine, &test, &options, LOGITS, |_, _| Ok(()))?;
    let calibration = stories(&model, &lab.text(Text::Train, CALIBRATION_BYTES))?;
    let study = Study { lab, model: &model, calibration, reference };
    let mut evidence = Evidence::new(NUMBER, lab.seed(), ORIGINAL);
    evidence.rows.push(study.row(ORIGINAL, &model)?);
    let two = study.width(2, 0.02, &mut evidence)?;
    study.width(4, 0.5, &mut evidence)?;
    study.memory(&two, &mut evidence)?;
    expect(&mut evidence);
    let tokens: usize = study.calibration.iter().map(Vec::len).sum();
    evidence.notes = vec![
        format!(
            "The tiny built-in model has {} layers of width {}; {tokens} tokens of tales to learn from, of which a tenth judges, \
             and other tales to test. Matrices of layers are quantized in groups of {GROUP} (32 where rows are no whole groups \
             of {GROUP}); token vectors, which are the head too, and norms stay bf16.",
            model.spec.layers.len(),
            model.spec.hidden_size,
        ),
        format!(
            "Memory is the bytes of buffers that were allocated: weights (those that move, what they round to, frozen and packed \
             ones), gradients, AdamW's moments, and the most that one step's passes held at once. Block-AP and training all at \
             once do steps of {} tokens and keep all activations; E2E-QP does steps of {} and computes layers again on the way \
             back, so that logits are most of what it holds. Hidden states of all calibration tokens, which layers are \
             trained on, stand apart: they grow with the text, and for a model as small as this one they outweigh all else.",
            block_ap::Options::default().tokens,
            end_to_end::Options::default().tokens,
        ),
        "Learning rates were chosen on this model, with other tales to learn from and to test.".into(),
        "Claims on 70 billion parameters and on accuracy in tasks weren't measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

struct Study<'s> {
    lab: &'s dyn Lab,
    model: &'s Model,
    calibration: Vec<Vec<u32>>,
    reference: Reference,
}

/// What training at one number of bits held in memory.
struct Held {
    plan: Plan,
    layers: Vec<Trained>,
    tuned: Tuned,
}

fn label(what: &str, bits: usize) -> String {
    format!("{bits} bits: {what}")
}

impl Study<'_> {
    fn row(&self, label: &str, model: &Model) -> Result<Row> {
        let found = self.reference.compare(&Engine::load(model, Mode::fast())?, |_, _| Ok(()))?;
        let error = found.ln_perplexity_ratio.stderr.unwrap_or(0.0);
        Ok(Row::new(label)
            .with(PERPLEXITY, found.perplexity.value, "a token")
            .with(RATIO, found.perplexity_ratio, "times")
            .with("standard error of that", error * 100.0, "%")
            .with("KL to the original", found.mean_kl.value, "nats")
            .with("same top token", found.top1_agreement.value * 100.0, "%"))
    }

    /// Every variant at so many bits. `done` is the share of the work before.
    fn width(&self, bits: usize, done: f64, evidence: &mut Evidence) -> Result<Held> {
        let dtype = DType::groups(bits, GROUP);
        let units = units(self.model)?;
        let plan = Plan::new(units.iter().map(|unit| (unit, dtype.filter(|_| !unit.is_outer()))))?;
        let step = |what: &str, share: f64| self.lab.progress(&label(what, bits), done + 0.46 * share);
        step(ROUND, 0.0);
        let (rounded, _) = self.quantized(&plan, Method::Round, false)?;
        let mut row = self.row(&label(ROUND, bits), &rounded)?;
        let sizes = Sizes::of(&rounded, &plan)?;
        row = row.with("blocks", sizes.blocks, "bits a weight").with(
            "in a folder",
            sizes.folder,
            "bits a weight",
        );
        evidence.rows.push(row);
        expect_sizes(evidence, bits, &sizes);
        step(SCALES, 0.02);
        let (scaled, _) = self.tuned(&rounded)?;
        evidence.rows.push(self.row(&label(SCALES, bits), &scaled)?);
        let method = Method::Gptq(gptq::Options::default());
        step(GPTQ, 0.2);
        let (start, _) = self.quantized(&plan, method, false)?;
        evidence.rows.push(self.row(&label(GPTQ, bits), &start)?);
        step(GPTQ_SCALES, 0.25);
        let (scaled, _) = self.tuned(&start)?;
        evidence.rows.push(self.row(&label(GPTQ_SCALES, bits), &scaled)?);
        step(BLOCKS, 0.43);
        let (trained, layers) = self.quantized(&plan, method, true)?;
        evidence.rows.push(self.row(&label(BLOCKS, bits), &trained)?);
        step(BOTH, 0.82);
        let (scaled, tuned) = self.tuned(&trained)?;
        evidence.rows.push(self.row(&label(BOTH, bits), &scaled)?);
        Ok(Held { plan, layers, tuned })
    }

    /// The model in the plan's formats, its layers trained or not.
    fn quantized(&self, plan: &Plan, method: Method, train: bool) -> Result<(Model, Vec<Trained>)> {
        let training = train.then(block_ap::Options::default);
        demonstration::quantized(self.model, plan, method, &self.calibration, training)
    }

    fn tuned(&self, model: &Model) -> Result<(Model, Tuned)> {
        let options = end_to_end::Options::default();
        let (weights, tuned) = end_to_end::train(model, None, &self.calibration, &options, &mut |_| Ok(()))?;
        Ok((Model { weights, ..model.clone() }, tuned))
    }

    /// What training held in memory: one layer, the whole model at once, step sizes alone.
    fn memory(&self, held: &Held, evidence: &mut Evidence) -> Result<()> {
        let row = |label: &str, memory: &Memory| {
            let kib = |bytes: usize| bytes as f64 / 1024.0;
            Row::new(label)
                .with("weights", kib(memory.weights), "KiB")
                .with("gradients", kib(memory.gradients), "KiB")
                .with("optimizer", kib(memory.optimizer), "KiB")
                .with("activations", kib(memory.activations), "KiB")
                .with("training", kib(memory.training()), "KiB")
                .with("hidden states", kib(memory.hidden), "KiB")
        };
        let layer = held.layers.iter().map(|layer| layer.memory).max_by_key(Memory::training);
        let layer = layer.unwrap_or_default();
        let whole = self.whole(&held.plan)?;
        evidence.rows.push(row("memory: Block-AP, the largest layer", &layer));
        evidence.rows.push(row("memory: all weights and scales at once", &whole));
        evidence.rows.push(row("memory: E2E-QP", &held.tuned.memory));
        let share = layer.training() as f64 / whole.training() as f64;
        let all = layer.all() as f64 / whole.all() as f64;
        evidence.expect(
            "training memory of Block-AP, hidden states of the text apart, is below half of that of training all at once",
            format!("{:.1} %; {:.1} % with the hidden states of the text", share * 100.0, all * 100.0),
            share < 0.5,
        );
        let share = held.tuned.memory.optimizer as f64 / whole.optimizer as f64;
        evidence.expect(
            "E2E-QP's optimizer holds below 5 % of that of training all at once",
            format!("{:.1} %", share * 100.0),
            share < 0.05,
        );
        Ok(())
    }

    /// Quantization-aware training of the whole model: one step, and all that it needs.
    fn whole(&self, plan: &Plan) -> Result<Memory> {
        let trains = |name: &str| plan.dtype(name).is_some();
        let mut net = Net::with_frozen(self.model, NetOptions::default(), &trains)?;
        let tokens = block_ap::Options::default().tokens;
        let (mut own, mut count) = (Vec::new(), 0);
        for ids in &self.calibration {
            if count >= tokens {
                break;
            }
            own.push(ids.as_slice());
            count += ids.len();
        }
        net.accumulate(&Batch::next_token(own), 1.0)?;
        let mut memory = Memory { activations: net.peak_buffer_bytes(), ..Memory::default() };
        for param in net.params() {
            memory.weights += 4 * param.value.len();
            memory.gradients += 4 * param.grad.len();
            let Some(dtype) = plan.dtype(&param.name) else { continue };
            let columns = param.shape[1];
            let packed = vec![0; bytes_of(dtype, &param.shape).unwrap_or(0)];
            let Some(quantized) = Quantized::begin(dtype, &packed, &param.value, columns, Start::Weights)
            else {
                continue;
            };
            memory.weights += quantized.bytes();
            memory.gradients += 4 * quantized.scales.count();
            memory.optimizer += quantizer::Memory::of(&quantized).bytes();
        }
        Ok(memory)
    }
}

/// Bits a weight of the matrices that are quantized.
struct Sizes {
    /// In ounce's blocks.
    blocks: f64,
    /// In a folder packed for other tools, all tensors of these matrices.
    folder: f64,
    /// N + 24 / g: a step of 16 bits and a zero point of 8 for each group.
    blocks_formula: f64,
    /// N + (16 + N) / g, the paper's.
    paper_formula: f64,
}

impl Sizes {
    fn of(model: &Model, plan: &Plan) -> Result<Sizes> {
        let (mut values, mut bytes, mut of_blocks, mut of_paper) = (0.0, 0.0, 0.0, 0.0);
        for name in plan.formats.keys() {
            let tensor = model.weights.get(name)?;
            let Some((bits, group)) = tensor.dtype.group_shape() else { continue };
            let (count, bits, group) = (tensor.values() as f64, bits as f64, group as f64);
            values += count;
            bytes += tensor.data.len() as f64;
            of_blocks += count * (bits + 24.0 / group);
            of_paper += count * (bits + (16.0 + bits) / group);
        }
        let folder = hf::forecast(model, &std::env::temp_dir().join("packed"), &WriteOptions::default())?;
        let packed = folder.tensors.iter().filter(|tensor| tensor.name.contains("_proj."));
        let packed: f64 = packed.map(|tensor| tensor.bytes as f64).sum();
        Ok(Sizes {
            blocks: bytes * 8.0 / values,
            folder: packed * 8.0 / values,
            blocks_formula: of_blocks / values,
            paper_formula: of_paper / values,
        })
    }
}

fn expect_sizes(evidence: &mut Evidence, bits: usize, sizes: &Sizes) {
    let near = |found: f64, formula: f64| (found / formula - 1.0).abs() <= 0.02;
    for (what, found, formula) in [
        ("ounce's blocks are as large as N + 24 / g says", sizes.blocks, sizes.blocks_formula),
        ("a folder for other tools is as large as N + (16 + N) / g says", sizes.folder, sizes.paper_formula),
    ] {
        evidence.expect(
            format!("{bits} bits: {what}, within 2 %"),
            format!("{found:.3} for {formula:.3} bits a weight"),
            near(found, formula),
        );
    }
}

fn expect(evidence: &mut Evidence) {
    let value = |evidence: &Evidence, name: &str, what: &str, bits: usize| {
        evidence.row(&label(what, bits)).and_then(|row| row.get(name)).unwrap_or(f64::NAN)
    };
    let order = [BOTH, BLOCKS, GPTQ, ROUND];
    let found = order.map(|what| value(evidence, PERPLEXITY, what, 2));
    evidence.expect(
        "2 bits: perplexity of both phases < Block-AP alone < GPTQ < rounding",
        found.map(|it| format!("{it:.3}")).join(" < "),
        found.is_sorted_by(|a, b| a < b),
    );
    let [scaled, rounded] = [SCALES, ROUND].map(|what| value(evidence, PERPLEXITY, what, 2));
    evidence.expect(
        "2 bits: E2E-QP alone mends a part of what rounding lost",
        format!("{scaled:.3} < {rounded:.3}"),
        scaled < rounded,
    );
    let [both, rounded] = [BOTH, ROUND].map(|what| value(evidence, RATIO, what, 2));
    evidence.expect(
        "2 bits: perplexity of both phases is at most 1.25 times the original's where rounding's is at least twice",
        format!("{both:.3} and {rounded:.3} times"),
        both <= 1.25 && rounded >= 2.0,
    );
    let variants = [ROUND, SCALES, GPTQ, GPTQ_SCALES, BLOCKS, BOTH];
    let most = variants.map(|what| value(evidence, RATIO, what, 4)).into_iter().fold(0.0, f64::max);
    evidence.expect(
        "4 bits: perplexity of all variants is within 3 % of the original's",
        format!("up to {most:.4} times"),
        most <= 1.03,
    );
}
