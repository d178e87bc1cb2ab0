//! One step: what goes into it, room for it, and what comes of it.

use std::time::{Duration, Instant};

use ounce_engine::generate::Finish;
use ounce_engine::{Turn, Want};
use ounce_model::rope::Rope;

use super::guess::{Before, Guessed};
use super::job::{Event, Failure};
use super::prefix::alike;
use super::sequence::Sequence;
use super::worker::Worker;

/// Tokens of prompts that a step has at least, however many answers there are.
const LEAST_PROMPT: usize = 16;

/// Logits of a scored prompt that are held at once.
const MOST_LOGITS: usize = 8 << 20;

/// Common tokens for which a prompt waits until another one has read them.
const WORTH_WAITING: usize = 64;

/// How long memory that other models hold is waited for.
const STARVATION: Duration = Duration::from_secs(30);

/// What a sequence does in a step.
#[derive(Debug, Clone)]
struct Planned {
    ids: Vec<u32>,
    /// How many of the ids, the last ones, are only guessed.
    drafted: usize,
    want: Want,
}

impl<'e> Worker<'e> {
    /// Runs a step; gives the number of tokens in it.
    pub(super) fn step(&mut self) -> usize {
        let mut plan = self.plan();
        if !self.make_room(&mut plan) {
            return 0;
        }
        let tokens = plan.iter().flatten().map(|planned| planned.ids.len()).sum();
        self.metrics.step_tokens.observe(tokens as f64);
        let outcome = self.run_turns(&plan);
        if let Err(error) = outcome {
            self.run_alone(&plan, &error);
        }
        tokens
    }

    /// What each running sequence does: all that decode go on, then prompts are read in the order of their arrival.
    fn plan(&mut self) -> Vec<Option<Planned>> {
        let mut plan: Vec<Option<Planned>> = vec![None; self.running.len()];
        let mut left = self.limits.step_tokens;
        let decoding = self.running.iter().filter(|sequence| sequence.is_decoding()).count();
        // Guesses only where all the step does is decode: beside a piece of a prompt their time can't be told.
        // Rotations that depend on a text's length have to see it whole, and can't go back.
        let whole = self.engine.spec().ropes().any(Rope::depends_on_length);
        let speculate = self.limits.speculation && decoding == self.running.len() && !whole;
        for (index, sequence) in self.running.iter().enumerate().filter(|(_, it)| it.is_decoding()) {
            let ids = sequence.pending().to_vec();
            plan[index] = Some(Planned { ids, drafted: 0, want: Want::Last });
            left = left.saturating_sub(1);
        }
        if speculate {
            self.guess_ahead(&mut plan);
        }
        left = left.max(LEAST_PROMPT);
        let mut order: Vec<usize> = (0..self.running.len()).filter(|&index| plan[index].is_none()).collect();
        order.sort_by_key(|&index| (self.running[index].task.job.priority, index));
        for (place, &index) in order.iter().enumerate() {
            if left == 0 {
                break;
            }
            if self.running[index].fresh {
                if order[..place].iter().any(|&earlier| self.reads_for(earlier, index)) {
                    continue;
                }
                self.look_up(index);
            }
            let sequence = &self.running[index];
            let pending = sequence.pending();
            let scoring = sequence.is_scoring();
            let most = match scoring {
                true => left.min((MOST_LOGITS / self.engine.spec().vocab_size).max(LEAST_PROMPT)),
                false => left,
            };
            let count = if whole { pending.len() } else { pending.len().min(most) };
            let want = match (scoring, count == pending.len()) {
                (true, _) => Want::All,
                (false, true) => Want::Last,
                (false, false) => Want::Nothing,
            };
            plan[index] = Some(Planned { ids: pending[..count].to_vec(), drafted: 0, want });
            left = left.saturating_sub(count);
        }
        plan
    }

    /// Adds guesses to the plan of a step in which all decode.
    fn guess_ahead(&mut self, plan: &mut [Option<Planned>]) {
        let start = Instant::now();
        let texts = self.running.len();
        let (mut tokens, mut expected) = (texts, texts as f64);
        let mut wanted = Vec::new();
        for (index, sequence) in self.running.iter_mut().enumerate() {
            let room = sequence.room_for_guesses(self.limits.context);
            let draft = self.draft.as_ref().map(|it| &it.pace);
            let before = Before { pace: &self.pace, draft, texts, tokens, expected };
            let Guessed { ids, wanted: count, trial, right } =
                sequence.guesses.guess(&sequence.tokens, &self.table, room, before);
            (tokens, expected) = (tokens + ids.len() + count, expected + right);
            if count > 0 {
                wanted.push((index, count, trial));
            }
            add(&mut plan[index], ids);
        }
        if let Some(draft) = self.draft.as_mut().filter(|_| !wanted.is_empty()) {
            let guesses = draft.guess(&mut self.running, &wanted, &mut self.held);
            for ((index, ..), ids) in wanted.into_iter().zip(guesses) {
                add(&mut plan[index], ids);
            }
        }
        self.besides += start.elapsed();
    }

