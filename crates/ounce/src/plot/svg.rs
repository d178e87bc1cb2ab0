//! Shapes as SVG.

use std::fmt::Write;

use super::scene::{Anchor, HEIGHT, Scene, Shape, Stroke, WIDTH};

/// The scene as a whole SVG file.
pub fn render(scene: &Scene) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" font-family=\"DejaVu Sans, Verdana, sans-serif\">\n\
         <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escape(&scene.title)
    );
    for shape in &scene.shapes {
        shape_text(&mut text, shape).expect("writing to a string succeeds");
    }
    text.push_str("</svg>\n");
    text
}

fn shape_text(out: &mut String, shape: &Shape) -> std::fmt::Result {
    match shape {
        Shape::Path { points, stroke } => {
            out.push_str("<path d=\"");
            for (index, (x, y)) in points.iter().enumerate() {
                write!(out, "{}{x:.2} {y:.2}", if index == 0 { 'M' } else { 'L' })?;
            }
            writeln!(out, "\" fill=\"none\" {}/>", stroke_text(stroke))
        }
        Shape::Dot { at: (x, y), radius, colour } => {
            writeln!(
                out,
                "<circle cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"{radius}\" fill=\"{}\" stroke=\"#ffffff\"/>",
                hex(*colour)
            )
        }
        Shape::Text { at: (x, y), text, size, colour, anchor, upwards } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            write!(out, "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size}\" fill=\"{}\"", hex(*colour))?;
            write!(out, " text-anchor=\"{anchor}\"")?;
            if *upwards {
                write!(out, " transform=\"rotate(-90 {x:.2} {y:.2})\"")?;
            }
            writeln!(out, ">{}</text>", escape(text))
        }
    }
}

fn stroke_text(stroke: &Stroke) -> String {
    let mut text = format!(
        "stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\" stroke-linecap=\"round\"",
        hex(stroke.colour),
        stroke.width
    );
    if stroke.opacity < 1.0 {
        text += &format!(" stroke-opacity=\"{}\"", stroke.opacity);
    }
    if let Some([on, off]) = stroke.dash {
        text += &format!(" stroke-dasharray=\"{on} {off}\"");
    }
    text
}

fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text as XML holds it; what XML can't hold becomes a replacement character.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
