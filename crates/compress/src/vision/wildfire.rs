//! Wildfire on the edge (method 073): what each step of deployment brings to a classifier and a segmenter of fires.
//!
//! arXiv 2401.08105 measures quantization-aware training, mixed precision, post-training quantization and an inference engine
//! on pictures of a drone, on a small board. Here the pictures are generated ([`scenes`]), the engine is
//! [`super::engine`], and the processor is the one at hand. Clips are split, not frames: neighbouring frames are nearly the
//! same. Accuracy and speed are measured in three repeats with other pictures and other weights.

use std::time::Instant;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row};
use ounce_train::vision::scenes::{self, Frame, VALUES};
use ounce_train::vision::{Hook, Net, NoHook, fold};

use super::calibrate::{self, Options};
use super::engine::{FloatEngine, IntEngine};
use super::qat::{Bf16, Qat, bf16};
use super::task::{self, Learner, Schedule, Score, Task};
use crate::Result;
use crate::quantize::axes::Calibration;

const NUMBER: u16 = 73;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Wildfire on the edge",
    family: Family::Vision,
    paper: "Hardware Acceleration for Real-Time Wildfire Detection Onboard Drone Networks",
    arxiv: Some("2401.08105"),
    gives: "One bench runs a classifier and a segmenter through every deployment option and reports speed, accuracy and size.",
    claim: "13 % faster classification on a Jetson Nano, with loss and accuracy within 1.225 % of the originals.",
    command: Some("ounce bench method 73"),
    demonstrate: Some(demonstrate),
};

const REPEATS: usize = 3;
/// Clips to learn from, to tune the threshold, and to test; frames of each.
const CLIPS: [u64; 3] = [200, 50, 200];
const FRAMES: usize = 2;
/// Frames that calibration looks at.
const CALIBRATION: usize = 64;
/// Rounds of timing, and pictures of each variant in a round.
const ROUNDS: usize = 8;
const PICTURES: usize = 40;

const UNFUSED: &str = "fp32, steps apart";
const ENGINE: &str = "fp32, engine";
const HALF: &str = "bf16 trained and run, emulated";
const NAIVE: &str = "int8, a step a matrix, max";
const MAX: &str = "int8, PTQ, max";
const PERCENTILE: &str = "int8, PTQ, percentile";
const ENTROPY: &str = "int8, PTQ, entropy";
const QAT: &str = "int8, QAT";
const VARIANTS: [&str; 8] = [UNFUSED, ENGINE, HALF, NAIVE, MAX, PERCENTILE, ENTROPY, QAT];

/// One repeat's measurement of a variant.
#[derive(Debug, Clone, Default)]
struct Found {
    score: Score,
    bytes: usize,
    /// Milliseconds of each picture; of emulated variants none.
    times: Vec<f64>,
}

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab).map_err(DemonstrationError::step(NUMBER, "training networks on pictures of fires"))
}

fn measure(lab: &dyn Lab) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), label(Task::Classify, ENGINE));
    let mut all = Vec::new();
    for (order, task) in [Task::Classify, Task::Segment].into_iter().enumerate() {
        // Segmenters have five times as many products.
        let (start, share) = if order == 0 { (0.0, 0.25) } else { (0.25, 0.75) };
        let repeats: Result<Vec<Vec<Found>>> = (0..REPEATS)
            .map(|repeat| {
                let from = start + share * repeat as f64 / REPEATS as f64;
                let progress = |what: &str, done: f64| {
                    lab.progress(&label(task, what), from + done * share / REPEATS as f64);
                };
                one(task, lab.seed().wrapping_mul(100).wrapping_add(repeat as u64), &progress)
            })
            .collect();
        let repeats = repeats?;
        for (variant, name) in VARIANTS.into_iter().enumerate() {
            let found: Vec<&Found> = repeats.iter().map(|repeat| &repeat[variant]).collect();
            evidence.rows.push(row(task, name, &found));
        }
        all.push((task, repeats));
    }
    for (task, repeats) in &all {
        expect(*task, repeats, &mut evidence);
    }
    let ratio = |at: usize| interval(&speedups(&all[at].1)).0;
    let (classify, segment) = (ratio(0), ratio(1));
    evidence.expect(
        "the gain in speed differs by task: the two factors are at least 5 % apart",
        format!("{classify:.2} and {segment:.2} times"),
        (classify / segment - 1.0).abs() >= 0.05,
    );
    evidence.notes = notes()?;
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn label(task: Task, what: &str) -> String {
    let task = if task == Task::Classify { "classify" } else { "segment" };
    format!("{task}: {what}")
}

