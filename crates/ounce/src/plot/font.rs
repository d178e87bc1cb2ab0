//! The built-in font: widths for the layout, outlines for PNG.

use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// DejaVu Sans.
pub struct Font {
    face: Face<'static>,
}

impl Font {
    /// Reads the built-in font.
    pub fn new() -> Font {
        Font { face: Face::parse(dejavu::sans::regular(), 0).expect("the built-in font is sound") }
    }

    /// Width of a text at a size.
    pub fn width(&self, text: &str, size: f64) -> f64 {
        text.chars().map(|character| self.advance(self.glyph(character), size)).sum()
    }

    /// The text, or its beginning and an ellipsis if it is wider than `width`.
    pub fn shorten(&self, text: &str, size: f64, width: f64) -> String {
        let mut left = width - self.width("…", size);
        let mut kept = 0;
        for (at, character) in text.char_indices() {
            left -= self.advance(self.glyph(character), size);
            if left < 0.0 {
                // Cheap for long texts too: no more than what may fit is looked at.
                let fits = text[at..].chars().count() < 4 && self.width(text, size) <= width;
                return if fits { text.to_string() } else { format!("{}…", &text[..kept]) };
            }
            kept = at + character.len_utf8();
        }
        text.to_string()
    }

    /// Hands the outlines of a text to `draw`: the glyph, where it begins, and its scale.
    pub fn outline(&self, text: &str, size: f64, builder: &mut impl Pen) {
        let scale = size / f64::from(self.face.units_per_em());
        let mut x = 0.0;
        for character in text.chars() {
            let glyph = self.glyph(character);
            builder.place(x as f32, scale as f32);
            self.face.outline_glyph(glyph, builder);
            x += self.advance(glyph, size);
        }
    }

    fn glyph(&self, character: char) -> GlyphId {
        // Glyph 0 is the box that stands for what the font lacks.
        self.face.glyph_index(character).unwrap_or(GlyphId(0))
    }

    fn advance(&self, glyph: GlyphId, size: f64) -> f64 {
        let units = f64::from(self.face.glyph_hor_advance(glyph).unwrap_or(0));
        units * size / f64::from(self.face.units_per_em())
    }
}

/// Draws outlines that are given in the font's units, y upwards.
pub trait Pen: OutlineBuilder {
    /// Where the next glyph begins, and by what its units are multiplied.
    fn place(&mut self, x: f32, scale: f32);
}
