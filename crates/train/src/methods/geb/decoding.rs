//! How fast the preset's form writes text, beside what the memory's bandwidth allows.

use std::time::Instant;

use ounce_engine::{Engine, Mode, Result as EngineResult};
use ounce_eval::method::{Evidence, Row};
use ounce_kernels::DType;
use ounce_kernels::pool::Pool;
use ounce_model::machine::{self, DiskTarget, Effort};
use ounce_model::weights::MemorySource;
use ounce_model::{Tensor, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::{Model, Preset};
use crate::{Error, Result};

/// What is decoded with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    hidden: usize,
    layers: usize,
    vocabulary: usize,
    /// Bytes that bandwidth is measured on.
    buffer: u64,
    /// Tokens written in a run.
    tokens: usize,
    runs: usize,
}

/// Of the stored evidence: 150 million weights that are read for each token, 600 MB in f32.
pub(super) const SHAPE: Shape =
    Shape { hidden: 1024, layers: 12, vocabulary: 16_384, buffer: 512 << 20, tokens: 24, runs: 3 };

/// Measures bandwidth, then decodes in f32 and int8.
pub(super) fn measure(shape: &Shape, evidence: &mut Evidence) -> Result<()> {
    let threads = Pool::global().threads();
    let bandwidth = bandwidth(shape.buffer, threads)?;
    let model = random(shape)?;
    let failed = |error: ounce_engine::Error| Error::Unsupported(error.to_string());
    let mut speeds = Vec::new();
    for (label, quantize) in [("decoding in f32", None), ("decoding in int8 (Q8_0)", Some(DType::Q8_0))] {
        let engine = Engine::load(&model, Mode::Fast { quantize }).map_err(failed)?;
        let bytes = engine.packed_bytes() as f64;
        let (first, speed) = speed(&engine, shape).map_err(failed)?;
        let bound = bandwidth / bytes;
        evidence.rows.push(
            Row::new(label)
                .with("tokens", speed, "a second")
                .with("bound by bandwidth", bound, "a second")
                .with("weights read a token", bytes, "bytes")
                .with("bandwidth", bandwidth, "bytes a second")
                .with("16 tokens of a prompt", 1e3 * first, "ms"),
        );
        speeds.push((speed, bound));
    }
    let [(f32_speed, f32_bound), (int8_speed, int8_bound)] = speeds[..] else { return Ok(()) };
    evidence.expect(
        "decoding in f32 reaches at least half of what the bandwidth of the machine's profile allows",
        format!(
            "{f32_speed:.1} of {f32_bound:.1} tokens a second (int8: {int8_speed:.1} of {int8_bound:.1})"
        ),
        2.0 * f32_speed >= f32_bound,
    );
    evidence.expect(
        "int8 decodes at least 1.5 times as fast as f32",
        format!("{:.2} times", int8_speed / f32_speed),
        int8_speed >= 1.5 * f32_speed,
    );
    Ok(())
}

/// Bytes a second that all threads read together, by the probes of the machine's profile.
fn bandwidth(buffer_bytes: u64, threads: usize) -> Result<f64> {
    let folder = tempfile::tempdir().map_err(Error::io("a temporary folder"))?;
    let effort = Effort { buffer_bytes, disk_bytes: 1 << 20, ..Effort::quick() };
    let disk = DiskTarget::Folder(folder.path().to_path_buf());
    let machine = machine::measure(&effort, threads, &disk, &mut |_, _, _| Ok(()))?;
    Ok(machine.read_bandwidth(threads))
}

/// The preset's form with random weights: a piece of noise that is used again and again.
fn random(shape: &Shape) -> Result<ounce_model::Model> {
    let config = Model {
        preset: Preset::CpuLm,
        hidden: shape.hidden,
        layers: shape.layers,
        heads: (shape.hidden / 64).max(1),
        context: 512,
        ..Model::default()
    };
    let model = config.bare(shape.vocabulary)?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let noise: Vec<f32> = (0..1 << 16).map(|_| random.random_range(-0.05..0.05)).collect();
    let mut source = MemorySource::new("<random>");
    for info in model.spec.tensors() {
        let count = info.shape.iter().product();
        let values: Vec<f32> = match info.shape.len() {
            1 => vec![1.0; count],
            _ => noise.iter().copied().cycle().take(count).collect(),
        };
        source.insert(info.name, Tensor::from_f32(&info.shape, &values));
    }
    Ok(ounce_model::Model { weights: Weights::in_memory(source), ..model })
}

/// Seconds for a prompt, and tokens a second of the fastest run.
fn speed(engine: &Engine, shape: &Shape) -> EngineResult<(f64, f64)> {
    let (mut first, mut best) = (f64::INFINITY, 0.0f64);
    for _ in 0..shape.runs {
        let mut session = engine.session();
        let start = Instant::now();
        let logits = session.feed(&[7; 16], |_| {})?;
        session.reuse(logits);
        first = first.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        for token in 0..shape.tokens as u32 {
            let logits = session.feed(&[token], |_| {})?;
            session.reuse(logits);
        }
        best = best.max(shape.tokens as f64 / start.elapsed().as_secs_f64());
    }
    Ok((first, best))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_shape_is_measured() {
        let shape = Shape { hidden: 128, layers: 1, vocabulary: 256, buffer: 8 << 20, tokens: 2, runs: 1 };
        let mut evidence = Evidence::new(121, 1, "decoding in f32");
        measure(&shape, &mut evidence).unwrap();
        evidence.check().unwrap();
        let bytes =
            |label: &str| evidence.row(label).and_then(|row| row.get("weights read a token")).unwrap();
        let times = bytes("decoding in f32") / bytes("decoding in int8 (Q8_0)");
        assert!((3.0..4.1).contains(&times), "{times}");
    }
}
