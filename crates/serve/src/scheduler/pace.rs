//! Whether guessing ahead pays: how long steps take by their tokens, and how often guesses are right, both as measured. Where
//! guessing would lose it stops, and tries again now and then.

/// What a step's measurement still counts for after one more.
const MEMORY: f64 = 0.97;

/// Tokens of a step up to which its time is taken as a straight line.
const NEAR: usize = 64;

/// Tokens guessed at most.
const MOST: usize = 8;

/// What guessing has to gain before it is done, as a share: estimates are not exact.
const MARGIN: f64 = 1.03;

/// Steps without guesses before one is tried, at first and at most.
const REST: (u32, u32) = (16, 1024);

/// Times of steps by their number of tokens: a straight line through the recent ones (weighted least squares).
#[derive(Debug, Clone, Default)]
pub struct Pace {
    weight: f64,
    n: f64,
    nn: f64,
    t: f64,
    nt: f64,
}

impl Pace {
    /// Notes a step.
    pub fn observe(&mut self, tokens: usize, seconds: f64) {
        if tokens > NEAR {
            return;
        }
        let n = tokens as f64;
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.n, n),
            (&mut self.nn, n * n),
            (&mut self.t, seconds),
            (&mut self.nt, n * seconds),
        ] {
            *sum = MEMORY * *sum + value;
        }
    }

    /// How much longer a step of `n + more` tokens takes than one of `n`, as a factor; none while that is not known.
    pub fn factor(&self, n: usize, more: usize) -> Option<f64> {
        let variance = self.weight * self.nn - self.n * self.n;
        if self.weight < 4.0 || variance < 1e-3 * self.weight * self.weight {
            return None;
        }
        let slope = ((self.weight * self.nt - self.n * self.t) / variance).max(0.0);
        let base = (self.t - slope * self.n) / self.weight;
        let (before, after) = (base + slope * n as f64, base + slope * (n + more) as f64);
        // Noise may tilt the line below zero; then it says nothing.
        (before > 0.0).then(|| after / before)
    }
}

/// How far the guesses of one source are trusted for one text.
#[derive(Debug, Clone)]
pub struct Trust {
    /// How likely a guessed token is right if those before it are.
    right: f64,
    rest: u32,
    waited: u32,
}

impl Default for Trust {
    fn default() -> Trust {
        Trust { right: 0.6, rest: REST.0, waited: 0 }
    }
}

impl Trust {
    /// Tokens to guess in a step that has `tokens` and from which `expected` new ones come without it. Gives with it how
    /// many of them will be right.
    pub fn length(&mut self, pace: &Pace, tokens: usize, expected: f64) -> (usize, f64) {
        let mut best = (0, 0.0, MARGIN);
        let mut sum = 0.0;
        for length in 1..=MOST {
            sum += self.right.powi(length as i32);
            let Some(longer) = pace.factor(tokens, length) else { break };
            let gain = (expected + sum) / expected / longer;
            if gain > best.2 {
                best = (length, sum, gain);
            }
        }
        if best.0 > 0 {
            self.waited = 0;
            return (best.0, best.1);
        }
        self.waited += 1;
        if self.waited < self.rest {
            return (0, 0.0);
        }
        // One guess tells whether the text has become easier, and what a longer step costs.
        self.waited = 0;
        self.rest = (2 * self.rest).min(REST.1);
        (1, self.right)
    }

    /// Notes how many of the guessed tokens were right, up to the first wrong one.
    pub fn observe(&mut self, guessed: usize, right: usize) {
        for place in 0..guessed.min(right + 1) {
            let hit = if place < right { 1.0 } else { 0.0 };
            self.right = 0.9 * self.right + 0.1 * hit;
        }
        if right > 0 {
            self.rest = REST.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(base: f64, slope: f64) -> Pace {
        let mut pace = Pace::default();
        (0..50).for_each(|n| pace.observe(1 + n % 5, base + slope * (1 + n % 5) as f64));
        pace
    }

    #[test]
    fn the_line_through_the_steps_is_found() {
        let factor = pace(0.01, 0.001).factor(2, 4).unwrap();
        assert!((factor - 0.016 / 0.012).abs() < 1e-9, "{factor}");
        let mut same = Pace::default();
        (0..50).for_each(|_| same.observe(1, 0.01));
        assert!(same.factor(1, 1).is_none(), "steps of one length say nothing of others");
    }

    #[test]
    fn guesses_are_long_where_they_are_cheap_and_right_and_none_where_they_lose() {
        // Where a token more costs as much as a step more, nothing is to be gained.
        let (cheap, dear) = (pace(0.01, 0.000_1), pace(1e-6, 0.01));
        let mut trust = Trust::default();
        (0..60).for_each(|_| trust.observe(4, 4));
        assert_eq!(trust.length(&cheap, 1, 1.0).0, MOST);
        assert_eq!(trust.length(&dear, 1, 1.0).0, 0);
        (0..60).for_each(|_| trust.observe(1, 0));
        let lengths: Vec<usize> = (0..200).map(|_| trust.length(&cheap, 1, 1.0).0).collect();
        let tried = lengths.iter().filter(|&&length| length > 0).count();
        assert!(lengths.iter().all(|&length| length <= 1) && (1..8).contains(&tried), "{tried}");
    }
}
