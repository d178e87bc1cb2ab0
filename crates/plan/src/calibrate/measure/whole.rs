//! Whole models: what a kernel does in a burst is more than it does in a model, where a pass reads hundreds of megabytes
//! at a stretch and threads meet after every product. A model with random weights is run in each format, so that forecasts can
//! be held against it.

use std::time::Instant;

use ounce_engine::{Engine, Mode};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;

use super::super::{WHOLE_START, Whole, whole_model};
use super::{Best, Clock};
use crate::Result;

/// Tokens at once.
const VECTORS: [usize; 2] = [1, 256];
/// Tokens one by one, of which the median counts, and how often that is done.
const STEPS: usize = 12;
const TURNS: usize = 2;

#[derive(Default)]
pub(super) struct Times(Best<(DType, usize)>);

impl Times {
    pub fn measure(&mut self, dtype: DType, clock: &mut Clock) -> Result<()> {
        let model = whole_model(dtype)?;
        let mut engine = Engine::load(&model, Mode::fast())?;
        drop(model);
        engine.set_kv_type(KvType::F16);
        let ids: Vec<u32> =
            (0..256).map(|i| i * 2_654_435 % engine.spec().vocab_size.max(1) as u32).collect();
        let mut session = engine.session();
        // The first passes make buffers.
        for count in VECTORS {
            session.feed(&ids[..count], |_| {})?;
        }
        let mut failed = None;
        let mut timed = |session: &mut ounce_engine::Session<'_>, ids: &[u32]| {
            let start = Instant::now();
            match session.feed(ids, |_| {}) {
                Ok(logits) => session.reuse(logits),
                Err(error) => failed = Some(error),
            }
            start.elapsed().as_secs_f64()
        };
        let mut found = Vec::new();
        clock.time(|| {
            for _ in 0..TURNS {
                for count in VECTORS {
                    session.truncate(WHOLE_START);
                    let steps = if count == 1 { STEPS } else { 1 };
                    let mut seconds: Vec<f64> =
                        (0..steps).map(|_| timed(&mut session, &ids[..count])).collect();
                    seconds.sort_by(f64::total_cmp);
                    found.push((count, seconds[seconds.len() / 2]));
                }
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        found.into_iter().for_each(|(count, seconds)| self.0.least((dtype, count), seconds));
        Ok(())
    }

    pub fn finish(self) -> Vec<Whole> {
        let row = |((dtype, vectors), seconds): ((DType, usize), f64)| Whole {
            dtype: dtype.name().to_string(),
            vectors,
            seconds,
        };
        self.0.0.into_iter().map(row).collect()
    }
}