    /// Whether a prompt is being read whose beginning another one can use.
    fn reads_for(&self, reader: usize, other: usize) -> bool {
        let (reader, other) = (&self.running[reader], &self.running[other]);
        if !self.limits.prefix_cache || other.task.job.prompt_logprobs.is_some() {
            return false;
        }
        if !alike(reader.session.adapter(), other.session.adapter()) {
            return false;
        }
        let common = reader.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
        common >= WORTH_WAITING && common > reader.session.tokens().len()
    }

    /// Lets a sequence that has not begun go on from a beginning that was computed before.
    fn look_up(&mut self, index: usize) {
        self.running[index].fresh = false;
        if !self.limits.prefix_cache || self.running[index].task.job.prompt_logprobs.is_some() {
            return;
        }
        let tokens = self.running[index].tokens.clone();
        let sessions = self.running.iter().map(|sequence| &sequence.session);
        let found = self.prefixes.find(&tokens, self.running[index].session.adapter(), sessions);
        let sequence = &mut self.running[index];
        self.metrics.prefix_queries.inc_by(tokens.len() as u64);
        if let Some(session) = found {
            let known = session.tokens().len();
            self.metrics.prefix_hits.inc_by(known as u64);
            if sequence.task.first_token.get().is_none() {
                sequence.task.cached.set(known.min(sequence.task.job.prompt.len()));
            }
            sequence.session = session;
        }
    }

    /// Takes the memory that a step needs: what is only kept goes first, then the last sequences are put back. Whether the
    /// step can be run.
    fn make_room(&mut self, plan: &mut Vec<Option<Planned>>) -> bool {
        loop {
            let planned = self.running.iter().zip(plan.iter());
            let growth = planned.filter_map(|(sequence, planned)| {
                Some(sequence.session.cache_growth(planned.as_ref()?.ids.len()) as u64)
            });
            if self.held.grow(growth.sum()) {
                self.starved = None;
                return true;
            }
            // What a draft model has read is read again soon.
            let drafters = self.running.iter_mut().filter_map(|it| it.guesses.drafter.take()).count();
            if drafters == 0 && !self.prefixes.evict() {
                if self.running.len() <= 1 {
                    self.starve();
                    return false;
                }
                let last = (0..self.running.len()).max_by_key(|&index| self.running[index].task.job.priority);
                let last = last.unwrap_or(self.running.len() - 1);
                plan.remove(last);
                self.put_back(last);
            }
            let bytes = self.cache_bytes();
            self.held.shrink_to(bytes);
        }
    }

    /// Other models hold all memory: waits a while for it.
    fn starve(&mut self) {
        let since = *self.starved.get_or_insert_with(Instant::now);
        if since.elapsed() > STARVATION
            && let Some(sequence) = self.running.pop()
        {
            self.fail(&sequence.task, Failure::Memory);
            self.starved = None;
        }
    }

