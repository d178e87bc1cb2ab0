use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::data::Cache;

/// Documents of these lengths; every id tells its document and place.
fn documents(lengths: &[usize]) -> Documents {
    let sequences: Vec<Vec<u32>> = lengths
        .iter()
        .enumerate()
        .map(|(document, length)| (0..*length).map(|token| (document * 1000 + token) as u32).collect())
        .collect();
    let cache = Cache::in_memory(sequences.iter().map(Vec::as_slice), 1_000_000).unwrap();
    Documents::all(Arc::new(cache))
}

fn settings(context: usize, sequences: usize, layout: Layout) -> StreamSettings {
    StreamSettings { context, sequences, seed: 5, shuffle: true, epochs: Some(2), layout }
}

fn all(stream: &mut LanguageStream) -> Vec<Batch> {
    std::iter::from_fn(|| stream.next().unwrap()).collect()
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::Documents), Just(Layout::Chunks)]
}

proptest! {
    #[test]
    fn each_pair_of_neighbours_comes_once_an_epoch(
        lengths in proptest::collection::vec(0usize..40, 1..20),
        context in 1usize..17,
        sequences in 1usize..5,
    ) {
        prop_assume!(lengths.iter().any(|length| *length > 1));
        let mut stream =
            LanguageStream::new(documents(&lengths), settings(context, sequences, Layout::Documents)).unwrap();
        let batches = all(&mut stream);
        let mut seen: HashMap<(u32, u32), usize> = HashMap::new();
        for (i, batch) in batches.iter().enumerate() {
            batch.check(1_000_000).unwrap();
            prop_assert!(batch.lengths.iter().all(|length| *length <= context));
            if i + 1 < batches.len() {
                prop_assert_eq!(batch.tokens.len(), context * sequences);
            }
            let mut start = 0;
            for length in &batch.lengths {
                for token in start..start + length {
                    // A sequence is a piece of one document.
                    prop_assert_eq!(batch.targets[token], batch.tokens[token] + 1);
                    prop_assert_eq!(batch.tokens[token], batch.tokens[start] + (token - start) as u32);
                    *seen.entry((batch.tokens[token], batch.targets[token])).or_default() += 1;
                }
                start += length;
            }
        }
        let pairs: usize = lengths.iter().map(|length| length.saturating_sub(1)).sum();
        prop_assert_eq!(seen.len(), pairs);
        prop_assert!(seen.values().all(|count| *count == 2));
        prop_assert_eq!(stream.tokens_per_epoch(), pairs as u64);
    }

    #[test]
    fn chunks_are_the_documents_behind_each_other(
        lengths in proptest::collection::vec(0usize..40, 1..20),
        context in 1usize..17,
        sequences in 1usize..5,
    ) {
        prop_assume!(lengths.iter().sum::<usize>() > 1);
        let mut stream =
            LanguageStream::new(documents(&lengths), settings(context, sequences, Layout::Chunks)).unwrap();
        let batches = all(&mut stream);
        let tokens: Vec<u32> = batches.iter().flat_map(|batch| batch.tokens.clone()).collect();
        let targets: Vec<u32> = batches.iter().flat_map(|batch| batch.targets.clone()).collect();
        prop_assert_eq!(&tokens[1..], &targets[..targets.len() - 1]);
        let ids: usize = lengths.iter().sum();
        prop_assert_eq!(tokens.len(), 2 * ids - 1);
        let mut epoch = tokens[..ids].to_vec();
        epoch.sort_unstable();
        epoch.dedup();
        prop_assert_eq!(epoch.len(), ids);
        let lengths: Vec<usize> = batches.iter().flat_map(|batch| batch.lengths.clone()).collect();
        prop_assert!(lengths[..lengths.len() - 1].iter().all(|length| *length == context));
    }

    #[test]
    fn a_stream_goes_on_from_any_position(
        lengths in proptest::collection::vec(0usize..40, 1..20),
        context in 1usize..17,
        cut: prop::sample::Index,
        layout in layouts(),
        shuffle: bool,
    ) {
        prop_assume!(lengths.iter().any(|length| *length > 1));
        let settings = StreamSettings { shuffle, ..settings(context, 2, layout) };
        let mut stream = LanguageStream::new(documents(&lengths), settings.clone()).unwrap();
        let whole = all(&mut stream);
        let cut = cut.index(whole.len() + 1);

        let mut first = LanguageStream::new(documents(&lengths), settings.clone()).unwrap();
        for batch in &whole[..cut] {
            prop_assert_eq!(first.next().unwrap(), Some(batch.clone()));
        }
        let stored = serde_json::to_string(&first.position()).unwrap();
        let mut second = LanguageStream::new(documents(&lengths), settings).unwrap();
        second.seek(&serde_json::from_str(&stored).unwrap()).unwrap();
        prop_assert_eq!(second.position().step, cut as u64);
        prop_assert_eq!(all(&mut second), whole[cut..].to_vec());
    }
}

#[test]
fn epochs_have_orders_of_their_own() {
    let settings = StreamSettings { epochs: None, ..settings(9, 100, Layout::Documents) };
    let mut stream = LanguageStream::new(documents(&[10; 100]), settings).unwrap();
    let (first, second) = (stream.next().unwrap().unwrap(), stream.next().unwrap().unwrap());
    assert_eq!((first.tokens.len(), first.lengths.len()), (900, 100));
    assert_ne!(first.tokens, second.tokens);
    assert_eq!(stream.position().epoch, 1);
}

#[test]
fn only_marked_tokens_are_targets() {
    let counts = [false, false, true, true];
    let cache = Cache::in_memory_masked([([1, 2, 3, 4].as_slice(), counts.as_slice())], 9, false).unwrap();
    for layout in [Layout::Documents, Layout::Chunks] {
        let settings = StreamSettings { epochs: Some(1), ..settings(8, 1, layout) };
        let mut stream = LanguageStream::new(Documents::all(Arc::new(cache.clone())), settings).unwrap();
        assert_eq!(stream.next().unwrap().unwrap().targets, [IGNORE, 3, 4]);
    }
}

#[test]
fn impossible_streams_and_positions_are_refused() {
    let new = |lengths: &[usize], context| {
        LanguageStream::new(documents(lengths), settings(context, 1, Layout::Documents))
    };
    assert!(new(&[1, 0, 1], 4).unwrap_err().to_string().contains("nothing to predict"));
    assert!(new(&[5], 0).unwrap_err().to_string().contains("one token"));
    assert!(new(&[5], usize::MAX).unwrap_err().to_string().contains("too large"));
    let mut stream = new(&[5, 5], 4).unwrap();
    let position = stream.position();
    let error = stream.seek(&new(&[5, 6], 4).unwrap().position()).unwrap_err().to_string();
    assert!(error.contains("belongs to other data"), "{error}");
    for (index, offset) in [(3, 0), (1, 6)] {
        let wrong = Position { index, offset, ..position.clone() };
        assert!(stream.seek(&wrong).unwrap_err().to_string().contains("damaged"));
    }
}
