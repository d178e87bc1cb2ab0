//! What a model writes behind many prompts, several at a time.

use std::collections::VecDeque;

use ounce_engine::text::TextStream;
use ounce_engine::{Batch, Engine, Result, Sampler, Sampling, Session, Turn, Want};
use ounce_model::tokenizer::Tokenizer;

use super::score::{CHUNK, LANES};
use crate::walk::runs_whole;

/// A prompt, and when its answer ends.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    /// Not empty, with room for the answer in the model's context.
    pub ids: Vec<u32>,
    /// Tokens of the answer at most.
    pub max_tokens: usize,
    /// Texts before which it ends.
    pub stops: Vec<String>,
    pub sampling: Sampling,
}

/// Writes answers; `done` gets each prompt's place and answer, and `step` is called between forward passes.
///
/// # Errors
/// If a token is unknown to the model, the model is an encoder, an option is out of its range, or a callback returns an
/// error.
pub(super) fn write(
    engine: &Engine,
    tokenizer: &Tokenizer,
    prompts: &[Prompt],
    mut step: impl FnMut() -> Result<()>,
    mut done: impl FnMut(usize, String) -> Result<()>,
) -> Result<()> {
    // Prompts that begin alike follow each other, and a sequence keeps what the next one shares.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by(|&a, &b| prompts[a].ids.cmp(&prompts[b].ids));
    let mut order = VecDeque::from(order);
    let whole = runs_whole(engine);
    let mut batch = engine.batch();
    let mut lanes: Vec<Lane<'_, '_>> = (0..LANES.min(prompts.len()))
        .map(|_| Lane { session: engine.session(), whole, answer: None })
        .collect();
    loop {
        for lane in &mut lanes {
            while lane.answer.is_none() {
                let Some(asker) = order.pop_front() else { break };
                if prompts[asker].max_tokens == 0 {
                    done(asker, String::new())?;
                    continue;
                }
                lane.begin(asker, &prompts[asker], tokenizer)?;
            }
        }
        lanes.retain(|lane| lane.answer.is_some());
        if lanes.is_empty() {
            return Ok(());
        }
        step()?;
        forward(&mut batch, &mut lanes, tokenizer, &mut done)?;
    }
}

fn forward<'e>(
    batch: &mut Batch<'e>,
    lanes: &mut [Lane<'e, '_>],
    tokenizer: &Tokenizer,
    done: &mut impl FnMut(usize, String) -> Result<()>,
) -> Result<()> {
    let mut turns: Vec<Turn<'_, 'e>> = Vec::with_capacity(lanes.len());
    let mut wants = Vec::with_capacity(lanes.len());
    for lane in lanes.iter_mut() {
        let Some(turn) = lane.turn() else { continue };
        wants.push(turn.want == Want::Last);
        turns.push(turn);
    }
    let logits = batch.step(&mut turns)?;
    drop(turns);
    let vocab = logits.len() / wants.iter().filter(|wants| **wants).count().max(1);
    let mut rows = logits.chunks_exact(vocab.max(1));
    for (lane, wants) in lanes.iter_mut().zip(wants) {
        let Some(answer) = &mut lane.answer else { continue };
        answer.at = answer.end;
        // Only those at the end of their prompt or behind it were given logits.
        let Some(row) = (if wants { rows.next() } else { None }) else { continue };
        if answer.take(
            row,
            tokenizer,
            lane.session.tokens().len() < lane.session.engine().spec().context_length,
        )? {
            let Some(answer) = lane.answer.take() else { continue };
            done(answer.asker, answer.text()?)?;
        }
    }
    Ok(())
}

struct Lane<'e, 'p> {
    session: Session<'e>,
    whole: bool,
    answer: Option<Answer<'p>>,
}

/// An answer in the making.
struct Answer<'p> {
    asker: usize,
    prompt: &'p Prompt,
    sampler: Sampler,
    stream: TextStream,
    text: String,
    stopped: bool,
    tokens: usize,
    /// Tokens of the prompt that are done, and where the pass that is under way ends.
    at: usize,
    end: usize,
    next: [u32; 1],
}

impl<'e, 'p> Lane<'e, 'p> {
    fn begin(&mut self, asker: usize, prompt: &'p Prompt, tokenizer: &Tokenizer) -> Result<()> {
        let shared = self.session.tokens().iter().zip(&prompt.ids).take_while(|(a, b)| a == b).count();
        let at = if self.whole { 0 } else { shared.min(prompt.ids.len() - 1) };
        self.session.truncate(at);
        let mut sampler = Sampler::new(prompt.sampling.clone(), tokenizer.id_limit() as usize)?;
        prompt.ids.iter().for_each(|&id| sampler.observe(id));
        self.answer = Some(Answer {
            asker,
            prompt,
            sampler,
            stream: TextStream::new(tokenizer, prompt.stops.clone(), false)?,
            text: String::new(),
            stopped: false,
            tokens: 0,
            at,
            end: at,
            next: [0],
        });
        Ok(())
    }

    fn turn(&mut self) -> Option<Turn<'_, 'e>> {
        let answer = self.answer.as_mut()?;
        let prompt = &answer.prompt.ids;
        if answer.at >= prompt.len() {
            return Some(Turn { session: &mut self.session, ids: &answer.next, want: Want::Last });
        }
        answer.end = if self.whole { prompt.len() } else { prompt.len().min(answer.at + CHUNK) };
        let want = if answer.end == prompt.len() { Want::Last } else { Want::Nothing };
        Some(Turn { session: &mut self.session, ids: &prompt[answer.at..answer.end], want })
    }
}

impl Answer<'_> {
    /// Takes the next token; true when the answer is complete.
    fn take(&mut self, logits: &[f32], tokenizer: &Tokenizer, has_room: bool) -> Result<bool> {
        let id = self.sampler.choose(logits);
        if tokenizer.is_end(id) {
            return Ok(true);
        }
        self.sampler.observe(id);
        let piece = self.stream.push(id)?;
        self.text.push_str(&piece.text);
        self.stopped = piece.stopped;
        self.tokens += 1;
        self.next = [id];
        Ok(self.stopped || self.tokens >= self.prompt.max_tokens || !has_room)
    }

    fn text(self) -> Result<String> {
        let rest = if self.stopped { String::new() } else { self.stream.finish()? };
        Ok(self.text + &rest)
    }
}
