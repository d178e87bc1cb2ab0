//! What is left of kernels' rates when a model runs: a factor on the time of products, for each format and number of vectors,
//! such that the forecast of the model that the calibration ran whole is what that run took.

use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::account::Formats;
use ounce_model::account::pass::{Held, Pass};
use ounce_model::machine::Machine;

use super::Phase;
use super::time::Roof;
use crate::Result;
use crate::calibrate::{Calibration, WHOLE_START, between, stands_for, whole_spec};

/// The least share of a kernel's time that products can be thought to take.
const LEAST: f64 = 0.1;

/// The factors of formats that were run whole.
#[derive(Debug, Default)]
pub(super) struct Factors(Vec<(String, f64, f64)>);

impl Factors {
    /// Compares what was run whole with what would be told of it.
    pub fn of(machine: &Machine, calibration: &Calibration) -> Result<Factors> {
        let mut factors = Vec::with_capacity(calibration.whole.len());
        if calibration.whole.is_empty() {
            return Ok(Factors(factors));
        }
        let spec = whole_spec()?;
        for run in &calibration.whole {
            let Some(dtype) = DType::parse(&run.dtype) else { continue };
            let formats = Formats::uniform(&spec, dtype);
            let held = Held { formats: &formats, packed: true, quantize: None, kv: KvType::F16 };
            let pass = Pass { sequences: 1, start: WHOLE_START, tokens: run.vectors, logits: 1 };
            // Told times are a line over the factor: one point without it, one with twice the time of products.
            let told = |factor: f64| -> Result<f64> {
                let factors = Factors(vec![(run.dtype.clone(), run.vectors as f64, factor)]);
                let threads = calibration.threads.max(1);
                let roof = Roof { spec: &spec, held, machine, calibration, threads, factors: &factors };
                let operators = roof.operators(Phase::Token, &[pass])?;
                Ok(operators.iter().map(|it| it.seconds).sum::<f64>() + calibration.step_seconds)
            };
            let (once, twice) = (told(1.0)?, told(2.0)?);
            let products = twice - once;
            if products > 0.0 {
                let factor = (run.seconds - (once - products)) / products;
                factors.push((run.dtype.clone(), run.vectors as f64, factor.max(LEAST)));
            }
        }
        Ok(Factors(factors))
    }

    /// The factor of a format; 1 where no such model was run.
    pub fn get(&self, dtype: DType, vectors: f64) -> f64 {
        let of = |dtype: DType| {
            let rows = self.0.iter().filter(move |row| row.0 == dtype.name());
            between(rows.map(|row| (row.1, row.2)), vectors)
        };
        let [similar, other] = stands_for(dtype);
        of(dtype).or_else(|| of(similar)).or_else(|| of(other)).unwrap_or(1.0)
    }
}
