//! A network of images: weights and activations on every grid, trained in few bits, in mixed bits, in integers.

use candle_core::Tensor;
use ounce_eval::method::{Evidence, Lab, Row};
use ounce_train::vision::scenes::{self, Frame};
use ounce_train::vision::{Folded, Net, NoHook, Norms, Step, fold, loss};

use super::super::{Calibration, Grid, Observer, Options, Symmetry, channels, hessian, simulate};
use super::{BITS, CALIBRATIONS, GRANULARITIES, label, value};
use crate::Result;
use crate::vision::calibrate;
use crate::vision::engine::{FloatEngine, IntEngine};
use crate::vision::qat::Qat;
use crate::vision::task::{self, Learner, Schedule, Task};

const CNN: &str = "network of images";
const LOGITS: &str = "error of logits";

struct Images<'l> {
    lab: &'l dyn Lab,
    train: Vec<Frame>,
    test: Vec<Frame>,
    net: Net,
    folded: Folded,
    observers: Vec<Observer>,
    exact: Vec<f32>,
}

/// How far logits are from the exact ones, in percent of their variance; and the share of right answers.
struct Judged {
    error: f64,
    score: task::Score,
}

impl Images<'_> {
    fn judge(&self, logits: &[f32]) -> Judged {
        let count = logits.len().max(1) as f64;
        let mean = self.exact.iter().map(|&it| f64::from(it)).sum::<f64>() / count;
        let spread: f64 = self.exact.iter().map(|&it| (f64::from(it) - mean).powi(2)).sum();
        let change: f64 = self.exact.iter().zip(logits).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let targets: Vec<f32> = self.test.iter().flat_map(|frame| Task::Classify.target(frame)).collect();
        Judged { error: 100.0 * change / spread, score: task::score(logits, &targets, 0.0) }
    }

    /// Logits with other weights and, where a grid is given, rounded activations.
    fn logits(&self, folded: &Folded, values: &[Option<Grid>]) -> Result<Vec<f32>> {
        let mut engine = FloatEngine::new(folded)?;
        let mut round = |value: usize, row: &mut [f32]| {
            if let Some(grid) = &values[value] {
                grid.simulate(row);
            }
        };
        Ok(self.test.iter().flat_map(|frame| engine.run(&frame.image, &mut round).to_vec()).collect())
    }

    fn row(&self, name: &str, folded: &Folded, values: &[Option<Grid>], bits: f64) -> Result<Row> {
        let judged = self.judge(&self.logits(folded, values)?);
        Ok(Row::new(name)
            .with(LOGITS, judged.error, "%")
            .with("accuracy", 100.0 * judged.score.accuracy, "%")
            .with("cross-entropy", judged.score.loss, "nats")
            .with("bits a weight", bits, ""))
    }

    /// Activations in 8 bits.
    fn eight(&self) -> Vec<Option<Grid>> {
        self.values(8, Symmetry::Asymmetric)
    }

    /// Grids of what comes out of convolutions with a ReLU.
    fn values(&self, bits: u32, symmetry: Symmetry) -> Vec<Option<Grid>> {
        let steps = &self.folded.architecture.steps;
        let relu = |value: usize| value > 0 && matches!(steps[value - 1], Step::Conv { relu: true, .. });
        let grid = |value: usize| self.observers[value].grid(Calibration::MinMax, bits, symmetry);
        (0..self.observers.len()).map(|value| relu(value).then(|| grid(value))).collect()
    }
}

