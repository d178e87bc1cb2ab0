//! Generated pictures of lesions on skin: four kinds, most of them of the first.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Height and width.
pub const SIDE: usize = 32;
/// Channels: red, green, blue.
pub const CHANNELS: usize = 3;
/// Values of a picture.
pub const VALUES: usize = SIDE * SIDE * CHANNELS;
/// Kinds of lesions: even, with an uneven border, with dark dots, with a pale middle.
pub const CLASSES: usize = 4;
/// How many of a hundred pictures are of each kind.
const SHARES: [usize; CLASSES] = [70, 20, 7, 3];

/// Pictures with their kinds.
#[derive(Debug, Clone, Default)]
pub struct Set {
    /// `[pictures, SIDE, SIDE, CHANNELS]`, from 0 to 1.
    pub images: Vec<f32>,
    /// Of each picture its kind.
    pub kinds: Vec<usize>,
}

/// One picture.
fn picture(kind: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut between = |low: f32, high: f32| random.random_range(low..high);
    let skin = [between(0.7, 0.95), between(0.5, 0.7), between(0.4, 0.6)];
    let dark = between(0.35, 0.75);
    let (y, x, radius) = (between(12.0, 20.0), between(12.0, 20.0), between(6.0, 10.0));
    let (stretch, turn) = (between(0.8, 1.25), between(0.0, std::f32::consts::PI));
    // All borders waver; that of the second kind does so more.
    let wave = if kind == 1 { between(0.14, 0.3) } else { between(0.0, 0.1) };
    let (lobes, phase) = (between(3.0, 8.0).floor(), between(0.0, 6.3));
    let dots: Vec<[f32; 3]> = (0..if kind == 2 { between(3.0, 6.0) as usize } else { 0 })
        .map(|_| {
            let (angle, far) = (between(0.0, 6.3), between(0.0, 0.65) * radius);
            [y + far * angle.sin(), x + far * angle.cos(), between(0.9, 1.8)]
        })
        .collect();
    let middle = if kind == 3 { between(0.35, 0.55) * radius } else { 0.0 };
    let hairs: Vec<[f32; 3]> = (0..between(0.0, 4.0) as usize)
        .map(|_| [between(0.0, 32.0), between(-1.0, 1.0), between(0.3, 0.7)])
        .collect();
    let mut out = Vec::with_capacity(VALUES);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (dy, dx) = (row as f32 - y, column as f32 - x);
            let (a, b) = (dy * turn.cos() - dx * turn.sin(), dy * turn.sin() + dx * turn.cos());
            let far = ((a * stretch).powi(2) + (b / stretch).powi(2)).sqrt();
            let border = radius * (1.0 + wave * (lobes * a.atan2(b) + phase).sin());
            let inside = 1.0 / (1.0 + ((far - border) * 1.5).exp());
            let mut shade = 1.0 - inside * (1.0 - dark);
            if far < middle {
                shade = 0.5 * (shade + 1.0);
            }
            if dots.iter().any(|[y, x, size]| (row as f32 - y).hypot(column as f32 - x) < *size) {
                shade *= 0.55;
            }
            for [at, slope, tone] in &hairs {
                if (at + slope * row as f32 - column as f32).abs() < 0.6 {
                    shade *= tone;
                }
            }
            let noise = random.random_range(-0.06f32..0.06);
            let channel =
                |skin: f32, strength: f32| (skin * (1.0 - (1.0 - shade) * strength) + noise).clamp(0.0, 1.0);
            out.extend([channel(skin[0], 0.8), channel(skin[1], 1.0), channel(skin[2], 1.0)]);
        }
    }
    out
}

impl Set {
    /// `count` pictures in a random order, of each kind its share, and at least one.
    pub fn generate(count: usize, seed: u64) -> Set {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let rare: Vec<usize> = SHARES[1..].iter().map(|share| (share * count / 100).max(1)).collect();
        let first = count.saturating_sub(rare.iter().sum());
        let mut kinds: Vec<usize> = [vec![first], rare]
            .concat()
            .into_iter()
            .enumerate()
            .flat_map(|(kind, count)| vec![kind; count])
            .collect();
        kinds.shuffle(&mut random);
        let images = kinds.iter().flat_map(|kind| picture(*kind, &mut random)).collect();
        Set { images, kinds }
    }

    /// Pictures of these numbers.
    pub fn some(&self, numbers: &[usize]) -> Set {
        let images = numbers.iter().flat_map(|at| &self.images[at * VALUES..(at + 1) * VALUES]);
        Set { images: images.copied().collect(), kinds: numbers.iter().map(|at| self.kinds[*at]).collect() }
    }

    /// A batch with as many of each kind, `each` where there are so many.
    pub fn balanced(&self, each: usize, random: &mut ChaCha8Rng) -> Set {
        let mut numbers = Vec::new();
        for kind in 0..CLASSES {
            let mut own: Vec<usize> = (0..self.kinds.len()).filter(|at| self.kinds[*at] == kind).collect();
            own.shuffle(random);
            own.truncate(each);
            numbers.extend(own);
        }
        self.some(&numbers)
    }
}
