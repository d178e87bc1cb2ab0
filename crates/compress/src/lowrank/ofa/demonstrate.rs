//! Measures OFA: a small model of one language, continued on three, from tables that begin in several ways.

use std::sync::Arc;

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row, Text};
use ounce_eval::stats::mean_and_error;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::tokenizer::{TokenizerSettings, train};

use super::languages::Spelling;
use super::study::{Grown, Table, new_tokens, sequences, shape, source, table, token_vectors};
use super::words::Vectors;
use super::{NUMBER, NewToken, coordinates};
use crate::lowrank::svd;
use crate::{Error, Result};

const LANGUAGES: usize = 3;

/// Sizes of the demonstration.
struct Scale {
    width: usize,
    /// Bytes of each language.
    text: usize,
    held_out: usize,
    /// Tokens of the source's vocabulary and of the new one.
    vocabularies: [usize; 2],
    words: usize,
    directions: usize,
    seeds_of_alignment: usize,
    steps: u64,
    stops: Vec<u64>,
    seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale {
        width: 64,
        text: 200_000,
        held_out: 12_000,
        vocabularies: [600, 1_400],
        words: 500,
        directions: 48,
        seeds_of_alignment: 150,
        steps: 500,
        stops: vec![25, 100, 300],
        seeds: 3,
    };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "growing the vocabulary of a small model"))
}

/// How a table begins, and how many dimensions it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Random,
    Overlap,
    Ofa,
}

fn tokenizer(texts: &[&str], tokens: usize) -> Result<Tokenizer> {
    let settings = TokenizerSettings { vocab_size: tokens, ..TokenizerSettings::default() };
    let stories: Vec<String> = texts.iter().flat_map(|text| text.split("\n\n").map(str::to_owned)).collect();
    Ok(train(stories.into_iter().map(Ok), &settings)?)
}

