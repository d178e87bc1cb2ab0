//! How fast the engine's kernels are on this machine: rates of products for each format, of attention for each type of cache,
//! and of what is done to every value.
//!
//! A kernel's efficiency is its rate over the roofline's, `min(π, I·β)` of the machine's profile. Rates are kept, not
//! efficiencies: then a profile that is measured again does not spoil them.
//!
//! - [`Calibration`]: the rates, and what they are for sizes between those that were measured.
//! - [`Calibration::measure`]: measures them, in half a minute.
//! - [`Calibration::estimate`]: a guess from a machine's limits, where nothing was measured.

mod estimate;
mod lookup;
mod measure;
mod store;

use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::account::Operator;
use ounce_model::machine::Cpu;
use ounce_model::{Model, Spec};
use serde::{Deserialize, Serialize};

pub(crate) use lookup::between;
pub use measure::{Effort, OnStep, run_whole};
pub use store::Lookup;

use crate::{Result, shapes};

/// Version of the file format; a file of another one is measured again.
pub const FORMAT: u32 = 2;

/// Positions before those of [`Calibration::whole`].
pub(crate) const WHOLE_START: usize = 32;

/// Sizes of [`whole_model`]: width, inner width, layers; heads, key/value heads and their width; vocabulary.
const WHOLE: (shapes::Three, shapes::Three, usize) = ((1024, 2816, 12), (16, 4, 64), 16384);

/// The model that is run whole: unlike any published shape, and in no format so small that it fits a cache.
///
/// # Errors
/// If ounce does not write the format.
pub(crate) fn whole_model(dtype: DType) -> ounce_model::Result<Model> {
    let (sizes, heads, vocab) = WHOLE;
    shapes::llama_model(sizes, heads, vocab, dtype, 1)
}

/// Its architecture.
///
/// # Errors
/// None.
pub(crate) fn whole_spec() -> Result<Spec> {
    let (sizes, heads, vocab) = WHOLE;
    Ok(shapes::llama_spec(sizes, heads, vocab)?)
}

/// Measured rates of the engine's kernels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of ounce that measured.
    pub tool_version: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub measured_at_unix_seconds: u64,
    /// Whether it was measured; else it is an estimate from the machine's limits.
    pub measured: bool,
    /// The processor.
    pub cpu: Cpu,
    /// The instruction set that the kernels used.
    pub instruction_set: String,
    /// Threads that shared the work.
    pub threads: usize,
    /// Resident bytes of the program without a model.
    pub base_bytes: u64,
    /// Seconds that one piece of work for all threads takes besides the work.
    pub call_seconds: f64,
    /// Seconds of a step that belong to no operator.
    pub step_seconds: f64,
    /// Bytes a second at which one token's products read weights, by how many bytes are read in turn.
    pub streams: Vec<Stream>,
    /// Products with matrices.
    pub products: Vec<Product>,
    /// Activations brought to the form that kernels take.
    pub preparations: Vec<Preparation>,
    /// Attention.
    pub attention: Vec<Attention>,
    /// What is done to every value.
    pub elements: Vec<Elements>,
    /// A whole model in some formats; empty where nothing was measured.
    pub whole: Vec<Whole>,
    /// Share of the time in which the threads had a core each, over all of the measurement.
    pub cpu_share: Option<f64>,
}

/// How fast weights are read that are read in turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Bytes that are read before the first are read again.
    pub bytes: u64,
    /// Bytes a second.
    pub bytes_per_second: f64,
}

/// Where the weights of a product were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A cache of the cores' own.
    Cache,
    /// Memory.
    Memory,
}

/// Products of a packed matrix with vectors, without their preparation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The format's name.
    pub dtype: String,
    /// Whether the matrix is packed; else rows are decoded one at a time.
    pub packed: bool,
    /// Vectors at once.
    pub vectors: usize,
    /// Where the matrix lay.
    pub level: Level,
    /// Multiplications and additions a second.
    pub operations_per_second: f64,
}

/// Activations brought to a kernel's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preparation {
    /// The format whose kernel wants the form.
    pub dtype: String,
    /// Vectors at once.
    pub vectors: usize,
    /// Seconds for a value.
    pub seconds_per_value: f64,
}

/// Attention over a cache in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// How keys and values are stored.
    pub kv: String,
    /// Query heads that share a key/value head.
    pub sharing: usize,
    /// Neighbouring positions that are asked for at once.
    pub queries: usize,
    /// Positions in the cache before them.
    pub positions: usize,
    /// Multiplications and additions a second, four for a query head's value and position.
    pub operations_per_second: f64,
}

/// Something done to every value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elements {
    /// What.
    pub operator: Operator,
    /// For what is written to a cache, how it is stored.
    pub kv: Option<String>,
    /// Vectors at once.
    pub vectors: usize,
    /// Seconds for a value.
    pub seconds_per_value: f64,
}

/// What a pass of a whole model took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// The format of its matrices.
    pub dtype: String,
    /// Tokens at once.
    pub vectors: usize,
    /// Seconds of the pass.
    pub seconds: f64,
}

/// The name of a cache's type in files.
pub fn kv_name(kv: KvType) -> &'static str {
    match kv {
        KvType::F32 => "f32",
        KvType::F16 => "f16",
        KvType::Bf16 => "bf16",
        KvType::Q8_0 => "q8_0",
        KvType::Q4_0 => "q4_0",
    }
}

/// Formats that stand for others that were not measured: the same sort of kernel, with about as many bits.
pub(crate) fn stands_for(dtype: DType) -> [DType; 2] {
    let wide = DType::Q8_0;
    match dtype {
        DType::F64 | DType::F32 => [DType::F32, wide],
        DType::F16 => [DType::F16, DType::BF16],
        DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => [DType::BF16, DType::F16],
        DType::Q4_1 | DType::IQ4NL | DType::MXFP4 => [DType::Q4_0, wide],
        DType::Q5K
        | DType::IQ4XS
        | DType::Q3K
        | DType::Q2K
        | DType::IQ1S
        | DType::IQ1M
        | DType::IQ2XXS
        | DType::IQ2XS
        | DType::IQ2S
        | DType::IQ3XXS
        | DType::IQ3S
        | DType::TQ1_0
        | DType::TQ2_0 => [DType::Q4K, wide],
        _ if dtype.group_shape().is_some_and(|(bits, _)| bits <= 4) => [DType::Q4_0, wide],
        _ => [dtype, wide],
    }
}
