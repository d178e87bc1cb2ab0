//! Three models, three batches, two formats: what is told of memory, time and bounds against what the engine does.

use ounce_engine::{Engine, Mode, Operator, Profile, Turn, Want};
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::speed::scattered_ids;
use ounce_eval::stats::{quantile, rank_correlation, relative_error};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::account::sizes::packed_bytes;
use ounce_model::machine::{self, DiskTarget, Machine, OpKind};
use std::time::Instant;

use super::{is_linear, turning_batch};
use crate::Result;
use crate::calibrate::{Calibration, Effort};
use crate::forecast::{Bound, Forecast, Phase, Workload, forecast};
use crate::shapes::{Three, llama_model};

const METHOD: u16 = 99;
/// Width, inner width, layers; heads, key/value heads, head width. All read more than the caches hold.
const MODELS: [(Three, Three); 3] =
    [((768, 2048, 14), (12, 4, 64)), ((1024, 2816, 16), (16, 4, 64)), ((1536, 4096, 14), (24, 8, 64))];
const VOCAB: usize = 16384;
const BATCHES: [usize; 3] = [1, 4, 16];
const FORMATS: [DType; 2] = [DType::Q8_0, DType::Q4_0];
const PROMPT: usize = 128;
/// Steps of a run; runs of each, of which the fastest counts.
const STEPS: usize = 6;
const RUNS: usize = 4;
/// Batches at which the turn from memory to arithmetic is looked for.
const MOST_AT_ONCE: usize = 64;

/// What the engine did.
struct Measured {
    /// Seconds of a prompt, and of a step of each batch.
    prompt: f64,
    steps: Vec<f64>,
    cache_bytes: u64,
    /// One prompt, and a step of each batch, by kind of work.
    prompt_profile: Option<Profile>,
    step_profiles: Vec<Option<Profile>>,
}

fn measure(engine: &Engine) -> Result<Measured> {
    let ids = scattered_ids(engine.spec().vocab_size, 0..PROMPT + 64);
    let mut found = Measured {
        prompt: f64::INFINITY,
        steps: vec![f64::INFINITY; BATCHES.len()],
        cache_bytes: 0,
        prompt_profile: None,
        step_profiles: vec![None; BATCHES.len()],
    };
    for run in 0..=RUNS {
        // The first run warms up and is looked into.
        let look = run == 0;
        for (index, &count) in BATCHES.iter().enumerate() {
            let mut sessions: Vec<_> = (0..count).map(|_| engine.session()).collect();
            for session in &mut sessions {
                if look {
                    session.measure();
                }
                let start = Instant::now();
                session.feed(&ids[..PROMPT], |_| {})?;
                if !look {
                    found.prompt = found.prompt.min(start.elapsed().as_secs_f64());
                }
            }
            if look && index == 0 {
                found.prompt_profile = sessions[0].profile().cloned();
            }
            let mut batch = engine.batch();
            if look {
                batch.measure();
            }
            for step in 0..STEPS {
                let token = &ids[PROMPT + step..][..1];
                let turns = sessions.iter_mut().map(|session| Turn { session, ids: token, want: Want::Last });
                let mut turns: Vec<_> = turns.collect();
                let start = Instant::now();
                batch.step(&mut turns)?;
                if !look {
                    found.steps[index] = found.steps[index].min(start.elapsed().as_secs_f64());
                }
            }
            if look {
                found.step_profiles[index] = batch.profile().cloned();
            }
            if index == 0 {
                found.cache_bytes = sessions[0].cache_bytes() as u64;
            }
        }
    }
    Ok(found)
}

