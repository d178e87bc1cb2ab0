use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::data::Cache;

const CLS: u32 = 1;
const SEP: u32 = 2;
const MASK: u32 = 3;
const DOT: u32 = 4;

/// Documents of these lengths of ids from 10 to 999.
fn documents(lengths: &[usize]) -> Documents {
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .enumerate()
        .map(|(document, length)| {
            (0..*length).map(|token| 10 + ((document * 37 + token) % 990) as u32).collect()
        })
        .collect();
    Documents::all(Arc::new(Cache::in_memory(sequences.iter().map(Vec::as_slice), 1000).unwrap()))
}

fn settings() -> MaskSettings {
    MaskSettings {
        context: 32,
        sequences: 4,
        seed: 11,
        epochs: Some(2),
        rate: 0.15,
        longest_run: 1,
        mask: MASK,
        cls: CLS,
        sep: SEP,
        never: (0..10).collect(),
        order: None,
    }
}

fn all(stream: &mut MaskedStream) -> Vec<Batch> {
    std::iter::from_fn(|| stream.next().unwrap()).collect()
}

/// The text before anything was hidden.
fn found(batch: &Batch) -> Vec<u32> {
    let targets = batch.tokens.iter().zip(&batch.targets);
    targets.map(|(token, target)| if *target == IGNORE { *token } else { *target }).collect()
}

proptest! {
    #[test]
    fn text_is_whole_and_resumed_exactly(
        lengths in proptest::collection::vec(1usize..80, 1..12),
        longest_run in 1usize..4,
        order: bool,
        cut: prop::sample::Index,
    ) {
        let order = order.then(|| OrderTask { sentence_ends: vec![DOT] });
        let settings = MaskSettings { longest_run, order, ..settings() };
        let Ok(mut stream) = MaskedStream::new(documents(&lengths), settings.clone()) else {
            prop_assert!(settings.order.is_some() && lengths.iter().all(|length| *length < 2));
            return Ok(());
        };
        let whole = all(&mut stream);
        let mut ids = 0;
        for batch in &whole {
            batch.check(1000).unwrap();
            prop_assert!(batch.tokens.len() <= 128 && batch.lengths.iter().all(|length| *length <= 32));
            prop_assert_eq!(batch.labels.len(), if settings.order.is_some() { batch.lengths.len() } else { 0 });
            ids += found(batch).iter().filter(|id| ![CLS, SEP].contains(*id)).count();
        }
        if settings.order.is_none() {
            prop_assert_eq!(ids, 2 * lengths.iter().sum::<usize>());
        }
        let cut = cut.index(whole.len() + 1);
        let mut first = MaskedStream::new(documents(&lengths), settings.clone()).unwrap();
        for _ in 0..cut {
            first.next().unwrap();
        }
        let mut second = MaskedStream::new(documents(&lengths), settings).unwrap();
        second.seek(&first.position()).unwrap();
        prop_assert_eq!(all(&mut second), whole[cut..].to_vec());
    }
}

#[test]
fn fifteen_of_a_hundred_are_chosen_and_eight_of_ten_hidden() {
    for longest_run in [1, 3] {
        let settings =
            MaskSettings { context: 102, sequences: 200, longest_run, epochs: Some(1), ..settings() };
        let mut stream = MaskedStream::new(documents(&[100; 200]), settings).unwrap();
        let batch = stream.next().unwrap().unwrap();
        assert_eq!(batch.tokens.len() as u64, stream.tokens_per_epoch());
        let chosen: Vec<(u32, u32)> = batch
            .tokens
            .iter()
            .zip(&batch.targets)
            .filter(|(_, target)| **target != IGNORE)
            .map(|(token, target)| (*token, *target))
            .collect();
        assert_eq!(chosen.len(), 15 * 200);
        let part = |what: &dyn Fn(u32, u32) -> bool| {
            chosen.iter().filter(|(token, target)| what(*token, *target)).count() as f64 / chosen.len() as f64
        };
        let (hidden, left) = (part(&|token, _| token == MASK), part(&|token, target| token == target));
        assert!((hidden - 0.8).abs() < 0.03, "{hidden}");
        assert!((left - 0.1).abs() < 0.03, "{left}");
        assert!(chosen.iter().all(|(token, _)| *token == MASK || *token >= 10), "no special token is put in");
        // Runs lie together: more neighbours are chosen than by chance, which gives 0.15.
        let (mut together, mut count) = (0, 0);
        for pair in batch.targets.windows(2).filter(|pair| pair[0] != IGNORE) {
            together += usize::from(pair[1] != IGNORE);
            count += 1;
        }
        let together = together as f64 / f64::from(count);
        assert_eq!(together > 0.25, longest_run == 3, "{together}");
    }
}

#[test]
fn epochs_hide_other_tokens() {
    let settings = MaskSettings { context: 102, sequences: 1, ..settings() };
    let mut stream = MaskedStream::new(documents(&[100]), settings).unwrap();
    let (first, second) = (stream.next().unwrap().unwrap(), stream.next().unwrap().unwrap());
    assert_eq!(found(&first), found(&second));
    assert_ne!(first, second);
}

#[test]
fn halves_are_swapped_half_the_time_and_cut_at_sentences() {
    let text =
        |dot: usize| -> Vec<u32> { (0..20).map(|i| if i == dot { DOT } else { 10 + i as u32 }).collect() };
    let sequences: Vec<Vec<u32>> = (0..200).map(|i| text(7 + i % 5)).collect();
    let cache = Arc::new(Cache::in_memory(sequences.iter().map(Vec::as_slice), 1000).unwrap());
    let order = Some(OrderTask { sentence_ends: vec![DOT] });
    let settings = MaskSettings { context: 23, sequences: 200, epochs: Some(1), order, ..settings() };
    let mut stream = MaskedStream::new(Documents::all(cache), settings).unwrap();
    let batch = stream.next().unwrap().unwrap();
    let swapped = batch.labels.iter().sum::<u32>();
    assert!((70..130).contains(&swapped), "{swapped}");
    let found = found(&batch);
    for (number, label) in batch.labels.iter().enumerate() {
        let (ids, types) = (&found[number * 23..][..23], &batch.types[number * 23..][..23]);
        let middle = ids.iter().position(|id| *id == SEP).unwrap();
        let (first, second) = (&ids[1..middle], &ids[middle + 1..22]);
        let (before, after) = if *label == 1 { (second, first) } else { (first, second) };
        assert_eq!(before.last(), Some(&DOT));
        assert!(before[0] == 10 && after.last() == Some(&29));
        assert!(types[..=middle].iter().all(|t| *t == 0) && types[middle + 1..].iter().all(|t| *t == 1));
    }
}

#[test]
fn impossible_settings_are_refused() {
    let new = |settings| MaskedStream::new(documents(&[5]), settings).unwrap_err().to_string();
    assert!(new(MaskSettings { rate: f64::NAN, ..settings() }).contains("above 0"));
    assert!(new(MaskSettings { context: 2, ..settings() }).contains("not possible"));
    assert!(new(MaskSettings { mask: 1000, ..settings() }).contains("outside the vocabulary"));
    let order = Some(OrderTask { sentence_ends: vec![] });
    let short = MaskedStream::new(documents(&[1, 1]), MaskSettings { order, ..settings() });
    assert!(short.unwrap_err().to_string().contains("none of the 2 documents has 2 tokens"));
}
