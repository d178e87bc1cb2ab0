//! Whether guessing ahead pays: how long steps take by their tokens, what the guesses themselves cost, and how often they are
//! right, all as measured. Where guessing would lose it stops, and tries again now and then.

/// What a step's measurement still counts for after one more.
const MEMORY: f64 = 0.97;

/// Tokens of a step up to which its time is taken as a straight line.
const NEAR: usize = 64;

/// Tokens guessed at most.
pub const MOST: usize = 8;

/// What guessing has to gain before it is done, as a share: estimates are not exact.
const MARGIN: f64 = 1.05;

/// Steps without guesses before one is tried, at first and at most.
const REST: (u32, u32) = (16, 1024);

/// What one more guess counts for in the share of right ones.
const NEW: f64 = 0.1;

/// Share of all time that a draft model may spend on finding out whether it helps.
const TRIALS: f64 = 0.01;

/// Steps over which the reading of a text by a draft model is counted, at most.
const AMORTISED: usize = 128;

/// Times of steps by their number of tokens: a straight line through the recent ones (weighted least squares), and for those
/// of many tokens, which mostly read, seconds a token.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    reading: Option<f64>,
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
            let new = seconds / tokens as f64;
            self.reading = Some(self.reading.map_or(new, |old| 0.8 * old + 0.2 * new));
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

    /// Seconds of a step of `n` tokens, and of one of `n + more`; none while that is not known.
    fn seconds(&self, n: usize, more: usize) -> Option<(f64, f64)> {
        let variance = self.weight * self.nn - self.n * self.n;
        if self.weight < 4.0 || variance < 1e-3 * self.weight * self.weight {
            return None;
        }
        let slope = ((self.weight * self.nt - self.n * self.t) / variance).max(0.0);
        let base = (self.t - slope * self.n) / self.weight;
        let (before, after) = (base + slope * n as f64, base + slope * (n + more) as f64);
        // Noise may tilt the line below zero; then it says nothing.
        (before > 0.0).then_some((before, after))
    }

    /// Seconds a token where many are read at once; none before the first such step.
    pub fn reading(&self) -> Option<f64> {
        self.reading
    }

    /// Seconds of a step as those seen, none before the first.
    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.t / self.weight)
    }
}

/// What guesses cost besides their checking, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Price {
    /// Before the first one.
    pub first: f64,
    /// Each.
    pub each: f64,
}

/// How long a draft model takes, as measured, and what it may spend on trials.
#[derive(Debug, Clone, Default)]
pub struct DraftPace {
    /// Passes that guess a token for each text.
    guessing: Pace,
    /// Seconds that may be spent on trials; below zero when the last one took more.
    allowance: f64,
}

impl DraftPace {
    /// Notes a pass of the draft model.
    pub fn observe(&mut self, tokens: usize, seconds: f64) {
        self.guessing.observe(tokens, seconds);
    }

    /// Notes that the large model worked this long.
    pub fn earn(&mut self, seconds: f64) {
        self.allowance = (self.allowance + TRIALS * seconds).min(1.0);
    }

    /// Notes that a trial took this long.
    pub fn spend(&mut self, seconds: f64) {
        self.allowance -= seconds;
    }

    /// Whether a trial may be made for a text that the draft model has not read `behind` tokens of.
    pub fn may_try(&self, behind: usize) -> bool {
        let needed = self.guessing.reading.map_or(0.0, |each| each * behind as f64);
        // The first one is free: nothing is known without it.
        self.mean().is_none() || self.allowance >= needed.min(0.5)
    }

    /// What guesses cost for one of `texts` that are written together, of which the draft model has not read `behind` tokens, and to
    /// which `left` will be added. None while that is not known.
    pub fn price(&self, texts: usize, behind: usize, left: usize) -> Option<Price> {
        let step = self.mean()?;
        let each = step / texts.max(1) as f64;
        let reading = self.guessing.reading.unwrap_or(step);
        let first = reading * behind.saturating_sub(MOST) as f64 / left.clamp(1, AMORTISED) as f64;
        Some(Price { first, each })
    }

    fn mean(&self) -> Option<f64> {
        self.guessing.mean()
    }
}

/// How far the guesses of one source are trusted for one text.
#[derive(Debug, Clone)]
pub struct Trust {
    /// How likely the first guess is right, the first two, and so on. Not powers of one number: a source is often right for
    /// long or not at all.
    right: [f64; MOST],
    /// Guesses that were checked: the first ones count for more than later ones.
    seen: u32,
    rest: u32,
    waited: u32,
}

impl Default for Trust {
    fn default() -> Trust {
        Trust {
            right: std::array::from_fn(|place| 0.6f64.powi(place as i32 + 1)),
            seen: 0,
            rest: REST.0,
            waited: 0,
        }
    }
}

/// How many tokens are worth guessing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Tokens to guess.
    pub length: usize,
    /// How many of them will be right.
    pub right: f64,
    /// How much faster that is, as a factor above 1.
    pub gain: f64,
}

impl Trust {
    /// Trust as it is at the start of a text, after what was seen of others.
    pub fn after(&self) -> Trust {
        Trust { waited: 0, ..self.clone() }
    }

    /// Follows what was found in a text that has ended.
    pub fn follow(&mut self, ended: &Trust) {
        self.right.iter_mut().zip(&ended.right).for_each(|(own, ended)| *own = 0.7 * *own + 0.3 * ended);
        (self.rest, self.seen) = (ended.rest, ended.seen);
    }

