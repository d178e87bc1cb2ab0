//! Fixtures of demonstrations that train: letters of generated text, and models of some ten thousand parameters.

use std::path::Path;
use std::sync::Arc;

use ounce_eval::method::{Lab, Text};
use ounce_kernels::pool::Pool;
use ounce_model::Model;

use crate::config::{self, Preset};
use crate::data::{BatchSource, Cache, Documents, LanguageStream, Layout, StreamSettings};
use crate::net::{Net, Options};
use crate::optim::{self, Optimizer};
use crate::schedule::Schedule;
use crate::sweep::Job;
use crate::trainer::{self, Ended, Observer, Start, Step, Trainer};
use crate::{Error, Result, Trainable};

/// Tokens of a sequence.
pub(super) const CONTEXT: usize = 32;

/// Text whose letters are tokens, numbered by the order of their bytes.
pub(super) struct Letters {
    train: Documents,
    held_out: Documents,
    /// How many there are.
    pub count: usize,
    seed: u64,
}

impl Letters {
    /// At least `train` letters to learn from, and `held_out` to be judged by.
    pub fn new(lab: &dyn Lab, train: usize, held_out: usize) -> Result<Letters> {
        let texts = [lab.text(Text::Train, train), lab.text(Text::HeldOut, held_out)];
        let mut bytes: Vec<u8> = texts.iter().flat_map(|text| text.bytes()).collect();
        bytes.push(b'\n');
        bytes.sort_unstable();
        bytes.dedup();
        let mut ids = [0u32; 256];
        bytes.iter().zip(0..).for_each(|(&byte, id)| ids[usize::from(byte)] = id);
        let documents = |text: &str| -> Result<Documents> {
            let story = |text: &str| text.bytes().chain([b'\n']).map(|byte| ids[usize::from(byte)]).collect();
            let stories: Vec<Vec<u32>> = text.split("\n\n").map(story).collect();
            let cache = Cache::in_memory(stories.iter().map(Vec::as_slice), bytes.len() as u32)?;
            Ok(Documents::all(Arc::new(cache)))
        };
        let [train, held_out] = [documents(&texts[0])?, documents(&texts[1])?];
        Ok(Letters { train, held_out, count: bytes.len(), seed: lab.seed() })
    }

    /// Batches of so many sequences to learn from, in a new order each epoch.
    fn train(&self, sequences: usize) -> Result<LanguageStream> {
        self.stream(&self.train, sequences, None)
    }

    /// What was held out, once.
    fn held_out(&self) -> Result<LanguageStream> {
        self.stream(&self.held_out, 32, Some(1))
    }

    fn stream(&self, from: &Documents, sequences: usize, epochs: Option<u64>) -> Result<LanguageStream> {
        let (context, seed, layout) = (CONTEXT, self.seed, Layout::Chunks);
        let settings = StreamSettings { context, sequences, seed, shuffle: epochs.is_none(), epochs, layout };
        LanguageStream::new(from.clone(), settings)
    }

    /// Two layers of this width with heads of 16.
    pub fn shape(&self, preset: Preset, width: usize) -> config::Model {
        let (layers, heads) = (2, width / 16);
        config::Model { preset, hidden: width, layers, heads, context: CONTEXT, ..config::Model::default() }
    }

    /// A run of `batch` tokens a step.
    pub fn job(
        &self,
        shape: &config::Model,
        batch: usize,
        schedule: Schedule,
        pool: &'static Pool,
    ) -> Result<Job> {
        let model: Model = shape.architecture(self.count, [])?;
        let mut net = Net::random(&model, Options::default(), shape.initial(), self.seed)?;
        net.set_pool(pool);
        let mut settings = optim::Options::default();
        if let Some(base) = shape.base_width() {
            settings.scale_to_width(shape.hidden, base);
        }
        let mut optimizer = Optimizer::new(settings, net.params())?;
        optimizer.set_pool(pool);
        Ok(Job {
            params: net.inner_parameters(),
            net: Box::new(net),
            data: Box::new(self.train(batch / CONTEXT)?),
            validation: Some(Box::new(self.held_out()?)),
            optimizer,
            options: trainer::Options::plain(schedule, format!("{shape:?} {batch}")),
        })
    }
}

/// Runs of a sweep at a time, each on one thread.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2))
}

/// What came of [`train`].
pub(super) struct Trained {
    /// Held-out loss by step, the last at the end.
    pub losses: Vec<(u64, f64)>,
    /// All weights.
    pub weights: Vec<Vec<f32>>,
    /// Parameters without embedding and head.
    pub params: u64,
}

/// Listens for held-out losses, and stops a run behind a step.
struct Listener {
    stop: Option<u64>,
    at: u64,
    losses: Vec<(u64, f64)>,
}

impl Observer for Listener {
    fn wants_to_stop(&mut self) -> bool {
        self.stop == Some(self.at)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.at = step.step;
        Ok(())
    }

    fn validation(&mut self, validation: &trainer::Validation) -> Result<()> {
        self.losses.push((validation.step, validation.loss));
        Ok(())
    }
}

/// Does a run in a folder, up to step `stop` if one is named, which leaves a checkpoint.
pub(super) fn train(mut job: Job, folder: &Path, start: Start<'_>, stop: Option<u64>) -> Result<Trained> {
    let mut listener = Listener { stop, at: 0, losses: Vec::new() };
    let validation: Option<&mut dyn BatchSource> = match &mut job.validation {
        Some(source) => Some(source.as_mut()),
        None => None,
    };
    let (net, data) = (job.net.as_mut(), job.data.as_mut());
    let mut trainer = Trainer::new(net, data, validation, job.optimizer, job.options, folder, start)?;
    let ended = trainer.run(&mut listener)?;
    drop(trainer);
    if ended == Ended::OutOfData {
        return Err(Error::Settings("the data came to its end before the run".to_string()));
    }
    let weights = job.net.params().iter().map(|param| param.value.clone()).collect();
    Ok(Trained { losses: listener.losses, weights, params: job.params })
}

/// A lab for tests: sentences of a small grammar.
#[cfg(test)]
pub(super) struct Desk;

#[cfg(test)]
impl Lab for Desk {
    fn seed(&self) -> u64 {
        1
    }

    fn text(&self, kind: Text, bytes: usize) -> String {
        let (who, what) = (["the cat", "a dog", "the bird", "my aunt"], ["sat", "slept", "sang loudly"]);
        let mut text = String::new();
        let mut number = if kind == Text::Train { 1 } else { 1_000_003usize };
        while text.len() < bytes {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = (number >> 33, number >> 40);
            text += &format!("{} {}.{}", who[a % 4], what[b % 3], if a % 5 == 0 { "\n\n" } else { " " });
        }
        text.trim_end().to_string()
    }

    fn model(&self, _fixture: ounce_eval::method::Fixture) -> ounce_model::Result<Model> {
        unreachable!("no demonstration here opens a model")
    }

    fn progress(&self, _message: &str, _done: f64) {}
}