pub(super) fn images(lab: &dyn Lab, evidence: &mut Evidence) -> Result<()> {
    let seed = lab.seed();
    let task = Task::Classify;
    let clips = |part: u64, count: usize| scenes::clips(seed * 10_000 + 5_000 + part * 1_000, count, 2);
    let (train, test) = (clips(0, 150), clips(1, 120));
    let mut net = Net::new(task.architecture(), seed)?;
    let schedule = Schedule { epochs: 12, rate: 0.01, freeze: 1.0, seed };
    task::fit(&mut net, task, &train, &schedule, &mut Learner::Plain(&mut NoHook), |done| {
        lab.progress("training the network of images", 0.5 + 0.15 * done);
        Ok(())
    })?;
    let folded = fold(&net);
    let observers = calibrate::observe(&folded, train.iter().step_by(8).map(|it| it.image.as_slice()))?;
    let mut study = Images { lab, train, test, net, folded, observers, exact: Vec::new() };
    let nothing = vec![None; study.observers.len()];
    study.exact = study.logits(&study.folded, &nothing)?;
    evidence.rows.push(study.row("network of images: original", &study.folded, &nothing, 32.0)?);
    sweep(&study, evidence)?;
    activations(&study, evidence)?;
    trained(&study, evidence)?;
    mixed(&study, evidence)?;
    integers(&study, evidence)
}

fn sweep(study: &Images<'_>, evidence: &mut Evidence) -> Result<()> {
    study.lab.progress("weights of the network of images", 0.66);
    for bits in BITS {
        for (granularity, shared) in &GRANULARITIES[..2] {
            for (calibration, range) in CALIBRATIONS {
                let options =
                    Options { bits, granularity: *shared, calibration: range, ..Options::default() };
                let (mut folded, mut size) = (study.folded.clone(), 0);
                for conv in folded.convs.iter_mut().flatten() {
                    let found = simulate(&conv.weights, conv.window.depth(), &options, None)?;
                    size += found.bits;
                    conv.weights = found.values;
                }
                let count: usize = folded.convs.iter().flatten().map(|conv| conv.weights.len()).sum();
                let name = label(CNN, bits, &format!("{granularity}, {calibration}"));
                evidence.rows.push(study.row(&name, &folded, &study.eight(), size as f64 / count as f64)?);
            }
        }
    }
    let error = |evidence: &Evidence, bits: u32, rest: &str| value(evidence, &label(CNN, bits, rest), LOGITS);
    let pairs = BITS
        .map(|bits| (error(evidence, bits, "channel, min-max"), error(evidence, bits, "tensor, min-max")));
    let text: Vec<String> = pairs.iter().map(|(fine, coarse)| format!("{fine:.3} ≤ {coarse:.3} %")).collect();
    evidence.expect(
        "network of images: the error of logits of a grid a channel is at most that of a grid a matrix at 8, 6, 4, 3, 2 bits",
        text.join(", "),
        pairs.iter().all(|(fine, coarse)| fine <= coarse),
    );
    for (calibration, _) in &CALIBRATIONS[1..] {
        let pairs = [4, 3, 2].map(|bits| {
            let of = |it: &str| error(evidence, bits, &format!("channel, {it}"));
            (of(calibration), of("min-max"))
        });
        let text: Vec<String> =
            pairs.iter().map(|(own, widest)| format!("{own:.2} ≤ {widest:.2} %")).collect();
        evidence.expect(
            format!("network of images: the error of ranges by {calibration} is at most that of min-max at 4, 3, 2 bits, a grid a channel"),
            text.join(", "),
            pairs.iter().all(|(own, widest)| own <= widest),
        );
    }
    Ok(())
}

fn activations(study: &Images<'_>, evidence: &mut Evidence) -> Result<()> {
    study.lab.progress("activations of the network of images", 0.76);
    let mut pairs = Vec::new();
    for bits in BITS {
        let mut errors = Vec::new();
        for (name, symmetry) in [("symmetric", Symmetry::Restricted), ("asymmetric", Symmetry::Asymmetric)] {
            let name = label(CNN, bits, &format!("activations alone, {name}"));
            let row = study.row(&name, &study.folded, &study.values(bits, symmetry), 32.0)?;
            errors.push(row.get(LOGITS).unwrap_or(f64::NAN));
            evidence.rows.push(row);
        }
        pairs.push((errors[1], errors[0]));
    }
    let text: Vec<String> = pairs.iter().map(|(own, other)| format!("{own:.3} ≤ {other:.3} %")).collect();
    evidence.expect(
        "activations behind ReLU: the error of asymmetric grids is at most that of symmetric ones at 8, 6, 4, 3, 2 bits",
        text.join(", "),
        pairs.iter().all(|(own, other)| own <= other),
    );
    Ok(())
}

