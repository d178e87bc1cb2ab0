//! The roofline as a chart: the machine's limits as lines, operators as points.

use std::path::Path;

use anyhow::bail;
use ounce_model::machine::OpKind;
use ounce_plan::forecast::{Forecast, Phase};

use super::Question;
use crate::plot::{self, Chart, Series};

/// Ends of the lines, in operations a byte.
const INTENSITIES: (f64, f64) = (0.1, 2000.0);

/// Draws what the machine allows at each intensity, and what each operator is forecast to reach.
///
/// # Errors
/// If the file's name has another ending than .svg or .png, or it can't be written.
pub(super) fn draw(question: &Question, forecast: &Forecast, name: &str, path: &Path) -> anyhow::Result<()> {
    let Question { machine, workload, .. } = question;
    let bandwidth = machine.read_bandwidth(workload.threads);
    let roof = |peak: f64| {
        let ridge = peak / bandwidth;
        let at = |intensity: f64| (intensity, (intensity * bandwidth).min(peak) / 1e9);
        vec![at(INTENSITIES.0), at(ridge), at(INTENSITIES.1.max(ridge))]
    };
    let mut series: Vec<Series> = OpKind::ALL
        .into_iter()
        .filter_map(|kind| Some((kind, machine.peak_ops(kind, workload.threads)?)))
        .map(|(kind, peak)| Series::line(format!("limit of {}", kind.name()), roof(peak)))
        .collect();
    for (phase, label) in [(Phase::Prompt, "prompt"), (Phase::Token, "token")] {
        let own = forecast.operators.iter().filter(|it| it.phase == phase && it.operations > 0.0);
        let own = own.filter(|it| it.bytes > 0.0 && it.seconds > 0.0);
        for it in own {
            let point = (it.intensity, it.operations / it.seconds / 1e9);
            series.push(Series::dotted(format!("{label}: {}", it.operator.name()), vec![point]));
        }
    }
    let chart = Chart {
        title: format!("Roofline of {name}: prompt of {}, context {}", workload.prompt, workload.context),
        x_label: "operations for a byte of weights or cache".to_string(),
        y_label: "10⁹ operations a second".to_string(),
        series,
        log_x: true,
        log_y: true,
    };
    match path.extension().and_then(|it| it.to_str()) {
        Some("svg") => plot::write_svg(&chart, path),
        Some("png") => plot::write_png(&chart, path),
        _ => bail!("{}: charts are written as .svg or .png", path.display()),
    }
}
