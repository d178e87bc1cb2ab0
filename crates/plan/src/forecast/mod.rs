//! What a model will cost on a machine, from its spec and formats alone: it need not exist.
//!
//! Time is a roofline of each piece of work of a forward pass, `max(operations / π, bytes / β) / η`: π is what the processor
//! computes, β what it reads from where the weights lie (a cache, or memory, by how many bytes a pass reads before it reads the
//! first again), and η the efficiency of the engine's kernel for the format and the number of vectors, from a
//! [`Calibration`]; what products take longer in a model than in bursts is known from a model that the calibration ran.
//! Memory is counted by the accountant, [`ounce_model::account`].

mod memory;
mod time;
mod whole;

use ounce_kernels::DType;
use ounce_model::Spec;
use ounce_model::account::Operator;
use ounce_model::machine::Machine;
use serde::Serialize;

pub use ounce_kernels::attention::KvType;
pub use ounce_model::account::Formats;

use crate::calibrate::Calibration;
use crate::{Error, Result};

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Sequences that generate at once.
    pub batch: usize,
    /// Tokens of each one's prompt.
    pub prompt: usize,
    /// Positions in each one's cache when a token is generated, its own included.
    pub context: usize,
    /// Threads that compute.
    pub threads: usize,
    /// How keys and values are cached.
    pub kv: KvType,
}

/// What limits a piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Reading memory.
    Memory,
    /// Reading a cache: the weights of a pass fit one.
    Cache,
    /// Handing work to threads, and what is done once a call.
    Overhead,
}

impl Bound {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
            Bound::Cache => "cache",
            Bound::Overhead => "overhead",
        }
    }
}

/// Which part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The prompt, up to the first token.
    Prompt,
    /// A further token of every sequence.
    Token,
}

/// What one kind of work of a phase will take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatorForecast {
    /// The phase.
    pub phase: Phase,
    /// The kind of work.
    pub operator: Operator,
    /// Times it is done.
    pub calls: f64,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes of weights and of cached keys and values that are read or written.
    pub bytes: f64,
    /// Bytes of activations that pass through caches.
    pub activation_bytes: f64,
    /// Operations for a byte of weights, cache or, where neither is read, activations.
    pub intensity: f64,
    /// What limits most of it.
    pub bound: Bound,
    /// Seconds by the machine's limits alone.
    pub roofline_seconds: f64,
    /// Seconds that it will take.
    pub seconds: f64,
}

/// What a model will cost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    /// Bytes of the weights as stored; a file has a header besides.
    pub file_bytes: u64,
    /// Resident memory at most, the program included, a tokenizer not.
    pub resident_bytes: u64,
    /// Bytes of weights in memory: packed, and read from the file as they are.
    pub weight_bytes: u64,
    /// Bytes of the caches of all sequences at the context's end.
    pub kv_bytes: u64,
    /// Bytes of buffers.
    pub buffer_bytes: u64,
    /// Seconds until every sequence has its first token; prompts are run one behind the other. Of an encoder, for its texts.
    pub first_token_seconds: f64,
    /// Seconds of a step in which every sequence gets one more token; 0 for an encoder.
    pub per_token_seconds: f64,
    /// Joules for each token that is generated, where the machine's power is known.
    pub energy_per_token_joules: Option<f64>,
    /// Where the time goes, by phase and kind of work.
    pub operators: Vec<OperatorForecast>,
}

impl Forecast {
    /// Tokens a second of all sequences together, once they generate.
    pub fn tokens_per_second(&self, batch: usize) -> f64 {
        if self.per_token_seconds > 0.0 { batch as f64 / self.per_token_seconds } else { 0.0 }
    }
}

/// What a model of this spec, with weights in these formats, will cost in the fast mode.
///
/// # Errors
/// If a weight has no format or one that its rows do not fit, or a number of the workload is 0 or more than the model has
/// positions for.
pub fn forecast(
    spec: &Spec,
    formats: &Formats,
    machine: &Machine,
    calibration: &Calibration,
    workload: &Workload,
) -> Result<Forecast> {
    formats.check(spec)?;
    check(spec, workload)?;
    let held = ounce_model::account::pass::Held { formats, packed: true, quantize: None, kv: workload.kv };
    let memory = memory::forecast(spec, &held, calibration, workload)?;
    let factors = whole::Factors::of(machine, calibration)?;
    let roof = time::Roof { spec, held, machine, calibration, threads: workload.threads, factors: &factors };
    let mut operators = roof.operators(Phase::Prompt, &memory::prompt_passes(spec, workload))?;
    for it in &mut operators {
        it.scale(workload.batch as f64);
    }
    let mut first_token_seconds: f64 = operators.iter().map(|it| it.seconds).sum();
    first_token_seconds += calibration.step_seconds * workload.batch as f64;
    let mut per_token_seconds = 0.0;
    if spec.causal {
        let token = roof.operators(Phase::Token, &[memory::token_pass(spec, workload)])?;
        per_token_seconds = token.iter().map(|it| it.seconds).sum::<f64>() + calibration.step_seconds;
        operators.extend(token);
    }
    let energy = machine.energy.as_ref().filter(|_| spec.causal);
    Ok(Forecast {
        energy_per_token_joules: energy.map(|it| it.busy_watts * per_token_seconds / workload.batch as f64),
        first_token_seconds,
        per_token_seconds,
        operators,
        ..memory
    })
}

impl OperatorForecast {
    /// Does it so many times.
    fn scale(&mut self, times: f64) {
        self.calls *= times;
        self.operations *= times;
        self.bytes *= times;
        self.activation_bytes *= times;
        self.roofline_seconds *= times;
        self.seconds *= times;
    }
}

fn check(spec: &Spec, workload: &Workload) -> Result<()> {
    let Workload { batch, prompt, context, threads, .. } = *workload;
    for (name, value) in [("batch", batch), ("prompt", prompt), ("context", context), ("threads", threads)] {
        if value == 0 {
            return Err(Error::Option(format!("the {name} of a forecast should be 1 or more")));
        }
    }
    // More would overflow sums of positions.
    const MOST: usize = 1 << 24;
    if batch > MOST || prompt > MOST || context > MOST {
        return Err(Error::Option(format!(
            "batch, prompt and context of a forecast should be at most {MOST}"
        )));
    }
    let limit = spec.embedding.positions.map(|it| it.count.saturating_sub(it.offset));
    match limit {
        Some(limit) if prompt.max(context) > limit => Err(Error::Option(format!(
            "{} positions are more than the {limit} that this model has",
            prompt.max(context)
        ))),
        _ => Ok(()),
    }
}

/// The number that a format's products are computed in, for the roofline.
fn op_kind(dtype: DType, matrix: bool) -> ounce_model::machine::OpKind {
    use ounce_model::machine::OpKind;
    match dtype {
        DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => {
            if matrix {
                OpKind::MatrixBf16
            } else {
                OpKind::Bf16
            }
        }
        _ if dtype.is_block() => {
            if matrix {
                OpKind::MatrixInt8
            } else {
                OpKind::Int8
            }
        }
        _ => OpKind::F32,
    }
}

#[cfg(test)]
mod tests;