/// Everything of one task with the pictures and weights of a seed, in the order of [`VARIANTS`].
fn one(task: Task, seed: u64, progress: &dyn Fn(&str, f64)) -> Result<Vec<Found>> {
    progress("pictures", 0.0);
    let clips = |part: u64, count: u64| scenes::clips(seed * 10_000 + part * 2_000, count as usize, FRAMES);
    let [train, tune, test] =
        [clips(0, CLIPS[0]), clips(1, CLIPS[1]), clips(2, CLIPS[2])].map(|it| task.frames(it));
    let epochs = if task == Task::Classify { 12 } else { 16 };
    let schedule = Schedule { epochs, rate: 0.01, freeze: 1.0, seed };
    let learn = |hook: &mut dyn Hook, what: &str, from: f64| -> Result<Net> {
        let mut net = Net::new(task.architecture(), seed)?;
        task::fit(&mut net, task, &train, &schedule, &mut Learner::Plain(hook), |done| {
            progress(what, from + 0.35 * done);
            Ok(())
        })?;
        Ok(net)
    };
    let net = learn(&mut NoHook, "training in fp32", 0.02)?;
    let half = learn(&mut Bf16, "training in bf16", 0.37)?;
    let folded = fold(&net);
    let sample = train.iter().step_by((train.len() / CALIBRATION).max(1)).map(|frame| frame.image.as_slice());
    let observers = calibrate::observe(&folded, sample)?;

    progress("training in int8", 0.72);
    let values = calibrate::value_grids(&observers, Calibration::Entropy, 8);
    let mut qat = Qat::new(&net, &values, Calibration::MinMax, (8, 8))?;
    let mut tuned = net.clone();
    let short = Schedule { epochs: (epochs / 10).max(2), rate: schedule.rate * 0.05, freeze: 0.5, seed };
    task::fit(&mut tuned, task, &train, &short, &mut Learner::Quantized(&mut qat), |_| Ok(()))?;

    progress("testing", 0.8);
    let mut engine = FloatEngine::new(&folded)?;
    let mut rounded = fold(&half);
    for conv in rounded.convs.iter_mut().flatten() {
        conv.weights.iter_mut().chain(&mut conv.bias).for_each(|it| *it = bf16(*it));
    }
    let mut emulated = FloatEngine::new(&rounded)?;
    let quantized = |activations, per_channel| {
        let grids = calibrate::quantize(&folded, &observers, &Options { activations, per_channel });
        IntEngine::new(&folded, &grids)
    };
    let folded_tuned = fold(&tuned);
    let mut ints = [
        quantized(Calibration::MinMax, false)?,
        quantized(Calibration::MinMax, true)?,
        quantized(Calibration::Percentile(0.999), true)?,
        quantized(Calibration::Entropy, true)?,
        IntEngine::new(&folded_tuned, &qat.grids(&folded_tuned))?,
    ];
    let bytes = [4, 4, 2].map(|size| size * folded.weights());
    let bytes: Vec<usize> = bytes.into_iter().chain(ints.iter().map(IntEngine::bytes)).collect();

    // One threshold for all variants, tuned in fp32.
    let truth = |frames: &[Frame]| frames.iter().flat_map(|frame| task.target(frame)).collect::<Vec<f32>>();
    let threshold = match task {
        Task::Classify => 0.0,
        Task::Segment => {
            task::tune(&logits(&tune, &mut |image, out| out.extend(engine.infer(image))), &truth(&tune))
        }
    };
    let mut unfused = |image: &[f32], out: &mut Vec<f32>| {
        // A network of the right size can't fail.
        out.extend(net.forward(image, &mut NoHook).unwrap_or_default());
    };
    let mut found = vec![Found::default(); VARIANTS.len()];
    let targets = truth(&test);
    let mut judge = |variant: usize, run: &mut dyn FnMut(&[f32], &mut Vec<f32>)| {
        found[variant].score = task::score(&logits(&test, run), &targets, threshold);
        found[variant].bytes = bytes[variant];
    };
    judge(0, &mut unfused);
    judge(1, &mut |image, out| out.extend(engine.infer(image)));
    let mut halve = |_: usize, row: &mut [f32]| row.iter_mut().for_each(|it| *it = bf16(*it));
    judge(2, &mut |image, out| out.extend(emulated.run(image, &mut halve)));
    for (index, engine) in ints.iter_mut().enumerate() {
        judge(3 + index, &mut |image, out| out.extend(engine.infer(image)));
    }

    progress("timing", 0.9);
    time(&test, &mut unfused, &mut engine, &mut ints, &mut found);
    Ok(found)
}

