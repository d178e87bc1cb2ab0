//! A calibration that was not measured: shares of a machine's limits that kernels usually reach.

use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_kernels::isa::Isa;
use ounce_model::account::Operator;
use ounce_model::machine::{Machine, OpKind};

use super::{Attention, Calibration, Elements, FORMAT, Level, Preparation, Product, Stream, kv_name};

/// Share of the memory's bandwidth.
const OF_MEMORY: f64 = 0.85;
/// Share of the arithmetic of f32 and bf16, whose weights are multiplied as they are.
const OF_PLAIN: f64 = 0.7;
/// Share of the arithmetic of int8, where codes are unpacked and scaled besides.
const OF_CODES: f64 = 0.4;
/// Share of the arithmetic of f32 in attention.
const OF_ATTENTION: f64 = 0.25;
/// Seconds to hand a piece of work to threads.
const CALL: f64 = 3e-6;
/// Seconds of elementwise work on a value.
const VALUE: f64 = 0.5e-9;
/// Resident bytes of the program alone.
const BASE: u64 = 16 << 20;

impl Calibration {
    /// What kernels of a machine can be expected to do that was not calibrated: shares of its limits.
    pub fn estimate(machine: &Machine, threads: usize) -> Calibration {
        let threads = threads.max(1);
        let memory = machine.read_bandwidth(threads) * OF_MEMORY;
        let cache = machine.cache_bandwidth(threads).max(memory);
        let f32_peak = machine.peak_ops(OpKind::F32, threads).unwrap_or(memory);
        let mut products = Vec::new();
        let mut preparations = Vec::new();
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4K, DType::Q6K] {
            let kinds: &[OpKind] = match dtype {
                DType::F32 | DType::F16 => &[OpKind::F32],
                DType::BF16 => &[OpKind::MatrixBf16, OpKind::Bf16],
                _ => &[OpKind::Int8],
            };
            let peak = kinds.iter().find_map(|&kind| machine.peak_ops(kind, threads)).unwrap_or(f32_peak);
            let compute = peak * if dtype.is_block() { OF_CODES } else { OF_PLAIN };
            let bytes = dtype.block_bytes() as f64 / dtype.block_len() as f64;
            for vectors in [1usize, 4, 16, 256] {
                for (level, bandwidth) in [(Level::Cache, cache), (Level::Memory, memory)] {
                    let roof = (2.0 * vectors as f64 / bytes * bandwidth).min(compute);
                    products.push(Product {
                        dtype: dtype.name().to_string(),
                        packed: true,
                        vectors,
                        level,
                        operations_per_second: roof,
                    });
                }
            }
            preparations.push(Preparation {
                dtype: dtype.name().to_string(),
                vectors: 1,
                seconds_per_value: VALUE,
            });
        }
        for (vectors, level) in [(1, Level::Cache), (1, Level::Memory)] {
            let (dtype, packed) = (DType::F32.name().to_string(), false);
            let operations_per_second = (memory / 2.0).min(f32_peak);
            products.push(Product { dtype, packed, vectors, level, operations_per_second });
        }
        let attention = KvType::ALL.into_iter().flat_map(|kv| {
            let bytes = if kv == KvType::F32 { 4.0 } else { 2.0 };
            [(1usize, 1usize), (4, 1), (1, 256), (4, 256)].map(|(sharing, queries)| Attention {
                kv: kv_name(kv).to_string(),
                sharing,
                queries,
                positions: 1024,
                operations_per_second: (2.0 * (sharing * queries) as f64 / bytes * memory)
                    .min(f32_peak * OF_ATTENTION),
            })
        });
        let elements = Operator::ALL.into_iter().map(|operator| Elements {
            operator,
            kv: None,
            vectors: 1,
            seconds_per_value: VALUE,
        });
        Calibration {
            format: FORMAT,
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
            measured_at_unix_seconds: machine.measured_at_unix_seconds,
            measured: false,
            cpu: machine.cpu.clone(),
            instruction_set: Isa::current().name().to_string(),
            threads,
            base_bytes: BASE,
            call_seconds: CALL,
            step_seconds: 0.0,
            streams: vec![
                Stream { bytes: 1 << 20, bytes_per_second: cache },
                Stream { bytes: 256 << 20, bytes_per_second: memory },
            ],
            products,
            preparations,
            attention: attention.collect(),
            elements: elements.collect(),
            whole: Vec::new(),
            cpu_share: None,
        }
    }
}
