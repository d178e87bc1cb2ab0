//! A smaller model as the one that guesses (Leviathan et al. 2023, "Fast inference from transformers via speculative decoding",
//! arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318): it reads the text beside the large model and writes a few tokens ahead.
//!
//! It draws as the large model will, by a copy of the same sampler. Both then turn the same random number into a token by their own
//! distributions, so that they often meet where they agree; and since the large model's token is the one that is kept, what is
//! written is what it would have written alone, at any temperature.

use ounce_kernels::softmax::log_sum_exp;
use ounce_model::rope::Rope;
use ounce_model::tokenizer::Tokenizer;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::sample::Sampler;
use crate::session::Session;

/// Tokens of a text that a draft model reads, where it has fallen behind: the end says most about what comes next, and
/// reading all of a long text would cost what guessing gains.
pub const WINDOW: usize = 256;

/// Probability of its likeliest token below which a draft model stops guessing.
pub const UNSURE: f64 = 0.3;

/// Whether a model can guess for another one: both write text, and its frequencies do not hang on the length of a text.
///
/// # Errors
/// If it can't, with the reason.
pub fn check(draft: &Engine) -> Result<()> {
    let spec = draft.spec();
    if !spec.causal {
        return Err(Error::Unsuitable("the draft model is an encoder and writes no text".to_owned()));
    }
    if spec.ropes().any(Rope::depends_on_length) {
        let what = "the draft model's rotations hang on the length of the text, and it would have to read it again and again";
        return Err(Error::Unsuitable(what.to_owned()));
    }
    Ok(())
}

/// Whether the vocabularies of a model and of its draft model, each with a name, are the same.
///
/// # Errors
/// If they are not, with the first token that differs.
pub fn same_vocabulary(
    (name, own): (&str, &Tokenizer),
    (draft_name, draft): (&str, &Tokenizer),
) -> Result<()> {
    let Some((id, here, there)) = own.first_difference(draft) else { return Ok(()) };
    let piece = |piece: Option<String>| piece.map_or("none".to_owned(), |it| format!("{it:?}"));
    Err(Error::Unsuitable(format!(
        "{draft_name} can't guess for {name}: token {id} is {} for it and {} for {name}; take a smaller model with the same tokenizer",
        piece(there),
        piece(here)
    )))
}

/// One text as a draft model reads it.
#[derive(Debug)]
pub struct Drafter<'e> {
    session: Session<'e>,
    /// The token of the text with which the session begins.
    from: usize,
}

impl<'e> Drafter<'e> {
    /// A draft model that has read nothing.
    pub fn new(engine: &'e Engine) -> Drafter<'e> {
        Drafter { session: engine.session(), from: 0 }
    }

    /// Forgets what the text does not hold, and begins anew near its end where too much is unread or it is too long with
    /// `count` tokens more. Gives the tokens to be read next, at least one; none if the model lacks one of them.
    pub fn align<'t>(&mut self, text: &'t [u32], count: usize) -> Option<&'t [u32]> {
        let spec = self.session.engine().spec();
        let known = self.known(text);
        self.session.truncate(known);
        let most = spec.context_length.saturating_sub(count);
        if text.len() - self.from - known > WINDOW || text.len() - self.from > most {
            self.session.truncate(0);
            self.from = text.len() - text.len().min(WINDOW).min(most / 2 + 1);
        }
        let unread = &text[self.from + self.session.tokens().len()..];
        let has = |id: &u32| (*id as usize) < spec.vocab_size;
        (!unread.is_empty() && unread.iter().all(has)).then_some(unread)
    }

    /// Tokens that would have to be read.
    pub fn behind(&self, text: &[u32]) -> usize {
        let unread = text.len().saturating_sub(self.from + self.known(text));
        if unread > WINDOW { text.len().min(WINDOW) } else { unread }
    }

    /// Tokens of the session that are the text's; the last of the text always has to be read, for what follows it.
    fn known(&self, text: &[u32]) -> usize {
        let text = text.get(self.from..).unwrap_or_default();
        let same = self.session.tokens().iter().zip(text).take_while(|(held, token)| held == token).count();
        same.min(text.len().saturating_sub(1))
    }

    /// The session, to run what [`Drafter::align`] gave and what is guessed.
    pub fn session(&mut self) -> &mut Session<'e> {
        &mut self.session
    }

    /// Bytes of its keys and values.
    pub fn cache_bytes(&self) -> usize {
        self.session.own_cache_bytes()
    }

    /// Bytes that reading and guessing will add to its keys and values.
    pub fn growth(&self, tokens: usize) -> usize {
        self.session.cache_growth(tokens)
    }
}

/// The token that a draft model guesses by its logits; none where it is not sure. `sampler` is a copy of the one that will choose
/// by the large model's logits.
pub fn guess(logits: &[f32], sampler: &mut Sampler) -> Option<u32> {
    let top = logits.iter().fold(f32::NEG_INFINITY, |top, &logit| top.max(logit));
    let sure = (f64::from(top) - log_sum_exp(logits)).exp() >= UNSURE;
    sure.then(|| {
        let id = sampler.choose(logits);
        sampler.observe(id);
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sampling;

    #[test]
    fn it_guesses_with_the_same_draw_and_only_what_it_is_sure_of() {
        let logits = [0.0, 2.0, 1.0, -1.0];
        let options = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() };
        let mut sampler = Sampler::new(options, 4).expect("options are in range");
        for _ in 0..100 {
            // Where both models agree, they draw the same.
            let guessed = guess(&logits, &mut sampler.clone());
            assert_eq!(guessed, Some(sampler.choose(&logits)));
        }
        assert_eq!(guess(&[0.0; 4], &mut sampler), None);
    }
}
