//! A bi-encoder: queries and passages become vectors by one encoder, and passages are ranked by the product of vectors.
//!
//! `v` is the state of the first token, of the last, or the mean of all, as the model's files say (mean where they say nothing), brought to length one
//! unless they say otherwise. A batch has `n` queries, their passages, and `k` wrong passages for each query; each passage of a batch is a
//! wrong one for all other queries: `L = −Σ_i ln softmax_j(v(q_i) · v(p_j) / τ)[i]`, over `n (1 + k)` passages.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{D, Device, Tensor};
use ounce_eval::bm25::Bm25;
use ounce_eval::ranking;
use ounce_model::spec::{PoolingMode, Spec};
use ounce_model::tokenizer::Tokenizer;
use ounce_train::data::readers::{Content, ReadOptions, Records};
use ounce_train::data::{BatchSource, Position};
use ounce_train::{Batch, Loss};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Adapted, Error, Result};

/// How an encoder learns to rank.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// τ.
    pub temperature: f64,
    /// k: wrong passages of each query in a batch.
    pub negatives: usize,
}

/// A query, the passage that answers it, and passages that do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// What is asked.
    pub query: String,
    /// What answers it.
    pub passage: String,
    /// What seems to.
    pub negatives: Vec<String>,
}

/// Pairs from files: records with `query`, `passage` and maybe `negatives`, a list.
///
/// # Errors
/// If a file can't be read, or a record lacks query or passage.
pub fn pairs(paths: &[PathBuf]) -> Result<Vec<Pair>> {
    let mut all = Vec::new();
    for record in Records::open(paths, &ReadOptions::default())? {
        let record = record?;
        let place = record.place.to_string();
        let Content::Fields(fields) = record.content else {
            return Err(Error::Option(format!(
                "{place}: is plain text; pairs are records with the columns query and passage, such as JSON lines"
            )));
        };
        let text = |names: &[&str]| -> Result<String> {
            let value = names.iter().find_map(|name| fields.get(*name)).and_then(Value::as_str);
            value.filter(|text| !text.trim().is_empty()).map(str::to_owned).ok_or_else(|| {
                Error::Option(format!("{place}: has no text in a column {}", names.join(", ")))
            })
        };
        let negatives = match fields.get("negatives").or_else(|| fields.get("negative")) {
            Some(Value::Array(list)) => list.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect(),
            Some(Value::String(one)) => vec![one.clone()],
            _ => Vec::new(),
        };
        let query = text(&["query", "question", "anchor"])?;
        all.push(Pair { query, passage: text(&["passage", "positive", "document"])?, negatives });
    }
    Ok(all)
}

/// Gives pairs without wrong passages `count` of them: those that share the most words with the query and answer another one.
pub fn mine(pairs: &mut [Pair], count: usize) {
    let plain = |text: &str| text.to_lowercase().replace(|it: char| !it.is_alphanumeric(), " ");
    let words = Bm25::new(&pairs.iter().map(|pair| plain(&pair.passage)).collect::<Vec<_>>());
    let passages: Vec<String> = pairs.iter().map(|pair| pair.passage.clone()).collect();
    for pair in pairs.iter_mut().filter(|pair| pair.negatives.len() < count) {
        let scores = words.scores(&plain(&pair.query));
        let mut order: Vec<usize> = (0..passages.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        for at in order {
            if pair.negatives.len() >= count {
                break;
            }
            if passages[at] != pair.passage && !pair.negatives.contains(&passages[at]) {
                pair.negatives.push(passages[at].clone());
            }
        }
    }
}

/// A text as an encoder is given it, at most `limit` tokens.
///
/// # Errors
/// If it can't be tokenized.
pub fn sequence(tokenizer: &Tokenizer, text: &str, limit: usize) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(text, true)?;
    if ids.len() > limit {
        // The token that ends a text stays at its end.
        let ending = ids.last().copied().filter(|&id| tokenizer.is_special(id));
        ids.truncate(limit);
        if let (Some(last), Some(ending)) = (ids.last_mut(), ending) {
            *last = ending;
        }
    }
    match ids.is_empty() {
        true => Err(Error::Option("an empty text has no vector".into())),
        false => Ok(ids),
    }
}

/// Pairs as tokens, in batches.
#[derive(Debug)]
pub struct PairStream {
    /// Query, passage, wrong passages.
    pairs: Vec<[Vec<Vec<u32>>; 3]>,
    negatives: usize,
    at_once: usize,
    seed: u64,
    epochs: Option<u64>,
    order: Vec<usize>,
    at: Position,
}

