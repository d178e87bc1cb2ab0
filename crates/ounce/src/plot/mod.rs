//! Line charts as SVG or PNG, both drawn from one list of shapes. Text in a PNG is DejaVu Sans.

pub mod axis;
mod font;
mod loss;
mod png;
mod scene;
pub mod svg;
#[cfg(test)]
mod tests;
mod thin;

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use ounce_model::storage::AtomicFile;

pub use loss::loss_curve;

/// Values further from zero than this count as infinite, so that no difference of two overflows.
const LIMIT: f64 = 1e300;

/// Lines over two axes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chart {
    /// The text above.
    pub title: String,
    /// The text below.
    pub x_label: String,
    /// The text on the left.
    pub y_label: String,
    /// Drawn in this order, the last on top.
    pub series: Vec<Series>,
    /// Whether the x axis is logarithmic; points with x ≤ 0 are left out then.
    pub log_x: bool,
    /// Whether the y axis is logarithmic; points with y ≤ 0 are left out then.
    pub log_y: bool,
}

/// A line of a chart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (x, y), joined in this order; those that aren't finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether its points are marked.
    pub dots: bool,
    /// Whether it is drawn thin and pale, in the colour of the next series: raw values behind their mean.
    pub faint: bool,
}

impl Series {
    /// A plain line.
    pub fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Series {
        Series { name: name.into(), points, dots: false, faint: false }
    }

    /// A line whose points are marked.
    pub fn dotted(name: impl Into<String>, points: Vec<(f64, f64)>) -> Series {
        Series { dots: true, ..Series::line(name, points) }
    }

    /// A thin and pale line in the colour of the next series.
    pub fn faint(name: impl Into<String>, points: Vec<(f64, f64)>) -> Series {
        Series { faint: true, ..Series::line(name, points) }
    }
}

impl Chart {
    /// Whether a point can be drawn on the chart's axes.
    fn shows(&self, (x, y): (f64, f64)) -> bool {
        let fits = |value: f64, log: bool| value.abs() <= LIMIT && (!log || value > 0.0);
        fits(x, self.log_x) && fits(y, self.log_y)
    }
}

/// Writes the chart as SVG, 960 × 600 units.
///
/// # Errors
/// If the file can't be written; an older one stays as it was.
pub fn write_svg(chart: &Chart, path: &Path) -> anyhow::Result<()> {
    write(path, svg::render(&scene::lay_out(chart)).as_bytes())
}

/// Writes the chart as PNG, 1920 × 1200 pixels.
///
/// # Errors
/// If the file can't be written; an older one stays as it was.
pub fn write_png(chart: &Chart, path: &Path) -> anyhow::Result<()> {
    write(path, &png::render(&scene::lay_out(chart))?)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let context = || format!("the chart {} can't be written", path.display());
    let mut file = AtomicFile::create(path).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.commit().with_context(context)
}
