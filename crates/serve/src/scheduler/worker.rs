//! The loop of an engine's thread: takes jobs in, lets them run, and sees who has left.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use ounce_engine::draft::{Pace, TriGrams};
use ounce_engine::generate::Finish;
use ounce_engine::{Batch, Engine};
use ounce_model::tokenizer::Tokenizer;

use super::draft::DraftModel;
use super::guess::{Guesses, Sources};
use super::job::{Failure, Job};
use super::memory::Held;
use super::prefix::PrefixCache;
use super::queue::FairQueue;
use super::sequence::{Sequence, Task};
use super::swap::Swap;
use super::{Limits, Load};
use crate::metrics::ModelMetrics;

/// How often memory that others hold is asked for again.
const PATIENCE: Duration = Duration::from_millis(5);

/// How often memory that nobody uses is given back to the system. Allocators keep it, in pieces that fit nothing, and those grow.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// How fast the table of continuations follows the model.
const FOLLOW: f32 = 0.2;

/// What a job counts for in the queue: tokens. An answer of unknown length counts as a short one.
pub(super) fn cost(job: &Job) -> usize {
    job.prompt.len() + job.choices * job.max_tokens.min(256)
}

/// Everything the thread works with.
pub(super) struct Worker<'e> {
    pub engine: &'e Engine,
    pub tokenizer: &'e Tokenizer,
    pub held: Held,
    pub limits: Limits,
    pub metrics: &'e ModelMetrics,
    pub load: &'e Load,
    pub batch: Batch<'e>,
    pub queue: FairQueue<(Job, Instant)>,
    /// Answers that were put back for want of memory; they come before the queue.
    pub preempted: Vec<Sequence<'e>>,
    pub running: Vec<Sequence<'e>>,
    pub prefixes: PrefixCache<'e>,
    /// What the model has written follows two tokens.
    pub table: TriGrams,
    pub pace: Pace,
    /// A smaller model that guesses.
    pub draft: Option<DraftModel<'e>>,
    /// How far guesses were trusted at the end of the last texts.
    pub trust: Sources,
    /// Time of a step that did not go into the model: into guesses, or into files.
    pub besides: Duration,
    /// Where keys and values of answers go that are put back.
    pub swap: Option<Swap>,
    /// When memory was last given back to the system.
    pub gave_back: Instant,
    /// When memory was last refused while nothing else could go on.
    pub starved: Option<Instant>,
}