    /// Tokens to guess in a step that has `tokens` and from which `expected` new ones come without it; none where that would lose, and
    /// while costs are not known.
    pub fn worth(&self, pace: &Pace, tokens: usize, expected: f64, price: Price) -> Option<Worth> {
        let mut best: Option<Worth> = None;
        let mut sum = 0.0;
        for length in 1..=MOST {
            sum += self.right[length - 1];
            let (before, after) = pace.seconds(tokens, length)?;
            let after = after + price.first + price.each * length as f64;
            let gain = (expected + sum) / expected * before / after;
            if gain > best.map_or(MARGIN, |it| it.gain) {
                best = Some(Worth { length, right: sum, gain });
            }
        }
        best
    }

    /// Notes a step without guesses. Whether one should be tried now: it tells whether the text has become easier, and what a
    /// longer step costs.
    pub fn is_due(&mut self) -> bool {
        self.waited += 1;
        if self.waited < self.rest {
            return false;
        }
        self.waited = 0;
        self.rest = (2 * self.rest).min(REST.1);
        true
    }

    /// Notes that guesses are made.
    pub fn begin(&mut self) {
        self.waited = 0;
    }

    /// How likely a first guess is right.
    pub fn right(&self) -> f64 {
        self.right[0]
    }

    /// Notes how many of the guessed tokens were right, up to the first wrong one.
    pub fn observe(&mut self, guessed: usize, right: usize) {
        let guessed = guessed.min(MOST);
        if guessed == 0 {
            return;
        }
        let before = self.right;
        let new = NEW.max(1.0 / f64::from(self.seen + 2));
        self.seen = self.seen.saturating_add(1);
        for (place, likely) in self.right.iter_mut().enumerate() {
            if place < guessed || right < guessed {
                let hit = if place < right { 1.0 } else { 0.0 };
                *likely = (1.0 - new) * *likely + new * hit;
            }
        }
        if right >= guessed {
            // Nobody knows of those behind, but that they follow more often; as likely as before, and a little more, or they
            // would never be tried again.
            for place in guessed..MOST {
                let follows = (before[place] / before[place - 1].max(1e-9)).min(1.0);
                self.right[place] = self.right[place - 1] * ((1.0 - new / 2.0) * follows + new / 2.0);
            }
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
        let factor = |pace: &Pace, n, more| pace.seconds(n, more).map(|(before, after)| after / before);
        let found = factor(&pace(0.01, 0.001), 2, 4).unwrap();
        assert!((found - 0.016 / 0.012).abs() < 1e-9, "{found}");
        let mut same = Pace::default();
        (0..50).for_each(|_| same.observe(1, 0.01));
        assert!(factor(&same, 1, 1).is_none(), "steps of one length say nothing of others");
    }

    #[test]
    fn guesses_are_long_where_they_are_cheap_and_right_and_none_where_they_lose() {
        // Where a token more costs as much as a step more, nothing is to be gained.
        let (cheap, dear) = (pace(0.01, 0.000_1), pace(1e-6, 0.01));
        let mut trust = Trust::default();
        (0..60).for_each(|_| trust.observe(4, 4));
        let worth = |trust: &Trust, pace| trust.worth(pace, 1, 1.0, Price::default());
        assert_eq!(worth(&trust, &cheap).unwrap().length, MOST);
        assert_eq!(worth(&trust, &dear), None);
        (0..60).for_each(|_| trust.observe(1, 0));
        assert_eq!(worth(&trust, &cheap), None);
        let tried = (0..200).filter(|_| trust.is_due()).count();
        assert!((1..8).contains(&tried), "{tried}");
    }

    #[test]
    fn a_source_that_is_right_for_long_or_not_at_all_is_valued_as_such() {
        let pace = pace(0.01, 0.003);
        let (mut bursts, mut steady) = (Trust::default(), Trust::default());
        for n in 0..400 {
            // Both have half of all tokens right that follow right ones; the first in runs of eight.
            let all = n % 4 == 0;
            bursts.observe(MOST, if all { MOST } else { 0 });
            steady.observe(MOST, if n % 2 == 0 { 1 } else { 0 });
        }
        let worth = |trust: &Trust| trust.worth(&pace, 1, 1.0, Price::default());
        // A quarter of eight tokens for the price of eight rows: 3 for 1 + 8 · 3/13.
        assert!((0.15..0.4).contains(&bursts.right()) && (0.4..0.6).contains(&steady.right()));
        assert_eq!(worth(&steady).map(|it| it.length), Some(1));
        assert_eq!(worth(&bursts), None);
        // It has become easy: one guess after the other shows it.
        (0..60).for_each(|_| bursts.observe(1, 1));
        assert!(worth(&bursts).unwrap().length > 1);
    }

    #[test]
    fn a_draft_model_pays_only_where_it_is_fast_and_reads_little() {
        let large = pace(0.01, 0.000_1);
        let mut trust = Trust::default();
        (0..60).for_each(|_| trust.observe(4, 4));
        let worth = |price: Price| trust.worth(&large, 1, 1.0, price);
        let mut draft = DraftPace::default();
        assert!(draft.price(1, 1, 100).is_none() && draft.may_try(200));
        (0..10).for_each(|_| draft.observe(1, 0.001));
        let quick = worth(draft.price(1, 1, 100).unwrap()).unwrap();
        assert!(quick.gain > 3.0 && quick.length == MOST, "{quick:?}");
        // As slow as the large model itself.
        let mut slow = DraftPace::default();
        (0..10).for_each(|_| slow.observe(1, 0.01));
        assert_eq!(worth(slow.price(1, 1, 100).unwrap()), None);
        // A long text to read before a short answer; a long answer bears it.
        draft.observe(100, 0.5);
        assert_eq!(worth(draft.price(1, 256, 5).unwrap()), None);
        assert!(worth(draft.price(1, 256, 100).unwrap()).is_some());
        // Trials have to be earned.
        draft.spend(0.1);
        assert!(!draft.may_try(100));
        draft.earn(70.0);
        assert!(draft.may_try(100));
    }
}
