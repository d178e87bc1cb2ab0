//! INDUS (method 021): from texts of a domain to its own tokenizer, encoder, sentence embedder and small fast versions, measured on
//! tasks of the domain.
//!
//! "INDUS: Effective and Efficient Language Models for Scientific Applications", arXiv 2405.10725.
//!
//! - **Tokenizer and encoder**: byte-level BPE on the domain (`ounce tokenizer train`), hidden tokens (`ounce train`, objective
//!   `masked`).
//! - **Small encoder**: relations between tokens of one layer, as MiniLMv2: [`distil::relations`](crate::distil::relations).
//! - **Retriever**: contrastive on headings and their paragraphs, and a small one on the large one's similarities: `embedder`.
//!
//! The demonstration makes manuals of invented programs. General text are tales. What it measured stands in `docs/distillation.md`.

mod embedder;
mod retrieval;
mod texts;

use ounce_eval::bm25::Bm25;
use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row, Text};
use ounce_eval::stats::mean_and_error;
use ounce_model::Model;

use self::embedder::{Embedder, of_pairs, of_similarities};
use self::retrieval::{AMONG, Pairs, by_vectors, recall};
use self::texts::{Manual, TAGS, some};
use super::encoders::{Bench, Corpus, Shape, latency, tag_f1};
use super::workbench::{cosine, fit};
use crate::Result;
use crate::distil::relations::Relations;
use crate::net::classifier::Task;

const NUMBER: u16 = 21;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "INDUS",
    family: Family::DomainLanguage,
    paper: "INDUS: Effective and Efficient Language Models for Scientific Applications",
    arxiv: Some("2405.10725"),
    gives: "One pipeline from a body of special texts to its own tokenizer, encoder, embedder, small fast versions and benchmark.",
    claim: "Better than RoBERTa and SciBERT on science tasks with 125M and 38M parameters.",
    command: Some(
        "ounce tokenizer train TEXTS -o FOLDER --special \"[PAD],[CLS],[SEP],[MASK]\" && ounce train RUN.toml --set data.objective=masked",
    ),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    /// Programs whose manuals are learned from, and those that are judged on, with other names.
    tools: usize,
    judged: usize,
    /// Manuals of each.
    each: usize,
    vocabulary: usize,
    base: Shape,
    small: Shape,
    /// Relation heads; they divide both widths.
    heads: usize,
    steps: u64,
    small_steps: u64,
    /// Tagged sentences, and steps on them.
    tagged: usize,
    tag_steps: u64,
    pair_steps: u64,
    /// Pairs of a step.
    pairs: usize,
    seeds: u64,
}

impl Scale {
    fn full() -> Scale {
        Scale {
            tools: 40,
            judged: 6,
            each: 2,
            vocabulary: 700,
            base: Shape { width: 96, layers: 4 },
            small: Shape { width: 64, layers: 2 },
            heads: 8,
            steps: 700,
            small_steps: 300,
            tagged: 60,
            tag_steps: 100,
            pair_steps: 150,
            pairs: 12,
            seeds: 3,
        }
    }
}

/// Learning rate of embedders, and the temperature of their similarities.
const PAIR_RATE: f64 = 5e-4;
const TEMPERATURE: f64 = 0.05;

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Scale::full()).map_err(DemonstrationError::step(NUMBER, "training encoders of a domain"))
}

const GENERAL: &str = "general tokenizer and encoder";
const DOMAIN: &str = "domain tokenizer and encoder";
const SMALL: &str = "small, relations of the domain encoder";
const HIDDEN: &str = "small, hidden tokens alone";
const NAMES: [&str; 4] = [GENERAL, DOMAIN, SMALL, HIDDEN];

/// What classifiers do.
const TASK: (Task, &[&str]) = (Task::Tokens, &TAGS);

