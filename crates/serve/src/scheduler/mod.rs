//! Continuous batching: one thread runs an engine, step by step, for all jobs there are. A step holds the next token of every
//! answer and a piece of a prompt, so that new jobs begin while others go on.
//!
//! - [`queue`]: who is next. [`memory`]: what all models together may take.
//! - [`prefix`]: beginnings that were computed before. `guess`: tokens guessed ahead, where that pays. `draft`: a smaller model that does so.
//! - `swap`: keys and values of answers that wait, in a file. `sequence`: one answer. `worker`: the loop. `step`: what goes into a step and what comes of it.

mod draft;
mod guess;
pub mod job;
pub mod memory;
pub mod prefix;
pub mod queue;
mod sequence;
mod step;
mod swap;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ounce_engine::{Adapter, Engine};
use ounce_model::tokenizer::Tokenizer;

pub use job::{Event, Failure, Job, Scored, Summary};
pub use memory::Budget;
pub use swap::SwapSpace;

use crate::metrics::ModelMetrics;

/// Limits of a scheduler.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Answers that are made at the same time.
    pub sequences: usize,
    /// Tokens of a step: of prompts, besides one for each answer.
    pub step_tokens: usize,
    /// Jobs that may wait.
    pub queue: usize,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Whether what was computed is kept for prompts that begin alike.
    pub prefix_cache: bool,
    /// Whether tokens are guessed ahead and checked, where that is faster.
    pub speculation: bool,
    /// Where keys and values of answers go that are put back for want of memory.
    pub swap: Option<SwapSpace>,
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait; try again then.
    Full {
        /// How long the queue will take, about.
        retry_after: Duration,
    },
    /// The server ends, or the engine has failed.
    Stopping,
}

/// What a scheduler is doing, for others to see.
#[derive(Debug, Default)]
pub struct Load {
    waiting: AtomicUsize,
    running: AtomicUsize,
    stopping: AtomicBool,
    dead: AtomicBool,
    /// Tokens a second at present, prompts included.
    speed: AtomicUsize,
    /// Tokens that wait to be run.
    backlog: AtomicUsize,
}

impl Load {
    /// Jobs in the queue.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Answers that are being made.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.running() == 0
    }

    /// Whether the engine has failed for good.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// How long what waits will take, about.
    fn wait(&self) -> Duration {
        let speed = self.speed.load(Ordering::Relaxed).max(1);
        let seconds = self.backlog.load(Ordering::Relaxed) / speed;
        Duration::from_secs((seconds as u64).clamp(1, 60))
    }
}

/// The handle of an engine's thread. Clones hand their jobs to the same thread.
#[derive(Debug, Clone)]
pub struct Scheduler {
    thread: Arc<Running>,
    /// What all jobs of this handle have beside the weights.
    adapter: Option<Arc<Adapter>>,
}

/// A thread, and the way to it.
#[derive(Debug)]
struct Running {
    sender: Option<Sender<(Job, Instant)>>,
    load: Arc<Load>,
    queue: usize,
    thread: Option<JoinHandle<()>>,
}

impl Scheduler {
    /// Starts the thread of an engine; `draft` guesses for it.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        engine: Arc<Engine>,
        draft: Option<Arc<Engine>>,
        tokenizer: Tokenizer,
        budget: &Budget,
        limits: Limits,
        metrics: ModelMetrics,
    ) -> std::io::Result<Scheduler> {
        let (sender, receiver) = channel();
        let load = Arc::new(Load::default());
        let (queue, held, shared) = (limits.queue, budget.holder(), load.clone());
        let work = move || {
            let alive = Alive(&shared);
            let mut worker = worker::Worker::new(&engine, &tokenizer, held, limits, &metrics, &shared);
            worker.draft = draft.as_deref().map(draft::DraftModel::new);
            worker.run(&receiver);
            drop(alive);
        };
        let thread = std::thread::Builder::new().name("engine".to_string()).spawn(work)?;
        let running = Running { sender: Some(sender), load, queue, thread: Some(thread) };
        Ok(Scheduler { thread: Arc::new(running), adapter: None })
    }

    /// The same thread, for jobs with an adapter beside the weights.
    pub fn with_adapter(&self, adapter: Arc<Adapter>) -> Scheduler {
        Scheduler { thread: self.thread.clone(), adapter: Some(adapter) }
    }

    /// Hands a job to the thread.
    ///
    /// # Errors
    /// As [`Scheduler::submit_all`].
    pub fn submit(&self, job: Job) -> Result<(), Refusal> {
        self.submit_all(vec![job])
    }

    /// Hands the jobs of a request to the thread: all or none. A request that finds room in the queue may make it longer
    /// than its limit, or large ones could never be taken.
    ///
    /// # Errors
    /// If the queue is full, or the server ends.
    pub fn submit_all(&self, jobs: Vec<Job>) -> Result<(), Refusal> {
        let Running { sender, load, queue, .. } = &*self.thread;
        let Some(sender) = sender.as_ref().filter(|_| !load.stopping.load(Ordering::Relaxed)) else {
            return Err(Refusal::Stopping);
        };
        let room = |waiting: usize| (waiting < *queue).then_some(waiting + jobs.len());
        if load.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            return Err(Refusal::Full { retry_after: load.wait() });
        }
        let backlog = jobs.iter().map(worker::cost).sum();
        load.backlog.fetch_add(backlog, Ordering::Relaxed);
        let arrived = Instant::now();
        jobs.into_iter().try_for_each(|job| {
            let job = Job { adapter: self.adapter.clone(), ..job };
            sender.send((job, arrived)).map_err(|_| Refusal::Stopping)
        })
    }

    /// What it is doing.
    pub fn load(&self) -> &Load {
        &self.thread.load
    }

    /// Takes no more jobs; those there are go on.
    pub fn stop_taking(&self) {
        self.thread.load.stopping.store(true, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told by the hook.
            let _ = thread.join();
        }
    }
}

/// Marks the engine as dead when its thread ends, by a panic too.
struct Alive<'l>(&'l Load);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.dead.store(true, Ordering::Relaxed);
    }
}