impl PairStream {
    /// Pairs in batches of `at_once`, each epoch in an order of its own.
    ///
    /// # Errors
    /// If a text can't be tokenized, there are fewer than two pairs, or a pair has too few wrong passages.
    pub fn new(
        tokenizer: &Tokenizer,
        pairs: &[Pair],
        (at_once, negatives): (usize, usize),
        limit: usize,
        seed: u64,
        epochs: Option<u64>,
    ) -> Result<PairStream> {
        if pairs.len() < 2 || at_once < 2 {
            return Err(Error::Option(format!(
                "{} pairs, {at_once} in a batch: a query is told from others, so two or more are needed",
                pairs.len()
            )));
        }
        let mut tokens = Vec::with_capacity(pairs.len());
        for pair in pairs {
            if pair.negatives.len() < negatives {
                return Err(Error::Option(format!(
                    "the query {:?} has {} wrong passages and {negatives} are asked for; give more, or a smaller --negatives",
                    pair.query,
                    pair.negatives.len()
                )));
            }
            let of = |text: &String| sequence(tokenizer, text, limit);
            let wrong = pair.negatives[..negatives].iter().map(of).collect::<Result<_>>()?;
            tokens.push([vec![of(&pair.query)?], vec![of(&pair.passage)?], wrong]);
        }
        let source = tokens
            .iter()
            .flatten()
            .flatten()
            .flatten()
            .fold(seed, |sum, &id| sum.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(id));
        let at_once = at_once.min(pairs.len());
        let mut stream = PairStream {
            pairs: tokens,
            negatives,
            at_once,
            seed,
            epochs,
            order: Vec::new(),
            at: Position { source, ..Position::default() },
        };
        stream.reorder();
        Ok(stream)
    }

    fn reorder(&mut self) {
        self.order = (0..self.pairs.len()).collect();
        if self.epochs.is_none() {
            let seed = self.seed ^ self.at.epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
    }
}

impl BatchSource for PairStream {
    /// All batches are full: what is left of an epoch is not given.
    fn next(&mut self) -> ounce_train::Result<Option<Batch>> {
        if self.at.index as usize + self.at_once > self.pairs.len() {
            self.at.epoch += 1;
            self.at.index = 0;
            self.reorder();
        }
        if self.epochs.is_some_and(|epochs| self.at.epoch >= epochs) {
            return Ok(None);
        }
        let chosen = self.at.index as usize..self.at.index as usize + self.at_once;
        self.at.index += self.at_once as u64;
        self.at.step += 1;
        let chosen: Vec<&[Vec<Vec<u32>>; 3]> = self.order[chosen].iter().map(|&at| &self.pairs[at]).collect();
        let of = |part: usize| chosen.iter().flat_map(move |pair| &pair[part]);
        let mut batch = Batch::untold(of(0).chain(of(1)).chain(of(2)));
        let mut start = 0;
        for &length in &batch.lengths[..chosen.len()] {
            // The first token of a query stands for it, so that the loss is counted by queries.
            batch.targets[start] = 0;
            start += length;
        }
        debug_assert_eq!(batch.lengths.len(), chosen.len() * (2 + self.negatives));
        Ok(Some(batch))
    }

    fn position(&self) -> Position {
        self.at.clone()
    }