    /// Puts a sequence back: its keys and values are written to a file, or given up and computed again later, whichever is faster.
    fn put_back(&mut self, index: usize) {
        let start = Instant::now();
        let mut sequence = self.running.remove(index);
        if let Some(swap) = &mut self.swap {
            // What a running one has in common with it is there in any case.
            let shared = |other: &Sequence<'_>| {
                let (other, own) = (other.session.tokens(), sequence.session.tokens());
                other.iter().zip(own).take_while(|(a, b)| a == b).count()
            };
            let alike =
                self.running.iter().filter(|it| alike(it.session.adapter(), sequence.session.adapter()));
            let known = alike.map(shared).max().filter(|_| self.limits.prefix_cache).unwrap_or(0);
            let lost = sequence.session.tokens().len() - known;
            sequence.aside = swap.put(&sequence.session, self.pace.reading().map(|each| each * lost as f64));
            if sequence.aside.is_some() {
                self.metrics.swapped.inc();
            }
        }
        self.besides += start.elapsed();
        sequence.session.truncate(0);
        sequence.guesses.drafter = None;
        sequence.fresh = true;
        self.metrics.preemptions.inc();
        self.preempted.push(sequence);
    }

    fn run_turns(&mut self, plan: &[Option<Planned>]) -> Result<(), ounce_engine::Error> {
        let vocab = self.engine.spec().vocab_size;
        let starts: Vec<usize> = self.running.iter().map(|it| it.session.tokens().len()).collect();
        let turns = self.running.iter_mut().zip(plan).filter_map(|(sequence, planned)| {
            let Planned { ids, want, .. } = planned.as_ref()?;
            Some(Turn { session: &mut sequence.session, ids, want: *want })
        });
        let mut turns: Vec<Turn<'_, 'e>> = turns.collect();
        let mut rest = self.batch.step(&mut turns)?;
        let now = Instant::now();
        let (mut siblings, mut ended, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (index, planned) in plan.iter().enumerate() {
            let Some(planned) = planned else { continue };
            let rows = match planned.want {
                Want::Nothing => 0,
                Want::Last => 1,
                Want::All => planned.ids.len(),
            };
            let (rows, more) = rest.split_at(rows * vocab);
            rest = more;
            let sequence = &mut self.running[index];
            if sequence.is_scoring() {
                score(sequence, starts[index], rows.chunks_exact(vocab));
            }
            if sequence.session.tokens().len() < sequence.tokens.len() || rows.is_empty() {
                continue;
            }
            // The logits of the last token that is certain, and of those guessed behind it.
            let rows = &rows[rows.len() - (planned.drafted + 1) * vocab..];
            let task = sequence.task.clone();
            if !task.forked.replace(true) {
                for choice in 1..task.job.choices {
                    match sequence.sibling(choice, self.tokenizer) {
                        Ok(sibling) => siblings.push((sibling, rows[..vocab].to_vec())),
                        Err(error) => failed.push((task.clone(), Failure::Engine(error.to_string()))),
                    }
                }
            }
            if task.first_token.get().is_none() {
                task.first_token.set(Some(now));
                self.metrics.first_token.observe((now - task.arrived).as_secs_f64());
            }
            let before = sequence.tokens.len();
            let outcome =
                go_on(sequence, planned, rows.chunks_exact(vocab), self.limits.context, self.metrics);
            if self.limits.speculation {
                for three in sequence.tokens[before.saturating_sub(2)..].windows(3) {
                    self.table.adapt((three[0], three[1]), &[(three[2], 1.0)]);
                }
            }
            match outcome {
                Ok(None) => {}
                Ok(Some(finish)) => ended.push((index, finish)),
                Err(failure) => failed.push((task, failure)),
            }
        }
        for (task, failure) in failed {
            self.fail(&task, failure);
        }
        for &(index, finish) in ended.iter().rev() {
            let sequence = self.running.remove(index);
            self.finish(sequence, finish);
        }
        for (mut sibling, row) in siblings {
            match sibling.choose(&row, self.limits.context) {
                Ok(Ok(_)) => self.running.push(sibling),
                Ok(Err(finish)) => self.finish(sibling, finish),
                Err(failure) => self.fail(&sibling.task, failure),
            }
        }
        Ok(())
    }

    /// After a step failed: each turn alone, so that only the one at fault fails.
    fn run_alone(&mut self, plan: &[Option<Planned>], error: &ounce_engine::Error) {
        let several = plan.iter().flatten().count() > 1;
        tracing::warn!(%error, several, "a step failed");
        for index in (0..plan.len()).rev() {
            if plan[index].is_none() {
                continue;
            }
            let mut one = vec![None; plan.len()];
            one[index].clone_from(&plan[index]);
            let failure = match several {
                // Later sequences have been dealt with; none before this one has moved.
                true => self.run_turns(&one).err().map(|error| error.to_string()),
                false => Some(error.to_string()),
            };
            if let Some(what) = failure {
                let sequence = self.running.remove(index);
                self.fail(&sequence.task, Failure::Engine(what));
            }
        }
    }
}

/// Adds guesses to what a sequence does.
fn add(planned: &mut Option<Planned>, guesses: Vec<u32>) {
    if let Some(planned) = planned.as_mut().filter(|_| !guesses.is_empty()) {
        (planned.drafted, planned.want) = (guesses.len(), Want::All);
        planned.ids.extend(guesses);
    }
}

/// Scores prompt tokens by the logits of those before them, which begin at position `start`.
fn score<'l>(sequence: &mut Sequence<'_>, start: usize, rows: impl Iterator<Item = &'l [f32]>) {
    for (offset, row) in rows.enumerate() {
        // Of a sequence that was put back, the beginning comes again.
        if sequence.prompt_scores.len() == start + offset + 1 {
            sequence.score_prompt(row);
        }
    }
    if sequence.prompt_scores.len() == sequence.task.job.prompt.len() {
        sequence.task.tell(Event::Prompt(std::mem::take(&mut sequence.prompt_scores)));
        sequence.scored = true;
    }
}

/// Chooses the next token, and those after it as far as they were guessed. Gives why the answer ends, if it does.
fn go_on<'l>(
    sequence: &mut Sequence<'_>,
    planned: &Planned,
    rows: impl Iterator<Item = &'l [f32]>,
    limit: usize,
    metrics: &crate::metrics::ModelMetrics,
) -> Result<Option<Finish>, Failure> {
    let guesses = &planned.ids[planned.ids.len() - planned.drafted..];
    let mut finish = None;
    let mut right = 0;
    for (place, row) in rows.enumerate() {
        let now = Instant::now();
        if let Some(last) = sequence.last_token.replace(now) {
            metrics.inter_token.observe((now - last).as_secs_f64());
        }
        match sequence.choose(row, limit)? {
            Err(why) => {
                finish = Some(why);
                break;
            }
            Ok(id) if guesses.get(place) == Some(&id) => right += 1,
            Ok(_) => break,
        }
    }
    sequence.learn(planned.drafted, right);
    if planned.drafted > 0 {
        let held = sequence.session.tokens().len() - planned.drafted + right;
        sequence.session.truncate(held.min(sequence.tokens.len()));
    }
    Ok(finish)
}
