//! A made-up machine, and what its figures say.

use super::host::CacheKind;
use super::*;

fn steady(best: f64) -> Rate {
    Rate { best, median: best * 0.9, cpu_share: Some(0.97) }
}

fn read(threads: usize, pages: Pages, prefetch_bytes: usize, gigabytes: f64) -> Read {
    Read { threads, buffer_bytes: 1 << 30, pages, prefetch_bytes, bytes_per_second: steady(gigabytes * 1e9) }
}

fn peak(kind: OpKind, threads: usize, giga: f64) -> Peak {
    Peak { kind, instruction: "fma".into(), threads, ops_per_second: steady(giga * 1e9) }
}

/// A machine with two cores.
pub(super) fn example() -> Machine {
    Machine {
        format: FORMAT,
        tool_version: "0.1.0".into(),
        measured_at_unix_seconds: 1_700_000_000,
        quick: false,
        cpu: Cpu {
            model: "Example 9000".into(),
            architecture: "x86_64".into(),
            cores: 2,
            physical_cores: Some(2),
            features: vec!["avx2".into(), "fma".into()],
        },
        caches: vec![Cache { level: 2, kind: CacheKind::Unified, bytes: 2 << 20, shared_by: 1 }],
        memory: Memory { total_bytes: 16 << 30, available_bytes: 12 << 30 },
        memory_reads: vec![
            read(1, Pages::Small, 0, 10.0),
            read(2, Pages::Small, 0, 18.0),
            read(1, Pages::Huge, 0, 13.0),
            read(1, Pages::Huge, 1024, 17.0),
            read(2, Pages::Huge, 0, 23.0),
            read(2, Pages::Huge, 1024, 1.0 / 3.0 * 100.0),
        ],
        cache_reads: vec![read(1, Pages::Small, 0, 85.0), read(2, Pages::Small, 0, 170.0)],
        peaks: vec![
            peak(OpKind::F32, 1, 190.0),
            peak(OpKind::Int8, 1, 800.0),
            peak(OpKind::F32, 2, 380.0),
            // Other programs ran.
            peak(OpKind::Int8, 2, 700.0),
        ],
        disk: Some(Disk {
            path: "/data".into(),
            temporary: true,
            bytes: 256 << 20,
            bytes_per_second: 1.5e9,
            cached_share: Some(0.0),
        }),
        energy: Some(Energy { counters: vec!["package-0".into()], seconds: 1.0, busy_watts: 31.5 }),
        notes: vec!["made up".into()],
    }
}

#[test]
fn json_gives_the_same_machine_back() {
    let machine = example();
    let text = serde_json::to_string_pretty(&machine).expect("serialises");
    assert_eq!(serde_json::from_str::<Machine>(&text).expect("parses"), machine);
}

#[test]
fn bandwidth_is_the_best_way_of_reading() {
    let machine = example();
    assert_eq!(machine.read_bandwidth(1), 17e9);
    assert_eq!(machine.read_bandwidth_in(Pages::Small, 1), 10e9);
    assert_eq!(machine.read_bandwidth_in(Pages::Small, 2), 18e9);
    assert_eq!(machine.cache_bandwidth(2), 170e9);
    let mut small_only = machine.clone();
    small_only.memory_reads.retain(|row| row.pages == Pages::Small);
    assert_eq!(small_only.read_bandwidth_in(Pages::Huge, 2), 0.0);
    assert_eq!(small_only.read_bandwidth(2), 18e9);
}

#[test]
fn threads_that_were_not_measured_lie_between_or_at_the_ends() {
    let mut machine = example();
    machine.peaks = vec![peak(OpKind::F32, 1, 100.0), peak(OpKind::F32, 9, 500.0)];
    for (threads, giga) in [(0, 100.0), (1, 100.0), (2, 150.0), (5, 300.0), (9, 500.0), (1000, 500.0)] {
        assert_eq!(machine.peak_ops(OpKind::F32, threads), Some(giga * 1e9), "{threads} threads");
    }
    assert_eq!(machine.peak_ops(OpKind::MatrixInt8, 1), None);
}

#[test]
fn more_threads_never_count_as_slower_nor_as_faster_than_their_number() {
    let machine = example();
    assert_eq!(machine.peak_ops(OpKind::Int8, 2), Some(800e9), "what one thread did, two can do");
    for threads in 2..10 {
        let (few, many) = (machine.read_bandwidth(threads - 1), machine.read_bandwidth(threads));
        assert!(many >= few && many <= machine.read_bandwidth(1) * threads as f64, "{threads} threads");
    }
}

#[test]
fn impossible_figures_are_found() {
    assert_eq!(example().check(), Ok(()));
    type Spoil = fn(&mut Machine);
    let spoilt: [(Spoil, &str); 13] = [
        (|it| it.format = 0, "format"),
        (|it| it.memory.available_bytes = u64::MAX, "available_bytes"),
        (|it| it.caches[0].bytes = 0, "cache"),
        (|it| it.memory_reads.clear(), "memory_reads"),
        (|it| it.memory_reads[1].bytes_per_second.best = f64::INFINITY, "memory_reads"),
        (|it| it.memory_reads[1].bytes_per_second.best = 1e18, "memory_reads"),
        (|it| it.cache_reads[0].threads = 0, "cache_reads"),
        (|it| it.cache_reads[0].bytes_per_second.median = -1.0, "cache_reads"),
        (|it| it.peaks[0].ops_per_second.median = f64::NAN, "f32"),
        (|it| it.peaks[0].ops_per_second.cpu_share = Some(1.1), "cpu_share"),
        (|it| it.peaks[1].ops_per_second.median *= 2.0, "int8"),
        (|it| it.disk.as_mut().expect("has one").cached_share = Some(1.5), "cached_share"),
        (|it| it.energy.as_mut().expect("has one").busy_watts = 0.0, "busy_watts"),
    ];
    for (spoil, word) in spoilt {
        let mut machine = example();
        spoil(&mut machine);
        let why = machine.check().expect_err(word);
        assert!(why.contains(word), "{word}: {why}");
    }
}

#[test]
fn the_most_disturbed_rate_tells_of_other_programs() {
    let mut machine = example();
    assert_eq!(machine.steadiness(), 0.97);
    machine.peaks[3].ops_per_second.cpu_share = Some(0.5);
    assert_eq!(machine.steadiness(), 0.5);
    machine.peaks[3].ops_per_second.cpu_share = None;
    machine.peaks[3].ops_per_second.median = machine.peaks[3].ops_per_second.best * 0.25;
    assert_eq!(machine.steadiness(), 0.25);
}
