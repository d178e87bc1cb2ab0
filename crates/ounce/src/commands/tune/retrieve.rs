//! Queries that find their passages: the flags, what such a run is fed with, and how well it ranks.

use anyhow::bail;
use ounce_model::Model;
use ounce_peft::retrieval::{Pair, PairStream, Ranked, Retrieval, collection, judge, mine, pairs};
use ounce_peft::{Adapted, Settings};
use ounce_train::config::Config;
use ounce_train::data::BatchSource;
use ounce_train::data::labelled::split;
use serde::Serialize;

use super::Fed;
use crate::source;

/// Flags of retrieval.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Queries and passages (--objective retrieve)")]
pub(super) struct RetrieveArgs {
    /// Wrong passages of each query in a step; where the data has fewer, those that share most words with the query
    #[arg(long, value_name = "N", default_value_t = 1)]
    negatives: usize,
    /// What products of vectors are divided by
    #[arg(long, value_name = "T", default_value_t = 0.05)]
    temperature: f64,
}

/// How well held-out queries find their passages among all.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Ranking {
    /// Before anything was learned.
    pub before: Option<Ranked>,
    pub after: Ranked,
}

/// Held-out queries and all passages.
pub(super) struct Judged {
    held: Vec<Pair>,
    passages: Vec<String>,
    wanted: Vec<usize>,
    limit: usize,
}

impl Judged {
    /// Ranks all passages.
    pub fn judge(&self, net: &mut Adapted) -> anyhow::Result<Ranked> {
        let tokenizer = source::tokenizer(net.skeleton())?.clone();
        let passages: Vec<&str> = self.passages.iter().map(String::as_str).collect();
        Ok(judge(net, &tokenizer, &self.held, &passages, &self.wanted, self.limit)?)
    }
}

/// What a run on pairs is fed with.
pub(super) fn fed(
    args: &RetrieveArgs,
    config: &Config,
    model: &Model,
    settings: &mut Settings,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Fed, Option<Judged>)> {
    if !(args.temperature > 0.0 && args.temperature.is_finite()) {
        bail!("--temperature should be above 0, found {}", args.temperature);
    }
    if model.spec.classifier.is_some() {
        bail!("this model is a classifier; retrieval needs a model that gives texts vectors");
    }
    if settings.cloze.is_some() {
        bail!("a template is for labels; leave it out with --objective retrieve");
    }
    settings.retrieval = Some(Retrieval { temperature: args.temperature, negatives: args.negatives });
    let (tokenizer, seed) = (source::tokenizer(model)?, config.train.seed);
    let whole = pairs(&config.data.train)?;
    let (mut learn, mut held) = match (config.data.validation.is_empty(), config.data.held_out) {
        (false, _) => (whole, pairs(&config.data.validation)?),
        (true, 0.0) => (whole, Vec::new()),
        // Pairs of one passage stay together.
        (true, part) => split(whole, part, seed, |pair: &Pair| pair.passage.clone())?,
    };
    let lacking = learn.iter().filter(|pair| pair.negatives.len() < args.negatives).count();
    if lacking > 0 {
        notes.push(format!(
            "{lacking} of {} queries get wrong passages that share words with them",
            learn.len()
        ));
        mine(&mut learn, args.negatives);
    }
    let (limit, at_once) = (config.data.context, config.train.batch);
    let stream = PairStream::new(tokenizer, &learn, (at_once, args.negatives), limit, seed, None)?;
    let average = stream.tokens_per_epoch().div_ceil(learn.len() as u64);
    let (mut validation, mut judged): (Option<Box<dyn BatchSource>>, _) = (None, None);
    if held.len() > 1 {
        mine(&mut held, args.negatives);
        let enough = held.iter().all(|pair| pair.negatives.len() >= args.negatives);
        if enough {
            let stream = PairStream::new(tokenizer, &held, (at_once, args.negatives), limit, seed, Some(1))?;
            validation = Some(Box::new(stream));
        }
        let others = learn.iter().map(|pair| pair.passage.as_str());
        let (passages, wanted) = collection(&held, others);
        let passages = passages.into_iter().map(str::to_owned).collect();
        judged = Some(Judged { held, passages, wanted, limit });
    }
    let per_step = (at_once * config.train.accumulation) as u64;
    let fed = Fed {
        train: Box::new(stream),
        validation,
        judge: None,
        context: limit,
        tokens_per_step: per_step * average,
        lengths: (per_step, learn.len() as u64),
        usual_rate: None,
    };
    Ok((fed, judged))
}

/// As people read it.
pub(super) fn said(ranking: &Ranking) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let before = |of: fn(&Ranked) -> f64| {
        ranking.before.as_ref().map_or(String::new(), |it| format!(" ({})", percent(of(it))))
    };
    format!(
        "among {} passages: MRR@10 {}{}, recall@10 {}{}, nDCG@10 {}{} (before)",
        ranking.after.passages,
        percent(ranking.after.mrr_10),
        before(|it| it.mrr_10),
        percent(ranking.after.recall_10),
        before(|it| it.recall_10),
        percent(ranking.after.ndcg_10),
        before(|it| it.ndcg_10),
    )
}
