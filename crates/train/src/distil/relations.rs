//! Relations between tokens as a lesson: MiniLMv2 (arXiv 2012.15828), for students of any width and number of heads.
//!
//! Queries, keys and values of one layer are each cut into `A` relation heads of `d_r` values, however many heads the attention
//! itself has. `R_X = softmax(X Xᵀ / √d_r)` says for every token and head how near it is to each token of its sequence, and
//! `L = Σ_X Σ_t 1/A Σ_a KL(R_X^T[a, t] ‖ R_X^S[a, t])`, a sum over tokens here, a mean over heads. Widths cancel out: teacher and
//! student need the same `A`, no more.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use ounce_model::Model;

use crate::graph::ops::{node, read, tensor};
use crate::graph::{GraphNet, Linear, NoHook, Pass, Slot, Weight};
use crate::{Batch, Error, Loss, Result};

/// Of what relations are taken.
const NAMES: [&str; 3] = ["query", "key", "value"];

/// `softmax(X Xᵀ / √d_r)` of each head of one sequence, `[heads, length, length]`, `x` is `[length, width]`.
pub fn relation(x: &[f32], length: usize, heads: usize) -> Vec<f32> {
    let width = x.len() / length.max(1);
    let size = width / heads;
    let factor = (size as f32).sqrt().recip();
    let mut out = vec![0.0; heads * length * length];
    for (head, out) in out.chunks_exact_mut((length * length).max(1)).enumerate() {
        let of = |token: usize| &x[token * width + head * size..][..size];
        for (i, row) in out.chunks_exact_mut(length).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value = factor * of(i).iter().zip(of(j)).map(|(a, b)| a * b).sum::<f32>();
            }
            ounce_kernels::softmax::softmax(row);
        }
    }
    out
}

/// Sequences of a batch as ranges of tokens.
fn sequences(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let range = |&length: &usize| {
        start += length;
        start - length..start
    };
    lengths.iter().map(range).collect()
}

/// The loss of `x`, `[tokens, width]`, against a teacher's relations, one a sequence; and its gradient. With
/// `dS = R^S − R^T` it is `dx_i = 1/A Σ_j (dS_ij + dS_ji) x_j / √d_r` in each head.
fn divergence(x: &[f32], lengths: &[usize], teacher: &[Vec<f32>], heads: usize) -> (f64, Vec<f32>) {
    let tokens: usize = lengths.iter().sum();
    let width = x.len() / tokens.max(1);
    let size = width / heads;
    let factor = (size as f32).sqrt().recip() / heads as f32;
    let (mut loss, mut gradient) = (0.0, vec![0.0; x.len()]);
    for (range, of) in sequences(lengths).into_iter().zip(teacher) {
        let length = range.len();
        let (x, dx) = (
            &x[range.start * width..range.end * width],
            &mut gradient[range.start * width..range.end * width],
        );
        let own = relation(x, length, heads);
        let nats = |(t, s): (&f32, &f32)| {
            if *t > 0.0 { f64::from(*t) * f64::from(t / s.max(f32::MIN_POSITIVE)).ln() } else { 0.0 }
        };
        loss += of.iter().zip(&own).map(nats).sum::<f64>() / heads as f64;
        for head in 0..heads {
            let at = |i: usize, j: usize| (head * length + i) * length + j;
            for i in 0..length {
                for j in 0..length {
                    let pull = factor * (own[at(i, j)] - of[at(i, j)] + own[at(j, i)] - of[at(j, i)]);
                    let from = &x[j * width + head * size..][..size];
                    let into = &mut dx[i * width + head * size..][..size];
                    into.iter_mut().zip(from).for_each(|(into, from)| *into += pull * from);
                }
            }
        }
    }
    (loss, gradient)
}

