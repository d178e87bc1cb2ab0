//! Quantizing with a bar.

use std::collections::HashMap;

use ounce_compress::quantize::efficient_qat::block_ap::Trained;
use ounce_compress::quantize::{Finished, Method, Plan, Quantizer, Store};
use ounce_model::{Model, Weights};

use super::training;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit as Counted};

/// How a model is quantized.
pub struct Work<'w> {
    pub plan: &'w Plan,
    pub method: Method,
    pub importance: Option<&'w HashMap<String, Vec<f32>>>,
    pub store: &'w Store,
    pub training: &'w training::TrainingArgs,
}

impl Work<'_> {
    /// Quantizes with a bar, and a line for each matrix and trained layer with its error.
    ///
    /// # Errors
    /// As [`Quantizer::run`].
    pub fn quantize(
        &self,
        model: &Model,
        calibration: Vec<Vec<u32>>,
        layers: &mut Vec<Trained>,
    ) -> ounce_compress::Result<(Weights, Vec<Finished>)> {
        let watch = Watch::start();
        let mut bar = Progress::new("quantizing", Counted::Share);
        let mut matrices = Vec::new();
        let mut observer = |finished: Option<&Finished>, done: u64, total: u64| {
            bar.set(done, total);
            if let Some(finished) = finished {
                let error =
                    finished.error.map(|it| format!(", error {:.3} %", it * 100.0)).unwrap_or_default();
                tracing::info!("{}: {}{error}, {:.1} s", finished.matrix, finished.dtype, finished.seconds);
                bar.say(&format!("{}{error}", finished.matrix));
                matrices.push(finished.clone());
            }
            Ok(watch.check()?)
        };
        let mut on_layer = |trained: &Trained| {
            tracing::info!("{}, {:.1} s", training::line(trained), trained.seconds);
            layers.push(*trained);
        };
        let mut quantizer = Quantizer::new(model, self.plan, self.method, self.store, &mut observer);
        if let Some(importance) = self.importance {
            quantizer = quantizer.with_importance(importance);
        }
        if let Some(options) = self.training.blocks() {
            quantizer = quantizer.with_training(options, &mut on_layer);
        }
        let weights = quantizer.run(calibration)?;
        Ok((weights, matrices))
    }
}