/// QAT against the best of the calibrations after training.
fn trained(study: &Images<'_>, evidence: &mut Evidence) -> Result<()> {
    let values = calibrate::value_grids(&study.observers, Calibration::MinMax, 8);
    let mut pairs = Vec::new();
    for (number, bits) in [4, 3, 2].into_iter().enumerate() {
        let mut net = study.net.clone();
        let mut qat = Qat::new(&net, &values, Calibration::Mse, (bits, 8))?;
        let schedule = Schedule { epochs: 4, rate: 0.003, freeze: 0.5, seed: study.lab.seed() };
        task::fit(
            &mut net,
            Task::Classify,
            &study.train,
            &schedule,
            &mut Learner::Quantized(&mut qat),
            |done| {
                study.lab.progress("training in few bits", 0.78 + 0.05 * (number as f64 + done));
                Ok(())
            },
        )?;
        let folded = fold(&net);
        let grids = qat.grids(&folded);
        let rounded = calibrate::rounded(&folded, &grids.weights);
        let own: Vec<Option<Grid>> =
            study.eight().iter().zip(&grids.values).map(|(seen, grid)| seen.map(|_| *grid)).collect();
        let bits_a_weight = f64::from(bits) + overhead(&folded);
        let row = study.row(&label(CNN, bits, "channel, QAT"), &rounded, &own, bits_a_weight)?;
        let after = row.get("cross-entropy").unwrap_or(f64::NAN);
        evidence.rows.push(row);
        let of = |it: &str| value(evidence, &label(CNN, bits, &format!("channel, {it}")), "cross-entropy");
        let before = CALIBRATIONS.iter().map(|(name, _)| of(name)).fold(f64::INFINITY, f64::min);
        pairs.push((after, before));
    }
    let text: Vec<String> = pairs.iter().map(|(after, before)| format!("{after:.4} ≤ {before:.4}")).collect();
    evidence.expect(
        "QAT's cross-entropy on test pictures is at most that of the best calibration after training, at 4, 3, 2 bits",
        text.join(", "),
        pairs.iter().all(|(after, before)| after <= before),
    );
    Ok(())
}

/// Bits a weight that scales of 16 bits add.
fn overhead(folded: &Folded) -> f64 {
    let convs = || folded.convs.iter().flatten();
    let scales: usize = convs().map(|conv| conv.window.outputs).sum();
    16.0 * scales as f64 / convs().map(|conv| conv.weights.len()).sum::<usize>().max(1) as f64
}

/// Pictures and probes of a trace.
const PICTURES: usize = 48;
const PROBES: usize = 8;

