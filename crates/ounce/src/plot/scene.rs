//! From a chart to shapes with places.

use super::axis::{Axis, Tick};
use super::font::Font;
use super::thin::thin;
use super::{Chart, Series};

/// The picture's width in units.
pub const WIDTH: u32 = 960;
/// Its height.
pub const HEIGHT: u32 = 600;

const LEFT: f64 = 84.0;
const RIGHT: f64 = 928.0;
const BOTTOM: f64 = 532.0;
/// Baseline of the title.
const TITLE: f64 = 36.0;
/// Baseline of the legend's first row, and the height of one.
const LEGEND: f64 = 64.0;
const ROW: f64 = 22.0;
/// The legend has no more rows: what would be left of the picture?
const ROWS: usize = 6;
/// Length of a legend's sample of a line, and the gap behind a name.
const SAMPLE: f64 = 26.0;
const GAP: f64 = 24.0;

const INK: [u8; 3] = [0x22, 0x22, 0x22];
const GREY: [u8; 3] = [0x55, 0x55, 0x55];
const GRID: [u8; 3] = [0xe4, 0xe4, 0xe4];
const FINE_GRID: [u8; 3] = [0xf3, 0xf3, 0xf3];
const FRAME: [u8; 3] = [0x99, 0x99, 0x99];

/// Okabe and Ito's colours without yellow, which is too light on white.
const COLOURS: [[u8; 3]; 7] = [
    [0x00, 0x72, 0xb2],
    [0xd5, 0x5e, 0x00],
    [0x00, 0x9e, 0x73],
    [0xcc, 0x79, 0xa7],
    [0x56, 0xb4, 0xe9],
    [0xe6, 0x9f, 0x00],
    [0x00, 0x00, 0x00],
];
/// Tell series of the same colour apart.
const DASHES: [Option<[f64; 2]>; 3] = [None, Some([8.0, 5.0]), Some([2.0, 5.0])];

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stroke {
    pub colour: [u8; 3],
    pub width: f64,
    pub opacity: f64,
    /// Lengths drawn and not drawn.
    pub dash: Option<[f64; 2]>,
}

/// Which part of a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Something to draw; places count from the top left.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    Path {
        points: Vec<(f64, f64)>,
        stroke: Stroke,
    },
    Dot {
        at: (f64, f64),
        radius: f64,
        colour: [u8; 3],
    },
    /// `at` is on the baseline; `upwards` turns the text around it.
    Text {
        at: (f64, f64),
        text: String,
        size: f64,
        colour: [u8; 3],
        anchor: Anchor,
        upwards: bool,
    },
}

/// All of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// For readers who can't see it.
    pub title: String,
    pub shapes: Vec<Shape>,
}

/// Places a chart's parts.
pub fn lay_out(chart: &Chart) -> Scene {
    let font = Font::new();
    let mut scene = Scene { title: chart.title.clone(), shapes: Vec::new() };
    let styles = styles(&chart.series);
    scene.text((LEFT, TITLE), font.shorten(&chart.title, 20.0, RIGHT - LEFT), 20.0, INK, Anchor::Start);
    let top = scene.legend(chart, &styles, &font);
    let visible =
        || chart.series.iter().flat_map(|series| &series.points).filter(|point| chart.shows(**point));
    if visible().next().is_none() {
        scene.frame(top);
        let middle = ((LEFT + RIGHT) / 2.0, (top + BOTTOM) / 2.0);
        scene.text(middle, "There are no points to draw.".into(), 16.0, GREY, Anchor::Middle);
    } else {
        let x = Axis::new(visible().map(|point| point.0), chart.log_x, 0.0);
        let y = Axis::new(visible().map(|point| point.1), chart.log_y, 0.04);
        scene.grid(&x.ticks(8), &y.ticks(6), top);
        for (series, stroke) in chart.series.iter().zip(&styles) {
            let shown = series.points.iter().copied().filter(|point| chart.shows(*point));
            let points = thin(shown.map(|point| (x.at(point.0), y.at(point.1))).collect());
            let place = |(x, y): (f64, f64)| (LEFT + x * (RIGHT - LEFT), BOTTOM - y * (BOTTOM - top));
            scene.series(points.into_iter().map(place).collect(), series.dots, stroke);
        }
    }
    let below = ((LEFT + RIGHT) / 2.0, BOTTOM + 50.0);
    scene.text(below, font.shorten(&chart.x_label, 14.0, RIGHT - LEFT), 14.0, INK, Anchor::Middle);
    scene.shapes.push(Shape::Text {
        at: (24.0, (top + BOTTOM) / 2.0),
        text: font.shorten(&chart.y_label, 14.0, BOTTOM - top),
        size: 14.0,
        colour: INK,
        anchor: Anchor::Middle,
        upwards: true,
    });
    scene
}