fn mean(values: &[f64]) -> f64 {
    mean_and_error(values).0
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let seed = lab.seed();
    let manual = Manual::new(0..scale.tools, scale.each, seed);
    let judged = Manual::new(scale.tools..scale.tools + scale.judged, 1, seed + 1);
    let texts: Vec<String> = manual.texts().into_iter().chain(manual.headings.iter().cloned()).collect();
    let tales = lab.text(Text::Train, texts.iter().map(String::len).sum());
    let sentences: Vec<&str> =
        tales.split_inclusive(['.', '\n']).map(str::trim).filter(|it| it.len() > 8).collect();
    let domain = Bench::new(texts.iter().map(String::as_str), scale.vocabulary)?;
    let general = Bench::new(sentences.iter().copied(), scale.vocabulary)?;
    let corpus = domain.corpus(texts.iter().map(String::as_str))?;
    let other = general.corpus(sentences.iter().copied())?;
    lab.progress("the domain's encoder", 0.0);
    let base = domain.learn(domain.random(scale.base, seed)?, &corpus, scale.steps, seed)?;
    lab.progress("the general encoder", 0.15);
    let elsewhere = general.learn(general.random(scale.base, seed)?, &other, scale.steps, seed)?;
    let mut evidence = Evidence::new(NUMBER, seed, GENERAL);
    let study = Study { lab, scale, manual, judged, domain, general, corpus, base, elsewhere };
    study.tags(&mut evidence)?;
    study.retrieval(&mut evidence)?;
    evidence.notes = vec![
        format!(
            "Generated manuals of {} invented programs; tags and headings are judged on {} others. Means of {} seeds, which draw first weights of \
             students and heads, samples and orders; the two large encoders are one each, with {} steps.",
            scale.tools, scale.judged, scale.seeds, scale.steps
        ),
        "Tagged words are names of programs, options and paths; the F1 is that of words. Latencies are without tokenization.".into(),
        "Relations are those of the last layer; hidden tokens are not learned beside. The paper's corpora, its architecture search, its question \
         answering and its sizes were not measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

struct Study<'s> {
    lab: &'s dyn Lab,
    scale: &'s Scale,
    manual: Manual,
    judged: Manual,
    domain: Bench,
    general: Bench,
    corpus: Corpus,
    /// The domain's encoder, and the general one.
    base: Model,
    elsewhere: Model,
}

impl Study<'_> {
    /// Tokenizers, and words to be tagged.
    fn tags(&self, evidence: &mut Evidence) -> Result<()> {
        let Study { scale, domain, general, .. } = self;
        let texts = self.judged.texts();
        let words: usize = texts.iter().map(|text| text.split(' ').count()).sum();
        let per_word = |bench: &Bench| -> Result<f64> {
            let tokens = texts.iter().map(|text| bench.tokens(text)).sum::<Result<usize>>()?;
            Ok(tokens as f64 / words.max(1) as f64)
        };
        let split = [per_word(general)?, per_word(domain)?];
        let tests =
            [general.tagged(&self.judged.paragraphs, &TAGS)?, domain.tagged(&self.judged.paragraphs, &TAGS)?];
        let mut found: [Vec<f64>; 4] = Default::default();
        let mut seconds = [0.0; 2];
        for number in 0..scale.seeds {
            self.lab.progress("small encoders and tags", 0.3 + 0.35 * number as f64 / scale.seeds as f64);
            let seed = self.lab.seed() * 1_000 + number;
            let sample = some(&self.manual.paragraphs, scale.tagged, seed);
            let (small, hidden) = self.small(seed)?;
            let encoders = [&self.elsewhere, &self.base, &small, &hidden];
            let mut nets = Vec::new();
            for (at, encoder) in encoders.into_iter().enumerate() {
                let (bench, test) = if at == 0 { (general, &tests[0]) } else { (domain, &tests[1]) };
                let labelled = bench.tagged(&sample, &TAGS)?;
                let mut net = bench.classifier(encoder, TASK, &labelled, scale.tag_steps, seed)?;
                found[at].push(tag_f1(&mut net, test, TAGS.len())?);
                nets.push(net);
            }
            if let ([_, large, small, ..], 0) = (&mut nets[..], number) {
                seconds = latency([large, small], &tests[1])?;
            }
        }
        for (at, name) in NAMES.iter().enumerate() {
            let (f1, error) = mean_and_error(&found[at]);
            let row = Row::new(*name).with("F1 of tags", f1, "%").with("standard error", error, "points");
            evidence.rows.push(match at {
                0 | 1 => row.with("tokens of a word", split[at], ""),
                _ => row,
            });
        }
        let of = |at: usize| mean(&found[at]);
        evidence.expect(
            "The domain's tokenizer takes at least 10 % fewer tokens for texts of the domain.",
            format!("{:.2} against {:.2} a word", split[1], split[0]),
            split[1] <= 0.9 * split[0],
        );
        evidence.expect(
            "The domain's encoder tags at least 3 points of F1 better than the general one of equal steps.",
            format!("{:.1} against {:.1} %", of(1), of(0)),
            of(1) >= of(0) + 3.0,
        );
        evidence.expect(
            "The small encoder that learned relations is at least 1 point better than with hidden tokens alone.",
            format!("{:.1} against {:.1} %", of(2), of(3)),
            of(2) >= of(3) + 1.0,
        );
        evidence.expect(
            "The small encoder is at least 2.5 times as fast.",
            format!("{:.1} times", seconds[0] / seconds[1]),
            seconds[0] / seconds[1] >= 2.5,
        );
        Ok(())
    }

    /// The small encoder by relations, and by hidden tokens.
    fn small(&self, seed: u64) -> Result<(Model, Model)> {
        let Study { scale, domain, corpus, base, .. } = self;
        let begun = domain.random(scale.small, seed)?;
        let options = Relations { layer: scale.base.layers - 1, heads: scale.heads, hard: 0.0 };
        let small = domain.relate(&begun, (base, options), corpus, scale.small_steps, seed)?;
        Ok((small, domain.learn(begun, corpus, scale.small_steps, seed)?))
    }

    /// Paragraphs to be found by their headings.
    fn retrieval(&self, evidence: &mut Evidence) -> Result<()> {
        let Study { scale, domain, .. } = self;
        let sequences = |texts: &[String]| -> Result<Vec<Vec<u32>>> {
            texts.iter().map(|text| domain.sequence(text)).collect()
        };
        let (queries, passages) = (sequences(&self.judged.headings)?, sequences(&self.judged.texts())?);
        let pairs: Vec<(Vec<u32>, Vec<u32>)> =
            sequences(&self.manual.headings)?.into_iter().zip(sequences(&self.manual.texts())?).collect();
        let words = Bm25::new(&self.judged.texts());
        let bm25 = recall(queries.len(), |query| words.scores(&self.judged.headings[query]));
        let untrained = by_vectors(&self.base, &queries, &passages)?;
        let mut found: [Vec<f64>; 3] = Default::default();
        for number in 0..scale.seeds {
            self.lab.progress("embedders", 0.65 + 0.35 * number as f64 / scale.seeds as f64);
            let seed = self.lab.seed() * 1_000 + number;
            let schedule = || cosine(PAIR_RATE, scale.pair_steps);
            let source = || Pairs::new(pairs.clone(), scale.pairs, seed);
            let mut large = of_pairs(&self.base, TEMPERATURE)?;
            fit(&mut large, &mut source(), schedule())?;
            let large = large.model()?;
            let (small, _) = self.small(seed)?;
            let mut taught = of_similarities(&small, Embedder::new(&large)?, TEMPERATURE)?;
            fit(&mut taught, &mut source(), schedule())?;
            let mut alone = of_pairs(&small, TEMPERATURE)?;
            fit(&mut alone, &mut source(), schedule())?;
            for (found, model) in found.iter_mut().zip([large, taught.model()?, alone.model()?]) {
                found.push(by_vectors(&model, &queries, &passages)?);
            }
        }
        let column = format!("recall among {AMONG} of {}", passages.len());
        let row = |label: &str, recall: f64| Row::new(label).with(column.clone(), recall, "%");
        evidence.rows.push(row("BM25", bm25));
        evidence.rows.push(row("domain encoder, mean of hidden tokens", untrained));
        let labels = ["embedder on pairs", "small embedder on its similarities", "small embedder on pairs"];
        for (label, found) in labels.iter().zip(&found) {
            evidence.rows.push(row(label, mean(found)).with(
                "standard error",
                mean_and_error(found).1,
                "points",
            ));
        }
        let [large, taught, alone] = [0, 1, 2].map(|at| mean(&found[at]));
        evidence.expect(
            "Learning pairs at least doubles the recall of the encoder's own means, and is not 5 points below BM25.",
            format!("{large:.1} against {untrained:.1} and {bm25:.1} %"),
            large >= 2.0 * untrained && large >= bm25 - 5.0,
        );
        evidence.expect(
            "The small embedder taught by similarities has at least 0.95 of the large one's recall.",
            format!("{taught:.1} of {large:.1} %, {alone:.1} % on pairs alone"),
            taught >= 0.95 * large,
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Desk;
    use super::*;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale {
            tools: 3,
            judged: 1,
            each: 1,
            vocabulary: 300,
            base: Shape { width: 16, layers: 2 },
            small: Shape { width: 8, layers: 1 },
            heads: 4,
            steps: 2,
            small_steps: 2,
            tagged: 8,
            tag_steps: 2,
            pair_steps: 2,
            pairs: 3,
            seeds: 1,
        };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (4 + 5, 6));
    }
}
