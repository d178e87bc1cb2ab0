//! The same workload with other formats, caches and batches.

use ounce_kernels::DType;
use ounce_model::account::Formats;
use ounce_plan::forecast::{KvType, Workload, forecast};
use serde::Serialize;

use super::{Question, time};
use crate::{output, units};

/// One variant.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What is different.
    what: String,
    resident_bytes: u64,
    first_token_seconds: f64,
    per_token_seconds: f64,
    tokens_per_second: f64,
}

/// The variants, the workload as it was asked for first.
///
/// # Errors
/// As a forecast.
pub(super) fn rows(question: &Question) -> anyhow::Result<Vec<Row>> {
    let Question { spec, formats, machine, calibration, workload } = question;
    let row = |what: String, formats: &Formats, workload: &Workload| -> anyhow::Result<Row> {
        let forecast = forecast(spec, formats, machine, calibration, workload)?;
        Ok(Row {
            what,
            resident_bytes: forecast.resident_bytes,
            first_token_seconds: forecast.first_token_seconds,
            per_token_seconds: forecast.per_token_seconds,
            tokens_per_second: forecast.tokens_per_second(workload.batch),
        })
    };
    let mut rows = vec![row("as asked".to_string(), formats, workload)?];
    for dtype in [DType::BF16, DType::Q8_0, DType::Q6K, DType::Q4K, DType::Q4_0] {
        let other = Formats::uniform(spec, dtype);
        if other != *formats {
            rows.push(row(format!("weights {}", dtype.name().to_lowercase()), &other, workload)?);
        }
    }
    for kv in [KvType::F32, KvType::F16, KvType::Q8_0, KvType::Q4_0] {
        if kv != workload.kv {
            let name = ounce_plan::calibrate::kv_name(kv);
            rows.push(row(format!("cache {name}"), formats, &Workload { kv, ..*workload })?);
        }
    }
    for batch in [2, 8, 32] {
        if batch != workload.batch && spec.causal {
            rows.push(row(format!("{batch} at once"), formats, &Workload { batch, ..*workload })?);
        }
    }
    Ok(rows)
}

/// Prints them.
///
/// # Errors
/// If stdout is closed.
pub(super) fn print(rows: &[Row]) -> anyhow::Result<()> {
    let mut table = output::table(&["what if", "memory", "first token", "a step", "tokens/s"]);
    for row in rows {
        table.add_row([
            row.what.clone(),
            units::bytes(row.resident_bytes),
            time(row.first_token_seconds),
            time(row.per_token_seconds),
            format!("{:.1}", row.tokens_per_second),
        ]);
    }
    output::print_table(&table)
}
