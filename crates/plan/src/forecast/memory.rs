//! Memory of a workload.

use ounce_engine::session::PREFILL_CHUNK;
use ounce_kernels::packed::PackedMatrix;
use ounce_model::Spec;
use ounce_model::account::pass::{Held, Pass};
use ounce_model::account::{buffers, cache, sizes};
use ounce_model::rope::Rope;
use ounce_model::spec_tensors::TensorSpec;

use super::{Forecast, Workload};
use crate::Result;
use crate::calibrate::Calibration;

/// The passes of one sequence's prompt, as a session runs them: in chunks, unless rotations have to see it whole.
pub(super) fn prompt_passes(spec: &Spec, workload: &Workload) -> Vec<Pass> {
    let whole = !spec.causal || spec.ropes().any(Rope::depends_on_length);
    let chunk = if whole { workload.prompt } else { PREFILL_CHUNK };
    let starts = (0..workload.prompt).step_by(chunk.max(1));
    starts
        .map(|start| {
            let tokens = chunk.min(workload.prompt - start);
            let last = start + tokens == workload.prompt;
            let logits = if last && spec.causal { 1 } else { 0 };
            Pass { sequences: 1, start, tokens, logits }
        })
        .collect()
}

/// The pass in which every sequence gets one more token.
pub(super) fn token_pass(spec: &Spec, workload: &Workload) -> Pass {
    let logits = if spec.head.is_some() { workload.batch } else { 0 };
    Pass { sequences: workload.batch, start: workload.context - 1, tokens: 1, logits }
}

/// The memory of a forecast; times are still to come.
pub(super) fn forecast(
    spec: &Spec,
    held: &Held<'_>,
    calibration: &Calibration,
    workload: &Workload,
) -> Result<Forecast> {
    let tied = sizes::has_tied_head(spec);
    // Packed matrices, in the order in which they are packed; what stays in the file and is read whole; copies in f32.
    let (mut packed, mut mapped, mut copied) = (Vec::new(), 0, 0);
    for TensorSpec { name, shape } in spec.tensors() {
        let Some(stored) = held.formats.get(&name) else { continue };
        let bytes = sizes::stored_bytes(stored, &shape);
        let taken = sizes::packed_bytes_of(&name, &shape, tied, held.formats, held.quantize);
        let values = 4 * shape.iter().map(|&n| n as u64).product::<u64>();
        match name.as_str() {
            // Rows are read from the file where they are used, unless the head reads the same table as it is stored.
            "embed.tokens.weight" if taken == 0 && tied => mapped += bytes,
            "embed.tokens.weight" => {}
            "embed.positions.weight" | "embed.types.weight" => copied += values,
            _ if taken == 0 && shape.len() == 2 => mapped += bytes,
            _ if taken == 0 => copied += values,
            _ => {}
        }
        if taken > 0 {
            packed.push(taken as usize);
        }
    }
    let prompt = prompt_passes(spec, workload);
    let token = token_pass(spec, workload);
    let buffer_bytes = if workload.batch == 1 && spec.causal {
        let all: Vec<Pass> = prompt.into_iter().chain([token]).collect();
        buffers::bytes(spec, &all, held)?
    } else {
        // Every sequence has run its prompt with buffers of its own.
        let own = workload.batch as u64 * buffers::bytes(spec, &prompt, held)?;
        own + if spec.causal { buffers::bytes(spec, &[token], held)? } else { 0 }
    };
    let chunks = workload.prompt.div_ceil(PREFILL_CHUNK);
    let pushes = (0..chunks).map(|index| PREFILL_CHUNK.min(workload.prompt - index * PREFILL_CHUNK));
    let steps = workload.context.saturating_sub(workload.prompt);
    let pushes = pushes.chain(std::iter::repeat_n(1, steps));
    let kv_bytes = workload.batch as u64 * cache::held_bytes(spec, held.kv, pushes);
    let weight_bytes = packed.iter().sum::<usize>() as u64 + mapped + copied;
    let room = PackedMatrix::resident_bytes(&packed) as u64 + mapped + copied;
    Ok(Forecast {
        file_bytes: sizes::weight_bytes(spec, held.formats),
        resident_bytes: calibration.base_bytes + room + kv_bytes + buffer_bytes,
        weight_bytes,
        kv_bytes,
        buffer_bytes,
        first_token_seconds: 0.0,
        per_token_seconds: 0.0,
        energy_per_token_joules: None,
        operators: Vec::new(),
    })
}