    fn seek(&mut self, position: &Position) -> ounce_train::Result<()> {
        position.check(self.at.source, self.pairs.len())?;
        self.at = position.clone();
        self.reorder();
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.pairs.iter().flatten().flatten().map(|ids| ids.len() as u64).sum()
    }
}

/// Vectors `[sequences, d]` of a stream `[tokens, d]`; the first `skipped` places of each sequence hold no text.
pub(crate) fn pooled(
    spec: &Spec,
    stream: &Tensor,
    lengths: &[usize],
    skipped: usize,
) -> ounce_train::Result<Tensor> {
    let (mode, normalise) =
        spec.pooling.map_or((PoolingMode::Mean, true), |pooling| (pooling.mode, pooling.normalise));
    let tokens: usize = lengths.iter().sum();
    let mut weights = vec![0.0f32; lengths.len() * tokens];
    let mut start = 0;
    for (row, &length) in weights.chunks_exact_mut(tokens.max(1)).zip(lengths) {
        let own = start + skipped..start + length;
        match mode {
            PoolingMode::Cls => row[own.start] = 1.0,
            PoolingMode::Last => row[own.end - 1] = 1.0,
            PoolingMode::Mean => row[own.clone()].fill(1.0 / own.len() as f32),
            PoolingMode::Max => {
                let what = "vectors of largest values can't be trained; the model's files should say mean, cls or last";
                return Err(Error::Option(what.into()).into());
            }
        }
        start += length;
    }
    let vectors = Tensor::from_vec(weights, (lengths.len(), tokens), &Device::Cpu)?.matmul(stream)?;
    if !normalise {
        return Ok(vectors);
    }
    let size = (vectors.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    Ok(vectors.broadcast_div(&size)?)
}

/// The loss of a batch's vectors, as a sum over queries.
pub(crate) fn loss(vectors: &Tensor, of: Retrieval) -> ounce_train::Result<(Tensor, Loss)> {
    let (all, parts) = (vectors.dims2()?.0, 2 + of.negatives);
    let queries = all / parts;
    if queries == 0 || queries * parts != all {
        let what = format!(
            "a batch of {all} sequences is no queries with a passage and {} wrong ones each",
            of.negatives
        );
        return Err(Error::Option(what).into());
    }
    let passages = vectors.narrow(0, queries, all - queries)?;
    let scores = (vectors.narrow(0, 0, queries)?.matmul(&passages.t()?)? / of.temperature)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?;
    let logarithms = scores.broadcast_sub(&scores.exp()?.sum_keepdim(D::Minus1)?.log()?)?;
    let own: Vec<f32> = (0..queries)
        .flat_map(|query| (0..all - queries).map(move |passage| f32::from(u8::from(query == passage))))
        .collect();
    let own = Tensor::from_vec(own, (queries, all - queries), &Device::Cpu)?;
    let value = ((logarithms * own)?.sum_all()? * -1.0)?;
    let sum = f64::from(value.to_scalar::<f32>()?);
    Ok((value, Loss { sum, count: queries }))
}

/// How well queries find their passages, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Ranked {
    /// Mean of one over the place of the passage, 0 beyond ten.
    pub mrr_10: f64,
    /// Share of queries whose passage is among ten.
    pub recall_10: f64,
    /// Share of queries whose passage is first.
    pub recall_1: f64,
    /// Discounted gain among ten, by the best there could be.
    pub ndcg_10: f64,
    /// Passages that were ranked.
    pub passages: usize,
}

/// Ranks passages for queries by scores; `wanted` has the number of each query's passage.
pub fn ranked(wanted: &[usize], passages: usize, mut scores: impl FnMut(usize) -> Vec<f64>) -> Ranked {
    let mut sum = Ranked { passages, ..Ranked::default() };
    let count = wanted.len().max(1) as f64;
    for (query, &passage) in wanted.iter().enumerate() {
        let places = ranking::places(&scores(query), &[passage]);
        sum.mrr_10 += ranking::reciprocal_rank(&places, 10) / count;
        sum.recall_10 += ranking::recall(&places, 10) / count;
        sum.recall_1 += ranking::recall(&places, 1) / count;
        sum.ndcg_10 += ranking::ndcg(&places, 10) / count;
    }
    sum
}

/// Different passages, and for each pair the number of its own: what queries are judged among.
pub fn collection<'p>(
    pairs: &'p [Pair],
    more: impl IntoIterator<Item = &'p str>,
) -> (Vec<&'p str>, Vec<usize>) {
    let (mut passages, mut numbers) = (Vec::new(), HashMap::new());
    let mut number = |text: &'p str| {
        *numbers.entry(text).or_insert_with(|| {
            passages.push(text);
            passages.len() - 1
        })
    };
    let wanted = pairs.iter().map(|pair| number(&pair.passage)).collect();
    for text in pairs.iter().flat_map(|pair| pair.negatives.iter().map(String::as_str)).chain(more) {
        number(text);
    }
    (passages, wanted)
}

/// Ranks a collection for the queries of pairs by a network's vectors.
///
/// # Errors
/// If a text can't be tokenized or does not fit the model.
pub fn judge(
    net: &mut Adapted,
    tokenizer: &Tokenizer,
    pairs: &[Pair],
    passages: &[&str],
    wanted: &[usize],
    limit: usize,
) -> Result<Ranked> {
    let mut vectors = |texts: &[&str]| -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for texts in texts.chunks(32) {
            let ids: Vec<Vec<u32>> =
                texts.iter().map(|text| sequence(tokenizer, text, limit)).collect::<Result<_>>()?;
            all.extend(net.vectors(&Batch::untold(&ids))?);
        }
        Ok(all)
    };
    let queries: Vec<&str> = pairs.iter().map(|pair| pair.query.as_str()).collect();
    let (asked, known) = (vectors(&queries)?, vectors(passages)?);
    let width = known.len() / passages.len().max(1);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    Ok(ranked(wanted, passages.len(), |query| {
        let query = &asked[query * width..][..width];
        known.chunks_exact(width).map(|passage| dot(query, passage)).collect()
    }))
}