/// Word vectors of all languages, turned into the first one's.
fn vectors(texts: &[String], scale: &Scale) -> Result<Vec<Vectors>> {
    let few = || Error::Option("the text has too few words for word vectors".into());
    let mut all: Vec<Vectors> = Vec::new();
    for (language, text) in texts.iter().enumerate() {
        let mut own = Vectors::new(text, scale.words, scale.directions).ok_or_else(few)?;
        if let Some(first) = all.first() {
            let known = first.words.iter().enumerate().filter_map(|(there, word)| {
                let here = own.words.iter().position(|it| *it == Spelling(language).word(word))?;
                Some((here, there))
            });
            let pairs: Vec<(usize, usize)> = known.take(scale.seeds_of_alignment).collect();
            own.turn(first, &pairs).ok_or_else(few)?;
        }
        all.push(own);
    }
    Ok(all)
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let stories = lab.text(Text::Train, LANGUAGES * scale.text);
    let stories: Vec<&str> = stories.split("\n\n").collect();
    // Languages tell different tales: nothing is said in two of them.
    let each = stories.chunks(stories.len().div_ceil(LANGUAGES).max(1));
    let texts: Vec<String> =
        each.enumerate().map(|(language, it)| Spelling(language).write(&it.join("\n\n"))).collect();
    let held = lab.text(Text::HeldOut, scale.held_out);
    let old = tokenizer(&[&texts[0]], scale.vocabularies[0])?;
    let new = tokenizer(&texts.iter().map(String::as_str).collect::<Vec<_>>(), scale.vocabularies[1])?;
    let words = vectors(&texts, scale)?;
    let known = token_vectors(&old, &[&words[0]])?;
    let tokens = new_tokens(&old, &new, token_vectors(&new, &words.iter().collect::<Vec<_>>())?);
    let targets = (1..LANGUAGES).map(|language| {
        let text = Spelling(language).write(&held);
        Ok((sequences(&new, &text)?, text.len()))
    });
    let targets = targets.collect::<Result<Vec<_>>>()?;
    let mut mixed = Vec::new();
    for text in &texts {
        mixed.extend(sequences(&new, text)?);
    }
    let mixed: Arc<[Vec<u32>]> = mixed.into();
    let first = sequences(&old, &texts[0])?;
    let (shape, width) = (shape(scale.width), scale.width);
    let ways = [
        ("random", Begin::Random, width),
        ("overlap, else random", Begin::Overlap, width),
        ("OFA", Begin::Ofa, width),
        ("OFA, half the width", Begin::Ofa, width / 2),
        ("OFA, a quarter of the width", Begin::Ofa, width / 4),
        ("random, a quarter of the width", Begin::Random, width / 4),
    ];
    let mut found: Vec<Vec<Vec<f64>>> = vec![Vec::new(); ways.len()];
    let mut sizes = vec![0; ways.len()];
    for seed in 0..scale.seeds {
        let numbers = lab.seed() * 100 + seed;
        lab.progress("training the source", seed as f64 / scale.seeds as f64);
        let net = source(&shape, old.id_limit() as usize, &first, scale.steps, numbers)?;
        let values = net_table(&net)?;
        for (at, (label, begin, kept)) in ways.into_iter().enumerate() {
            let done = (seed as f64 + (at as f64 + 2.0) / (ways.len() as f64 + 2.0)) / scale.seeds as f64;
            lab.progress(label, done);
            let begun = begin_table(&values, (width, kept), begin, &known, &tokens, numbers)?;
            sizes[at] = begun.parameters();
            let mut grown = Grown::new(&shape, &net, new.id_limit() as usize, begun)?;
            found[at].push(grown.train(&mixed, &scale.stops, numbers, &targets)?);
        }
    }
    let labels: Vec<&str> = ways.iter().map(|way| way.0).collect();
    let evidence = report(lab, scale, &labels, &found, &sizes, &tokens);
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn net_table(net: &ounce_train::net::Net) -> Result<Vec<f32>> {
    use ounce_train::Trainable;
    Ok(net.params()[table(net)?].value.clone())
}

fn begin_table(
    values: &[f32],
    (width, kept): (usize, usize),
    begin: Begin,
    known: &[Option<Vec<f32>>],
    tokens: &[NewToken],
    seed: u64,
) -> Result<Table> {
    let tokens: Vec<NewToken> = tokens
        .iter()
        .map(|token| match (begin, token) {
            (Begin::Ofa, token) => token.clone(),
            (Begin::Overlap, NewToken::Same(row)) => NewToken::Same(*row),
            _ => NewToken::Unknown,
        })
        .collect();
    if kept == width {
        return Ok(Table::Whole(coordinates(values, width, known, &tokens, seed)));
    }
    let factors = svd::factors(values, values.len() / width, width, kept, None)
        .map_err(|what| Error::matrix("the table of token vectors", what))?;
    let f = coordinates(&factors.expand, kept, known, &tokens, seed);
    Ok(Table::Factors(f, factors.reduce))
}

fn report(
    lab: &dyn Lab,
    scale: &Scale,
    labels: &[&str],
    found: &[Vec<Vec<f64>>],
    sizes: &[usize],
    tokens: &[NewToken],
) -> Evidence {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), labels[0]);
    let at = |way: usize, stop: usize| -> (f64, f64) {
        let (mean, error) = mean_and_error(&found[way].iter().map(|it| it[stop]).collect::<Vec<_>>());
        (mean, if error.is_finite() { error } else { 0.0 })
    };
    let stops: Vec<u64> = std::iter::once(0).chain(scale.stops.iter().copied()).collect();
    let last = stops.len() - 1;
    for (way, label) in labels.iter().enumerate() {
        let mut row = Row::new(*label).with("parameters of the table", sizes[way] as f64, "");
        for (stop, steps) in stops.iter().enumerate() {
            row = row.with(format!("held out after {steps} steps"), at(way, stop).0, "bits a byte");
        }
        evidence.rows.push(row.with("standard error at the end", at(way, last).1, "bits a byte"));
    }
    let said = |way: usize| {
        (0..stops.len()).map(|stop| format!("{:.4}", at(way, stop).0)).collect::<Vec<_>>().join(", ")
    };
    evidence.expect(
        "Of whole tables OFA's is the best at every stop.",
        format!("OFA {}; overlap {}; random {}", said(2), said(1), said(0)),
        (0..stops.len()).all(|stop| at(2, stop).0 <= at(1, stop).0 && at(2, stop).0 <= at(0, stop).0),
    );
    let saved = 100.0 * (1.0 - sizes[4] as f64 / sizes[2] as f64);
    evidence.expect(
        "OFA with a quarter of the width ends within 2 % of OFA's whole table, with at least 60 % fewer numbers in it.",
        format!("{:.4} against {:.4} bits a byte, {saved:.1} % fewer", at(4, last).0, at(2, last).0),
        at(4, last).0 <= 1.02 * at(2, last).0 && saved >= 60.0,
    );
    evidence.expect(
        "At a quarter of the width OFA's table ends better than a random one.",
        format!("{:.4} against {:.4} bits a byte", at(4, last).0, at(5, last).0),
        at(4, last).0 < at(5, last).0,
    );
    let share = |is: &dyn Fn(&NewToken) -> bool| {
        100.0 * tokens.iter().filter(|it| is(it)).count() as f64 / tokens.len().max(1) as f64
    };
    evidence.notes = vec![
        format!(
            "Two target languages are the source's words in other letters, a fifth of the words shared; each language has tales of its own. \
             Word vectors of each text by PPMI, turned by up to {} pairs. Of the new vocabulary {:.1} % are the source's tokens, {:.1} % have word \
             vectors, {:.1} % are drawn.",
            scale.seeds_of_alignment,
            share(&|it| matches!(it, NewToken::Same(_))),
            share(&|it| matches!(it, NewToken::Near(_))),
            share(&|it| *it == NewToken::Unknown)
        ),
        format!(
            "A Llama of width {}, {} steps on the source, then {} on all three languages; held out are both targets. Means of {} seeds.",
            scale.width, scale.steps, stops[last], scale.seeds
        ),
        "Zero-shot transfer of a task is not measured; random tables have the source's mean and deviation by dimension.".into(),
    ];
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Desk;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale {
            width: 16,
            text: 3_000,
            held_out: 300,
            vocabularies: [280, 300],
            words: 20,
            directions: 4,
            seeds_of_alignment: 6,
            steps: 2,
            stops: vec![1, 2],
            seeds: 1,
        };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (6, 3));
    }
}
