//! Measures connected modules on questions for passages of a generated town: against scattered modules of as many numbers, and all weights.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{mean_and_error, mean_of};
use ounce_kernels::pool::Pool;
use ounce_train::data::BatchSource;
use ounce_train::methods::encoders::CONTEXT;
use ounce_train::methods::workbench::cosine;
use ounce_train::net::Options;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Batch, Trainable};

use super::NUMBER;
use crate::few::{Tales, facts};
use crate::retrieval::{Pair, PairStream, Ranked, Retrieval, collection, judge, mine};
use crate::{Adapted, Kind, Result, Settings, Targets};

/// Sizes of the demonstration.
pub(super) struct Scale {
    /// Pairs to learn from, to choose by and to be judged by, and passages more.
    pub pairs: [usize; 4],
    pub steps: u64,
    /// Steps between looks at how far a way is.
    pub every: u64,
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { pairs: [300, 40, 100, 100], steps: 100, every: 20, seeds: 3 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "learning to rank passages"))
}

/// Pairs of a step, and what wrong passages are chosen by.
const PAIRS: usize = 12;
const OF: Retrieval = Retrieval { temperature: 0.05, negatives: 1 };

/// Ways to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Bitfit,
    Lora,
    Bottleneck,
    Prefix,
    Aside,
    Whole,
}

const WAYS: [Way; 6] = [Way::Bitfit, Way::Lora, Way::Bottleneck, Way::Prefix, Way::Aside, Way::Whole];

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::Bitfit => "BitFit",
            Way::Lora => "LoRA",
            Way::Bottleneck => "bottleneck adapters",
            Way::Prefix => "prefixes",
            Way::Aside => "inside and aside modules, connected",
            Way::Whole => "all weights",
        }
    }

    /// Of about as many numbers each: at width 128 and four layers 5,100 to 9,400.
    fn settings(self, seed: u64) -> Settings {
        let of = |kind| Settings { seed, retrieval: Some(OF), ..Settings::of(kind) };
        match self {
            Way::Bitfit => of(Kind::Bitfit),
            Way::Lora => Settings { rank: 4, targets: Targets::parts(&["query", "value"]), ..of(Kind::Lora) },
            Way::Bottleneck => Settings { reduction: 32, ..of(Kind::Bottleneck) },
            Way::Prefix => Settings { tokens: 8, ..of(Kind::Prefix) },
            // Half of it inside, half aside.
            Way::Aside => Settings { reduction: 64, rank: 4, ..of(Kind::Aside) },
            Way::Whole => Settings { trains: vec![String::new()], ..of(Kind::Bitfit) },
        }
    }

    fn rates(self) -> [f64; 3] {
        match self {
            Way::Whole => [3e-4, 1e-3, 3e-3],
            _ => [3e-3, 1e-2, 3e-2],
        }
    }
}

struct Study {
    tales: Tales,
    learn: Vec<Pair>,
    choose: Vec<Pair>,
    judged: Vec<Pair>,
    more: Vec<String>,
}

/// A run's way and its end.
#[derive(Default)]
struct Run {
    end: Ranked,
    /// MRR@10 at each look, the beginning and the end among them.
    looks: Vec<f64>,
    /// Deviation of the gradients' norm over their mean.
    unrest: f64,
}

impl Study {
    fn adapted(&self, way: Way, seed: u64) -> Result<Adapted> {
        Adapted::new(&self.tales.0, &way.settings(seed), Options::default())
    }

    /// Ranks of passages, all that there are, for the questions of `pairs`.
    fn ranks(&self, net: &mut Adapted, pairs: &[Pair]) -> Result<Ranked> {
        let others = self.choose.iter().chain(&self.judged).map(|pair| pair.passage.as_str());
        let (passages, wanted) = collection(pairs, others.chain(self.more.iter().map(String::as_str)));
        judge(net, self.tales.tokenizer()?, pairs, &passages, &wanted, CONTEXT)
    }

