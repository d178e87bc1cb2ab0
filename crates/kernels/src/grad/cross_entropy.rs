//! Cross entropy of a softmax over logits, with its gradient in the place of the logits.

use super::rows::{count, join, split, values};
use crate::pool::{Pool, SharedOut};
use crate::vector::{dispatch, exp, fused, tanh};

/// Logits of which the greatest is known before their exponentials are summed: few enough to stay in the
/// first-level cache between the two.
const BLOCK: usize = 1024;

/// Partial sums and maxima of a block.
const LANES: usize = 32;

/// `Σ (ln Σ exp(logits) − logits[target])` over the rows, in nats and in the rows' order. Rows whose target is
/// `ignore` count nothing. With `softcap` the logits are `cap · tanh(logits / cap)` first.
///
/// With `gradient` the logits are replaced by `scale · (softmax − one-hot)`, times the softcap's slope; rows that
/// count nothing by zeros. Without it they stay.
///
/// # Panics
/// If a target is neither `ignore` nor below `width`, or `logits` is not `[targets, width]`.
pub fn softmax_cross_entropy(
    pool: &Pool,
    logits: &mut [f32],
    width: usize,
    targets: &[u32],
    ignore: u32,
    scale: f32,
    gradient: bool,
    softcap: Option<f32>,
) -> f64 {
    let rows = count(logits.len(), width);
    assert_eq!(rows, targets.len(), "a target for every row of logits");
    if let Some(target) = targets.iter().find(|&&target| target != ignore && target as usize >= width) {
        panic!("target {target} of {width} logits");
    }
    let mut losses = vec![0.0f64; rows];
    let (shared, logits) = (SharedOut::new(&mut losses), SharedOut::new(logits));
    split(pool, rows, width, |rows| {
        // SAFETY: threads have disjoint rows.
        let (losses, logits) = unsafe { (shared.part(rows.clone()), logits.part(values(&rows, width))) };
        for ((loss, logits), &target) in
            losses.iter_mut().zip(logits.chunks_exact_mut(width)).zip(&targets[rows])
        {
            if target != ignore {
                *loss = row(logits, target as usize, scale, gradient, softcap);
            } else if gradient {
                logits.fill(0.0);
            }
        }
    });
    losses.iter().sum()
}

/// One row.
fn row(logits: &mut [f32], target: usize, scale: f32, gradient: bool, softcap: Option<f32>) -> f64 {
    #[inline(always)]
    fn run<const FUSED: bool>(
        logits: &mut [f32],
        target: usize,
        scale: f32,
        gradient: bool,
        softcap: Option<f32>,
    ) -> f64 {
        let (greatest, total) = exponentials::<FUSED>(logits, softcap);
        let capped = |x: f32| softcap.map_or(x, |cap| cap * tanh::<FUSED>(x / cap));
        let loss = f64::from(greatest) + total.ln() - f64::from(capped(logits[target]));
        if gradient {
            let factor = (f64::from(scale) / total) as f32;
            let own = logits[target];
            if let Some(cap) = softcap {
                for x in logits.iter_mut() {
                    let bent = tanh::<FUSED>(*x / cap);
                    let slope = fused::<FUSED>(-bent, bent, 1.0);
                    *x = factor * exp::<FUSED>(cap * bent - greatest) * slope;
                }
                let bent = tanh::<FUSED>(own / cap);
                logits[target] -= scale * fused::<FUSED>(-bent, bent, 1.0);
            } else {
                logits.iter_mut().for_each(|x| *x = factor * exp::<FUSED>(*x - greatest));
                logits[target] -= scale;
            }
        }
        loss
    }
    dispatch!(run(logits: &mut [f32], target: usize, scale: f32, gradient: bool, softcap: Option<f32>) -> f64)
}

/// The greatest logit and `Σ exp(logit − greatest)`, in one pass over memory: a greater one scales what was summed.
#[inline(always)]
fn exponentials<const FUSED: bool>(logits: &[f32], softcap: Option<f32>) -> (f32, f64) {
    let (mut greatest, mut total) = (f32::MIN, 0.0f64);
    let mut capped = [0.0f32; BLOCK];
    for block in logits.chunks(BLOCK) {
        let block = match softcap {
            Some(cap) => {
                let capped = &mut capped[..block.len()];
                capped.iter_mut().zip(block).for_each(|(to, x)| *to = cap * tanh::<FUSED>(x / cap));
                &*capped
            }
            None => block,
        };
        let here = fold(block, greatest, |a, b| if b > a { b } else { a });
        let here = here.into_iter().fold(greatest, f32::max);
        if here > greatest {
            total *= f64::from(greatest - here).exp();
            greatest = here;
        }
        total += join(fold(block, 0.0, |sum, x| sum + exp::<FUSED>(x - greatest)));
    }
    (greatest, total)
}

/// Folds values into lanes that begin with `first`.
#[inline(always)]
fn fold(values: &[f32], first: f32, join: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [first; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = join(lanes[lane], chunk[lane]);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        lanes[lane] = join(lanes[lane], x);
    }
    lanes
}
