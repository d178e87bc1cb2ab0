//! Which layers attend alike, and which of them copy.

use candle_core::Tensor;
use ounce_model::Model;
use ounce_model::spec::Attention;
use ounce_train::Batch;
use ounce_train::Loss;
use ounce_train::graph::{GraphNet, Hook};
use ounce_train::net::Options;

use crate::prune::structured::groups::attention;
use crate::stages::not_empty;
use crate::{Error, Result};

/// Keeps queries and keys of all layers.
#[derive(Default)]
struct Watch(Vec<[Vec<f32>; 2]>);

impl Hook for Watch {
    fn attends(&mut self, _layer: usize, queries: &Tensor, keys: &Tensor) -> ounce_train::Result<()> {
        let values = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        self.0.push([values(queries)?, values(keys)?]);
        Ok(())
    }
}

/// The attention of each layer, which must be there and alike in shape, so that one layer's matrix can be another's.
///
/// # Errors
/// If layers differ, or look both ways.
pub(super) fn alike(model: &Model) -> Result<Attention> {
    let spec = &model.spec;
    let differ = || {
        Error::Option(
            "layers of this model attend in different shapes, so none can copy another's attention".into(),
        )
    };
    let first = attention(spec, 0).ok_or_else(differ)?;
    let shape = |it: &Attention| (it.heads, it.kv_heads, it.head_dim, it.window, it.rope.clone());
    let same = (0..spec.layers.len()).all(|layer| {
        attention(spec, layer).is_some_and(|it| {
            shape(it) == shape(first) && it.scale == first.scale && it.softcap == first.softcap
        })
    });
    if !same {
        return Err(differ());
    }
    if !spec.causal || spec.sharing_layers() + spec.copying_layers() > 0 {
        return Err(Error::Option(
            "only decoders whose layers have weights of their own can copy attention".into(),
        ));
    }
    Ok(first.clone())
}

/// A head's attention to all tokens up to `t`, `[t + 1]`.
fn row(shape: &Attention, [queries, keys]: &[Vec<f32>; 2], head: usize, t: usize) -> Vec<f32> {
    let Attention { heads, kv_heads, head_dim, scale, softcap, window, .. } = *shape;
    let query = &queries[(t * heads + head) * head_dim..][..head_dim];
    let kv_head = head / (heads / kv_heads);
    let mut row: Vec<f32> = (0..=t)
        .map(|at| {
            if window.is_some_and(|window| t - at >= window) {
                return f32::NEG_INFINITY;
            }
            let key = &keys[(at * kv_heads + kv_head) * head_dim..][..head_dim];
            let score = scale * query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>();
            softcap.map_or(score, |cap| cap * (score / cap).tanh())
        })
        .collect();
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|score| *score = (*score - most).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|score| *score /= sum);
    row
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-30)
}

/// How alike layers attend, `[layers][layers]`: the mean cosine between rows of their attention matrices, over heads and tokens of
/// sequences of token ids. The first token of a sequence sees itself alone and doesn't count.
///
/// # Errors
/// If there is no text, layers differ in shape, a weight can't be read, or `progress` stops the work.
pub fn similarity(
    model: &Model,
    sequences: &[Vec<u32>],
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<Vec<f64>>> {
    not_empty(sequences)?;
    let shape = alike(model)?;
    let layers = model.spec.layers.len();
    let mut net =
        GraphNet::with_frozen(model, Options::default(), &|_| false, &mut |_, linear| Ok(Box::new(linear)))?;
    let (mut sums, mut count) = (vec![vec![0.0; layers]; layers], 0usize);
    for (done, ids) in sequences.iter().enumerate() {
        progress(done, sequences.len())?;
        let batch = Batch::next_token([ids.as_slice()]);
        let mut watch = Watch::default();
        net.run(&batch, None, &mut |pass| Ok((pass.hidden(&mut watch)?, Loss::default())))?;
        for t in 1..batch.tokens.len() {
            for head in 0..shape.heads {
                let rows: Vec<Vec<f32>> = watch.0.iter().map(|seen| row(&shape, seen, head, t)).collect();
                for a in 0..layers {
                    for b in a..layers {
                        let cosine = cosine(&rows[a], &rows[b]);
                        sums[a][b] += cosine;
                        if a != b {
                            sums[b][a] += cosine;
                        }
                    }
                }
                count += 1;
            }
        }
    }
    progress(sequences.len(), sequences.len())?;
    sums.iter_mut().flatten().for_each(|sum| *sum /= count.max(1) as f64);
    Ok(sums)
}

/// Of each layer the one by whose matrix it attends: itself, or the nearest before it that has its own. `copies` layers copy, none of the first and last
/// `keep`; the sum of `worth[source][copy]` is the greatest there is.
///
/// # Errors
/// If there are not so many layers between.
pub fn sources(worth: &[Vec<f64>], keep: usize, copies: usize) -> Result<Vec<usize>> {
    let layers = worth.len();
    let keep = keep.max(1);
    let between = keep..layers.saturating_sub(keep);
    if copies > between.len() {
        return Err(Error::Option(format!(
            "{copies} layers can't copy where {} of {layers} may; let fewer copy, or keep fewer as they are",
            between.len()
        )));
    }
    // best[c][s]: the greatest sum for the layers so far with c copies, the last layer with a matrix of its own being s.
    type Entry = Option<(f64, Vec<usize>)>;
    let mut best: Vec<Vec<Entry>> = vec![vec![None; layers]; copies + 1];
    best[0][0] = Some((0.0, vec![0]));
    for layer in 1..layers {
        let mut next: Vec<Vec<Entry>> = vec![vec![None; layers]; copies + 1];
        let mut offer = |count: usize, source: usize, sum: f64, list: &[usize], own: usize| {
            let place: &mut Entry = &mut next[count][source];
            if place.as_ref().is_none_or(|(known, _)| sum > *known) {
                *place = Some((sum, [list, &[own]].concat()));
            }
        };
        for (count, row) in best.iter().enumerate() {
            for (source, entry) in row.iter().enumerate() {
                let Some((sum, list)) = entry else { continue };
                offer(count, layer, *sum, list, layer);
                if count < copies && between.contains(&layer) {
                    offer(count + 1, source, sum + worth[source][layer], list, source);
                }
            }
        }
        best = next;
    }
    let found = best.swap_remove(copies).into_iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0));
    found
        .map(|it| it.1)
        .ok_or_else(|| Error::Option("a model without layers has no attention to copy".into()))
}
