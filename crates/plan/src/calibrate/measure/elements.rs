//! What is done to every value, timed by the engine's own meter in steps of a small model with random weights.

use std::time::Instant;

use ounce_engine::{Engine, Mode, Operator, Session};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::account::pass::{Pass, Work, pieces};

use super::super::{Elements, kv_name};
use super::attention::TYPES;
use super::{Best, Clock};
use crate::Result;
use crate::shapes::llama_model;

/// Width, inner width and layers.
const SIZES: (usize, usize, usize) = (1024, 2816, 4);
/// Query heads, key/value heads, width of a head.
const HEADS: (usize, usize, usize) = (16, 4, 64);
const VOCAB: usize = 8192;
/// Tokens at once, and steps of so many.
const STEPS: [(usize, usize); 2] = [(1, 24), (256, 1)];

#[derive(Default)]
pub(super) struct Rates {
    /// Seconds for a value.
    values: Best<(Operator, Option<KvType>, usize)>,
    /// Seconds of a step of one token beside all operators.
    step: Option<f64>,
}

impl Rates {
    pub fn measure(&mut self, bursts: usize, clock: &mut Clock) -> Result<()> {
        let model = llama_model(SIZES, HEADS, VOCAB, DType::Q8_0, 1)?;
        let mut engine = Engine::load(&model, Mode::fast())?;
        for _ in 0..bursts {
            for kv in TYPES {
                engine.set_kv_type(kv);
                for (tokens, steps) in STEPS {
                    let mut session = engine.session();
                    session.feed(&[1; 32], |_| {})?;
                    session.measure();
                    let mut seconds = 0.0;
                    clock.time(|| seconds = run(&mut session, tokens, steps));
                    self.note(&session, kv, tokens, steps, seconds);
                }
            }
        }
        let logits = vec![0.5f32; VOCAB];
        for _ in 0..bursts {
            let seconds = clock.time(|| {
                let finite = std::hint::black_box(&logits).iter().all(|logit| logit.is_finite());
                std::hint::black_box(finite);
            });
            self.values.least((Operator::Head, None, 1), seconds / VOCAB as f64);
        }
        Ok(())
    }

    /// Takes what the meter counted.
    fn note(&mut self, session: &Session<'_>, kv: KvType, tokens: usize, steps: usize, seconds: f64) {
        let Some(profile) = session.profile() else { return };
        let spec = session.engine().spec();
        let pass = Pass { sequences: 1, start: 32, tokens, logits: 1 };
        let pieces = pieces(spec, pass);
        for (operator, cost) in profile.costs() {
            let own = pieces.iter().filter(|piece| piece.operator == operator);
            let values: f64 = own
                .map(|piece| if let Work::Elements { values, .. } = piece.work { values } else { 0.0 })
                .sum();
            // Products are timed apart.
            if values > 0.0 && operator != Operator::Head {
                let kv = (operator == Operator::CacheWrite).then_some(kv);
                self.values.least((operator, kv, tokens), cost.seconds / (values * steps as f64));
            }
        }
        if tokens == 1 {
            let inside: f64 = profile.costs().map(|(_, cost)| cost.seconds).sum();
            let rest = ((seconds - inside) / steps as f64).max(0.0);
            self.step = Some(self.step.map_or(rest, |least| least.min(rest)));
        }
    }

    pub fn step_seconds(&self) -> f64 {
        self.step.unwrap_or(0.0)
    }

    pub fn finish(self) -> Vec<Elements> {
        let row = |((operator, kv, vectors), seconds_per_value): ((Operator, Option<KvType>, usize), f64)| {
            Elements { operator, kv: kv.map(|it| kv_name(it).to_string()), vectors, seconds_per_value }
        };
        self.values.0.into_iter().map(row).collect()
    }
}

/// Seconds of steps; a step that fails ends them, and then nothing was counted.
fn run(session: &mut Session<'_>, tokens: usize, steps: usize) -> f64 {
    let ids: Vec<u32> = (0..tokens as u32).map(|i| i * 31 % VOCAB as u32).collect();
    let start = Instant::now();
    for _ in 0..steps {
        if let Ok(logits) = session.feed(&ids, |_| {}) {
            session.reuse(logits);
        }
    }
    start.elapsed().as_secs_f64()
}