fn logits(frames: &[Frame], run: &mut dyn FnMut(&[f32], &mut Vec<f32>)) -> Vec<f32> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| run(&frame.image, &mut out));
    out
}

/// Times variants in turns, so that what else the machine does meets all of them alike. Pictures are ready in memory.
fn time(
    frames: &[Frame],
    unfused: &mut dyn FnMut(&[f32], &mut Vec<f32>),
    engine: &mut FloatEngine,
    ints: &mut [IntEngine; 5],
    found: &mut [Found],
) {
    // As a camera gives them.
    let bytes: Vec<Vec<u8>> = frames
        .iter()
        .map(|frame| frame.image.iter().map(|it| (it * 255.0).round() as u8).collect())
        .collect();
    let mut out = Vec::new();
    for round in 0..=ROUNDS {
        for variant in (0..VARIANTS.len()).filter(|it| VARIANTS[*it] != HALF) {
            for picture in 0..PICTURES {
                let number = (round * PICTURES + picture) % frames.len();
                let image = &bytes[number];
                let start = Instant::now();
                match variant {
                    0 => {
                        out.clear();
                        unfused(&frames[number].image, &mut out);
                    }
                    1 => {
                        std::hint::black_box(engine.infer_bytes(image));
                    }
                    _ => {
                        std::hint::black_box(ints[variant - 3].infer_bytes(image));
                    }
                }
                // The first round warms caches.
                if round > 0 {
                    found[variant].times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
    }
}

fn quantile(times: &[f64], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Mean and half of the 95 % confidence interval, by Student's t.
fn interval(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // t of 0.975 for two degrees of freedom.
    (mean, 4.303 * (variance / count).sqrt())
}

fn row(task: Task, name: &str, found: &[&Found]) -> Row {
    let each = |of: &dyn Fn(&Found) -> f64| interval(&found.iter().map(|it| of(it)).collect::<Vec<f64>>());
    let mut row = Row::new(label(task, name));
    let mut add = |name: &str, of: &dyn Fn(&Found) -> f64, unit: &str| {
        let (mean, reach) = each(of);
        let old = std::mem::replace(&mut row, Row::new(""));
        row = old.with(name, mean, unit).with(format!("± {name}"), reach, unit);
    };
    match task {
        Task::Classify => {
            add("accuracy", &|it| 100.0 * it.score.accuracy, "%");
            add("F1", &|it| 100.0 * it.score.f1, "%");
        }
        Task::Segment => {
            add("mIoU", &|it| 100.0 * it.score.iou, "%");
            add("Dice", &|it| 100.0 * it.score.f1, "%");
        }
    }
    add("cross-entropy", &|it| it.score.loss, "nats");
    if name != HALF {
        add("p50", &|it| quantile(&it.times, 0.5), "ms");
        add("p95", &|it| quantile(&it.times, 0.95), "ms");
        add("images a second", &|it| 1e3 / quantile(&it.times, 0.5), "");
    }
    row.with("size", found[0].bytes as f64 / 1024.0, "KiB")
}

/// Of each repeat, how much faster bytes are than f32 in the same engine.
fn speedups(repeats: &[Vec<Found>]) -> Vec<f64> {
    let of = |found: &[Found], variant: usize| quantile(&found[variant].times, 0.5);
    repeats.iter().map(|found| of(found, 1) / of(found, 7)).collect()
}

fn expect(task: Task, repeats: &[Vec<Found>], evidence: &mut Evidence) {
    let (mean, reach) = interval(&speedups(repeats));
    evidence.expect(
        label(
            task,
            "the engine in int8 gives at least 1.13 times the images a second of the same engine in fp32",
        ),
        format!("{mean:.2} ± {reach:.2} times"),
        mean - reach >= 1.13,
    );
    let (what, of): (&str, fn(&Score) -> f64) = match task {
        Task::Classify => ("accuracy", |score| 100.0 * score.accuracy),
        Task::Segment => ("mIoU", |score| 100.0 * score.iou),
    };
    let against = |variant: usize, other: usize| {
        let gaps: Vec<f64> =
            repeats.iter().map(|found| of(&found[variant].score) - of(&found[other].score)).collect();
        interval(&gaps)
    };
    for variant in [4, 5, 6, 7] {
        let (mean, reach) = against(variant, 1);
        evidence.expect(
            label(task, &format!("{what} of {} is within 1.3 points of fp32's", VARIANTS[variant])),
            format!("{mean:+.2} ± {reach:.2} points"),
            mean.abs() <= 1.3,
        );
    }
    // What three repeats can't tell apart counts as equal.
    let not_below = |variant: usize, other: usize| {
        let (mean, reach) = against(variant, other);
        (format!("{mean:+.2} ± {reach:.2}"), mean >= 0.0 || mean + reach >= 0.0)
    };
    let (qat, first) = not_below(7, 6);
    let (ptq, second) = not_below(6, 3);
    evidence.expect(
        label(
            task,
            &format!(
                "{what}: QAT is not below PTQ (entropy), nor PTQ below one step a matrix, beyond the interval"
            ),
        ),
        format!("{qat} and {ptq} points"),
        first && second,
    );
}

fn notes() -> Result<Vec<String>> {
    let products = |task: Task| task.architecture().products().map(|it| it as f64 / 1e6);
    let (classify, segment) = (products(Task::Classify)?, products(Task::Segment)?);
    Ok(vec![
        format!(
            "Generated pictures of {} x {} x 3 values: {} clips to learn from, {} to tune the segmenter's threshold, {} to test, \
             {FRAMES} frames each, split by clip; about a third burn, so that F1 says more than accuracy. The classifier has {classify:.1} million products \
             an image, the segmenter {segment:.1}. {REPEATS} repeats with other pictures and weights; ± is half of the 95 % interval.",
            scenes::SIDE,
            scenes::SIDE,
            CLIPS[0],
            CLIPS[1],
            CLIPS[2],
        ),
        format!(
            "Times are of one picture after the other on one thread ({}), from a camera's bytes in memory (steps apart: from f32); variants take turns, {} pictures each a repeat; images a second follow from the \
             median, for other work on the machine disturbs the mean. All variants compute {VALUES} values of a picture.",
            ounce_kernels::isa::Isa::current().name(),
            ROUNDS * PICTURES,
        ),
        "\"Steps apart\" is the network as it is trained: convolution, norm and ReLU one after the other on candle's tensors, weights packed for each \
         picture. The engine folds norms, fuses bias and ReLU, and has its buffers ready; fp32 and int8 run the same loops, each on the tiles that suit it."
            .into(),
        "bf16 is emulated by rounding weights, values and gradients: it tells of accuracy, not of speed. Energy was not measured; nor were FLAME's pictures, \
         a Jetson or TensorRT."
            .into(),
        "QAT starts from PTQ's grids (entropy), runs a tenth of the epochs at a twentieth of the rate, its steps learn too (LSQ), and batch norms keep their \
         statistics in its second half."
            .into(),
    ])
}
