//! Integers only (Jacob et al., 2018; the survey's section IV.A): a layer's product sums codes in i32 and comes back to 8
//! bits by a fixed-point multiplier.
//!
//! With `x = S_x (q_x − z_x)` and `w = S_w q_w` (weights symmetric, S_w of each row), `y = S_w S_x (Σ q_w q_x − z_x Σ q_w) + b`,
//! and the code of y is `z_y + M · (Σ q_w q_x − z_x Σ q_w + b / (S_w S_x))` with `M = S_w S_x / S_y`, a [`Multiplier`].

use ounce_kernels::requantize::Multiplier;

use super::grid::Grid;

/// A linear layer in integers.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Codes `[outputs, inputs]`.
    codes: Vec<i32>,
    /// Of each output: bias in steps of `S_w S_x`, less `z_x Σ q_w`.
    bias: Vec<i32>,
    multipliers: Vec<Multiplier>,
    inputs: usize,
    /// The grids of what goes in and comes out.
    input: Grid,
    output: Grid,
}

impl Layer {
    /// From weights `[outputs, inputs]` with the symmetric grid of each row.
    ///
    /// # Panics
    /// If the shapes don't fit or a row's grid isn't symmetric.
    pub fn new(weights: &[f32], rows: &[Grid], bias: &[f32], input: Grid, output: Grid) -> Layer {
        assert!(rows.len() == bias.len() && weights.len().is_multiple_of(rows.len().max(1)), "a grid a row");
        assert!(rows.iter().all(|grid| grid.zero == 0), "weights are symmetric");
        let inputs = weights.len() / rows.len().max(1);
        let codes: Vec<i32> = weights
            .chunks(inputs.max(1))
            .zip(rows)
            .flat_map(|(row, grid)| row.iter().map(|&value| grid.code(value)))
            .collect();
        let steps = rows.iter().map(|grid| f64::from(grid.scale) * f64::from(input.scale));
        let bias = codes
            .chunks(inputs.max(1))
            .zip(bias)
            .zip(steps.clone())
            .map(|((codes, &bias), step)| {
                (f64::from(bias) / step).round() as i32 - input.zero * codes.iter().sum::<i32>()
            })
            .collect();
        let multipliers = steps.map(|step| Multiplier::new(step / f64::from(output.scale))).collect();
        Layer { codes, bias, multipliers, inputs, input, output }
    }

    /// Codes of the outputs for codes of one input.
    ///
    /// # Panics
    /// If there are not so many inputs.
    pub fn forward(&self, x: &[i32]) -> Vec<i32> {
        assert_eq!(x.len(), self.inputs, "the layer's inputs");
        let rows = self.codes.chunks(self.inputs.max(1)).zip(&self.bias).zip(&self.multipliers);
        rows.map(|((codes, bias), multiplier)| {
            let sum = codes.iter().zip(x).map(|(a, b)| a * b).sum::<i32>() + bias;
            (self.output.zero + multiplier.apply(sum)).clamp(self.output.low, self.output.high)
        })
        .collect()
    }

    /// Codes of an input.
    pub fn encode(&self, x: &[f32]) -> Vec<i32> {
        x.iter().map(|&value| self.input.code(value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Symmetry, random};
    use super::*;

    #[test]
    fn integers_give_what_simulation_gives_within_one_step() {
        let (mut exact, mut all) = (0, 0);
        for seed in 0..20 {
            let mut next = random::normal(seed + 1);
            let (outputs, inputs) = (12, 40);
            let weights: Vec<f32> = (0..outputs * inputs).map(|_| next() * 0.1).collect();
            let bias: Vec<f32> = (0..outputs).map(|_| next()).collect();
            let x: Vec<f32> = (0..inputs).map(|_| next() + 0.7).collect();
            let rows: Vec<Grid> =
                weights.chunks(inputs).map(|row| Grid::of(row, 8, Symmetry::Restricted)).collect();
            let input = Grid::of(&x, 8, Symmetry::Asymmetric);
            // Fake quantization: everything rounded, products in f64.
            let plain: Vec<f64> = (0..outputs)
                .map(|at| {
                    let row = weights[at * inputs..][..inputs].iter().map(|&w| f64::from(rows[at].round(w)));
                    let product: f64 = row.zip(&x).map(|(w, &x)| w * f64::from(input.round(x))).sum();
                    product + f64::from(bias[at])
                })
                .collect();
            let values: Vec<f32> = plain.iter().map(|&it| it as f32).collect();
            let output = Grid::of(&values, 8, Symmetry::Asymmetric);
            let layer = Layer::new(&weights, &rows, &bias, input, output);
            for (found, value) in layer.forward(&layer.encode(&x)).into_iter().zip(&values) {
                let expected = output.code(*value);
                assert!((found - expected).abs() <= 1, "{found} {expected}");
                exact += i32::from(found == expected);
                all += 1;
            }
        }
        assert!(exact as f64 >= 0.97 * f64::from(all), "{exact} of {all}");
    }
}