/// The loss as a tensor with its way back.
fn loss(x: &Tensor, lengths: &[usize], teacher: &[Vec<f32>], heads: usize) -> Result<(Tensor, f64)> {
    let x = x.contiguous()?;
    let (loss, gradient) = read([&x], |[x]| divergence(x, lengths, teacher, heads))?;
    let shape = x.shape().clone();
    let value = node("relations", &[&x], vec![loss as f32], (), move |behind| {
        let by = read([&behind.gradient], |[by]| by[0])?;
        Ok(vec![Some(tensor(gradient.iter().map(|d| by * d).collect(), &shape)?)])
    })?;
    Ok((value, loss))
}

/// A linear layer whose results someone looks at.
struct Shown {
    base: Linear,
    to: Arc<Mutex<Option<Tensor>>>,
}

impl Slot for Shown {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let result = self.base.forward(x)?;
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.clone());
        Ok(result)
    }

    fn vars(&self) -> Vec<Weight> {
        self.base.vars()
    }
}

/// A network whose queries, keys and values of one layer can be seen.
struct Seen {
    net: GraphNet,
    shown: Shows,
}

/// Queries, keys and values of the pass that was made last.
#[derive(Clone, Default)]
struct Shows([Arc<Mutex<Option<Tensor>>>; 3]);

impl Shows {
    /// Takes them, so that they do not outlive the pass.
    fn take(&self) -> Result<[Tensor; 3]> {
        let take = |at: usize| {
            let mut place = self.0[at].lock().unwrap_or_else(PoisonError::into_inner);
            place.take().ok_or_else(|| Error::Unsupported(format!("the layer has no {}", NAMES[at])))
        };
        Ok([take(0)?, take(1)?, take(2)?])
    }
}

impl Seen {
    fn new(model: &Model, layer: usize, heads: usize, trains: bool) -> Result<Seen> {
        let attention = model.spec.layers.get(layer).and_then(|layer| layer.attention.as_ref());
        let attention =
            attention.ok_or_else(|| Error::Settings(format!("there is no attention in layer {layer}")))?;
        let (heads_of, size) = (attention.heads, attention.head_dim);
        if heads == 0 || attention.kv_heads != heads_of || !(heads_of * size).is_multiple_of(heads) {
            return Err(Error::Settings(format!(
                "{heads} relation heads do not split queries, keys and values of {} values",
                heads_of * size
            )));
        }
        let shown = Shows::default();
        let names = NAMES.map(|name| format!("layers.{layer}.attention.{name}"));
        let net = GraphNet::with_frozen(model, Default::default(), &|_| trains, &mut |name, base| {
            Ok(match names.iter().position(|own| own == name) {
                Some(at) => Box::new(Shown { base, to: shown.0[at].clone() }) as Box<dyn Slot>,
                None => Box::new(base),
            })
        })?;
        Ok(Seen { net, shown })
    }

    /// Relations of a batch: of queries, keys and values, one a sequence.
    fn relations(&mut self, batch: &Batch, heads: usize) -> Result<[Vec<Vec<f32>>; 3]> {
        let mut all: [Vec<Vec<f32>>; 3] = Default::default();
        let shown = self.shown.clone();
        self.net.run(batch, None, &mut |pass: &Pass<'_>| {
            let hidden = pass.hidden(&mut NoHook)?;
            for (into, x) in all.iter_mut().zip(shown.take()?) {
                let x = x.contiguous()?;
                let width = x.dims()[1];
                *into = read([&x], |[x]| {
                    let of = |range: Range<usize>| {
                        relation(&x[range.start * width..range.end * width], range.len(), heads)
                    };
                    sequences(&batch.lengths).into_iter().map(of).collect()
                })?;
            }
            Ok((hidden.sum_all()?, Loss::default()))
        })?;
        Ok(all)
    }
}

/// How relations are learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relations {
    /// The teacher's layer that is taken, counted from 0; MiniLMv2 takes one a little before the last of large teachers.
    pub layer: usize,
    /// Relation heads.
    pub heads: usize,
    /// Weight of the loss of the targets beside; MiniLMv2 has none.
    pub hard: f64,
}