    fn run(&self, way: Way, rate: f64, scale: &Scale, seed: u64, look: Option<u64>) -> Result<Run> {
        let mut net = self.adapted(way, seed)?;
        let tokenizer = self.tales.tokenizer()?;
        let mut source = PairStream::new(tokenizer, &self.learn, (PAIRS, OF.negatives), CONTEXT, seed, None)?;
        let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
        let mut optimizer = Optimizer::new(options, net.params())?;
        let (schedule, mut norms, mut run) = (cosine(rate, scale.steps), Vec::new(), Run::default());
        for step in 0..scale.steps {
            if look.is_some_and(|every| step % every == 0) {
                run.looks.push(self.ranks(&mut net, &self.choose)?.mrr_10);
            }
            let Some(batch) = source.next()? else { break };
            net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
            let loss = net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
            let norm = global_norm(Pool::global(), net.params());
            norms.push(norm);
            optimizer.step(net.params_mut(), schedule.rate(step), clip_factor(norm, Some(1.0)));
            net.stepped(loss.mean());
        }
        let mean = mean_of(&norms, |it| *it);
        run.unrest = mean_of(&norms, |it| (it - mean).powi(2)).sqrt() / mean.max(1e-12);
        run.end = self.ranks(&mut net, if look.is_some() { &self.judged } else { &self.choose })?;
        if look.is_some() {
            run.looks.push(self.ranks(&mut net, &self.choose)?.mrr_10);
        }
        Ok(run)
    }
}

/// What a way came to.
struct Found {
    way: Way,
    trained: u64,
    rate: f64,
    runs: Vec<Run>,
    /// Steps to nine tenths of its best look, averaged.
    steps: f64,
}

impl Found {
    fn mrr(&self) -> (f64, f64) {
        mean_and_error(&self.runs.iter().map(|run| 100.0 * run.end.mrr_10).collect::<Vec<_>>())
    }

    fn deviation(&self) -> f64 {
        self.mrr().1 * (self.runs.len() as f64).sqrt()
    }
}

