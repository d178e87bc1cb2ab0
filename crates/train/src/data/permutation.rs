//! An order of documents that follows from a seed and can be asked for any place in it.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::mix;

/// Up to so many, the order is drawn and kept; beyond, each place is computed when asked for.
const KEPT: usize = 1 << 16;

/// Rounds of the cipher that orders many.
const ROUNDS: usize = 8;

/// A permutation of `0..len`.
#[derive(Debug, Clone)]
pub(super) enum Permutation {
    /// As they come.
    None,
    /// Drawn.
    Kept(Vec<u32>),
    /// A Feistel cipher on numbers of `2 * half_bits` bits; what leaves `0..len` is enciphered again until it is back.
    Cipher { len: u64, half_bits: u32, keys: [u64; ROUNDS] },
}

impl Permutation {
    /// The order of this epoch.
    pub(super) fn new(len: usize, seed: u64, epoch: u64) -> Permutation {
        let mut random = ChaCha8Rng::seed_from_u64(mix(seed, epoch));
        if len <= KEPT {
            let mut order: Vec<u32> = (0..len as u32).collect();
            order.shuffle(&mut random);
            return Permutation::Kept(order);
        }
        let bits = usize::BITS - (len - 1).leading_zeros();
        Permutation::Cipher {
            len: len as u64,
            half_bits: bits.div_ceil(2),
            keys: std::array::from_fn(|_| random.next_u64()),
        }
    }

    /// What stands at a place below `len`.
    pub(super) fn at(&self, place: usize) -> usize {
        match self {
            Permutation::None => place,
            Permutation::Kept(order) => order[place] as usize,
            Permutation::Cipher { len, half_bits, keys } => {
                let mask = (1u64 << half_bits) - 1;
                let mut number = place as u64;
                loop {
                    let (mut left, mut right) = (number >> half_bits, number & mask);
                    for key in keys {
                        (left, right) = (right, left ^ (mix(right, *key) & mask));
                    }
                    number = left << half_bits | right;
                    if number < *len {
                        return number as usize;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_once() {
        for len in [1, 2, 3, 10, 1000, KEPT, KEPT + 1, 100_003, 1 << 18] {
            let order = Permutation::new(len, 7, 3);
            let mut seen = vec![false; len];
            for place in 0..len {
                assert!(!std::mem::replace(&mut seen[order.at(place)], true), "{len} {place}");
            }
        }
    }

    #[test]
    fn seeds_and_epochs_differ_and_repeat() {
        for len in [1000, KEPT + 1000] {
            let order = |seed, epoch| {
                let order = Permutation::new(len, seed, epoch);
                (0..len).map(|place| order.at(place)).collect::<Vec<_>>()
            };
            assert_eq!(order(1, 0), order(1, 0));
            assert_ne!(order(1, 0), order(2, 0));
            assert_ne!(order(1, 0), order(1, 1));
            // In a random order one expects one document at its own place, and neighbours far apart.
            let fixed = order(1, 0).iter().enumerate().filter(|(place, at)| place == *at).count();
            assert!(fixed < 8, "{fixed}");
            let close = order(1, 0).windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < len / 100).count();
            assert!(close < len / 30, "{close}");
        }
    }
}
