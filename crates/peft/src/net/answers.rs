//! What an adapted model says: which targets it would have said itself, and how it goes on with a text.
//!
//! Every token costs a pass over the whole text: methods that put something in front of or around layers have no cache of keys and
//! values here. For the short texts of studies that is little.

use ounce_train::loss::{Chunk, LogitLoss};
use ounce_train::{Batch, IGNORE};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Adapted;
use crate::Result;

/// How the next token is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draw {
    /// The likeliest.
    Likeliest,
    /// By chance.
    Chance {
        /// What logits are divided by.
        temperature: f64,
        /// What random numbers begin with.
        seed: u64,
    },
}

/// A token for each row with a target, by the order of rows.
struct Said<'r> {
    temperature: Option<f64>,
    random: &'r mut ChaCha8Rng,
    /// Row and token.
    tokens: Vec<(usize, u32)>,
    /// Rows whose token is their target.
    hits: usize,
}

impl LogitLoss for Said<'_> {
    fn chunk(&mut self, chunk: Chunk<'_>, _scale: Option<f32>) -> f64 {
        for ((logits, &target), &row) in
            chunk.logits.chunks_exact(chunk.width).zip(chunk.targets).zip(chunk.rows)
        {
            if target == IGNORE {
                continue;
            }
            let token = match self.temperature {
                None => likeliest(logits),
                Some(temperature) => drawn(logits, temperature, self.random),
            };
            self.hits += usize::from(token == target);
            self.tokens.push((row, token));
        }
        0.0
    }
}

/// The first of the largest.
fn likeliest(logits: &[f32]) -> u32 {
    let better = |best: usize, id: usize| if logits[id] > logits[best] { id } else { best };
    (0..logits.len()).fold(0, better) as u32
}

/// One by the softmax of `logits / temperature`.
fn drawn(logits: &[f32], temperature: f64, random: &mut ChaCha8Rng) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> =
        logits.iter().map(|it| (f64::from(it - most) / temperature.max(1e-6)).exp()).collect();
    let mut left = random.random::<f64>() * weights.iter().sum::<f64>();
    let place = weights.iter().position(|weight| {
        left -= weight;
        left <= 0.0
    });
    place.unwrap_or(weights.len() - 1) as u32
}

impl Adapted {
    /// How many of a batch's targets it finds likeliest. Only for the network of slots.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn hits(&mut self, batch: &Batch) -> Result<usize> {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut said = Said { temperature: None, random: &mut random, tokens: Vec::new(), hits: 0 };
        self.pass(batch, None, None, &mut |pass, hidden| pass.loss(hidden, &mut said))?;
        Ok(said.hits)
    }

    /// How it goes on with each of several texts: at most `most` tokens each, up to the token `end`, which is left out. Texts whose
    /// number of tokens reaches `context` end there.
    ///
    /// # Errors
    /// If a text is empty or does not fit the model.
    pub fn go_on(
        &mut self,
        texts: &[Vec<u32>],
        most: usize,
        end: u32,
        context: usize,
        draw: Draw,
    ) -> Result<Vec<Vec<u32>>> {
        let (temperature, seed) = match draw {
            Draw::Likeliest => (None, 0),
            Draw::Chance { temperature, seed } => (Some(temperature), seed),
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut whole = texts.to_vec();
        let mut open: Vec<usize> = (0..texts.len()).collect();
        for _ in 0..most {
            open.retain(|&at| whole[at].len() < context);
            if open.is_empty() {
                break;
            }
            let mut batch = Batch::default();
            for &at in &open {
                let ids = &whole[at];
                batch.tokens.extend(ids);
                batch.targets.extend(std::iter::repeat_n(IGNORE, ids.len() - 1));
                batch.targets.push(end);
                batch.lengths.push(ids.len());
            }
            let mut said = Said { temperature, random: &mut random, tokens: Vec::new(), hits: 0 };
            self.pass(&batch, None, None, &mut |pass, hidden| pass.loss(hidden, &mut said))?;
            let mut tokens = said.tokens;
            tokens.sort_unstable_by_key(|it| it.0);
            let mut still = Vec::new();
            for (&at, (_, token)) in open.iter().zip(tokens) {
                if token != end {
                    whole[at].push(token);
                    still.push(at);
                }
            }
            open = still;
        }
        Ok(whole.iter().zip(texts).map(|(whole, text)| whole[text.len()..].to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_tokens_follow_their_weights() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let logits = [0.0f32, (3.0f32).ln(), f32::NEG_INFINITY];
        let ones = (0..4000).filter(|_| drawn(&logits, 1.0, &mut random) == 1).count();
        assert!((2880..3120).contains(&ones), "{ones} of 4000 for three quarters");
        assert!((0..100).all(|_| drawn(&logits, 1e-9, &mut random) == 1));
    }
}
