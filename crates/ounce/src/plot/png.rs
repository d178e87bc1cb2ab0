//! Shapes as pixels.

use anyhow::Context;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, StrokeDash, Transform,
};

use super::font::{Font, Pen};
use super::scene::{Anchor, HEIGHT, Scene, Shape, Stroke, WIDTH};

/// Pixels a unit of the scene.
const SCALE: u32 = 2;

/// The scene as a whole PNG file.
///
/// # Errors
/// If there is no memory for the picture.
pub fn render(scene: &Scene) -> anyhow::Result<Vec<u8>> {
    let mut pixels =
        Pixmap::new(WIDTH * SCALE, HEIGHT * SCALE).context("no memory for the chart's pixels")?;
    pixels.fill(Color::WHITE);
    let font = Font::new();
    for shape in &scene.shapes {
        draw(&mut pixels, shape, &font);
    }
    pixels.encode_png().context("the chart can't be encoded as PNG")
}

fn draw(pixels: &mut Pixmap, shape: &Shape, font: &Font) {
    let scale = Transform::from_scale(SCALE as f32, SCALE as f32);
    match shape {
        Shape::Path { points, stroke } => {
            // A path without an extent has nothing to draw.
            let Some(path) = line(points) else { return };
            let paint = paint(stroke.colour, stroke.opacity);
            pixels.stroke_path(&path, &paint, &brush(stroke), scale, None);
        }
        Shape::Dot { at: (x, y), radius, colour } => {
            let Some(path) = PathBuilder::from_circle(*x as f32, *y as f32, *radius as f32) else { return };
            pixels.fill_path(&path, &paint(*colour, 1.0), FillRule::Winding, scale, None);
            let rim = tiny_skia::Stroke { width: 1.0, ..Default::default() };
            pixels.stroke_path(&path, &paint([255; 3], 1.0), &rim, scale, None);
        }
        Shape::Text { at: (x, y), text, size, colour, anchor, upwards } => {
            let width = font.width(text, *size);
            let shift = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => -width / 2.0,
                Anchor::End => -width,
            };
            let mut pen = Outline { builder: PathBuilder::new(), x: 0.0, scale: 1.0 };
            font.outline(text, *size, &mut pen);
            let Some(path) = pen.builder.finish() else { return };
            let turn = if *upwards { Transform::from_rotate(-90.0) } else { Transform::identity() };
            let place = turn.pre_translate(shift as f32, 0.0).post_translate(*x as f32, *y as f32);
            let whole = place.post_concat(scale);
            pixels.fill_path(&path, &paint(*colour, 1.0), FillRule::Winding, whole, None);
        }
    }
}

fn line(points: &[(f64, f64)]) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        if index == 0 {
            builder.move_to(x as f32, y as f32);
        } else {
            builder.line_to(x as f32, y as f32);
        }
    }
    builder.finish()
}

fn brush(stroke: &Stroke) -> tiny_skia::Stroke {
    let dash = stroke.dash.and_then(|[on, off]| StrokeDash::new(vec![on as f32, off as f32], 0.0));
    tiny_skia::Stroke {
        width: stroke.width as f32,
        line_cap: LineCap::Round,
        line_join: LineJoin::Round,
        dash,
        ..Default::default()
    }
}

fn paint([red, green, blue]: [u8; 3], opacity: f64) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Default::default() };
    paint.set_color_rgba8(red, green, blue, (opacity * 255.0) as u8);
    paint
}

/// Collects outlines as one path, its units those of the scene.
struct Outline {
    builder: PathBuilder,
    x: f32,
    scale: f32,
}

impl Outline {
    fn x(&self, x: f32) -> f32 {
        self.x + x * self.scale
    }

    /// Downwards, as the scene counts.
    fn y(&self, y: f32) -> f32 {
        -y * self.scale
    }
}

impl Pen for Outline {
    fn place(&mut self, x: f32, scale: f32) {
        (self.x, self.scale) = (x, scale);
    }
}

impl ttf_parser::OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.builder.move_to(self.x(x), self.y(y));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.builder.line_to(self.x(x), self.y(y));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.builder.quad_to(self.x(x1), self.y(y1), self.x(x), self.y(y));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.builder.cubic_to(self.x(x1), self.y(y1), self.x(x2), self.y(y2), self.x(x), self.y(y));
    }

    fn close(&mut self) {
        self.builder.close();
    }
}