impl<'e> Worker<'e> {
    pub(super) fn new(
        engine: &'e Engine,
        tokenizer: &'e Tokenizer,
        held: Held,
        limits: Limits,
        metrics: &'e ModelMetrics,
        load: &'e Load,
    ) -> Worker<'e> {
        Worker {
            engine,
            tokenizer,
            held,
            metrics,
            load,
            batch: engine.batch(),
            queue: FairQueue::default(),
            preempted: Vec::new(),
            running: Vec::new(),
            prefixes: PrefixCache::default(),
            table: TriGrams::new(FOLLOW),
            pace: Pace::default(),
            draft: None,
            trust: Sources::default(),
            besides: Duration::ZERO,
            swap: limits.swap.clone().map(Swap::new),
            gave_back: Instant::now(),
            starved: None,
            limits,
        }
    }

    /// Works until no one can hand in jobs any more and all are done.
    pub(super) fn run(mut self, jobs: &Receiver<(Job, Instant)>) {
        while self.take_in(jobs) {
            self.give_up();
            self.admit();
            if !self.running.is_empty() {
                let start = Instant::now();
                let tokens = self.step();
                self.note_speed(tokens, start.elapsed());
                let seconds = start.elapsed().saturating_sub(std::mem::take(&mut self.besides)).as_secs_f64();
                if tokens > 0 {
                    self.pace.observe(tokens, seconds);
                }
                if let Some(draft) = &mut self.draft {
                    draft.pace.earn(seconds);
                }
            }
            self.show();
            if self.gave_back.elapsed() > GIVE_BACK {
                ounce_kernels::meter::give_back();
                self.gave_back = Instant::now();
            }
        }
    }

    /// Takes new jobs in; waits for one if there is nothing to do. Whether there is anything to come.
    fn take_in(&mut self, jobs: &Receiver<(Job, Instant)>) -> bool {
        let idle = self.running.is_empty() && self.preempted.is_empty() && self.queue.is_empty();
        if idle {
            match jobs.recv() {
                Ok(new) => self.enqueue(new),
                Err(_) => return false,
            }
        } else if self.running.is_empty() || self.starved.is_some() {
            match jobs.recv_timeout(PATIENCE) {
                Ok(new) => self.enqueue(new),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PATIENCE),
            }
        }
        loop {
            match jobs.try_recv() {
                Ok(new) => self.enqueue(new),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn enqueue(&mut self, new: (Job, Instant)) {
        let (priority, owner, cost) = (new.0.priority, new.0.owner.clone(), cost(&new.0) as f64);
        self.queue.push(priority, &owner, cost, new);
    }

    /// Lets go of what nobody waits for any more.
    fn give_up(&mut self) {
        let now = Instant::now();
        let late = |job: &Job| job.deadline.is_some_and(|deadline| deadline <= now);
        for (job, _) in self.queue.remove_if(|(job, _)| job.events.is_closed() || late(job)) {
            self.left_queue(&job);
            let failure = super::job::Event::Failed(Failure::Deadline);
            // One that has left hears nothing.
            let outcome = if job.events.send(failure).is_ok() { "deadline" } else { "abort" };
            self.metrics.finished(outcome);
        }
        for sequence in self.running.iter().chain(&self.preempted) {
            if late(&sequence.task.job) && !sequence.task.failed.get() {
                sequence.task.fail(Failure::Deadline);
                self.metrics.finished("deadline");
            }
        }
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].task.is_over() {
                let sequence = self.running.remove(index);
                self.abandon(sequence);
            } else {
                index += 1;
            }
        }
        self.preempted.retain(|sequence| !sequence.task.is_over());
    }

    fn abandon(&mut self, sequence: Sequence<'e>) {
        if !sequence.task.failed.replace(true) {
            self.metrics.finished("abort");
        }
        self.keep(sequence);
    }

    /// Keeps what a sequence has computed for those that begin alike, and what was learned of guesses.
    pub(super) fn keep(&mut self, sequence: Sequence<'e>) {
        self.trust.follow(&sequence.guesses.sources);
        if self.limits.prefix_cache {
            self.prefixes.keep(sequence.session);
        }
    }

    fn left_queue(&self, job: &Job) {
        self.load.waiting.fetch_sub(1, Ordering::AcqRel);
        let cost = cost(job);
        let _ = self
            .load
            .backlog
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |backlog| Some(backlog.saturating_sub(cost)));
    }

    /// Lets jobs begin while there is room for their answers.
    fn admit(&mut self) {
        while let Some(sequence) = self.preempted.last() {
            if self.running.len() >= self.limits.sequences || !self.has_room_for(sequence.tokens.len()) {
                return;
            }
            if let Some(mut sequence) = self.preempted.pop() {
                self.take_back(&mut sequence);
                self.running.push(sequence);
            }
        }
        while let Some((job, _)) = self.queue.peek() {
            let fits = self.running.is_empty() || self.answers() + job.choices <= self.limits.sequences;
            if !fits || !self.has_room_for(job.prompt.len()) {
                return;
            }
            let Some((job, arrived)) = self.queue.pop() else { return };
            self.left_queue(&job);
            let task = Task::new(job, arrived);
            self.metrics.queue_time.observe((task.admitted - arrived).as_secs_f64());
            let session = self.engine.session().with_adapter(task.job.adapter.clone());
            match session.and_then(|session| Sequence::new(task.clone(), session, self.tokenizer)) {
                Ok(mut sequence) => {
                    sequence.guesses = Guesses::after(&self.trust);
                    self.running.push(sequence);
                }
                Err(error) => self.fail(&task, Failure::Engine(error.to_string())),
            }
        }
    }

    /// Reads back what a sequence had computed, if that was kept and there is memory for it; else it is computed again.
    fn take_back(&mut self, sequence: &mut Sequence<'e>) {
        let (Some(aside), Some(swap)) = (sequence.aside.take(), &mut self.swap) else { return };
        let start = Instant::now();
        loop {
            if self.held.grow(aside.bytes) {
                break;
            }
            if !self.prefixes.evict() {
                return;
            }
            let bytes = cache_bytes(&self.running, &self.prefixes);
            self.held.shrink_to(bytes);
        }
        sequence.fresh = !swap.take(aside, &mut sequence.session, &sequence.tokens);
        self.besides += start.elapsed();
    }

    /// Answers that run, and those that will when their prompts are read.
    fn answers(&self) -> usize {
        let to_come = |sequence: &Sequence<'_>| match sequence.task.forked.get() {
            true => 0,
            false => sequence.task.job.choices - 1,
        };
        self.running.len() + self.running.iter().map(to_come).sum::<usize>()
    }

    /// Whether the keys and values of so many tokens would find room, if what is only kept were given up. Those that run
    /// may grow beyond it later: then the last one is put back.
    fn has_room_for(&self, tokens: usize) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let needed = self.engine.session().cache_growth(tokens) as u64;
        let free = self.held.free() + self.prefixes.bytes() as u64;
        needed <= free
    }

    pub(super) fn fail(&self, task: &Rc<Task>, failure: Failure) {
        if !task.failed.get() {
            task.fail(failure);
            self.metrics.finished("error");
        }
    }

    /// Ends an answer.
    pub(super) fn finish(&mut self, mut sequence: Sequence<'e>, finish: Finish) {
        sequence.finish(finish);
        if sequence.task.unfinished.get() == 0 {
            let summary = sequence.task.summary();
            self.metrics.done(&summary, finish, sequence.task.arrived, &sequence.task.job);
            tracing::info!(
                owner = sequence.task.job.owner,
                prompt_tokens = summary.prompt_tokens,
                cached_tokens = summary.cached_tokens,
                completion_tokens = summary.completion_tokens,
                queue_seconds = summary.queue_time.as_secs_f64(),
                prompt_seconds = summary.prompt_time.as_secs_f64(),
                decode_seconds = summary.decode_time.as_secs_f64(),
                ?finish,
                "answered"
            );
        }
        self.keep(sequence);
    }

    fn note_speed(&self, tokens: usize, time: Duration) {
        let now = tokens as f64 / time.as_secs_f64().max(1e-6);
        let before = self.load.speed.load(Ordering::Relaxed) as f64;
        let speed = if before == 0.0 { now } else { 0.9 * before + 0.1 * now };
        self.load.speed.store(speed as usize, Ordering::Relaxed);
    }

    /// Tells what is going on.
    fn show(&mut self) {
        let bytes = self.cache_bytes();
        self.held.shrink_to(bytes);
        self.load.running.store(self.running.len(), Ordering::Relaxed);
        self.metrics.running.set(self.running.len() as i64);
        self.metrics.waiting.set((self.load.waiting() + self.preempted.len()) as i64);
        self.metrics.cache_usage.set(self.held.share());
    }

    /// Bytes of keys and values of all sequences, running and kept.
    pub(super) fn cache_bytes(&self) -> u64 {
        cache_bytes(&self.running, &self.prefixes)
    }
}

fn cache_bytes(running: &[Sequence<'_>], prefixes: &PrefixCache<'_>) -> u64 {
    let own = |it: &Sequence<'_>| it.session.own_cache_bytes() + it.guesses.draft_bytes();
    let running: usize = running.iter().map(own).sum();
    (running + prefixes.bytes()) as u64
}
