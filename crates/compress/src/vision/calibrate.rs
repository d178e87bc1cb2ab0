//! Post-training quantization of a network of images: grids from its weights and from some pictures.

use ounce_kernels::conv::{Layout, plain};
use ounce_train::vision::{Folded, FoldedConv, Step};

use super::engine::{FloatEngine, Grids, IntEngine};
use crate::Result;
use crate::quantize::axes::{Calibration, Grid, Observer, Symmetry, channels};

/// How a network is brought to bytes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Range of activations.
    pub activations: Calibration,
    /// Whether each output has a step of its own, or the whole matrix one.
    pub per_channel: bool,
}

/// What the values of a folded network are on pictures, an observer for each set of values on one grid.
///
/// # Errors
/// If the network can't be deployed.
pub fn observe<'i>(folded: &Folded, images: impl Iterator<Item = &'i [f32]>) -> Result<Vec<Observer>> {
    let mut engine = FloatEngine::new(folded)?;
    let classes = folded.architecture.grids();
    // Values that are passed on would be counted twice.
    let computed: Vec<bool> = std::iter::once(true)
        .chain(folded.architecture.steps.iter().map(|step| matches!(step, Step::Conv { .. })))
        .collect();
    let mut observers = vec![Observer::new(); classes.len()];
    for image in images {
        engine.run(image, &mut |value, row| {
            if computed[value] {
                observers[classes[value]].observe(row);
            }
        });
    }
    Ok(classes.into_iter().map(|class| observers[class].clone()).collect())
}

/// Grids of values from observers; the image's is that of a camera's bytes.
pub fn value_grids(observers: &[Observer], calibration: Calibration, bits: u32) -> Vec<Grid> {
    let grid = |observer: &Observer| {
        let grid = observer.grid(calibration, bits, Symmetry::Asymmetric);
        // Nothing below zero comes out of a ReLU; the logits at the end stay real numbers.
        Grid { zero: 0, ..grid }
    };
    std::iter::once(camera()).chain(observers.iter().skip(1).map(grid)).collect()
}

/// The bytes of a camera.
pub fn camera() -> Grid {
    Grid { scale: 1.0 / 255.0, zero: 0, low: 0, high: 255 }
}

/// Grids of weights: `s = max|w| / 127` of each output, or of the matrix.
pub fn weight_grids(
    folded: &Folded,
    calibration: Calibration,
    bits: u32,
    per_channel: bool,
) -> Vec<Option<Vec<Grid>>> {
    let of = |conv: &FoldedConv| {
        if per_channel {
            return channels(&conv.weights, conv.window.depth(), bits, calibration);
        }
        let whole = channels(&conv.weights, conv.weights.len(), bits, calibration);
        vec![whole[0]; conv.window.outputs]
    };
    folded.convs.iter().map(|conv| conv.as_ref().map(of)).collect()
}

/// All grids of a network in 8 bits.
pub fn quantize(folded: &Folded, observers: &[Observer], options: &Options) -> Grids {
    Grids {
        weights: weight_grids(folded, Calibration::MinMax, 8, options.per_channel),
        values: value_grids(observers, options.activations, 8),
    }
}

/// The network with weights rounded to their grids.
pub fn rounded(folded: &Folded, weights: &[Option<Vec<Grid>>]) -> Folded {
    let mut rounded = folded.clone();
    for (conv, rows) in rounded.convs.iter_mut().zip(weights) {
        let (Some(conv), Some(rows)) = (conv, rows) else { continue };
        let depth = conv.window.depth();
        conv.weights.chunks_mut(depth).zip(rows).for_each(|(row, grid)| grid.simulate(row));
    }
    rounded
}

/// Each convolution of the engine in bytes against fake quantization of the same step: rounded weights and values, products in
/// f64. Returns the largest distance in codes, and values that were compared.
///
/// # Errors
/// If steps of the network don't fit.
pub fn distance(folded: &Folded, grids: &Grids, engine: &IntEngine) -> Result<(i32, usize)> {
    let rounded = rounded(folded, &grids.weights);
    let shapes = folded.architecture.shapes()?;
    let (mut most, mut count) = (0, 0);
    for (index, step) in folded.architecture.steps.iter().enumerate() {
        let (Step::Conv { from, .. }, Some(conv)) = (step, &rounded.convs[index]) else { continue };
        if index + 1 == folded.convs.len() {
            continue;
        }
        let (height, width, channels) = shapes[*from];
        let layout = Layout { height, width, channels, border: conv.window.padding() };
        let mut image = vec![0.0; layout.values()];
        let codes = engine.value(*from);
        let stored = codes.len() / (height * width);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..channels {
                    let code = codes[(y * width + x) * stored + channel];
                    image[layout.at(y, x) + channel] = grids.values[*from].value(i32::from(code));
                }
            }
        }
        let sums = plain::floats(&conv.window, &conv.weights, &image, &layout);
        for (at, (sum, code)) in sums.iter().zip(engine.value(index + 1)).enumerate() {
            let value = (sum + f64::from(conv.bias[at % conv.window.outputs])).max(0.0);
            most = most.max((grids.values[index + 1].code(value as f32) - i32::from(code)).abs());
            count += 1;
        }
    }
    Ok((most, count))
}
