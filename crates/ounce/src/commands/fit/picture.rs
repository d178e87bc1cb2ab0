//! Pictures of the report, as SVG that takes its colours from the page, so that it is right in light and in dark.

use std::fmt::Write as _;

use super::html::escape;
use crate::plot::axis::Axis;

/// Size of a picture, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 46.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 16.0;

/// Room beyond the values, as a share of their range, and labelled ticks of an axis, about.
const MARGIN: f64 = 0.06;
const TICKS: usize = 6;

/// A point.
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// What a pointer sees.
    pub label: String,
    /// The class of the circle, which the page colours.
    pub class: &'static str,
    /// Written beside it.
    pub name: Option<String>,
}

/// Points and lines over two axes.
pub struct Scatter<'a> {
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub points: Vec<Point>,
    /// Lines, with their class.
    pub lines: Vec<(Vec<(f64, f64)>, &'static str)>,
    pub log_x: bool,
    pub log_y: bool,
    /// A value of x that is a limit.
    pub limit_x: Option<(f64, String)>,
}

/// An axis of a picture, from one place to another.
struct Scale {
    axis: Axis,
    log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// The scale that holds the values which it can show; none if there are no such.
    fn new(values: impl Iterator<Item = f64>, log: bool, from: f64, to: f64) -> Option<Scale> {
        let good: Vec<f64> = values.filter(|it| it.is_finite() && (!log || *it > 0.0)).collect();
        let axis = Axis::new(good.iter().copied(), log, MARGIN);
        (!good.is_empty()).then_some(Scale { axis, log, from, to })
    }

    fn place(&self, share: f64) -> f64 {
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn at(&self, value: f64) -> Option<f64> {
        let shown = value.is_finite() && (!self.log || value > 0.0);
        shown.then(|| self.place(self.axis.at(value)))
    }

    /// Places of ticks, with their labels.
    fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        self.axis.ticks(TICKS).into_iter().filter_map(|tick| Some((self.place(tick.at), tick.label?)))
    }
}

impl Scatter<'_> {
    /// The picture; nothing if no point can be drawn.
    pub fn svg(&self) -> String {
        let every = || {
            let lines = self.lines.iter().flat_map(|(points, _)| points.iter().copied());
            self.points.iter().map(|it| (it.x, it.y)).chain(lines)
        };
        let xs = every().map(|it| it.0).chain(self.limit_x.iter().map(|it| it.0));
        let axes = Scale::new(xs, self.log_x, LEFT, WIDTH - RIGHT).zip(Scale::new(
            every().map(|it| it.1),
            self.log_y,
            HEIGHT - BOTTOM,
            TOP,
        ));
        let Some((x, y)) = axes else { return String::new() };
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        // Writing to a string does not fail.
        for (at, text) in x.ticks() {
            let low = HEIGHT - BOTTOM;
            let _ = write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{low}\"/>");
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" class=\"mid\">{text}</text>", low + 16.0);
        }
        for (at, text) in y.ticks() {
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/>", WIDTH - RIGHT);
            let _ =
                write!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"end\">{text}</text>", LEFT - 6.0, at + 4.0);
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        let label = escape(self.x_label);
        let _ = write!(svg, "<text x=\"{middle}\" y=\"{}\" class=\"mid label\">{label}</text>", HEIGHT - 8.0);
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let label = escape(self.y_label);
        let _ = write!(
            svg,
            "<text transform=\"translate(14 {middle}) rotate(-90)\" class=\"mid label\">{label}</text>"
        );
        if let Some((value, name)) = &self.limit_x
            && let Some(at) = x.at(*value)
        {
            let (low, name) = (HEIGHT - BOTTOM, escape(name));
            let _ = write!(svg, "<path class=\"limit\" d=\"M{at:.1} {TOP}V{low}\"/>");
            let _ = write!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" class=\"end limit\">{name}</text>",
                at - 5.0,
                TOP + 12.0
            );
        }
        for (points, class) in &self.lines {
            let places = points.iter().filter_map(|&(a, b)| Some((x.at(a)?, y.at(b)?)));
            let path: Vec<String> = places.map(|(a, b)| format!("{a:.1} {b:.1}")).collect();
            let _ = write!(svg, "<path class=\"{class}\" d=\"M{}\"/>", path.join("L"));
        }
        for point in &self.points {
            let Some((a, b)) = x.at(point.x).zip(y.at(point.y)) else { continue };
            let (class, label) = (point.class, escape(&point.label));
            let _ = write!(
                svg,
                "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"5\" class=\"{class}\"><title>{label}</title></circle>"
            );
            if let Some(name) = &point.name {
                let left = a > WIDTH * 0.75;
                let (dx, anchor) = if left { (-9.0, "end") } else { (9.0, "start") };
                let name = escape(name);
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" class=\"{anchor} name\">{name}</text>",
                    a + dx,
                    b + 4.0
                );
            }
        }
        svg + "</svg>"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scatter(points: Vec<Point>, log: bool) -> String {
        Scatter {
            x_label: "a<b",
            y_label: "y",
            points,
            lines: Vec::new(),
            log_x: log,
            log_y: log,
            limit_x: None,
        }
        .svg()
    }

    #[test]
    fn points_lie_within_the_picture_and_names_are_escaped() {
        let point = |x: f64, y: f64| Point { x, y, label: "<&\">".into(), class: "p", name: None };
        for log in [false, true] {
            let svg = scatter(vec![point(1.0, 2.0), point(1000.0, 0.004), point(-1.0, f64::NAN)], log);
            assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
            assert!(svg.contains("a&lt;b") && svg.contains("&lt;&amp;&quot;&gt;"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
        }
        assert_eq!(scatter(vec![point(f64::NAN, 1.0)], true), "");
        assert!(scatter(vec![point(5.0, 5.0)], false).contains("<circle"));
    }
}
