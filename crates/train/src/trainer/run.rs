//! The loop itself.

use std::time::Instant;

use serde_json::json;

use super::guard::Verdict;
use super::memory;
use super::report::{Guarded, Observer, Preferences, Step, Validation};
use super::{Ended, Trainer};
use crate::checkpoint::{self, State};
use crate::data::labelled::judge::Metrics;
use crate::data::{PackingStats, Position};
use crate::optim::norm::{clip_factor, global_norm};
use crate::{Batch, Error, Loss, Result, Trainable};

/// What a step was made of and came to.
struct Learned {
    loss: Loss,
    /// The gradient's norm.
    norm: f64,
    tokens: PackingStats,
    accuracy: Option<f64>,
}

/// What became of the batches of one step.
enum Drawn {
    Learned(Learned),
    LeftOut,
    Nothing,
}

impl Trainer<'_> {
    /// Trains until the end, or until the observer wants to stop.
    ///
    /// # Errors
    /// If the loss is no number, spikes do not end, or data or disk fail. The last checkpoint stands then.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Ended> {
        let total = self.options.schedule.total;
        if self.state.step == 0 && self.options.guard.is_some() && self.saved.is_none() {
            // Something to go back to.
            self.save(observer)?;
        }
        let mut ended = Ended::Finished;
        while self.state.step < total {
            if observer.wants_to_stop() {
                ended = Ended::Stopped;
                break;
            }
            let start = Instant::now();
            match self.step(observer)? {
                Drawn::Nothing => {
                    ended = Ended::OutOfData;
                    break;
                }
                Drawn::LeftOut => continue,
                Drawn::Learned(learned) => self.finish_step(learned, start, observer)?,
            }
        }
        if ended != Ended::Stopped && self.state.validation.is_none() {
            self.validate(observer)?;
        }
        if self.saved != Some(self.state.step) {
            self.save(observer)?;
        }
        Ok(ended)
    }

    /// Draws micro-batches, judges their gradient and moves the weights.
    fn step(&mut self, observer: &mut dyn Observer) -> Result<Drawn> {
        let (place, padding) = (self.data.position(), self.data.padding());
        let mut batches: Vec<Batch> = Vec::with_capacity(self.options.accumulation);
        while batches.len() < self.options.accumulation {
            match self.data.next()? {
                Some(batch) => batches.push(batch),
                None => break,
            }
        }
        let padded = self.data.padding() - padding;
        let all: usize = batches.iter().map(|batch| batch.tokens.len()).sum();
        let tokens = PackingStats { useful: all as u64 - padded, padded };
        let counted: usize = batches.iter().map(Batch::counted).sum();
        if batches.is_empty() {
            return Ok(Drawn::Nothing);
        }
        if counted == 0 {
            // Nothing to learn; the next batches may have something.
            return Ok(Drawn::LeftOut);
        }
        clear(self.net);
        self.net.take_choices();
        let mut loss = Loss::default();
        for batch in &batches {
            loss += self.net.accumulate(batch, 1.0 / counted as f32)?;
        }
        let (mean, norm) = (loss.mean(), global_norm(self.optimizer.pool(), self.net.params()));
        self.check_finite(mean, norm, &place)?;
        if self.is_left_out(mean, norm, observer)? {
            return Ok(Drawn::LeftOut);
        }
        let rate = self.options.schedule.rate(self.state.step);
        self.optimizer.step(self.net.params_mut(), rate, clip_factor(norm, self.options.clip));
        self.net.stepped(mean);
        let choices = self.net.take_choices().and_then(Preferences::of);
        Ok(Drawn::Learned(Learned { loss, norm, tokens, accuracy: choices.map(|it| it.accuracy) }))
    }

    fn check_finite(&self, loss: f64, norm: f64, place: &Position) -> Result<()> {
        if loss.is_finite() && norm.is_finite() {
            return Ok(());
        }
        let what = if loss.is_finite() {
            format!("the gradient's norm is {norm}")
        } else {
            format!("the loss is {loss}")
        };
        let last = match self.saved {
            Some(step) => format!("the checkpoint of step {step} is as it was"),
            None => "no checkpoint was written yet".to_string(),
        };
        let Position { epoch, index, offset, step: batch, .. } = place;
        Err(Error::Diverged(format!(
            "{what} in step {} (batch {batch}: epoch {epoch}, document {index}, token {offset}); {last}; lower the \
             learning rate, lengthen the warm-up or look at the data",
            self.state.step + 1
        )))
    }

    /// Asks the guard; goes back to the last checkpoint if it says so.
    fn is_left_out(&mut self, loss: f64, norm: f64, observer: &mut dyn Observer) -> Result<bool> {
        let Some(options) = self.options.guard else { return Ok(false) };
        let step = self.state.step + 1;
        let mut verdict = self.state.guard.judge(&options, loss, norm);
        let mut restored = None;
        if verdict == Verdict::Restore {
            restored = self.restore(options.restores)?;
            if restored.is_none() {
                self.state.guard.remember(&options, loss, norm);
                verdict = Verdict::Capped;
            }
        }
        if verdict == Verdict::Accept {
            return Ok(false);
        }
        let line = json!({
            "step": step, "loss": loss, "norm": norm, "restored": restored, "taken": verdict == Verdict::Capped,
        });
        self.log.write("spike", &line)?;
        observer.guarded(&Guarded { step, loss, norm, verdict, restored });
        Ok(verdict != Verdict::Capped)
    }

    /// Goes back to the last checkpoint, but not in the data: what made the spikes is not met again.
    fn restore(&mut self, limit: u32) -> Result<Option<u64>> {
        let Some(kept) = self.store.all().pop() else { return Ok(None) };
        let before = self.state.guard.clone();
        if before.restores >= limit {
            return Err(Error::Diverged(format!(
                "the loss still spikes in step {} after the last checkpoint was restored {limit} times; lower the \
                 learning rate, or look at the data there; the checkpoint of step {} is as it was",
                self.state.step + 1,
                kept.step
            )));
        }
        let State { seconds, best, .. } = self.state;
        self.state = checkpoint::load(&kept.folder, self.net, &mut self.optimizer)?;
        self.state.schedule = self.options.schedule;
        self.state.permanent = false;
        (self.state.seconds, self.state.best) = (seconds, best);
        self.state.guard.count_on(&before);
        // The checkpoint's own position stays behind: the data goes on after the offending batches.
        self.state.data = self.data.position();
        Ok(Some(kept.step))
    }

    /// Counts the step, and does what is due after it.
    fn finish_step(&mut self, learned: Learned, start: Instant, observer: &mut dyn Observer) -> Result<()> {
        let Learned { loss, norm, tokens, accuracy } = learned;
        let (schedule, options) = (self.options.schedule, &self.options);
        let (rate, stage) = (schedule.rate(self.state.step), schedule.stage(self.state.step));
        let seconds = start.elapsed().as_secs_f64();
        self.work.0 += tokens;
        self.work.1 += seconds;
        let state = &mut self.state;
        state.step += 1;
        state.tokens += loss.count as u64;
        state.seconds += seconds;
        state.stage = Some(stage);
        state.data = self.data.position();
        state.validation = None;
        let step = Step {
            step: state.step,
            tokens: state.tokens,
            loss: loss.mean(),
            norm,
            rate,
            stage,
            epoch: state.data.epoch,
            seconds,
            tokens_per_second: loss.count as f64 / seconds.max(1e-9),
            useful_tokens_per_second: tokens.useful as f64 / seconds.max(1e-9),
            padding: tokens.padding(),
            accuracy,
            elapsed: state.seconds,
            memory: memory().0,
        };
        let due = |every: u64| every > 0 && step.step.is_multiple_of(every);
        let ends_stable = schedule.decay_start() == Some(step.step) && step.step > schedule.warmup;
        let permanent = due(options.permanent_every) || ends_stable;
        let (validate, sample) = (due(options.validate_every), due(options.sample_every));
        let checkpoint = due(options.checkpoint_every) || permanent;
        if due(options.log_every.max(1)) || step.step == 1 || step.step == schedule.total {
            self.log.write("step", &step)?;
        }
        observer.step(&step)?;
        if validate {
            self.validate(observer)?;
        }
        if sample {
            observer.sample(step.step, self.net)?;
        }
        if checkpoint {
            self.state.permanent = permanent;
            self.save(observer)?;
            self.state.permanent = false;
        }
        Ok(())
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let Some(source) = self.validation.as_deref_mut() else { return Ok(()) };
        let start = Instant::now();
        let beginning = source.position();
        let mut loss = Loss::default();
        let mut batches = 0;
        self.net.take_choices();
        while self.options.validation_batches == 0 || batches < self.options.validation_batches {
            let Some(batch) = source.next()? else { break };
            loss += self.net.loss(&batch)?;
            batches += 1;
        }
        source.seek(&beginning)?;
        let metrics = match &mut self.judge {
            Some(judge) => judge(self.net)?,
            None => Metrics::default(),
        };
        let mean = loss.mean();
        if !mean.is_finite() {
            let why = if loss.count == 0 {
                "there is no validation data"
            } else {
                "the validation loss is no number"
            };
            return Err(Error::Diverged(format!("{why} at step {}", self.state.step)));
        }
        let best = self.state.best.is_none_or(|(best, _)| mean < best);
        if best {
            self.state.best = Some((mean, self.state.step));
        }
        self.state.validation = Some(mean);
        let report = Validation {
            step: self.state.step,
            loss: mean,
            perplexity: mean.exp(),
            tokens: loss.count,
            preferences: self.net.take_choices().and_then(Preferences::of),
            best,
            seconds: start.elapsed().as_secs_f64(),
            metrics,
        };
        self.log.write("validation", &report)?;
        observer.validation(&report)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.state.log_bytes = self.log.bytes();
        self.state.memory = self.net.memory();
        let folder = self.store.save(self.net, &self.optimizer, &self.state)?;
        self.saved = Some(self.state.step);
        observer.checkpoint(self.state.step, &folder);
        Ok(())
    }

    /// Writes the network as it is now into `model` of the output folder, in place of an older one.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_model(&mut self) -> Result<std::path::PathBuf> {
        let folder = self.output.join("model");
        self.net.save(&folder)?;
        Ok(folder)
    }
}

/// Sets all gradients to zero.
fn clear(net: &mut dyn Trainable) {
    for param in net.params_mut() {
        param.grad.fill(0.0);
    }
}
