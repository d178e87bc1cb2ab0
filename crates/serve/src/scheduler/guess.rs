//! Who guesses the next tokens of an answer, and how many: the text itself, what the model wrote before, or a draft model, whichever
//! gains most by what was measured.

use ounce_engine::draft::{DraftPace, Drafter, Pace, Price, PromptLookup, TriGrams, Trust};

/// The likelihood below which the table's chain ends.
const LIKELY: f32 = 0.3;

/// Tokens that are looked for at most.
const LONGEST: usize = 16;

/// Who guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// What followed the same tokens earlier in the text.
    Text,
    /// What the model wrote behind two tokens before.
    Table,
    /// A smaller model.
    Draft,
}

/// How far each source is trusted.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources([Trust; 3]);

impl Sources {
    fn of(&mut self, source: Source) -> &mut Trust {
        &mut self.0[source as usize]
    }

    /// What a new text begins with.
    pub fn after(&self) -> Sources {
        Sources(self.0.each_ref().map(Trust::after))
    }

    /// Takes up what was found in a text that has ended.
    pub fn follow(&mut self, ended: &Sources) {
        self.0.iter_mut().zip(&ended.0).for_each(|(own, ended)| own.follow(ended));
    }
}

/// What a step has without the guesses of one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'s> {
    /// How long steps take.
    pub pace: &'s Pace,
    /// How long the draft model takes, if there is one.
    pub draft: Option<&'s DraftPace>,
    /// Answers that are written.
    pub texts: usize,
    /// Tokens in the step so far.
    pub tokens: usize,
    /// New tokens that will come of them.
    pub expected: f64,
}

/// What is guessed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Guessed {
    /// Tokens that are guessed already.
    pub ids: Vec<u32>,
    /// Tokens that the draft model shall guess.
    pub wanted: usize,
    /// Whether it is only to find out whether it pays.
    pub trial: bool,
    /// How many will be right.
    pub right: f64,
}

/// The guesses of one answer.
#[derive(Debug, Default)]
pub(super) struct Guesses<'e> {
    lookup: PromptLookup,
    pub sources: Sources,
    /// The text as the draft model reads it.
    pub drafter: Option<Drafter<'e>>,
    /// Whose guess is being checked.
    guesser: Option<Source>,
    /// Whether the draft model gave less than it was asked for, being unsure.
    pub unsure: bool,
}

impl<'e> Guesses<'e> {
    /// For a new text, after what was seen of others.
    pub fn after(sources: &Sources) -> Guesses<'e> {
        Guesses { sources: sources.after(), ..Guesses::default() }
    }

    /// Bytes of the draft model's keys and values.
    pub fn draft_bytes(&self) -> usize {
        self.drafter.as_ref().map_or(0, Drafter::cache_bytes)
    }

    /// Guesses up to `room` tokens behind a text, as many as pay.
    pub fn guess(&mut self, text: &[u32], table: &TriGrams, room: usize, before: Before<'_>) -> Guessed {
        (self.guesser, self.unsure) = (None, false);
        if room == 0 || text.len() < 2 {
            return Guessed::default();
        }
        let (from_text, end) = (self.lookup.draft(text, room.min(LONGEST)), text.len());
        let from_table = || table.chain((text[end - 2], text[end - 1]), room.min(LONGEST), LIKELY);
        let found = match from_text.is_empty() {
            false => Some((Source::Text, from_text)),
            true => Some((Source::Table, from_table())).filter(|(_, ids)| !ids.is_empty()),
        };
        let Before { pace, tokens, expected, .. } = before;
        let behind =
            self.drafter.as_ref().map_or(end.min(ounce_engine::draft::model::WINDOW), |it| it.behind(text));
        let price = before.draft.and_then(|it| it.price(before.texts, behind, room));
        let cheap = found
            .as_ref()
            .and_then(|(source, _)| self.sources.of(*source).worth(pace, tokens, expected, Price::default()));
        let draft =
            price.and_then(|price| self.sources.of(Source::Draft).worth(pace, tokens, expected, price));
        if let Some(worth) = draft.filter(|it| cheap.is_none_or(|cheap| it.gain > cheap.gain)) {
            self.begin(Source::Draft);
            return Guessed { wanted: worth.length.min(room), right: worth.right, ..Guessed::default() };
        }
        if let (Some((source, mut ids)), Some(worth)) = (found.clone(), cheap) {
            self.begin(source);
            ids.truncate(worth.length);
            return Guessed { ids, right: worth.right, ..Guessed::default() };
        }
        // Nothing pays; now and then it is tried whether something does by now.
        if let Some((source, mut ids)) = found.filter(|(source, _)| self.sources.of(*source).is_due()) {
            self.begin(source);
            ids.truncate(1);
            return Guessed { ids, right: self.sources.of(source).right(), ..Guessed::default() };
        }
        if let Some(draft) = before.draft
            && self.sources.of(Source::Draft).is_due()
            && draft.may_try(behind)
        {
            self.begin(Source::Draft);
            // The first guess tells only what reading costs.
            let right = self.sources.of(Source::Draft).right();
            return Guessed { wanted: room.min(2), trial: true, right, ..Guessed::default() };
        }
        Guessed::default()
    }

    fn begin(&mut self, source: Source) {
        self.sources.of(source).begin();
        self.guesser = Some(source);
    }

    /// Takes note of how many of the guesses were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        // A draft model that stops has taken its time and given nothing for it.
        let missed = usize::from(std::mem::take(&mut self.unsure));
        if let Some(source) = self.guesser.take() {
            self.sources.of(source).observe(guessed + missed, right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gains_most_guesses() {
        let mut pace = Pace::default();
        (0..50).for_each(|n| pace.observe(1 + n % 5, 0.01 + 0.000_1 * (1 + n % 5) as f64));
        let (mut quick, mut slow) = (DraftPace::default(), DraftPace::default());
        (0..10).for_each(|_| quick.observe(1, 0.000_5));
        (0..10).for_each(|_| slow.observe(1, 0.01));
        let before = |draft| Before { pace: &pace, draft, texts: 1, tokens: 1, expected: 1.0 };
        let table = TriGrams::new(0.2);
        let text = [7, 8, 9, 1, 2, 3, 4, 7, 8, 9];
        let new = [1, 2, 3, 4, 5];
        let mut guesses = Guesses::default();
        // What the text says is free.
        let guessed = guesses.guess(&text, &table, 4, before(Some(&quick)));
        assert_eq!((guessed.wanted, guessed.ids[0]), (0, 1));
        // Unless it is wrong.
        (0..40).for_each(|_| guesses.sources.of(Source::Text).observe(1, 0));
        assert!(guesses.guess(&text, &table, 4, before(Some(&quick))).wanted > 0);
        assert!(Guesses::default().guess(&new, &table, 4, before(Some(&quick))).wanted > 0);
        assert_eq!(Guesses::default().guess(&new, &table, 4, before(Some(&slow))), Guessed::default());
        assert_eq!(Guesses::default().guess(&new, &table, 0, before(Some(&quick))), Guessed::default());
        // A draft model that is unsure is asked less.
        let mut guesses = Guesses::default();
        let first = guesses.guess(&new, &table, 8, before(Some(&quick))).wanted;
        for _ in 0..30 {
            guesses.guess(&new, &table, 8, before(Some(&quick)));
            guesses.unsure = true;
            guesses.learn(0, 0);
        }
        assert!(guesses.guess(&new, &table, 8, before(Some(&quick))).wanted < first);
    }
}