/// A colour for each series; a faint one has that of the next.
fn styles(series: &[Series]) -> Vec<Stroke> {
    let mut index = 0;
    let style = |series: &Series| {
        let (colour, dash) = (COLOURS[index % COLOURS.len()], DASHES[index / COLOURS.len() % DASHES.len()]);
        if series.faint {
            return Stroke { colour, width: 1.0, opacity: 0.4, dash };
        }
        index += 1;
        Stroke { colour, width: 2.0, opacity: 1.0, dash }
    };
    series.iter().map(style).collect()
}

impl Scene {
    fn text(&mut self, at: (f64, f64), text: String, size: f64, colour: [u8; 3], anchor: Anchor) {
        self.shapes.push(Shape::Text { at, text, size, colour, anchor, upwards: false });
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: [u8; 3]) {
        let stroke = Stroke { colour, width: 1.0, opacity: 1.0, dash: None };
        self.shapes.push(Shape::Path { points: vec![from, to], stroke });
    }

    /// Draws the legend and tells where the area for lines begins.
    fn legend(&mut self, chart: &Chart, styles: &[Stroke], font: &Font) -> f64 {
        let (mut x, mut row) = (LEFT, 0);
        for (index, (series, stroke)) in chart.series.iter().zip(styles).enumerate() {
            let name = font.shorten(&series.name, 13.0, RIGHT - LEFT - SAMPLE - 8.0);
            let width = SAMPLE + 8.0 + font.width(&name, 13.0);
            if x > LEFT && x + width > RIGHT {
                (x, row) = (LEFT, row + 1);
            }
            let y = LEGEND + ROW * row as f64;
            if row == ROWS {
                let rest = format!("… and {} more", chart.series.len() - index);
                self.text((x, y), rest, 13.0, GREY, Anchor::Start);
                break;
            }
            let middle = y - 4.5;
            self.shapes.push(Shape::Path {
                points: vec![(x, middle), (x + SAMPLE, middle)],
                // One pale pixel would not show what it is.
                stroke: Stroke { width: stroke.width.max(1.5), ..*stroke },
            });
            if series.dots {
                let at = (x + SAMPLE / 2.0, middle);
                self.shapes.push(Shape::Dot { at, radius: 4.0, colour: stroke.colour });
            }
            self.text((x + SAMPLE + 8.0, y), name, 13.0, INK, Anchor::Start);
            x += width + GAP;
        }
        LEGEND + ROW * row as f64 + 18.0
    }

    fn frame(&mut self, top: f64) {
        self.line((LEFT, top), (LEFT, BOTTOM), FRAME);
        self.line((LEFT, BOTTOM), (RIGHT, BOTTOM), FRAME);
    }

    fn grid(&mut self, x: &[Tick], y: &[Tick], top: f64) {
        let across = |tick: &Tick| LEFT + tick.at * (RIGHT - LEFT);
        let up = |tick: &Tick| BOTTOM - tick.at * (BOTTOM - top);
        // Minor lines first: they must not cross the others.
        for minor in [true, false] {
            let colour = if minor { FINE_GRID } else { GRID };
            let fits = |tick: &&Tick| tick.label.is_none() == minor;
            for tick in x.iter().filter(fits) {
                self.line((across(tick), top), (across(tick), BOTTOM), colour);
            }
            for tick in y.iter().filter(fits) {
                self.line((LEFT, up(tick)), (RIGHT, up(tick)), colour);
            }
        }
        self.frame(top);
        for tick in x {
            let Some(label) = &tick.label else { continue };
            self.line((across(tick), BOTTOM), (across(tick), BOTTOM + 5.0), FRAME);
            self.text((across(tick), BOTTOM + 22.0), label.clone(), 12.0, GREY, Anchor::Middle);
        }
        for tick in y {
            let Some(label) = &tick.label else { continue };
            self.line((LEFT - 5.0, up(tick)), (LEFT, up(tick)), FRAME);
            self.text((LEFT - 9.0, up(tick) + 4.5), label.clone(), 12.0, GREY, Anchor::End);
        }
    }

    fn series(&mut self, points: Vec<(f64, f64)>, dots: bool, stroke: &Stroke) {
        let mut last = (f64::NEG_INFINITY, 0.0);
        // A line of one point shows nothing without its dot.
        let marked = if dots || points.len() == 1 { &points[..] } else { &[] };
        let radius = 4.0;
        let mut marks = Vec::new();
        for &at in marked {
            // One dot on another hides the line and tells no more.
            if (at.0 - last.0).hypot(at.1 - last.1) >= radius {
                marks.push(Shape::Dot { at, radius, colour: stroke.colour });
                last = at;
            }
        }
        if points.len() > 1 {
            self.shapes.push(Shape::Path { points, stroke: *stroke });
        }
        self.shapes.extend(marks);
    }
}
