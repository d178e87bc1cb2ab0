//! The grid of the catalogue's entry: two models, techniques on and off.

use ounce_engine::Operator;
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::{quantile, relative_error};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;

use super::inference::{self, Answer, answer};
use super::training::{self, step};
use crate::shapes::{Three, llama_model};

const METHOD: u16 = 102;
/// Width, inner width, layers; heads, key/value heads, head width: one and five million weights.
const MODELS: [(Three, Three); 2] = [((128, 384, 4), (4, 2, 32)), ((256, 704, 6), (4, 2, 64))];
const VOCAB: usize = 2048;
/// Sequences and tokens of each in a training step.
const BATCHES: [(usize, usize); 2] = [(8, 64), (4, 256)];
/// Tokens of prompts.
const PROMPTS: [usize; 2] = [64, 512];
const RUNS: usize = 3;

fn is_product(operator: Operator) -> bool {
    use Operator::{Down, GateUp, Head, Output, QueryKeyValue};
    matches!(operator, QueryKeyValue | Output | GateUp | Down | Head)
}

/// Names the step that failed.
fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &str,
) -> impl FnOnce(E) -> DemonstrationError {
    DemonstrationError::step(METHOD, what)
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let mut evidence = Evidence::new(METHOD, lab.seed(), "train, width 128, 8 x 64, plain");
    let (mut errors, mut slower, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let (mut frozen_times, mut optimizer_shares) = (Vec::new(), Vec::new());
    let (mut products, mut counted, mut attention) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (sizes, heads)) in MODELS.into_iter().enumerate() {
        let model =
            llama_model(sizes, heads, VOCAB, DType::F32, lab.seed()).map_err(failed("making a model"))?;
        for batch in BATCHES {
            lab.progress(&format!("training steps of width {}", sizes.0), 0.45 * index as f64);
            let mut plain = None;
            for bits in 0..8 {
                let flags = training::Flags {
                    checkpointing: bits & 1 != 0,
                    bf16: bits & 2 != 0,
                    frozen: bits & 4 != 0,
                };
                let found = step(&model, flags, batch, RUNS).map_err(failed("a training step"))?;
                let label = format!("train, width {}, {} x {}, {}", sizes.0, batch.0, batch.1, flags.name());
                evidence.rows.push(
                    Row::new(label)
                        .with("forward", found.forward * 1e3, "ms")
                        .with("backward", found.backward * 1e3, "ms")
                        .with("optimizer", found.optimizer * 1e3, "ms")
                        .with("memory", found.bytes as f64 / 1e6, "MB")
                        .with("memory, told", found.told_bytes as f64 / 1e6, "MB"),
                );
                errors.push(relative_error(found.told_bytes as f64, found.bytes as f64));
                match (bits, plain) {
                    (0, _) => {
                        optimizer_shares.push((batch.0 * batch.1, found.optimizer / found.seconds()));
                        plain = Some(found);
                    }
                    (1, Some(plain)) => {
                        slower.push(found.seconds() / plain.seconds() - 1.0);
                        kept.push(found.buffer_bytes as f64 / plain.buffer_bytes as f64);
                    }
                    (4, Some(plain)) => frozen_times.push(found.seconds() / plain.seconds()),
                    _ => {}
                }
            }
        }
        lab.progress(&format!("answers of width {}", sizes.0), 0.45 * index as f64 + 0.35);
        for length in PROMPTS {
            for weights in [None, Some(DType::F32), Some(DType::BF16), Some(DType::Q8_0), Some(DType::Q4_0)] {
                for kv in [KvType::F32, KvType::F16, KvType::Q8_0] {
                    let flags = inference::Flags { weights, kv };
                    let found = answer(&model, flags, length, RUNS).map_err(failed("an answer"))?;
                    let format = weights.map_or("reference".to_string(), |it| it.name().to_lowercase());
                    let cache = crate::calibrate::kv_name(kv);
                    let attending = |it: Operator| it == Operator::Attention;
                    let own = Answer::share(&found.prompt_parts, attending);
                    evidence.rows.push(
                        Row::new(format!("answer, width {}, {length}, {format}, cache {cache}", sizes.0))
                            .with("prompt", found.prompt * 1e3, "ms")
                            .with("token", found.token * 1e3, "ms")
                            .with("packed", found.packed_bytes as f64 / 1e6, "MB")
                            .with("cache", found.cache_bytes as f64 / 1e6, "MB")
                            .with("products", Answer::share(&found.prompt_parts, is_product) * 100.0, "%")
                            .with("attention", own * 100.0, "%"),
                    );
                    products.push(Answer::share(&found.prompt_parts, is_product));
                    counted.push(Answer::share(&found.prompt_parts, |_| true));
                    counted.push(Answer::share(&found.token_parts, |_| true));
                    attention.push((length, own));
                }
            }
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let most = kept.iter().copied().fold(0.0, f64::max);
    evidence.expect(
        "checkpointing at least halves activation memory and costs 10 to 45 % of a step's time",
        format!(
            "memory of buffers to {:.0} % at most, time {:+.0} % on average",
            most * 100.0,
            mean(&slower) * 100.0
        ),
        most <= 0.5 && (0.10..=0.45).contains(&mean(&slower)),
    );
    let frozen = mean(&frozen_times);
    evidence.expect(
        "a step with frozen matrices is faster than one that trains all",
        format!("{:.0} % of its time", frozen * 100.0),
        frozen < 1.0,
    );
    let least = quantile(&products, 0.5);
    evidence.expect(
        "products with weights take most of a prompt's time",
        format!("median {:.0} %", least * 100.0),
        least > 0.5,
    );
    let of = |length: usize| {
        let own: Vec<f64> = attention.iter().filter(|it| it.0 == length).map(|it| it.1).collect();
        mean(&own)
    };
    evidence.expect(
        "attention takes a larger share of a longer prompt",
        format!("{:.1} % of 64 tokens, {:.1} % of 512", of(64) * 100.0, of(512) * 100.0),
        of(512) > of(64),
    );
    let share = |tokens: usize| {
        let own: Vec<f64> = optimizer_shares.iter().filter(|it| it.0 == tokens).map(|it| it.1).collect();
        mean(&own)
    };
    evidence.expect(
        "the optimizer's share shrinks with the tokens of a step",
        format!("{:.1} % of 512 tokens, {:.1} % of 1024", share(512) * 100.0, share(1024) * 100.0),
        share(1024) < share(512),
    );
    let worst = quantile(&errors, 1.0);
    evidence.expect(
        "memory of a training step is told within 20 %",
        format!("median {:.1} %, at most {:.1} % off", quantile(&errors, 0.5) * 100.0, worst * 100.0),
        worst <= 0.20,
    );
    let seen = counted.iter().copied().fold(f64::INFINITY, f64::min);
    evidence.expect(
        "the kinds of work that are counted add up to at least 90 % of a prompt's and a token's time",
        format!("at least {:.1} %", seen * 100.0),
        seen >= 0.9,
    );
    evidence.notes = vec![
        "Memory of a training step is what its parts hold: weights, gradients, the optimizer's memory, buffers at most."
            .into(),
        "There are no adapters in the trainer: frozen stands for them, all matrices frozen and norms trained. Sharded \
         optimizers, offloading, serving under load and links between processes were not measured."
            .into(),
        "A training step is split into forward, backward and optimizer, not by operator.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
