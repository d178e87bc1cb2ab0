//! Log-likelihoods of many continuations.
//!
//! Continuations are sorted by their tokens, so that those with the same beginning follow each other: a sequence keeps in its
//! cache what the next one shares with it, be it a question with several choices or the same solved examples. Several
//! sequences run in one forward pass, each at its own place; nothing is padded. Continuations that differ in their last
//! token only, such as the letters of choices, are one run.

use std::collections::VecDeque;

use ounce_engine::{Batch, Engine, Error, Result, Session, Turn, Want};
use ounce_kernels::softmax::log_sum_exp;

use crate::walk::runs_whole;

/// Sequences in a forward pass.
pub(super) const LANES: usize = 8;
/// Tokens of one sequence in a forward pass.
pub(super) const CHUNK: usize = 128;
/// Logits that are in memory at once.
const LOGITS: usize = 1 << 26;

/// A continuation behind a context, neither empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub context: Vec<u32>,
    pub continuation: Vec<u32>,
}

/// What a model says of a continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    /// Natural logarithm of its probability.
    pub log_likelihood: f64,
    /// Whether each of its tokens is the likeliest in its place.
    pub greedy: bool,
}

/// Continuations that are judged from the same tokens.
struct Run {
    /// What the model is given.
    fed: Vec<u32>,
    /// The first of the places that predict.
    from: usize,
    /// Who asked, and what is predicted from there on.
    wanted: Vec<(usize, Vec<u32>)>,
}

/// Scores pairs; `done` gets each one's place and score as it is known, and `step` is called between forward passes. What
/// is longer than the model's context is cut on the left.
///
/// # Errors
/// If a token is unknown to the model, the model is an encoder, or a callback returns an error.
pub(super) fn score(
    engine: &Engine,
    pairs: &[Pair],
    mut step: impl FnMut() -> Result<()>,
    mut done: impl FnMut(usize, Scored) -> Result<()>,
) -> Result<()> {
    let runs = runs(pairs, engine.spec().context_length);
    let vocab = engine.spec().vocab_size;
    for &id in runs.iter().flat_map(|run| run.wanted.iter().flat_map(|(_, ids)| ids)) {
        if id as usize >= vocab {
            return Err(Error::Token { id, vocab_size: vocab });
        }
    }
    let mut groups = groups(&runs);
    let lanes = LANES.min(groups.len());
    let whole = runs_whole(engine);
    let rows = (LOGITS / vocab.max(1) / lanes.max(1)).clamp(1, CHUNK);
    let mut batch = engine.batch();
    let mut lanes: Vec<Lane<'_, '_>> = (0..lanes).map(|_| Lane::new(engine.session(), whole, rows)).collect();
    loop {
        lanes.iter_mut().for_each(|lane| lane.begin(&mut groups));
        lanes.retain(|lane| lane.run.is_some());
        if lanes.is_empty() {
            return Ok(());
        }
        step()?;
        forward(&mut batch, &mut lanes, vocab)?;
        for lane in &mut lanes {
            let Some(run) = lane.run.filter(|run| lane.at == run.fed.len()) else { continue };
            for ((asker, _), scored) in run.wanted.iter().zip(&lane.scores) {
                done(*asker, *scored)?;
            }
            lane.run = None;
        }
    }
}

/// One forward pass of all lanes.
fn forward<'e>(batch: &mut Batch<'e>, lanes: &mut [Lane<'e, '_>], vocab: usize) -> Result<()> {
    let mut turns: Vec<Turn<'_, 'e>> = lanes.iter_mut().filter_map(Lane::turn).collect();
    let mut logits = batch.step(&mut turns)?;
    drop(turns);
    for lane in lanes {
        let (own, rest) = logits.split_at(lane.predicting() * vocab);
        logits = rest;
        lane.take(own, vocab);
    }
    Ok(())
}

/// Runs sorted by their tokens.
fn runs(pairs: &[Pair], context_length: usize) -> Vec<Run> {
    let mut runs: Vec<Run> = (pairs.iter().enumerate())
        .map(|(asker, pair)| {
            let mut all = [pair.context.as_slice(), &pair.continuation].concat();
            let cut = all.len().saturating_sub(context_length + 1);
            all.drain(..cut);
            all.pop();
            let predicted = pair.continuation.len().min(all.len());
            let from = all.len() - predicted;
            let wanted = pair.continuation[pair.continuation.len() - predicted..].to_vec();
            Run { fed: all, from, wanted: vec![(asker, wanted)] }
        })
        .collect();
    runs.sort_by(|a, b| a.fed.cmp(&b.fed).then(a.from.cmp(&b.from)));
    runs.dedup_by(|later, kept| {
        let same = later.fed == kept.fed && later.from == kept.from;
        if same {
            kept.wanted.append(&mut later.wanted);
        }
        same
    });
    runs
}