/// Bits by HAWQ's sensitivities against the same bits for all.
fn mixed(study: &Images<'_>, evidence: &mut Evidence) -> Result<()> {
    let choices = [2, 3, 4, 6, 8];
    let step = (study.train.len() / PICTURES).max(1);
    let frames: Vec<&Frame> = study.train.iter().step_by(step).take(PICTURES).collect();
    let images: Vec<f32> = frames.iter().flat_map(|frame| frame.image.iter().copied()).collect();
    let targets: Vec<f32> = frames.iter().flat_map(|frame| Task::Classify.target(frame)).collect();
    let (mut layers, mut places) = (Vec::new(), Vec::new());
    let steps = study.net.architecture.steps.len();
    for index in 0..steps {
        let Some((window, weights)) = study.net.weights(index) else { continue };
        study.lab.progress("traces of the Hessian", 0.93 + 0.05 * index as f64 / steps as f64);
        let weights = weights.value.clone();
        let mut net = study.net.clone();
        let mut gradient = |moved: &[f32]| -> Result<Vec<f32>> {
            net.params.iter_mut().for_each(|param| param.grad.fill(0.0));
            if let Some(own) = net.weights_mut(index) {
                own.value.copy_from_slice(moved);
            }
            let of = |out: &Tensor| loss::binary(&out.flatten_all()?, &targets, 0.0);
            net.accumulate(&images, Norms::Running, &mut NoHook, of)?;
            Ok(net.weights_mut(index).map(|own| own.grad.clone()).unwrap_or_default())
        };
        let size = (weights.iter().map(|it| it * it).sum::<f32>() / weights.len() as f32).sqrt();
        let trace = hessian::trace(weights.len(), PROBES, study.lab.seed(), |v| {
            hessian::product(&weights, v, 0.02 * size, &mut gradient)
        })?;
        let errors = choices.map(|bits| {
            let grids = channels(&weights, window.depth(), bits, Calibration::Mse);
            let pairs = weights.chunks(window.depth()).zip(&grids);
            let error =
                pairs.flat_map(|(row, grid)| row.iter().map(|&it| f64::from(it - grid.round(it)).powi(2)));
            (bits, error.sum::<f64>())
        });
        layers.push(hessian::Layer { count: weights.len(), trace: trace.value, errors: errors.to_vec() });
        places.push(index);
    }
    let mut pairs = Vec::new();
    let count: usize = layers.iter().map(|layer| layer.count).sum();
    for bits in [3u32, 4] {
        let budget: u64 = layers.iter().map(|layer| (layer.count as u64 * u64::from(bits)).div_ceil(8)).sum();
        let Some(chosen) = hessian::assign(&layers, budget) else { continue };
        let mut errors = Vec::new();
        for (name, given) in [("the same for all", vec![bits; layers.len()]), ("by Hessian traces", chosen)] {
            let mut folded = study.folded.clone();
            for (place, own) in places.iter().zip(&given) {
                let Some(conv) = &mut folded.convs[*place] else { continue };
                let grids = channels(&conv.weights, conv.window.depth(), *own, Calibration::Mse);
                let depth = conv.window.depth();
                conv.weights.chunks_mut(depth).zip(&grids).for_each(|(row, grid)| grid.simulate(row));
            }
            let all: f64 =
                layers.iter().zip(&given).map(|(layer, bits)| layer.count as f64 * f64::from(*bits)).sum();
            let size = all / count as f64 + overhead(&folded);
            let bits_of: Vec<String> = given.iter().map(u32::to_string).collect();
            let name = label(CNN, bits, &format!("on average, {name} ({})", bits_of.join(" ")));
            let row = study.row(&name, &folded, &study.eight(), size)?;
            errors.push(row.get(LOGITS).unwrap_or(f64::NAN));
            evidence.rows.push(row);
        }
        pairs.push((errors[1], errors[0]));
    }
    let text: Vec<String> = pairs.iter().map(|(own, even)| format!("{own:.3} < {even:.3} %")).collect();
    evidence.expect(
        "bits by Hessian traces: the error of logits is below that of the same bits for all in no more bytes, at 3 and 4 bits on average",
        text.join(", "),
        pairs.len() == 2 && pairs.iter().all(|(own, even)| own < even),
    );
    Ok(())
}

/// The engine in integers against fake quantization.
fn integers(study: &Images<'_>, evidence: &mut Evidence) -> Result<()> {
    study.lab.progress("integers alone", 0.98);
    let options = calibrate::Options { activations: Calibration::Entropy, per_channel: true };
    let grids = calibrate::quantize(&study.folded, &study.observers, &options);
    let mut engine = IntEngine::new(&study.folded, &grids)?;
    let (mut most, mut count) = (0, 0);
    for frame in study.test.iter().step_by((study.test.len() / 4).max(1)) {
        engine.infer(&frame.image);
        let (distance, compared) = calibrate::distance(&study.folded, &grids, &engine)?;
        (most, count) = (most.max(distance), count + compared);
    }
    evidence.expect(
        "integers alone, with dyadic multipliers, are within one code of fake quantization in every layer",
        format!("at most {most} of {count} values"),
        most <= 1,
    );
    Ok(())
}
