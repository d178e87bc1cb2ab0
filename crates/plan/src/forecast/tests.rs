//! Forecasts of small specs on a made-up machine.

use ounce_engine::{Engine, Mode};
use ounce_model::account::sizes;
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::machine::{Cpu, Energy, FORMAT, Memory, OpKind, Pages, Peak, Rate, Read};

use super::*;
use crate::shapes;

/// A machine that reads 20 GB/s and computes 400 (f32) or 1600 (int8) operations a nanosecond on two threads.
fn machine() -> Machine {
    let rate = |best: f64| Rate { best, median: best, cpu_share: None };
    let read = |threads, best| Read {
        threads,
        buffer_bytes: 1 << 30,
        pages: Pages::Small,
        prefetch_bytes: 0,
        bytes_per_second: rate(best),
    };
    let peak =
        |kind, threads, best| Peak { kind, instruction: "fma".into(), threads, ops_per_second: rate(best) };
    Machine {
        format: FORMAT,
        tool_version: "0".into(),
        measured_at_unix_seconds: 0,
        quick: false,
        cpu: Cpu {
            model: "Example".into(),
            architecture: "x86_64".into(),
            cores: 2,
            physical_cores: None,
            features: Vec::new(),
        },
        caches: Vec::new(),
        memory: Memory { total_bytes: 1 << 34, available_bytes: 1 << 33 },
        memory_reads: vec![read(1, 10e9), read(2, 20e9)],
        cache_reads: vec![read(1, 100e9), read(2, 200e9)],
        peaks: vec![
            peak(OpKind::F32, 1, 200e9),
            peak(OpKind::F32, 2, 400e9),
            peak(OpKind::Int8, 1, 800e9),
            peak(OpKind::Int8, 2, 1600e9),
        ],
        disk: None,
        energy: Some(Energy { counters: vec!["package".into()], seconds: 1.0, busy_watts: 20.0 }),
        notes: Vec::new(),
    }
}

fn workload(prompt: usize, context: usize) -> Workload {
    Workload { batch: 1, prompt, context, threads: 2, kv: KvType::F16 }
}

fn told(shape: &str, dtype: DType, workload: &Workload) -> Forecast {
    let spec = shapes::by_name(shape).unwrap().spec().unwrap();
    let machine = machine();
    let calibration = Calibration::estimate(&machine, 2);
    forecast(&spec, &Formats::uniform(&spec, dtype), &machine, &calibration, workload).unwrap()
}

#[test]
fn a_token_costs_what_reading_its_weights_costs() {
    let forecast = told("llama-3.2-1b", DType::Q8_0, &workload(128, 129));
    let least = forecast.weight_bytes as f64 / 20e9;
    let took = forecast.per_token_seconds;
    assert!(took > least && took < 1.6 * least, "{took} s, {least} s at least");
    let linear = forecast.operators.iter().filter(|it| it.phase == Phase::Token && it.bytes > 1e7);
    assert!(linear.clone().count() >= 4);
    assert!(linear.into_iter().all(|it| it.bound == Bound::Memory), "{:#?}", forecast.operators);
    let joules = forecast.energy_per_token_joules.unwrap();
    assert!((joules - 20.0 * took).abs() < 1e-12);
}

#[test]
fn a_prompt_is_bound_by_arithmetic_and_longer_ones_take_longer() {
    let forecast = told("smollm2-135m", DType::F32, &workload(512, 513));
    let gates =
        forecast.operators.iter().find(|it| it.operator == Operator::GateUp && it.phase == Phase::Prompt);
    assert_eq!(gates.unwrap().bound, Bound::Compute);
    let longer = told("smollm2-135m", DType::F32, &workload(1024, 1025));
    assert!(longer.first_token_seconds > 1.9 * forecast.first_token_seconds);
    assert!(longer.kv_bytes > forecast.kv_bytes && longer.resident_bytes > forecast.resident_bytes);
}

#[test]
fn sequences_share_the_reading_of_weights() {
    let one = told("smollm2-135m", DType::F32, &workload(32, 33));
    let eight = told("smollm2-135m", DType::F32, &Workload { batch: 8, ..workload(32, 33) });
    assert!(eight.per_token_seconds < 4.0 * one.per_token_seconds);
    assert!(eight.tokens_per_second(8) > 2.0 * one.tokens_per_second(1));
    assert_eq!(eight.kv_bytes, 8 * one.kv_bytes);
    assert!((eight.first_token_seconds / one.first_token_seconds - 8.0).abs() < 1e-6);
}

#[test]
fn experts_that_are_not_chosen_are_not_read() {
    let forecast = told("mixtral-mini", DType::Q8_0, &workload(8, 9));
    let experts = forecast.operators.iter().filter(|it| it.phase == Phase::Token);
    let down: f64 = experts.filter(|it| it.operator == Operator::Down).map(|it| it.bytes).sum();
    // Two of eight experts of 1024 × 1792 in twelve layers, 34 bytes for 32 values.
    assert!((down - 12.0 * 2.0 * 1024.0 * 1792.0 * 34.0 / 32.0).abs() < 1.0, "{down}");
}