/// Runs behind the same context, which one lane takes together.
fn groups(runs: &[Run]) -> VecDeque<VecDeque<&Run>> {
    let mut groups: VecDeque<VecDeque<&Run>> = VecDeque::new();
    for run in runs {
        let context = &run.fed[..=run.from];
        match groups.back_mut() {
            Some(group) if group[0].fed.starts_with(context) && group[0].from == run.from => {
                group.push_back(run)
            }
            _ => groups.push_back(VecDeque::from([run])),
        }
    }
    groups
}

/// One sequence and what it is at.
struct Lane<'e, 'r> {
    session: Session<'e>,
    /// Whether a run must be given at once.
    whole: bool,
    /// Places that may predict in one pass.
    rows: usize,
    group: VecDeque<&'r Run>,
    run: Option<&'r Run>,
    /// Tokens of the run that are done, and where the pass that is under way ends.
    at: usize,
    end: usize,
    scores: Vec<Scored>,
}

impl<'e, 'r> Lane<'e, 'r> {
    fn new(session: Session<'e>, whole: bool, rows: usize) -> Lane<'e, 'r> {
        Lane { session, whole, rows, group: VecDeque::new(), run: None, at: 0, end: 0, scores: Vec::new() }
    }

    /// Takes the next run if the last one is done.
    fn begin(&mut self, groups: &mut VecDeque<VecDeque<&'r Run>>) {
        if self.run.is_some() {
            return;
        }
        if self.group.is_empty() {
            self.group = groups.pop_front().unwrap_or_default();
        }
        let Some(run) = self.group.pop_front() else { return };
        let shared = self.session.tokens().iter().zip(&run.fed).take_while(|(a, b)| a == b).count();
        self.at = if self.whole { 0 } else { shared.min(run.from) };
        self.session.truncate(self.at);
        self.scores = vec![Scored { log_likelihood: 0.0, greedy: true }; run.wanted.len()];
        self.run = Some(run);
    }

    /// Its part of the next pass.
    fn turn(&mut self) -> Option<Turn<'_, 'e>> {
        let run = self.run?;
        let predicts = self.at >= run.from || self.whole;
        self.end = match (self.whole, predicts) {
            (true, _) => run.fed.len(),
            (false, true) => run.fed.len().min(self.at + self.rows),
            (false, false) => run.from.min(self.at + CHUNK),
        };
        let want = if predicts { Want::All } else { Want::Nothing };
        Some(Turn { session: &mut self.session, ids: &run.fed[self.at..self.end], want })
    }

    /// Rows of logits that the pass gives it.
    fn predicting(&self) -> usize {
        let predicts = self.whole || self.run.is_some_and(|run| self.at >= run.from);
        if predicts { self.end - self.at } else { 0 }
    }

    fn take(&mut self, logits: &[f32], vocab: usize) {
        let Some(run) = self.run else { return };
        for (place, row) in (self.at..self.end).zip(logits.chunks_exact(vocab)) {
            let Some(target) = place.checked_sub(run.from) else { continue };
            let total = log_sum_exp(row);
            let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let likeliest = row.iter().position(|&logit| logit == greatest);
            for ((_, ids), score) in run.wanted.iter().zip(&mut self.scores) {
                let id = ids[target] as usize;
                score.log_likelihood += f64::from(row[id]) - total;
                score.greedy &= likeliest == Some(id);
            }
        }
        self.at = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(context: &[u32], continuation: &[u32]) -> Pair {
        Pair { context: context.to_vec(), continuation: continuation.to_vec() }
    }

    #[test]
    fn what_is_shared_is_one_run_and_one_group() {
        let pairs = [
            pair(&[1, 2], &[3]),
            pair(&[9, 9], &[4, 5]),
            pair(&[1, 2], &[4]),
            pair(&[1, 2], &[3, 3]),
            pair(&[1], &[2, 3]),
        ];
        let runs = runs(&pairs, 100);
        let told: Vec<_> = (runs.iter()).map(|run| (run.fed.clone(), run.from, run.wanted.len())).collect();
        assert_eq!(
            told,
            [(vec![1, 2], 0, 1), (vec![1, 2], 1, 2), (vec![1, 2, 3], 1, 1), (vec![9, 9, 4], 1, 1)]
        );
        let groups: Vec<usize> = groups(&runs).iter().map(VecDeque::len).collect();
        assert_eq!(groups, [1, 2, 1]);
    }

    #[test]
    fn long_contexts_are_cut_on_the_left() {
        let runs = runs(&[pair(&[1, 2, 3, 4], &[5, 6])], 3);
        assert_eq!((runs[0].fed.as_slice(), runs[0].from), (&[3, 4, 5][..], 1));
        // Even a continuation may be cut.
        let runs = super::runs(&[pair(&[1], &[5, 6, 7, 8])], 2);
        assert_eq!((runs[0].fed.as_slice(), runs[0].from), (&[6, 7][..], 0));
        assert_eq!(runs[0].wanted[0].1, [7, 8]);
    }
}
