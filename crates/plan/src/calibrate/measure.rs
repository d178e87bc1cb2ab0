//! Times the engine's kernels. Everything is timed in short bursts, again and again in turn, and the fastest counts: a bound
//! that other programs disturb only makes it slower.

mod attention;
mod elements;
mod products;
mod whole;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ounce_kernels::isa::Isa;
use ounce_kernels::pool::Pool;
use ounce_kernels::{DType, quant};
use ounce_model::machine::{Cpu, cpu_time, host};

use super::{Calibration, FORMAT, Whole};
use crate::Result;

/// The formats that are timed; others are like one of these.
const FORMATS: [DType; 7] =
    [DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4K, DType::Q6K];

/// How long a calibration may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// How often all kernels are gone through.
    pub passes: usize,
    /// Bursts of a kernel in each.
    pub bursts: usize,
}

impl Effort {
    /// Half a minute.
    pub fn thorough() -> Effort {
        Effort { passes: 3, bursts: 6 }
    }

    /// A few seconds.
    pub fn quick() -> Effort {
        Effort { passes: 1, bursts: 3 }
    }
}

/// Told before every step what comes, and how many of all steps are done; its error ends the measurement.
pub type OnStep<'a> = &'a mut dyn FnMut(&str, usize, usize) -> ounce_model::Result<()>;

/// Times bursts, and notes who had the cores meanwhile.
#[derive(Debug, Default)]
struct Clock {
    wall: Duration,
    cpu: Duration,
}

impl Clock {
    /// Seconds that a burst takes.
    fn time(&mut self, burst: impl FnOnce()) -> f64 {
        let (cpu, start) = (cpu_time(), Instant::now());
        burst();
        let wall = start.elapsed();
        if let (Some(before), Some(after)) = (cpu, cpu_time()) {
            self.wall += wall;
            self.cpu += after.saturating_sub(before);
        }
        wall.as_secs_f64()
    }

    fn share(&self, threads: usize) -> Option<f64> {
        let wanted = self.wall.as_secs_f64() * threads as f64;
        (wanted > 0.0).then(|| (self.cpu.as_secs_f64() / wanted).min(1.0))
    }
}

/// The best of each thing that is timed, in the order in which they came first.
#[derive(Debug)]
struct Best<K>(Vec<(K, f64)>);

impl<K> Default for Best<K> {
    fn default() -> Best<K> {
        Best(Vec::new())
    }
}

impl<K: PartialEq> Best<K> {
    /// Keeps the smaller number.
    fn least(&mut self, key: K, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, best)) => *best = best.min(value),
            None => self.0.push((key, value)),
        }
    }
}

/// Runs the whole model in a format, in a second or so: what a calibration was told of it may be old, since machines that
/// share their memory with others read now faster, now slower. None for formats that ounce does not write.
///
/// # Errors
/// If there is no memory for it.
pub fn run_whole(dtype: DType) -> Result<Vec<Whole>> {
    if !quant::can_encode(dtype) {
        return Ok(Vec::new());
    }
    let mut times = whole::Times::default();
    times.measure(dtype, &mut Clock::default())?;
    Ok(times.finish())
}

impl Calibration {
    /// Puts other runs of the whole model in the place of those of the same formats; of several the fastest counts.
    pub fn renew(&mut self, runs: Vec<Whole>) {
        self.whole.retain(|old| runs.iter().all(|new| new.dtype != old.dtype));
        for run in runs {
            match self.whole.iter_mut().find(|it| (&it.dtype, it.vectors) == (&run.dtype, run.vectors)) {
                Some(known) => known.seconds = known.seconds.min(run.seconds),
                None => self.whole.push(run),
            }
        }
    }

    /// Times the kernels on the threads of the whole program.
    ///
    /// # Errors
    /// What `on_step` returns, and if there is no memory for what is timed.
    pub fn measure(effort: Effort, on_step: OnStep<'_>) -> Result<Calibration> {
        // Before anything is allocated.
        let own = host::resident_bytes()
            .0
            .zip(host::resident_file_bytes())
            .map_or(0, |(all, file)| all - file.min(all));
        let pool = Pool::global();
        let threads = pool.threads();
        let mut clock = Clock::default();
        let mut products = products::Rates::new(pool, &mut clock);
        let mut attention = attention::Rates::default();
        let mut elements = elements::Rates::default();
        let mut whole = whole::Times::default();
        let total = effort.passes * (2 * FORMATS.len() + attention::TYPES.len() + 1);
        let mut done = 0;
        let mut step = |what: &str| {
            done += 1;
            on_step(what, done - 1, total)
        };
        for _ in 0..effort.passes {
            for dtype in FORMATS {
                step(&format!("products of {dtype}"))?;
                products.measure(dtype, effort.bursts, pool, &mut clock)?;
            }
            for dtype in FORMATS {
                step(&format!("a model in {dtype}"))?;
                whole.measure(dtype, &mut clock)?;
            }
            for kv in attention::TYPES {
                step(&format!("attention over {}", super::kv_name(kv)))?;
                attention.measure(kv, effort.bursts, pool, &mut clock);
            }
            step("steps of a model")?;
            elements.measure(effort.bursts, &mut clock)?;
        }
        // By now the program's own pages have been used as a model uses them.
        let base_bytes = own + host::resident_file_bytes().unwrap_or(0);
        let cpu = Cpu::detect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let (call_seconds, streams) = (products.call_seconds(), products.streams());
        let (products, preparations) = products.finish();
        Ok(Calibration {
            format: FORMAT,
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
            measured_at_unix_seconds: now,
            measured: true,
            cpu,
            instruction_set: Isa::current().name().to_string(),
            threads,
            base_bytes,
            call_seconds,
            step_seconds: elements.step_seconds(),
            streams,
            products,
            preparations,
            attention: attention.finish(),
            elements: elements.finish(),
            whole: whole.finish(),
            cpu_share: clock.share(threads),
        })
    }
}