#[test]
fn bytes_are_those_of_the_engine_and_of_a_written_file() {
    let model = shapes::llama_model((64, 96, 2), (4, 2, 16), 128, DType::BF16, 1).unwrap();
    let formats = Formats::of(&model.weights);
    assert_eq!(formats, Formats::uniform(&model.spec, DType::BF16));
    let machine = machine();
    let calibration = Calibration::estimate(&machine, 2);
    let forecast = forecast(&model.spec, &formats, &machine, &calibration, &workload(40, 44)).unwrap();
    let mut engine = Engine::load(&model, Mode::fast()).unwrap();
    engine.set_kv_type(KvType::F16);
    assert_eq!(sizes::packed_bytes(&model.spec, &formats, None), engine.packed_bytes() as u64);
    let mut session = engine.session();
    session.feed(&[1; 40], |_| {}).unwrap();
    for _ in 0..4 {
        let logits = session.feed(&[1], |_| {}).unwrap();
        session.reuse(logits);
    }
    assert_eq!(forecast.kv_bytes, session.cache_bytes() as u64);
    // Only the logits of the prompt were not given back.
    let buffers = session.buffer_bytes() as f64;
    assert!(
        (forecast.buffer_bytes as f64 / buffers - 1.0).abs() < 0.1,
        "{} {buffers}",
        forecast.buffer_bytes
    );

    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("model");
    hf::write_model(&model, &target, &WriteOptions::default(), &mut |_, _| Ok(())).unwrap();
    let bytes = std::fs::read(target.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    // A folder stores norms in the format of the rest.
    let written = Formats::of(&ounce_model::Model::open(&target).unwrap().weights);
    assert_eq!(bytes.len() as u64 - 8 - header, sizes::weight_bytes(&model.spec, &written));
    assert!(forecast.file_bytes >= sizes::weight_bytes(&model.spec, &written));
}

#[test]
fn impossible_workloads_and_formats_are_refused() {
    let spec = shapes::by_name("smollm2-135m").unwrap().spec().unwrap();
    let machine = machine();
    let calibration = Calibration::estimate(&machine, 2);
    let formats = Formats::uniform(&spec, DType::Q8_0);
    let refused = |formats: &Formats, workload: &Workload| {
        forecast(&spec, formats, &machine, &calibration, workload).unwrap_err().to_string()
    };
    assert!(refused(&formats, &workload(0, 1)).contains("prompt"));
    assert!(refused(&formats, &workload(1, usize::MAX)).contains("at most"));
    assert!(refused(&Formats::default(), &workload(1, 2)).contains("embed.tokens.weight"));
    let odd = formats.with([("layers.0.attention.query.weight".to_string(), DType::Q4K)]);
    assert!(refused(&odd, &workload(1, 2)).contains("layers.0.attention.query.weight"));
}

#[test]
fn the_model_that_was_run_whole_is_told_to_take_what_it_took() {
    use crate::calibrate::{WHOLE_START, Whole, whole_spec};
    let (spec, machine) = (whole_spec().unwrap(), machine());
    let mut calibration = Calibration::estimate(&machine, 2);
    let told = |calibration: &Calibration, dtype: DType| {
        let formats = Formats::uniform(&spec, dtype);
        forecast(&spec, &formats, &machine, calibration, &workload(WHOLE_START, WHOLE_START + 1)).unwrap()
    };
    let [plain, other] = [DType::Q8_0, DType::F32].map(|dtype| told(&calibration, dtype).per_token_seconds);
    let of = |dtype: &str, seconds: f64| Whole { dtype: dtype.into(), vectors: 1, seconds };
    let run = |seconds: f64| vec![of("Q8_0", seconds)];
    calibration.renew([vec![of("F32", other)], run(9.0 * plain), run(1.7 * plain)].concat());
    let slower = told(&calibration, DType::Q8_0);
    assert!((slower.per_token_seconds / plain - 1.7).abs() < 1e-9, "the faster of two runs counts");
    let same = told(&calibration, DType::F32).per_token_seconds / other;
    assert!((same - 1.0).abs() < 1e-9, "each format by its own run");
    // Only products take longer.
    let norms = |forecast: &Forecast| {
        let own = forecast.operators.iter().filter(|it| it.operator == Operator::Norm);
        own.map(|it| it.seconds).sum::<f64>()
    };
    calibration.renew(run(plain));
    let again = told(&calibration, DType::Q8_0);
    assert!((again.per_token_seconds / plain - 1.0).abs() < 1e-9);
    assert!((norms(&slower) - norms(&again)).abs() < 1e-12);
}