/// A student whose last layer learns the relations of one of the teacher's.
///
/// # Errors
/// If heads do not split a width, or a model has grouped key/value heads.
pub fn relations(student: &Model, teacher: &Model, options: Relations) -> Result<GraphNet> {
    let mut teacher = Seen::new(teacher, options.layer, options.heads, false)?;
    let last = student.spec.layers.len().saturating_sub(1);
    let Seen { mut net, shown } = Seen::new(student, last, options.heads, true)?;
    net.set_objective(move |pass| {
        let batch = pass.batch();
        let taught = teacher.relations(batch, options.heads)?;
        let hidden = pass.hidden(&mut NoHook)?;
        let xs = shown.take()?;
        let mut found = Loss { sum: 0.0, count: batch.counted() };
        // As a mean over targets counts, so does this: a mean over tokens, times the targets.
        let share = found.count as f64 / batch.tokens.len() as f64;
        let mut total: Option<Tensor> = None;
        for (x, taught) in xs.iter().zip(&taught) {
            let (value, nats) = loss(x, &batch.lengths, taught, options.heads)?;
            let value = (value * share)?;
            found.sum += share * nats;
            total = Some(match total {
                Some(total) => (total + value)?,
                None => value,
            });
        }
        if options.hard > 0.0 {
            let (value, of_targets) = pass.usual_loss(&hidden)?;
            found.sum += options.hard * of_targets.sum;
            let value = (value * options.hard)?;
            total = Some(match total {
                Some(total) => (total + value)?,
                None => value,
            });
        }
        let total = total.ok_or_else(|| Error::Unsupported("there is nothing to learn".into()))?;
        Ok((total, found))
    });
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradients_are_differences, hidden_tokens};
    use super::*;
    use crate::Trainable;

    fn encoder(hidden: usize, layers: usize, heads: usize, seed: u64) -> Model {
        super::super::tests::encoder(hidden, layers, heads, 0.4, seed).model().expect("a model")
    }

    /// By the formula, one number at a time.
    #[test]
    fn relations_are_softmaxes_of_products() {
        let x: Vec<f32> = (0..12).map(|n| ((n * 7 % 5) as f32 - 2.0) / 2.0).collect();
        let found = relation(&x, 3, 2);
        for head in 0..2 {
            for i in 0..3 {
                let score = |j: usize| {
                    (0..2).map(|k| x[i * 4 + head * 2 + k] * x[j * 4 + head * 2 + k]).sum::<f32>()
                        / 2.0f32.sqrt()
                };
                let sum: f32 = (0..3).map(|j| score(j).exp()).sum();
                for j in 0..3 {
                    assert!((found[(head * 3 + i) * 3 + j] - score(j).exp() / sum).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn a_teacher_teaches_itself_nothing() {
        let model = encoder(12, 2, 2, 4);
        let mut net =
            relations(&model, &model, Relations { layer: 1, heads: 3, hard: 0.0 }).expect("they fit");
        let loss = net.accumulate(&hidden_tokens(), 1.0).expect("a step");
        assert!(loss.sum.abs() < 1e-5, "{loss:?}");
        assert!(net.params().iter().flat_map(|param| &param.grad).all(|gradient| gradient.abs() < 1e-4));
    }

    /// A narrower student with another number of heads, against differences of the loss.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let (student, teacher) = (encoder(8, 2, 2, 3), encoder(12, 3, 3, 4));
        let options = Relations { layer: 1, heads: 4, hard: 0.3 };
        let mut net = relations(&student, &teacher, options).expect("they fit");
        let moved = gradients_are_differences(&mut net, &hidden_tokens(), 5e-3);
        assert!(moved > 10, "{moved} of {}", 2 * net.params().len());
    }

    #[test]
    fn heads_that_split_no_width_are_refused() {
        let (student, teacher) = (encoder(8, 1, 2, 3), encoder(12, 2, 2, 4));
        let with = |heads: usize, layer: usize| match relations(
            &student,
            &teacher,
            Relations { layer, heads, hard: 0.0 },
        ) {
            Ok(_) => panic!("{heads} heads of layer {layer} are not refused"),
            Err(error) => error.to_string(),
        };
        assert!(with(8, 1).contains("8 relation heads"));
        assert!(with(4, 5).contains("no attention in layer 5"));
    }
}
