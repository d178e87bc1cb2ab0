//! One text written with a draft model beside: when it guesses, how many tokens, and what came of it.

use std::time::Instant;

use super::model::{self, Drafter};
use super::pace::{DraftPace, MOST, Pace, Trust};
use crate::engine::Engine;
use crate::error::Result;
use crate::sample::Sampler;

/// A draft model for the texts of one session.
#[derive(Debug)]
pub struct Ahead<'e> {
    drafter: Drafter<'e>,
    pace: Pace,
    own_pace: DraftPace,
    trust: Trust,
    /// Whether it stopped before all that was wanted, so that stopping counts as a miss.
    stopped: bool,
    /// Tokens guessed.
    pub drafted: usize,
    /// Guessed tokens that were right.
    pub accepted: usize,
}

impl<'e> Ahead<'e> {
    /// A draft model that has read nothing.
    ///
    /// # Errors
    /// If the model can't guess.
    pub fn new(draft: &'e Engine) -> Result<Ahead<'e>> {
        model::check(draft)?;
        Ok(Ahead {
            drafter: Drafter::new(draft),
            pace: Pace::default(),
            own_pace: DraftPace::default(),
            trust: Trust::default(),
            stopped: false,
            drafted: 0,
            accepted: 0,
        })
    }

    /// Notes a pass of the large model.
    pub(crate) fn observe(&mut self, tokens: usize, seconds: f64) {
        self.pace.observe(tokens, seconds);
        self.own_pace.earn(seconds);
    }

    /// Notes how many of `guessed` tokens were right.
    pub(crate) fn learn(&mut self, guessed: usize, right: usize) {
        if guessed > 0 || self.stopped {
            self.trust.observe(guessed + usize::from(self.stopped), right);
        }
        self.drafted += guessed;
        self.accepted += right;
    }

    /// Guesses up to `room` tokens behind `text`, as many as pay.
    pub(crate) fn guess(&mut self, text: &[u32], room: usize, sampler: &Sampler) -> Result<Vec<u32>> {
        self.stopped = false;
        if room == 0 {
            return Ok(Vec::new());
        }
        let behind = self.drafter.behind(text);
        let price = self.own_pace.price(1, behind, room);
        let worth = price.and_then(|price| self.trust.worth(&self.pace, 1, 1.0, price));
        let count = match worth {
            Some(worth) => {
                self.trust.begin();
                worth.length
            }
            // The first guess of a trial tells only what reading costs.
            None if self.trust.is_due() && self.own_pace.may_try(behind) => 2,
            None => return Ok(Vec::new()),
        };
        let start = Instant::now();
        let guesses = self.draft(text, count.min(room).min(MOST), sampler)?;
        if worth.is_none() {
            self.own_pace.spend(start.elapsed().as_secs_f64());
        }
        Ok(guesses)
    }

    fn draft(&mut self, text: &[u32], count: usize, sampler: &Sampler) -> Result<Vec<u32>> {
        let Some(unread) = self.drafter.align(text, count) else { return Ok(Vec::new()) };
        let mut sampler = sampler.clone();
        let mut guesses: Vec<u32> = Vec::new();
        while guesses.len() < count {
            let ids = guesses.last().map_or(unread, std::slice::from_ref);
            let start = Instant::now();
            let session = self.drafter.session();
            let logits = session.feed(ids, |_| {})?;
            let guess = model::guess(&logits, &mut sampler);
            session.reuse(logits);
            self.own_pace.observe(ids.len(), start.elapsed().as_secs_f64());
            let Some(id) = guess else {
                self.stopped = true;
                break;
            };
            guesses.push(id);
        }
        Ok(guesses)
    }
}
