//! A draft model beside the model: guesses for several answers in the same passes.

use std::time::Instant;

use ounce_engine::draft::{DraftPace, Drafter, model};
use ounce_engine::{Batch, Engine, Sampler, Turn, Want};

use super::memory::Held;
use super::sequence::Sequence;

/// The draft model of a scheduler.
#[derive(Debug)]
pub(super) struct DraftModel<'e> {
    engine: &'e Engine,
    batch: Batch<'e>,
    pub pace: DraftPace,
}

/// An answer that is guessed for.
struct Guessing {
    sequence: usize,
    wanted: usize,
    sampler: Sampler,
    ids: Vec<u32>,
    /// What its next pass reads.
    next: Vec<u32>,
}

impl<'e> DraftModel<'e> {
    pub fn new(engine: &'e Engine) -> DraftModel<'e> {
        DraftModel { engine, batch: engine.batch(), pace: DraftPace::default() }
    }

    /// Guesses for the sequences of `wanted` (index, tokens, whether it is a trial); gives what was guessed for each. Where there is no memory
    /// for the draft model's keys and values, nothing is.
    pub fn guess(
        &mut self,
        running: &mut [Sequence<'e>],
        wanted: &[(usize, usize, bool)],
        held: &mut Held,
    ) -> Vec<Vec<u32>> {
        let start = Instant::now();
        let mut all: Vec<Guessing> = Vec::new();
        for &(index, count, _) in wanted {
            let sequence = &mut running[index];
            let drafter = sequence.guesses.drafter.get_or_insert_with(|| Drafter::new(self.engine));
            let Some(unread) = drafter.align(&sequence.tokens, count).map(<[u32]>::to_vec) else { continue };
            if held.grow(drafter.growth(unread.len() + count) as u64) {
                let sampler = sequence.sampler.clone();
                all.push(Guessing { sequence: index, wanted: count, sampler, ids: Vec::new(), next: unread });
            }
        }
        if let Err(error) = self.write(running, &mut all) {
            // Guesses are only ever a help.
            tracing::warn!(%error, "the draft model failed");
            all.clear();
        }
        if wanted.iter().all(|it| it.2) {
            self.pace.spend(start.elapsed().as_secs_f64());
        }
        let of = |&(index, ..): &(usize, usize, bool)| {
            all.iter().find(|it| it.sequence == index).map_or(Vec::new(), |it| it.ids.clone())
        };
        wanted.iter().map(of).collect()
    }

    fn write(&mut self, running: &mut [Sequence<'e>], all: &mut [Guessing]) -> ounce_engine::Result<()> {
        let vocab = self.engine.spec().vocab_size;
        while all.iter().any(|it| !it.next.is_empty()) {
            let start = Instant::now();
            let mut going: Vec<&mut Guessing> = all.iter_mut().filter(|it| !it.next.is_empty()).collect();
            let tokens: usize = going.iter().map(|it| it.next.len()).sum();
            let mut turns: Vec<Turn<'_, 'e>> = Vec::with_capacity(going.len());
            let drafters = running.iter_mut().enumerate();
            for (index, sequence) in drafters {
                let guessing = going.iter().find(|it| it.sequence == index);
                if let (Some(guessing), Some(drafter)) = (guessing, &mut sequence.guesses.drafter) {
                    turns.push(Turn { session: drafter.session(), ids: &guessing.next, want: Want::Last });
                }
            }
            let logits = self.batch.step(&mut turns)?;
            // `wanted` lists sequences in their order, as the turns do.
            for (guessing, row) in going.iter_mut().zip(logits.chunks_exact(vocab)) {
                guessing.next.clear();
                match model::guess(row, &mut guessing.sampler) {
                    None => running[guessing.sequence].guesses.unsure = true,
                    Some(id) => {
                        guessing.ids.push(id);
                        if guessing.ids.len() < guessing.wanted {
                            guessing.next.push(id);
                        }
                    }
                }
            }
            self.pace.observe(tokens, start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}
