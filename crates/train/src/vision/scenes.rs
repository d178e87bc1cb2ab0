//! Pictures of the ground from above, as a drone sees it: forest, grass and soil, on some of them small flickering fires,
//! and things that look like fire and are none: red roofs, orange cars, autumn trees, glints. Where the fire is, is known.
//!
//! Frames come in clips: the camera drifts, light changes, fires flicker. Neighbouring frames are nearly the same, so data must be
//! split by clip; a clip's frames depend on its seed only.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Height and width.
pub const SIDE: usize = 64;
/// Channels: red, green, blue.
pub const CHANNELS: usize = 3;
/// Values of a frame.
pub const VALUES: usize = SIDE * SIDE * CHANNELS;

/// A picture with its truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// `[SIDE, SIDE, CHANNELS]` from 0 to 1, in steps of 1/255 as cameras give them.
    pub image: Vec<f32>,
    /// 1 where fire is, `[SIDE, SIDE]`.
    pub mask: Vec<f32>,
}

impl Frame {
    /// Whether anything burns.
    pub fn burns(&self) -> bool {
        self.mask.iter().any(|&it| it > 0.0)
    }
}

type Colour = [f32; 3];

/// A spot, an ellipse or a rectangle.
#[derive(Debug, Clone, Copy)]
struct Thing {
    /// Of the middle, in pixels.
    at: [f32; 2],
    half: [f32; 2],
    turn: f32,
    colour: Colour,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Roof,
    Car,
    Tree,
    Glint,
    Smoke,
}

#[derive(Debug, Clone, Copy)]
struct Fire {
    at: [f32; 2],
    radius: f32,
    heat: f32,
}

/// Value noise of `cells` cells a side, read with a shift.
struct Noise {
    cells: usize,
    values: Vec<f32>,
}

impl Noise {
    fn new(rng: &mut ChaCha8Rng, cells: usize) -> Noise {
        Noise { cells, values: (0..cells * cells).map(|_| rng.random()).collect() }
    }

    fn at(&self, y: f32, x: f32) -> f32 {
        let scale = self.cells as f32 / SIDE as f32;
        let (y, x) = (y * scale, x * scale);
        let wrap = |at: f32| (at.floor().rem_euclid(self.cells as f32)) as usize % self.cells;
        let smooth = |at: f32| {
            let part = at - at.floor();
            part * part * (3.0 - 2.0 * part)
        };
        let value = |dy: f32, dx: f32| self.values[wrap(y + dy) * self.cells + wrap(x + dx)];
        let (sy, sx) = (smooth(y), smooth(x));
        let top = value(0.0, 0.0) * (1.0 - sx) + value(0.0, 1.0) * sx;
        let bottom = value(1.0, 0.0) * (1.0 - sx) + value(1.0, 1.0) * sx;
        top * (1.0 - sy) + bottom * sy
    }
}

fn between(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.random::<f32>()
}

/// Grounds: forest, dry grass, soil, snow and rock.
const GROUNDS: [[Colour; 2]; 4] = [
    [[0.10, 0.22, 0.08], [0.22, 0.38, 0.16]],
    [[0.45, 0.42, 0.22], [0.62, 0.58, 0.34]],
    [[0.36, 0.27, 0.18], [0.52, 0.40, 0.28]],
    [[0.62, 0.62, 0.64], [0.86, 0.86, 0.90]],
];

/// Frames of the clip of a seed; about a third of all clips have fire.
pub fn clip(seed: u64, frames: usize) -> Vec<Frame> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let burns = rng.random::<f32>() < 0.35;
    let ground = GROUNDS[rng.random_range(0..GROUNDS.len())];
    let (coarse, fine) = (Noise::new(&mut rng, 6), Noise::new(&mut rng, 24));
    let things: Vec<Thing> = (0..rng.random_range(2..7)).map(|_| thing(&mut rng)).collect();
    let fires: Vec<Fire> = (0..if burns { rng.random_range(1..5) } else { 0 })
        .map(|_| Fire {
            at: [between(&mut rng, 8.0, 56.0), between(&mut rng, 8.0, 56.0)],
            radius: between(&mut rng, 1.6, 4.2),
            heat: between(&mut rng, 0.55, 1.0),
        })
        .collect();
    let drift = [between(&mut rng, -0.6, 0.6), between(&mut rng, -0.6, 0.6)];
    let (light, haze) = (between(&mut rng, 0.7, 1.1), between(&mut rng, 0.0, 0.25));
    (0..frames)
        .map(|number| {
            let shift = drift.map(|it| it * number as f32);
            let light = light * between(&mut rng, 0.96, 1.04);
            frame(
                &mut rng,
                &Scene {
                    ground,
                    coarse: &coarse,
                    fine: &fine,
                    things: &things,
                    fires: &fires,
                    shift,
                    light,
                    haze,
                },
            )
        })
        .collect()
}

