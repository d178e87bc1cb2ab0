//! A sparse matrix as bytes: one bit a weight that tells where values are, then the values that are not zero.

/// The bytes of these values: `⌈count / 8⌉` of bits, the lowest first, then f32 values, little-endian.
pub fn pack(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0u8; values.len().div_ceil(8)];
    for (place, _) in values.iter().enumerate().filter(|(_, value)| **value != 0.0) {
        bytes[place / 8] |= 1 << (place % 8);
    }
    let kept = values.iter().filter(|value| **value != 0.0);
    bytes.extend(kept.flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The `count` values of these bytes; none if there are too few or too many of them.
pub fn unpack(bytes: &[u8], count: usize) -> Option<Vec<f32>> {
    let (bits, kept) = bytes.split_at_checked(count.div_ceil(8))?;
    let mut kept = kept.chunks_exact(4);
    let values = (0..count).map(|place| match bits[place / 8] >> (place % 8) & 1 {
        0 => Some(0.0),
        _ => kept.next().map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])),
    });
    let values: Option<Vec<f32>> = values.collect();
    values.filter(|_| kept.next().is_none() && kept.remainder().is_empty())
}
