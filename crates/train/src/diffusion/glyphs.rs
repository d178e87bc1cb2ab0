//! Small drawings and the three words that say what is on them: a world in which a text-to-image model can be trained in
//! minutes and judged by a program.
//!
//! A prompt is a shape, a place and a style. A drawing of it varies in what no word says: a third of a pixel in its place
//! and some percent in its size.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Pixels of an edge.
pub const SIZE: usize = 16;
/// Pixels of a drawing.
pub const PIXELS: usize = SIZE * SIZE;

/// Words for shapes.
pub const SHAPES: [&str; 8] = ["disc", "square", "triangle", "plus", "saltire", "diamond", "bar", "pillar"];
/// Words for places: row by row, three by three.
pub const PLACES: [&str; 9] =
    ["north-west", "north", "north-east", "west", "centre", "east", "south-west", "south", "south-east"];
/// Words for styles.
pub const STYLES: [&str; 3] = ["filled", "outlined", "striped"];

/// How many words there are of each kind, in the order in which prompts have them.
pub const KINDS: [usize; 3] = [SHAPES.len(), PLACES.len(), STYLES.len()];
/// How many words there are.
pub const WORDS: usize = SHAPES.len() + PLACES.len() + STYLES.len();

/// Pixels from the middle to the outer places.
const STRIDE: f32 = 3.0;
/// Half the width of the usual shape.
const RADIUS: f32 = 4.0;

/// What is to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// A number of [`SHAPES`].
    pub shape: usize,
    /// A number of [`PLACES`].
    pub place: usize,
    /// A number of [`STYLES`].
    pub style: usize,
}

impl Prompt {
    /// Every prompt once.
    pub fn all() -> Vec<Prompt> {
        let styles = |shape, place| (0..STYLES.len()).map(move |style| Prompt { shape, place, style });
        let places = |shape| (0..PLACES.len()).flat_map(move |place| styles(shape, place));
        (0..SHAPES.len()).flat_map(places).collect()
    }

    /// One by chance.
    pub fn random(random: &mut ChaCha8Rng) -> Prompt {
        let [shape, place, style] = KINDS.map(|count| random.random_range(0..count));
        Prompt { shape, place, style }
    }

    /// Its choice of each kind of word.
    pub fn choices(&self) -> [usize; 3] {
        [self.shape, self.place, self.style]
    }

    /// Its words' numbers in a common list of [`WORDS`].
    pub fn words(&self) -> [u32; 3] {
        let mut before = 0;
        let mut words = [0; 3];
        for ((word, choice), count) in words.iter_mut().zip(self.choices()).zip(KINDS) {
            *word = (before + choice) as u32;
            before += count;
        }
        words
    }

    /// A drawing of it, row by row: −1 is paper, 1 is ink.
    pub fn draw(&self, random: &mut ChaCha8Rng) -> Vec<f32> {
        let mut shift = || random.random_range(-0.35f32..0.35);
        let (dx, dy, grow) = (shift(), shift(), shift());
        let middle = (SIZE as f32 - 1.0) / 2.0;
        let place = |at: usize, by: f32| middle + STRIDE * (at as f32 - 1.0) + by;
        let (x0, y0) = (place(self.place % 3, dx), place(self.place / 3, dy));
        let radius = RADIUS + 0.5 * grow;
        let mut image = Vec::with_capacity(PIXELS);
        for row in 0..SIZE {
            for column in 0..SIZE {
                let (x, y) = (column as f32 - x0, row as f32 - y0);
                let inside = distance(self.shape, x, y, radius);
                let styled = match self.style {
                    0 => inside,
                    1 => inside.max(-inside - 0.9),
                    _ => inside.max((y + 0.75).rem_euclid(2.5) - 1.25),
                };
                // Half a pixel on each side of the edge is in between.
                image.push(2.0 * (0.5 - styled).clamp(0.0, 1.0) - 1.0);
            }
        }
        image
    }
}

/// How far a point lies outside a shape around the origin; below 0 inside.
fn distance(shape: usize, x: f32, y: f32, r: f32) -> f32 {
    let rectangle = |x: f32, y: f32, w: f32, h: f32| (x.abs() - w).max(y.abs() - h);
    let plus = |x, y| rectangle(x, y, r, 0.42 * r).min(rectangle(x, y, 0.42 * r, r));
    let slant = std::f32::consts::FRAC_1_SQRT_2;
    match shape {
        0 => x.hypot(y) - r,
        1 => rectangle(x, y, 0.85 * r, 0.85 * r),
        2 => (y - 0.8 * r).max((x.abs() * 2.0 - y - r) / 5f32.sqrt()),
        3 => plus(x, y),
        4 => plus((x + y) * slant, (x - y) * slant),
        5 => (x.abs() + y.abs() - 1.1 * r) * slant,
        6 => rectangle(x, y, r, 0.45 * r),
        _ => rectangle(x, y, 0.45 * r, r),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn prompts_differ_and_so_do_their_words() {
        let all = Prompt::all();
        assert_eq!(all.len(), KINDS.iter().product::<usize>());
        let mut words: Vec<[u32; 3]> = all.iter().map(Prompt::words).collect();
        assert!(words.iter().flatten().all(|&word| (word as usize) < WORDS));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all.len());
    }

    /// The drawings of two prompts are farther from each other than those of one.
    #[test]
    fn a_prompt_can_be_read_off_its_drawing() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let all = Prompt::all();
        let mean = |prompt: &Prompt, random: &mut ChaCha8Rng| {
            let mut mean = vec![0.0; PIXELS];
            for _ in 0..30 {
                let drawing = prompt.draw(random);
                mean.iter_mut().zip(&drawing).for_each(|(mean, pixel)| *mean += pixel / 30.0);
            }
            mean
        };
        let means: Vec<Vec<f32>> = all.iter().map(|prompt| mean(prompt, &mut random)).collect();
        let mut right = 0;
        for (index, prompt) in all.iter().enumerate() {
            let drawing = prompt.draw(&mut random);
            let away = |mean: &[f32]| -> f32 { drawing.iter().zip(mean).map(|(a, b)| (a - b).powi(2)).sum() };
            let nearest = (0..all.len()).min_by(|&a, &b| away(&means[a]).total_cmp(&away(&means[b])));
            right += usize::from(nearest == Some(index));
            assert!(drawing.iter().all(|pixel| (-1.0..=1.0).contains(pixel)));
            let ink: f32 = drawing.iter().map(|pixel| (pixel + 1.0) / 2.0).sum();
            assert!((5.0..90.0).contains(&ink), "{prompt:?}: {ink} pixels of ink");
        }
        assert!(right * 10 >= all.len() * 9, "{right} of {}", all.len());
    }
}
