use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn written(sequences: &[(Vec<u32>, Vec<bool>)], header: Header) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), header).unwrap();
    for (ids, counts) in sequences {
        writer.push(ids, counts).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn read(bytes: Vec<u8>) -> Result<Cache> {
    Cache::from_bytes(Bytes::from(bytes), Path::new("tokens"))
}

fn sequences(limit: u32) -> impl Strategy<Value = Vec<(Vec<u32>, Vec<bool>)>> {
    let sequence = proptest::collection::vec((0..limit, any::<bool>()), 0..40);
    proptest::collection::vec(sequence.prop_map(|pairs| pairs.into_iter().unzip()), 0..12)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (limit, sequences) in prop_oneof![Just(300u32), Just(65_536), Just(70_000)]
            .prop_flat_map(|limit| (Just(limit), sequences(limit))),
        has_loss: bool,
    ) {
        let header = Header { id_limit: limit, has_loss, source: [3; 32], ..Header::default() };
        let cache = read(written(&sequences, header)).unwrap();
        prop_assert_eq!(cache.header().width, if limit <= 65_536 { 2 } else { 4 });
        prop_assert_eq!(cache.header().source, [3; 32]);
        prop_assert_eq!(cache.len(), sequences.len());
        cache.verify().unwrap();
        for (number, (ids, counts)) in sequences.iter().enumerate() {
            prop_assert_eq!(cache.length(number), ids.len());
            let mut read = Vec::new();
            cache.read(number, ids.len() / 3..ids.len(), &mut read).unwrap();
            prop_assert_eq!(&read, &ids[ids.len() / 3..]);
            for (token, counts) in counts.iter().enumerate() {
                prop_assert_eq!(cache.counts(number, token), *counts || !has_loss);
            }
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(at: prop::sample::Index, bit in 0u32..8) {
        let sequences = [(vec![1, 2, 3], vec![true; 3]), (vec![4, 5, 6, 7, 8], vec![false; 5])];
        let mut bytes = written(&sequences, Header { id_limit: 9, has_loss: true, ..Header::default() });
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let outcome = read(bytes).and_then(|cache| cache.verify());
        prop_assert!(outcome.is_err());
    }
}

#[test]
fn files_cut_off_or_of_another_kind_are_refused() {
    let bytes = written(&[(vec![1, 2, 3], vec![])], Header { id_limit: 9, ..Header::default() });
    for length in 0..bytes.len() {
        let error = read(bytes[..length].to_vec()).unwrap_err().to_string();
        assert!(error.starts_with("tokens: ") && error.contains("delete the file"), "{error}");
    }
    let mut other = bytes.clone();
    other[8] = 9;
    assert!(read(other).unwrap_err().to_string().contains("another version"));
    for at in 88..120 {
        let mut huge = bytes.clone();
        huge[at] = 0xFF;
        assert!(read(huge).is_err(), "{at}");
    }
}

#[test]
fn ids_outside_the_vocabulary_are_refused_when_written() {
    let error = Cache::in_memory([[1, 9].as_slice()], 9).unwrap_err().to_string();
    assert_eq!(error, "the id 9 is outside the vocabulary of 9");
}

#[test]
fn tables_that_contradict_the_counts_are_refused_even_with_a_right_checksum() {
    let sequences = [(vec![1, 2, 3], vec![]), (vec![4], vec![])];
    let bytes = written(&sequences, Header { id_limit: 9, ..Header::default() });
    assert_eq!(Cache::with_checksum(bytes.clone()), bytes);
    let offsets = HEADER + 8;
    for (at, value) in [(offsets, 1u64), (offsets + 8, 5), (offsets + 16, 3), (offsets + 16, u64::MAX)] {
        let mut wrong = bytes.clone();
        wrong[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let error = read(Cache::with_checksum(wrong)).unwrap_err().to_string();
        assert!(error.contains("damaged or cut off"), "{error}");
    }
    let mut wrong = bytes.clone();
    wrong[HEADER] = 200;
    let cache = read(Cache::with_checksum(wrong)).unwrap();
    let error = cache.read(0, 0..3, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("holds the id 200, which the tokenizer does not have"), "{error}");
    let mut wrong = bytes;
    wrong[HEADER] = 2;
    assert!(read(wrong).unwrap().check(0).unwrap_err().to_string().contains("is not what was written"));
}