/// Seconds of the linear layers in a step of so many sequences.
fn linear_seconds(engine: &Engine, count: usize) -> Result<f64> {
    let ids = scattered_ids(engine.spec().vocab_size, 0..count);
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let mut sessions: Vec<_> = (0..count).map(|_| engine.session()).collect();
        let mut batch = engine.batch();
        for round in 0..2 {
            if round == 1 {
                batch.measure();
            }
            let turns = sessions.iter_mut().zip(ids.chunks(1));
            let mut turns: Vec<_> =
                turns.map(|(session, ids)| Turn { session, ids, want: Want::Nothing }).collect();
            batch.step(&mut turns)?;
        }
        let costs = batch.profile().into_iter().flat_map(Profile::costs);
        least = least.min(costs.filter(|(it, _)| is_linear(*it)).map(|(_, cost)| cost.seconds).sum());
    }
    Ok(least)
}

/// Of how many operators with weights or cache the told bound is the one that is measured: what comes nearer to its limit,
/// the bytes or the operations a second. Also how many there are.
fn bounds(
    told: &Forecast,
    phase: Phase,
    profile: &Profile,
    machine: &Machine,
    threads: usize,
) -> (usize, usize) {
    let bandwidth = machine.read_bandwidth(threads);
    let (mut right, mut all) = (0, 0);
    for (operator, cost) in profile.costs().filter(|(_, cost)| cost.bytes > 0 && cost.seconds > 0.0) {
        let kind = if operator == Operator::Attention { OpKind::F32 } else { OpKind::Int8 };
        let Some(peak) = machine.peak_ops(kind, threads) else { continue };
        let Some(it) = told.operators.iter().find(|it| it.phase == phase && it.operator == operator) else {
            continue;
        };
        let reads = cost.bytes as f64 / bandwidth > cost.operations as f64 / peak;
        all += 1;
        right += usize::from(reads == matches!(it.bound, Bound::Memory | Bound::Cache));
    }
    (right, all)
}

fn model(index: usize, dtype: DType, seed: u64) -> ounce_model::Result<Model> {
    let (sizes, heads) = MODELS[index];
    llama_model(sizes, heads, VOCAB, dtype, seed)
}

