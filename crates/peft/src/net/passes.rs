//! Batches on their way through an adapted model: losses, scores and logits.

use std::path::Path;
use std::sync::atomic::Ordering;

use candle_core::Tensor;
use ounce_model::spec::Scored;
use ounce_train::graph::Pass;
use ounce_train::loss::{Choices, LogitLoss, PreferenceLoss, Scores};
use ounce_train::{Batch, IGNORE, Loss, Param, Trainable};
use serde_json::{Value, json};

use super::Adapted;
use crate::core::Core;
use crate::methods::cloze::Gap;
use crate::{Result, retrieval};

/// From a pass and what the head is given to a scalar whose gradient is taken, and what is reported of it.
pub(super) type Judge<'j> = dyn FnMut(&Pass<'_>, &Tensor) -> ounce_train::Result<(Tensor, Loss)> + 'j;

impl Adapted {
    /// The logits of all tokens of a batch, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut found = Vec::new();
        let tokens = self.adapter.virtual_tokens();
        self.pass(batch, None, None, &mut |pass, hidden| {
            let logits = pass.logits(hidden)?;
            let width = logits.dims2()?.1;
            let all = logits.flatten_all()?.to_vec1::<f32>()?;
            let mut start = 0;
            for &length in &pass.batch().lengths {
                found.extend_from_slice(&all[(start + tokens) * width..(start + length) * width]);
                start += length;
            }
            Ok((logits.sum_all()?, Loss::default()))
        })?;
        Ok(found)
    }

    /// Sends a batch through network and adapter and hands what the head is given to `objective`. With `gap` a template's soft
    /// words are in their places.
    pub(super) fn pass(
        &mut self,
        batch: &Batch,
        scale: Option<f32>,
        gap: Option<&Gap>,
        objective: &mut Judge<'_>,
    ) -> ounce_train::Result<Loss> {
        let longer;
        let batch = match self.adapter.virtual_tokens() {
            0 => batch,
            tokens => {
                longer = with_virtual(batch, tokens);
                &longer
            }
        };
        let adapter = &*self.adapter;
        let count = batch.counted() as f64;
        self.net.slots()?.run(batch, scale, &mut |pass| {
            let hidden = {
                let mut hook = adapter.hook(&batch.lengths);
                if let Some(gap) = gap {
                    hook = gap.hook(hook, &batch.lengths, adapter.virtual_tokens());
                }
                pass.hidden(&mut *hook)?
            };
            let hidden = adapter.finish(hidden)?;
            let (mut value, loss) = objective(pass, &hidden)?;
            if scale.is_some()
                && let Some(penalty) = adapter.penalty()?
            {
                value = (value + (penalty * count)?)?;
            }
            Ok((value, loss))
        })
    }

    /// Another loss on the head's logits, without a template; with `scale` its gradient is added to the weights'.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn by(
        &mut self,
        batch: &Batch,
        scale: Option<f32>,
        loss: &mut dyn LogitLoss,
    ) -> ounce_train::Result<Loss> {
        self.pass(batch, scale, None, &mut |pass, hidden| pass.loss(hidden, loss))
    }

    /// The vectors of a batch's sequences, `[sequences, width]`, as [`retrieval`] has them.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn vectors(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let (spec, skipped) = (self.skeleton().spec.clone(), self.adapter.virtual_tokens());
        let mut found = Vec::new();
        self.pass(batch, None, None, &mut |pass, hidden| {
            let vectors = retrieval::pooled(&spec, hidden, &pass.batch().lengths, skipped)?;
            found = vectors.flatten_all()?.to_vec1::<f32>()?;
            Ok((vectors.sum_all()?, Loss::default()))
        })?;
        Ok(found)
    }

    /// The loss of gaps, and the scores of their labels.
    fn filled(&mut self, batch: &Batch, scale: Option<f32>) -> ounce_train::Result<(Loss, Vec<f32>)> {
        let Some(gap) = self.gap.clone() else { return Ok((Loss::default(), Vec::new())) };
        let mut scores = Vec::new();
        let loss = self.pass(batch, scale, Some(&gap), &mut |pass, hidden| {
            let (value, loss, found) = gap.loss(pass, hidden)?;
            scores = found;
            Ok((value, loss))
        })?;
        Ok((loss, scores))
    }

    /// The loss that goes with the batch and the head.
    fn run(&mut self, batch: &Batch, scale: Option<f32>) -> ounce_train::Result<Loss> {
        if let Core::Fast(net) = &mut self.net {
            return match scale {
                Some(scale) => net.accumulate(batch, scale),
                None => net.loss(batch),
            };
        }
        if self.gap.is_some() {
            return Ok(self.filled(batch, scale)?.0);
        }
        if let Some(of) = self.settings.retrieval {
            let (spec, skipped) = (self.skeleton().spec.clone(), self.adapter.virtual_tokens());
            return self.pass(batch, scale, None, &mut |pass, hidden| {
                retrieval::loss(&retrieval::pooled(&spec, hidden, &pass.batch().lengths, skipped)?, of)
            });
        }
        let (beta, mut found) = (self.beta, None);
        let loss = self.pass(batch, scale, None, &mut |pass, hidden| {
            let batch = pass.batch();
            if batch.reference.is_empty() {
                return pass.usual_loss(hidden);
            }
            let mut loss = PreferenceLoss::new(&batch.lengths, &batch.reference, beta);
            let (value, _) = pass.loss(hidden, &mut loss)?;
            found = Some(loss.choices());
            Ok((value, Loss { sum: loss.sum(), count: batch.counted() }))
        })?;
        if let Some(found) = found {
            *self.choices.get_or_insert_default() += found;
        }
        Ok(loss)
    }
}

