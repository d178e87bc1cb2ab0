//! Streams of bits in 32-bit words, as every packer of whole numbers writes them: a field follows the other, lowest bits
//! first, and may lie in two words.

/// Words of a stream of this many fields.
pub(super) fn words_for(bits: usize, fields: usize) -> usize {
    (fields * bits).div_ceil(32)
}

/// The word at an index of little-endian bytes; 0 beyond their end.
#[inline]
pub(super) fn word(data: &[u8], index: usize) -> u32 {
    data.get(index * 4..index * 4 + 4).map_or(0, |it| u32::from_le_bytes([it[0], it[1], it[2], it[3]]))
}

/// Unpacks fields of up to 8 bits from a stream's words.
#[inline]
pub(super) fn unpack(bits: usize, mut words: impl Iterator<Item = u32>, out: &mut [u8]) {
    let mask = u8::MAX >> (8 - bits);
    let (mut held, mut count) = (0u64, 0);
    for field in out {
        if count < bits {
            held |= u64::from(words.next().unwrap_or(0)) << count;
            count += 32;
        }
        *field = held as u8 & mask;
        held >>= bits;
        count -= bits;
    }
}

/// One field of a stream whose words `word` gives.
#[inline]
pub(super) fn field(bits: usize, index: usize, word: impl Fn(usize) -> u32) -> u8 {
    let (first, shift) = (index * bits / 32, index * bits % 32);
    let mut held = u64::from(word(first)) >> shift;
    if shift + bits > 32 {
        held |= u64::from(word(first + 1)) << (32 - shift);
    }
    held as u8 & (u8::MAX >> (8 - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_alone_as_in_a_row_and_by_a_naive_reader() {
        let words: Vec<u32> = (1..40u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let bit = |at: usize| (words[at / 32] >> (at % 32)) as u8 & 1;
        for bits in 1..=8 {
            let mut fields = vec![0; 150];
            unpack(bits, words.iter().copied(), &mut fields);
            for (index, &found) in fields.iter().enumerate() {
                assert_eq!(found, field(bits, index, |at| words[at]), "{bits} bits, {index}");
                let naive = (0..bits).fold(0, |field, k| field | bit(index * bits + k) << k);
                assert_eq!(found, naive, "{bits} bits, {index}");
            }
        }
    }
}