/// Names the step that failed.
fn step<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &str,
) -> impl FnOnce(E) -> DemonstrationError {
    DemonstrationError::step(METHOD, what)
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let threads = Pool::global().threads();
    lab.progress("measuring the machine", 0.0);
    let folder = DiskTarget::Folder(std::env::temp_dir());
    let machine = machine::measure(&machine::Effort::quick(), threads, &folder, &mut |_, _, _| Ok(()))
        .map_err(step("measuring the machine"))?;
    lab.progress("timing kernels", 0.1);
    let effort = Effort { passes: 2, bursts: 4 };
    let calibration = Calibration::measure(effort, &mut |_, _, _| Ok(())).map_err(step("timing kernels"))?;
    let mut evidence = Evidence::new(METHOD, lab.seed(), "width 768, q8_0");
    let (mut told_times, mut times) = (Vec::new(), Vec::new());
    let (mut right, mut all, mut exact) = (0, 0, true);
    for index in 0..MODELS.len() {
        for dtype in FORMATS {
            let width = MODELS[index].0.0;
            let label = format!("width {width}, {}", dtype.name().to_lowercase());
            lab.progress(&label, 0.3 + 0.55 * index as f64 / 3.0);
            let model = model(index, dtype, lab.seed()).map_err(step("making a model"))?;
            let formats = Formats::of(&model.weights);
            let mut engine = Engine::load(&model, Mode::fast()).map_err(step("loading it"))?;
            engine.set_kv_type(KvType::F16);
            let found = measure(&engine).map_err(step("running it"))?;
            let tell = |batch: usize| {
                let (prompt, context) = (PROMPT, PROMPT + STEPS);
                let workload = Workload { batch, prompt, context, threads, kv: KvType::F16 };
                forecast(&model.spec, &formats, &machine, &calibration, &workload)
            };
            let mut row = Row::new(label);
            let one = tell(1).map_err(step("telling it"))?;
            exact &= packed_bytes(&model.spec, &formats, None) == engine.packed_bytes() as u64;
            exact &= one.kv_bytes == found.cache_bytes;
            row = row.with("prompt, told", one.first_token_seconds * 1e3, "ms");
            row = row.with("measured", found.prompt * 1e3, "ms");
            told_times.push(one.first_token_seconds);
            times.push(found.prompt);
            if let Some(profile) = &found.prompt_profile {
                let (good, count) = bounds(&one, Phase::Prompt, profile, &machine, threads);
                (right, all) = (right + good, all + count);
            }
            for (at, &batch) in BATCHES.iter().enumerate() {
                let told = tell(batch).map_err(step("telling it"))?;
                row = row.with(format!("step of {batch}, told"), told.per_token_seconds * 1e3, "ms");
                row = row.with(format!("step of {batch}, measured"), found.steps[at] * 1e3, "ms");
                told_times.push(told.per_token_seconds);
                times.push(found.steps[at]);
                if let Some(profile) = &found.step_profiles[at] {
                    let (good, count) = bounds(&told, Phase::Token, profile, &machine, threads);
                    (right, all) = (right + good, all + count);
                }
            }
            evidence.rows.push(row);
        }
    }
    let errors: Vec<f64> =
        told_times.iter().zip(&times).map(|(told, time)| relative_error(*told, *time)).collect();
    let (median, p90) = (quantile(&errors, 0.5), quantile(&errors, 0.9));
    evidence.expect(
        "time: median relative error at most 25 %",
        format!("{:.1} %, 90th percentile {:.1} %", median * 100.0, p90 * 100.0),
        median <= 0.25,
    );
    let ranks = rank_correlation(&told_times, &times);
    evidence.expect("rank correlation of times at least 0.9", format!("{ranks:.3}"), ranks >= 0.9);
    let share = right as f64 / all.max(1) as f64;
    evidence.expect(
        "the bound is the measured one for at least 90 % of operators",
        format!("{right} of {all}"),
        share >= 0.9,
    );
    evidence.expect(
        "bytes of packed weights and of the cache are exact",
        if exact { "all equal" } else { "some differ" },
        exact,
    );
    lab.progress("looking for the turn from memory to arithmetic", 0.9);
    let model = model(1, DType::Q8_0, lab.seed()).map_err(step("making a model"))?;
    let engine = Engine::load(&model, Mode::fast()).map_err(step("loading it"))?;
    let formats = Formats::of(&model.weights);
    let workload = Workload { batch: 1, prompt: 1, context: 2, threads, kv: KvType::F32 };
    let told = turning_batch(&model.spec, &formats, &machine, &calibration, &workload, MOST_AT_ONCE)
        .map_err(step("telling the turn"))?;
    let mut measured = None;
    let one = linear_seconds(&engine, 1).map_err(step("running a batch"))?;
    for batch in [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, MOST_AT_ONCE] {
        if linear_seconds(&engine, batch).map_err(step("running a batch"))? >= 2.0 * one {
            measured = Some(batch);
            break;
        }
    }
    let near = match (told, measured) {
        (Some(told), Some(measured)) => told <= 2 * measured && measured <= 2 * told,
        (None, None) => true,
        _ => false,
    };
    let say = |batch: Option<usize>| batch.map_or(format!("above {MOST_AT_ONCE}"), |it| it.to_string());
    evidence.expect(
        "the batch from which linear layers take twice their time for one is told within a factor of 2",
        format!("told {}, measured {}", say(told), say(measured)),
        near,
    );
    let busy = calibration.cpu_share.map_or(String::new(), |share| {
        format!(" Threads had a core for {:.0} % of the time while kernels were timed.", share * 100.0)
    });
    evidence.notes = vec![
        format!("Times are the fastest of {RUNS} runs.{busy}"),
        "A measured bound is what comes nearer to the machine's limit, bytes or operations a second; a told one is the \
         longer of reading and the kernel's own arithmetic, which unpacks codes besides multiplying."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}