/// The batch with places in front of every sequence that nothing is learned of.
fn with_virtual(batch: &Batch, tokens: usize) -> Batch {
    let mut longer = Batch {
        labels: batch.labels.clone(),
        reference: batch.reference.clone(),
        spans: batch.spans.clone(),
        ..Batch::default()
    };
    for span in longer.spans.iter_mut().filter(|span| span[0] != IGNORE) {
        span.iter_mut().for_each(|at| *at += tokens as u32);
    }
    let mut start = 0;
    for &length in &batch.lengths {
        let own = start..start + length;
        longer.tokens.extend(std::iter::repeat_n(0, tokens).chain(batch.tokens[own.clone()].iter().copied()));
        if !batch.targets.is_empty() {
            let targets = batch.targets[own.clone()].iter().copied();
            longer.targets.extend(std::iter::repeat_n(IGNORE, tokens).chain(targets));
        }
        if !batch.types.is_empty() {
            longer.types.extend(std::iter::repeat_n(0, tokens).chain(batch.types[own].iter().copied()));
        }
        longer.lengths.push(length + tokens);
        start += length;
    }
    longer
}

impl Trainable for Adapted {
    fn params(&self) -> &[Param] {
        self.net.params()
    }

    fn params_mut(&mut self) -> &mut [Param] {
        self.net.params_mut()
    }

    fn loss(&mut self, batch: &Batch) -> ounce_train::Result<Loss> {
        self.run(batch, None)
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> ounce_train::Result<Loss> {
        if !self.begun {
            self.adapter.before_step(self.step, self.net.params());
            self.begun = true;
        }
        let loss = self.run(batch, Some(scale));
        self.clock.fetch_add(1, Ordering::Relaxed);
        loss
    }

    fn take_choices(&mut self) -> Option<Choices> {
        match &mut self.net {
            Core::Fast(net) => net.take_choices(),
            Core::Slots(_) => self.choices.take(),
        }
    }

    fn stepped(&mut self, _loss: f64) {
        self.adapter.after_step(self.step, self.net.params_mut());
        self.step += 1;
        self.begun = false;
    }

    fn memory(&self) -> Value {
        json!({
            "step": self.step, "clock": self.clock.load(Ordering::Relaxed), "adapter": self.adapter.memory(),
        })
    }

    fn remember(&mut self, memory: &Value) -> ounce_train::Result<()> {
        let number = |key: &str| memory.get(key).and_then(Value::as_u64).unwrap_or_default();
        self.step = number("step");
        self.clock.store(number("clock"), Ordering::Relaxed);
        self.begun = false;
        self.adapter.remember(memory.get("adapter").unwrap_or(&Value::Null));
        Ok(())
    }

    fn scores(&mut self, batch: &Batch) -> ounce_train::Result<Vec<f32>> {
        if let Core::Fast(net) = &mut self.net {
            return net.scores(batch);
        }
        if self.gap.is_some() {
            return Ok(self.filled(batch, None)?.1);
        }
        let mut scores = Scores::default();
        self.pass(batch, None, None, &mut |pass, hidden| pass.loss(hidden, &mut scores))?;
        let tokens = self.adapter.virtual_tokens();
        let spans = self.skeleton().spec.classifier.is_some_and(|it| it.of == Scored::Spans);
        if tokens == 0 || !spans {
            return Ok(scores.0);
        }
        // Every token has scores there, the ones without text too.
        let width = scores.0.len() / batch.lengths.iter().map(|length| length + tokens).sum::<usize>().max(1);
        let (mut kept, mut start) = (Vec::new(), 0);
        for &length in &batch.lengths {
            kept.extend_from_slice(&scores.0[(start + tokens) * width..(start + tokens + length) * width]);
            start += length + tokens;
        }
        Ok(kept)
    }

    fn workspace_bytes(&self, tokens: usize) -> usize {
        self.net.workspace_bytes(tokens)
    }

    /// Writes the adapter's folder.
    fn save(&self, folder: &Path) -> ounce_train::Result<()> {
        Ok(self.folder(folder)?.write()?)
    }
}