/// The step of the first look that is nine tenths of the best or more.
fn reached(looks: &[f64], scale: &Scale) -> f64 {
    let best = looks.iter().copied().fold(0.0, f64::max);
    let at = looks.iter().position(|&look| look >= 0.9 * best).unwrap_or(looks.len());
    (at as u64 * scale.every).min(scale.steps) as f64
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let first = lab.seed() * 1000;
    let ([mut learn, choose, judged], more) = facts::pairs(first + 1, scale.pairs);
    mine(&mut learn, OF.negatives);
    let study = Study { tales: Tales::new(lab)?, learn, choose, judged, more };
    let whole = study.tales.0.spec.parameters();
    let mut found = Vec::new();
    let mut unlike = f64::NAN;
    let mut base = Ranked::default();
    for (at, way) in WAYS.into_iter().enumerate() {
        lab.progress(way.label(), at as f64 / WAYS.len() as f64);
        let mut best = (f64::NEG_INFINITY, way.rates()[0]);
        for rate in way.rates() {
            let mrr = study.run(way, rate, scale, first + 9, None)?.end.mrr_10;
            if mrr > best.0 {
                best = (mrr, rate);
            }
        }
        let runs: Vec<Run> = (first..first + scale.seeds)
            .map(|seed| study.run(way, best.1, scale, seed, Some(scale.every)))
            .collect::<Result<_>>()?;
        let trained = study.adapted(way, first)?.trained();
        let steps = mean_of(&runs, |run| reached(&run.looks, scale));
        found.push(Found { way, trained, rate: best.1, runs, steps });
        if way == Way::Aside {
            // Nothing has been learned yet: the vectors are the base's, which BitFit's are before its first step.
            let (mut begun, mut plain) = (study.adapted(way, first)?, study.adapted(Way::Bitfit, first)?);
            let batch = texts(&study)?;
            let pairs = begun.vectors(&batch)?.into_iter().zip(plain.vectors(&batch)?);
            unlike = pairs.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            base = study.ranks(&mut plain, &study.judged)?;
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::Bottleneck.label());
    evidence.rows.push(
        Row::new("the encoder as it is")
            .with("MRR@10", 100.0 * base.mrr_10, "%")
            .with("recall@10", 100.0 * base.recall_10, "%")
            .with("nDCG@10", 100.0 * base.ndcg_10, "%"),
    );
    for it in &found {
        evidence.rows.push(
            Row::new(it.way.label())
                .with("MRR@10", it.mrr().0, "%")
                .with("its deviation over seeds", it.deviation(), "points")
                .with("recall@10", 100.0 * mean_of(&it.runs, |run| run.end.recall_10), "%")
                .with("nDCG@10", 100.0 * mean_of(&it.runs, |run| run.end.ndcg_10), "%")
                .with("steps to 0.9 of its best", it.steps, "")
                .with("deviation of gradient norms by their mean", mean_of(&it.runs, |run| run.unrest), "")
                .with("numbers trained", it.trained as f64, "")
                .with("of the encoder's", 100.0 * it.trained as f64 / whole as f64, "%")
                .with("learning rate", it.rate, ""),
        );
    }
    expect(&mut evidence, &found, unlike);
    evidence.notes = vec![
        format!(
            "The built-in encoder ({} k numbers), which has read tales. {} questions on a made-up town with their passages and one wrong passage each that \
             shares words (BM25); {PAIRS} pairs a step, {} steps, temperature {}, means over tokens; {} seeds. {} questions are judged among {} \
             passages, in other words than theirs, none of which was learned from.",
            whole / 1000,
            scale.pairs[0],
            scale.steps,
            OF.temperature,
            scale.seeds,
            scale.pairs[2],
            base.passages
        ),
        "Rates are chosen for each way by another seed on questions that are neither learned from nor judged by. Re-ranking, \
         sharpness and larger collections are not measured."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// Some texts as tokens.
fn texts(study: &Study) -> Result<Batch> {
    let tokenizer = study.tales.tokenizer()?;
    let ids: Vec<Vec<u32>> = study
        .choose
        .iter()
        .take(8)
        .map(|pair| crate::retrieval::sequence(tokenizer, &pair.query, CONTEXT))
        .collect::<Result<_>>()?;
    Ok(Batch::untold(&ids))
}

fn expect(evidence: &mut Evidence, found: &[Found], unlike: f64) {
    let of = |way: Way| found.iter().find(|it| it.way == way);
    let mrr = |way: Way| of(way).map_or(f64::NAN, |it| it.mrr().0);
    let scattered = [Way::Bitfit, Way::Lora, Way::Bottleneck, Way::Prefix];
    let best = scattered.into_iter().max_by(|&a, &b| mrr(a).total_cmp(&mrr(b))).unwrap_or(Way::Bottleneck);
    evidence.expect(
        "Connected modules are a point of MRR@10 or more above the best of scattered ones, and have 97 % or more of what all weights have.",
        format!("{:.1} against {:.1} ({}) and {:.1} %", mrr(Way::Aside), mrr(best), best.label(), mrr(Way::Whole)),
        mrr(Way::Aside) >= mrr(best) + 1.0 && mrr(Way::Aside) >= 0.97 * mrr(Way::Whole),
    );
    let steps = |way: Way| of(way).map_or(f64::NAN, |it| it.steps);
    evidence.expect(
        "They reach 0.9 of their best in fewer steps than each of the scattered ones.",
        scattered
            .iter()
            .chain([&Way::Aside])
            .map(|&way| format!("{} {:.0}", way.label(), steps(way)))
            .collect::<Vec<_>>()
            .join(", "),
        scattered.into_iter().all(|way| steps(Way::Aside) < steps(way)),
    );
    let deviation = |way: Way| of(way).map_or(f64::NAN, Found::deviation);
    evidence.expect(
        "Their MRR@10 differs less from seed to seed than that of the best of scattered ones.",
        format!("{:.2} against {:.2} points", deviation(Way::Aside), deviation(best)),
        deviation(Way::Aside) < deviation(best),
    );
    evidence.expect(
        "Before anything is learned they change nothing.",
        format!("{unlike:.1e} at most between numbers of vectors"),
        unlike == 0.0,
    );
}
