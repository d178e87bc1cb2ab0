//! Relations between tokens as a lesson: MiniLMv2 (arXiv 2012.15828), for students of any width and number of heads. A model that
//! reads from left to right relates a token to those before it and itself, as its attention does.
//!
//! Queries, keys and values of one layer are each cut into `A` relation heads of `d_r` values, however many heads the attention
//! itself has. `R_X = softmax(X Xᵀ / √d_r)` says for every token and head how near it is to each token of its sequence, and
//! `L = Σ_X Σ_t 1/A Σ_a KL(R_X^T[a, t] ‖ R_X^S[a, t])`, a sum over tokens here, a mean over heads. Widths cancel out: teacher and
//! student need the same `A`, no more. Grouped keys and values are narrower, and are cut into as many heads.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;
use ounce_model::Model;

use crate::graph::ops::{node, read, tensor};
use crate::graph::{GraphNet, Linear, NoHook, Pass, Slot, Weight};
use crate::{Batch, Error, Loss, Result};

/// Of what relations are taken.
const NAMES: [&str; 3] = ["query", "key", "value"];

/// How tokens are related.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kind {
    /// Relation heads.
    pub heads: usize,
    /// Whether a token is related to those before it and itself only.
    pub causal: bool,
}

/// `softmax(X Xᵀ / √d_r)` of each head of one sequence, `[heads, length, length]`, `x` is `[length, width]`.
pub fn relation(x: &[f32], length: usize, Kind { heads, causal }: Kind) -> Vec<f32> {
    let width = x.len() / length.max(1);
    let size = width / heads;
    let factor = (size as f32).sqrt().recip();
    let mut out = vec![0.0; heads * length * length];
    for (head, out) in out.chunks_exact_mut((length * length).max(1)).enumerate() {
        let of = |token: usize| &x[token * width + head * size..][..size];
        for (i, row) in out.chunks_exact_mut(length).enumerate() {
            let row = &mut row[..if causal { i + 1 } else { length }];
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
fn divergence(x: &[f32], lengths: &[usize], teacher: &[Vec<f32>], kind: Kind) -> (f64, Vec<f32>) {
    let heads = kind.heads;
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
        let own = relation(x, length, kind);
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
fn loss(x: &Tensor, lengths: &[usize], teacher: &[Vec<f32>], kind: Kind) -> Result<(Tensor, f64)> {
    let x = x.contiguous()?;
    let (loss, gradient) = read([&x], |[x]| divergence(x, lengths, teacher, kind))?;
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

    /// The slot of a linear layer: one that shows what it gives if it is one of `layer`'s three.
    fn slot(&self, layer: usize, name: &str, base: Linear) -> Box<dyn Slot> {
        let part = name.strip_prefix(&format!("layers.{layer}.attention."));
        match NAMES.iter().position(|own| part == Some(own)) {
            Some(at) => Box::new(Shown { base, to: self.0[at].clone() }),
            None => Box::new(base),
        }
    }
}

/// Widths of a layer's queries, and of its keys and values.
fn widths(model: &Model, layer: usize) -> Result<[usize; 2]> {
    let attention = model.spec.layers.get(layer).and_then(|layer| layer.attention.as_ref());
    let attention =
        attention.ok_or_else(|| Error::Settings(format!("there is no attention in layer {layer}")))?;
    Ok([attention.query_width(), attention.kv_width()])
}

/// The last layer of a model.
fn last(model: &Model) -> usize {
    model.spec.layers.len().saturating_sub(1)
}

/// What is related, and how much it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relations {
    /// The teacher's layer that is taken, counted from 0; MiniLMv2 takes one a little before the last of large teachers.
    pub layer: usize,
    /// Relation heads.
    pub heads: usize,
    /// Weight of the loss of the targets beside; MiniLMv2 has none.
    pub hard: f64,
}

impl Relations {
    /// The last layers of both, and as many heads as divide all their widths, as near to the student's keys' as can be.
    ///
    /// # Errors
    /// If one has no attention in its last layer.
    pub fn usual(student: &Model, teacher: &Model) -> Result<Relations> {
        let all = [widths(student, last(student))?, widths(teacher, last(teacher))?].concat();
        let own = student.spec.layers[last(student)].attention.as_ref().map_or(1, |it| it.kv_heads);
        let fits = |heads: &usize| all.iter().all(|width| width.is_multiple_of(*heads));
        let heads = (1..=own).rev().find(fits).unwrap_or(1);
        Ok(Relations { layer: last(teacher), heads, hard: 0.0 })
    }
}

/// A teacher's relations, and the place where a student shows its own.
pub(super) struct RelationLesson {
    teacher: GraphNet,
    taught: Shows,
    own: Shows,
    /// The student's layer that learns.
    layer: usize,
    kind: Kind,
}

impl RelationLesson {
    /// What a student's last layer is to learn.
    ///
    /// # Errors
    /// If heads do not split a width, or a layer has no attention.
    pub fn new(student: &Model, teacher: &Model, relations: Relations) -> Result<RelationLesson> {
        let Relations { layer, heads, .. } = relations;
        for width in [widths(student, last(student))?, widths(teacher, layer)?].concat() {
            if heads == 0 || !width.is_multiple_of(heads) {
                return Err(Error::Settings(format!(
                    "{heads} relation heads do not split queries, keys or values of {width} values"
                )));
            }
        }
        let taught = Shows::default();
        let net = GraphNet::with_frozen(teacher, Default::default(), &|_| false, &mut |name, base| {
            Ok(taught.slot(layer, name, base))
        })?;
        let kind = Kind { heads, causal: student.spec.causal };
        Ok(RelationLesson { teacher: net, taught, own: Shows::default(), layer: last(student), kind })
    }

    /// What stands in the place of one of the student's linear layers.
    pub fn slot(&self, name: &str, base: Linear) -> Box<dyn Slot> {
        self.own.slot(self.layer, name, base)
    }

    /// The teacher's relations of a batch: of queries, keys and values, one a sequence.
    fn taught(&mut self, batch: &Batch) -> Result<[Vec<Vec<f32>>; 3]> {
        let mut all: [Vec<Vec<f32>>; 3] = Default::default();
        let (shown, kind) = (self.taught.clone(), self.kind);
        self.teacher.run(batch, None, &mut |pass: &Pass<'_>| {
            let hidden = pass.hidden(&mut NoHook)?;
            for (into, x) in all.iter_mut().zip(shown.take()?) {
                let x = x.contiguous()?;
                let width = x.dims()[1];
                *into = read([&x], |[x]| {
                    let of = |range: Range<usize>| {
                        relation(&x[range.start * width..range.end * width], range.len(), kind)
                    };
                    sequences(&batch.lengths).into_iter().map(of).collect()
                })?;
            }
            Ok((hidden.sum_all()?, Loss::default()))
        })?;
        Ok(all)
    }

    /// The loss of the pass that the student just made, as a sum over targets.
    pub fn loss(&mut self, batch: &Batch) -> Result<(Tensor, f64)> {
        let taught = self.taught(batch)?;
        // As a mean over targets counts, so does this: a mean over tokens, times the targets.
        let share = batch.counted() as f64 / batch.tokens.len() as f64;
        let (mut total, mut sum) = (None, 0.0);
        for (x, taught) in self.own.take()?.iter().zip(&taught) {
            let (value, nats) = loss(x, &batch.lengths, taught, self.kind)?;
            let value = (value * share)?;
            sum += share * nats;
            total = Some(match total {
                Some(total) => (total + value)?,
                None => value,
            });
        }
        let total = total.ok_or_else(|| Error::Unsupported("there is nothing to learn".into()))?;
        Ok((total, sum))
    }
}

/// A student whose last layer learns the relations of one of the teacher's.
///
/// # Errors
/// If heads do not split a width, or a layer has no attention.
pub fn relations(student: &Model, teacher: &Model, options: Relations) -> Result<GraphNet> {
    let mut lesson = RelationLesson::new(student, teacher, options)?;
    let mut net =
        GraphNet::from_model(student, Default::default(), &mut |name, base| Ok(lesson.slot(name, base)))?;
    net.set_objective(move |pass| {
        let hidden = pass.hidden(&mut NoHook)?;
        let (mut total, sum) = lesson.loss(pass.batch())?;
        let mut found = Loss { sum, count: pass.batch().counted() };
        if options.hard > 0.0 {
            let (value, of_targets) = pass.usual_loss(&hidden)?;
            found.sum += options.hard * of_targets.sum;
            total = (total + (value * options.hard)?)?;
        }
        Ok((total, found))
    });
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradients_are_differences, hidden_tokens};
    use super::*;
    use crate::Trainable;
    use crate::config::{self, Preset};
    use crate::net::{Init, Net};

    fn encoder(hidden: usize, layers: usize, heads: usize, seed: u64) -> Model {
        super::super::tests::encoder(hidden, layers, heads, 0.4, seed).model().expect("a model")
    }

    /// By the formula, one number at a time.
    #[test]
    fn relations_are_softmaxes_of_products() {
        let x: Vec<f32> = (0..12).map(|n| ((n * 7 % 5) as f32 - 2.0) / 2.0).collect();
        let found = relation(&x, 3, Kind { heads: 2, causal: false });
        let causal = relation(&x, 3, Kind { heads: 2, causal: true });
        for head in 0..2 {
            for i in 0..3 {
                let score = |j: usize| {
                    (0..2).map(|k| x[i * 4 + head * 2 + k] * x[j * 4 + head * 2 + k]).sum::<f32>()
                        / 2.0f32.sqrt()
                };
                let sum = |tokens: usize| (0..tokens).map(|j| score(j).exp()).sum::<f32>();
                for j in 0..3 {
                    let at = (head * 3 + i) * 3 + j;
                    assert!((found[at] - score(j).exp() / sum(3)).abs() < 1e-6);
                    let before = if j <= i { score(j).exp() / sum(i + 1) } else { 0.0 };
                    assert!((causal[at] - before).abs() < 1e-6);
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

    /// A decoder that relates what it has read, with keys and values that heads share.
    #[test]
    fn decoders_learn_relations_to_what_came_before() {
        let model = |hidden: usize, seed: u64| {
            let shape = config::Model {
                preset: Preset::Llama,
                hidden,
                layers: 2,
                heads: 4,
                kv_heads: 2,
                context: 16,
                ..config::Model::default()
            };
            let model = shape.architecture(11, []).expect("a shape");
            let init = Init { matrix: 0.4, embedding: 0.5, scaled_output: false };
            Net::random(&model, Default::default(), init, seed).expect("a network").model().expect("a model")
        };
        let (student, teacher) = (model(16, 3), model(24, 4));
        let usual = Relations::usual(&student, &teacher).expect("attention");
        assert_eq!(usual, Relations { layer: 1, heads: 2, hard: 0.0 });
        let mut net = relations(&student, &teacher, usual).expect("they fit");
        let text: [&[u32]; 2] = [&[1, 5, 9, 2, 7], &[3, 10, 4, 8]];
        let moved = gradients_are_differences(&mut net, &Batch::next_token(text), 5e-3);
        assert!(moved > 10, "{moved}");
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
