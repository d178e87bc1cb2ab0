//! How networks learn kinds of pictures, and how they are judged.

use candle_core::Tensor;
use ounce_kernels::conv::Window;
use ounce_train::graph::ops::{node, read, tensor};
use ounce_train::optim::{Kind, Optimizer, Options};
use ounce_train::vision::{Architecture, Net, NoHook, Norms, Step};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::lesions::{CHANNELS, CLASSES, SIDE, Set, VALUES};
use crate::Result;

/// Pictures of a batch.
const BATCH: usize = 16;

/// Pairs of convolutions of these widths with pools between, the mean of all pixels, and a logit for each kind: a small VGG.
pub fn architecture(widths: [usize; 3]) -> Architecture {
    let mut steps = Vec::new();
    let mut inputs = CHANNELS;
    for (index, outputs) in widths.into_iter().enumerate() {
        for _ in 0..2 {
            let window = Window { inputs, outputs, size: 3, stride: 1 };
            steps.push(Step::Conv { from: steps.len(), window, norm: true, relu: true });
            inputs = outputs;
        }
        if index < 2 {
            steps.push(Step::Pool { from: steps.len() });
        }
    }
    steps.push(Step::Mean { from: steps.len() });
    let window = Window { inputs, outputs: CLASSES, size: 1, stride: 1 };
    steps.push(Step::Conv { from: steps.len(), window, norm: false, relu: false });
    Architecture { side: (SIDE, SIDE), channels: CHANNELS, steps }
}

/// The mean cross-entropy of logits, `[.., kinds]`.
///
/// # Errors
/// If there are not as many kinds as rows of logits.
pub fn cross_entropy(logits: &Tensor, kinds: &[usize]) -> ounce_train::Result<Tensor> {
    let logits = logits.contiguous()?;
    let rows = logits.elem_count() / CLASSES;
    if rows != kinds.len() || rows == 0 {
        return Err(ounce_train::Error::Batch(format!("{} kinds for {rows} rows of logits", kinds.len())));
    }
    let (loss, slopes) = read([&logits], |[logits]| {
        let (mut loss, mut slopes) = (0.0f64, Vec::with_capacity(logits.len()));
        for (row, kind) in logits.chunks_exact(CLASSES).zip(kinds) {
            let most = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row.iter().map(|it| f64::from(it - most).exp()).sum();
            loss += sum.ln() - f64::from(row[*kind] - most);
            slopes.extend(row.iter().enumerate().map(|(at, it)| {
                let share = f64::from(it - most).exp() / sum;
                ((share - if at == *kind { 1.0 } else { 0.0 }) / rows as f64) as f32
            }));
        }
        (loss / rows as f64, slopes)
    })?;
    let shape = logits.shape().clone();
    Ok(node("cross-entropy", &[&logits], vec![loss as f32], (), move |behind| {
        let outer = behind.gradient.to_scalar::<f32>()?;
        Ok(vec![Some(tensor(slopes.iter().map(|it| it * outer).collect(), &shape)?)])
    })?)
}

/// Trains by SGD with momentum; the rate falls to a tenth after half of the epochs and again after three quarters. `progress` is told
/// the share that is done.
///
/// # Errors
/// If training diverges, or `progress` stops it.
pub fn fit(
    net: &mut Net,
    set: &Set,
    (epochs, rate): (usize, f64),
    seed: u64,
    progress: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<()> {
    let options = Options { kind: Kind::Sgd, momentum: 0.9, weight_decay: 1e-3, ..Options::default() };
    let mut optimizer = Optimizer::new(options, &net.params)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..set.kinds.len()).collect();
    for epoch in 0..epochs {
        order.shuffle(&mut random);
        let rate = rate * [1.0, 1.0, 0.1, 0.01][(4 * epoch / epochs).min(3)];
        for (number, batch) in order.chunks(BATCH).enumerate() {
            progress((epoch as f64 + (number * BATCH) as f64 / order.len() as f64) / epochs as f64)?;
            let Set { images, kinds } = set.some(batch);
            let loss = |logits: &Tensor| cross_entropy(logits, &kinds);
            net.learn(&mut optimizer, rate, &images, Norms::Batch, &mut NoHook, loss)?;
        }
    }
    progress(1.0)
}

/// How well kinds are told, as means over kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// The mean of each kind's part that is found.
    pub recall: f64,
    /// The mean of each kind's F1.
    pub f1: f64,
    /// The recall of the rarest two kinds.
    pub rare: f64,
    /// The part of all pictures that is right.
    pub accuracy: f64,
}

/// Scores what was found against what is so.
pub fn score(found: &[usize], kinds: &[usize]) -> Score {
    let count = |test: &dyn Fn(usize, usize) -> bool| {
        found.iter().zip(kinds).filter(|(found, kind)| test(**found, **kind)).count() as f64
    };
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let (mut recalls, mut f1) = ([0.0; CLASSES], 0.0);
    for (kind, recall) in recalls.iter_mut().enumerate() {
        let right = count(&|found, is| found == kind && is == kind);
        let (all, said) = (count(&|_, is| is == kind), count(&|found, _| found == kind));
        *recall = share(right, all);
        f1 += share(2.0 * right, all + said) / CLASSES as f64;
    }
    Score {
        recall: recalls.iter().sum::<f64>() / CLASSES as f64,
        f1,
        rare: recalls[CLASSES - 2..].iter().sum::<f64>() / 2.0,
        accuracy: share(count(&|found, is| found == is), kinds.len() as f64),
    }
}

/// The likeliest kind of each row of logits.
pub fn likeliest(logits: &[f32]) -> usize {
    (0..logits.len()).fold(0, |best, at| if logits[at] > logits[best] { at } else { best })
}

/// Judges a network on pictures.
///
/// # Errors
/// If pictures don't fit.
pub fn judge(net: &Net, set: &Set) -> Result<Score> {
    let mut found = Vec::with_capacity(set.kinds.len());
    for images in set.images.chunks(64 * VALUES) {
        found.extend(net.forward(images, &mut NoHook)?.chunks_exact(CLASSES).map(likeliest));
    }
    Ok(score(&found, &set.kinds))
}