fn thing(rng: &mut ChaCha8Rng) -> Thing {
    let kind = [Kind::Roof, Kind::Car, Kind::Tree, Kind::Glint, Kind::Smoke][rng.random_range(0..5)];
    let mut near =
        |colour: Colour, reach: f32| colour.map(|it| (it + between(rng, -reach, reach)).clamp(0.0, 1.0));
    let (colour, size) = match kind {
        Kind::Roof => (near([0.72, 0.24, 0.14], 0.08), [4.0, 8.0]),
        Kind::Car => (near([0.92, 0.48, 0.10], 0.08), [1.0, 2.5]),
        Kind::Tree => (near([0.78, 0.42, 0.12], 0.1), [1.5, 4.0]),
        Kind::Glint => (near([1.0, 0.97, 0.85], 0.03), [0.8, 2.0]),
        Kind::Smoke => (near([0.72, 0.72, 0.74], 0.04), [6.0, 12.0]),
    };
    let half = [between(rng, size[0], size[1]), between(rng, size[0], size[1])];
    let at = [between(rng, 0.0, SIDE as f32), between(rng, 0.0, SIDE as f32)];
    Thing { at, half, turn: between(rng, 0.0, std::f32::consts::PI), colour, kind }
}

struct Scene<'a> {
    ground: [Colour; 2],
    coarse: &'a Noise,
    fine: &'a Noise,
    things: &'a [Thing],
    fires: &'a [Fire],
    shift: [f32; 2],
    light: f32,
    haze: f32,
}

fn frame(rng: &mut ChaCha8Rng, scene: &Scene<'_>) -> Frame {
    let (mut image, mut mask) = (Vec::with_capacity(VALUES), Vec::with_capacity(SIDE * SIDE));
    // Flicker: how large, hot and far from its place each fire is in this frame.
    let fires: Vec<Fire> = scene
        .fires
        .iter()
        .map(|fire| Fire {
            at: [
                fire.at[0] + scene.shift[0] + between(rng, -0.5, 0.5),
                fire.at[1] + scene.shift[1] + between(rng, -0.5, 0.5),
            ],
            radius: fire.radius * between(rng, 0.8, 1.2),
            heat: (fire.heat * between(rng, 0.85, 1.15)).min(1.0),
        })
        .collect();
    let flicker = Noise::new(rng, 20);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (fy, fx) = (y as f32, x as f32);
            let (gy, gx) = (fy - scene.shift[0], fx - scene.shift[1]);
            let mix = 0.6 * scene.coarse.at(gy, gx) + 0.4 * scene.fine.at(gy, gx);
            let mut colour: Colour =
                std::array::from_fn(|it| scene.ground[0][it] * (1.0 - mix) + scene.ground[1][it] * mix);
            for thing in scene.things {
                let cover = thing.cover(gy, gx) * (0.7 + 0.3 * scene.fine.at(gx, gy));
                colour = std::array::from_fn(|it| colour[it] * (1.0 - cover) + thing.colour[it] * cover);
            }
            for it in &mut colour {
                *it = (*it * (1.0 - scene.haze) + 0.7 * scene.haze) * scene.light;
            }
            let mut burning = 0.0f32;
            for fire in &fires {
                let distance = (fy - fire.at[0]).hypot(fx - fire.at[1]) / fire.radius;
                let ragged = distance + 0.6 * (flicker.at(fy, fx) - 0.5);
                burning = burning.max(fire.heat * (1.4 - ragged).clamp(0.0, 1.0));
            }
            // From red at the rim by orange to yellow in the middle; fire gives its own light.
            let glow =
                [0.85 + 0.15 * burning, 0.25 + 0.65 * burning * burning, 0.08 + 0.35 * burning.powi(4)];
            let cover = (1.6 * burning).min(1.0);
            colour = std::array::from_fn(|it| colour[it] * (1.0 - cover) + glow[it] * cover);
            mask.push(if burning > 0.3 { 1.0 } else { 0.0 });
            image.extend(colour.map(|it| {
                let noisy = it + between(rng, -0.03, 0.03);
                (noisy.clamp(0.0, 1.0) * 255.0).round() / 255.0
            }));
        }
    }
    Frame { image, mask }
}

impl Thing {
    /// How much of a pixel it covers.
    fn cover(&self, y: f32, x: f32) -> f32 {
        let (dy, dx) = (y - self.at[0], x - self.at[1]);
        let (sin, cos) = self.turn.sin_cos();
        let (u, v) = ((dx * cos + dy * sin) / self.half[0], (dy * cos - dx * sin) / self.half[1]);
        match self.kind {
            Kind::Roof | Kind::Car => f32::from(u8::from(u.abs().max(v.abs()) < 1.0)),
            Kind::Tree | Kind::Glint => (1.5 - u.hypot(v)).clamp(0.0, 1.0),
            Kind::Smoke => 0.6 * (1.2 - u.hypot(v)).clamp(0.0, 1.0),
        }
    }
}

/// Frames of `clips` clips, clip by clip, from seed `first` on.
pub fn clips(first: u64, clips: usize, frames: usize) -> Vec<Frame> {
    (0..clips as u64).flat_map(|number| clip(first.wrapping_add(number), frames)).collect()
}
