//! Networks as data.

use ounce_kernels::conv::Window;

use crate::{Error, Result};

/// One operation. Values are numbered: 0 is the image, step i gives value i + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A convolution, padded to keep the size (at stride 1), perhaps with batch norm and ReLU behind it.
    Conv {
        /// The value it reads.
        from: usize,
        /// The window.
        window: Window,
        /// Whether a batch norm follows; else there is a bias.
        norm: bool,
        /// Whether a ReLU follows.
        relu: bool,
    },
    /// The largest of each 2 × 2 pixels.
    Pool {
        /// The value it reads.
        from: usize,
    },
    /// Each pixel four times.
    Grow {
        /// The value it reads.
        from: usize,
    },
    /// The channels of two values, one behind the other.
    Join {
        /// The values it reads.
        from: [usize; 2],
    },
    /// The mean of all pixels.
    Mean {
        /// The value it reads.
        from: usize,
    },
}

/// A network: what comes in, and what is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    /// Height and width of the image.
    pub side: (usize, usize),
    /// Its channels.
    pub channels: usize,
    /// What is done, in order; the last value is the result.
    pub steps: Vec<Step>,
}

/// Height, width and channels of a value.
pub type Shape = (usize, usize, usize);

impl Architecture {
    /// Four convolutions with pools between them, the mean of all pixels, and one logit.
    pub fn classifier(side: (usize, usize), channels: usize, widths: [usize; 4]) -> Architecture {
        let mut steps = Vec::new();
        let mut inputs = channels;
        for (index, outputs) in widths.into_iter().enumerate() {
            steps.push(conv(steps.len(), inputs, outputs));
            if index < 3 {
                steps.push(Step::Pool { from: steps.len() });
            }
            inputs = outputs;
        }
        steps.push(Step::Mean { from: steps.len() });
        steps.push(head(steps.len(), inputs));
        Architecture { side, channels, steps }
    }

    /// A U-Net (Ronneberger et al., 2015) of three scales with one convolution each way, and one logit a pixel.
    pub fn segmenter(side: (usize, usize), channels: usize, widths: [usize; 3]) -> Architecture {
        let [fine, middle, coarse] = widths;
        let steps = vec![
            conv(0, channels, fine),
            Step::Pool { from: 1 },
            conv(2, fine, middle),
            Step::Pool { from: 3 },
            conv(4, middle, coarse),
            Step::Grow { from: 5 },
            Step::Join { from: [6, 3] },
            conv(7, coarse + middle, middle),
            Step::Grow { from: 8 },
            Step::Join { from: [9, 1] },
            conv(10, middle + fine, fine),
            head(11, fine),
        ];
        Architecture { side, channels, steps }
    }

    /// The shapes of all values, the image's first.
    ///
    /// # Errors
    /// If a step reads what doesn't exist or doesn't fit.
    pub fn shapes(&self) -> Result<Vec<Shape>> {
        let mut shapes = vec![(self.side.0, self.side.1, self.channels)];
        for (index, step) in self.steps.iter().enumerate() {
            let wrong = |what: String| Error::Unsupported(format!("step {index} of the network: {what}"));
            let of = |value: usize| -> Result<Shape> {
                shapes
                    .get(value)
                    .copied()
                    .ok_or_else(|| wrong(format!("reads value {value}, which comes later")))
            };
            shapes.push(match *step {
                Step::Conv { from, window, .. } => {
                    let (height, width, channels) = of(from)?;
                    if channels != window.inputs || window.size % 2 == 0 || window.stride == 0 {
                        return Err(wrong(format!("a window {window:?} for {channels} channels")));
                    }
                    (window.result(height), window.result(width), window.outputs)
                }
                Step::Pool { from } => {
                    let (height, width, channels) = of(from)?;
                    if height % 2 + width % 2 != 0 {
                        return Err(wrong(format!("pools {height} x {width} pixels, which are no pairs")));
                    }
                    (height / 2, width / 2, channels)
                }
                Step::Grow { from } => {
                    let (height, width, channels) = of(from)?;
                    (2 * height, 2 * width, channels)
                }
                Step::Join { from: [a, b] } => {
                    let (a, b) = (of(a)?, of(b)?);
                    if (a.0, a.1) != (b.0, b.1) {
                        return Err(wrong(format!("joins values of {a:?} and {b:?}")));
                    }
                    (a.0, a.1, a.2 + b.2)
                }
                Step::Mean { from } => (1, 1, of(from)?.2),
            });
        }
        Ok(shapes)
    }

    /// Products of one image: multiplications of all convolutions.
    ///
    /// # Errors
    /// As [`Architecture::shapes`].
    pub fn products(&self) -> Result<usize> {
        let shapes = self.shapes()?;
        let of = |(step, shape): (&Step, &Shape)| match step {
            Step::Conv { window, .. } => shape.0 * shape.1 * window.outputs * window.depth(),
            _ => 0,
        };
        Ok(self.steps.iter().zip(&shapes[1..]).map(of).sum())
    }

    /// Values that must be on one grid when they are quantized, as a number for each value: what pools, copies and
    /// joins only pass on has the grid of what it came from.
    pub fn grids(&self) -> Vec<usize> {
        let mut class: Vec<usize> = (0..=self.steps.len()).collect();
        let mut unite = |a: usize, b: usize| {
            let (keep, gone) = (class[a].min(class[b]), class[a].max(class[b]));
            class.iter_mut().filter(|it| **it == gone).for_each(|it| *it = keep);
        };
        for (index, step) in self.steps.iter().enumerate() {
            match *step {
                Step::Conv { .. } => {}
                Step::Pool { from } | Step::Grow { from } | Step::Mean { from } => unite(index + 1, from),
                Step::Join { from } => from.into_iter().for_each(|from| unite(index + 1, from)),
            }
        }
        class
    }
}

fn conv(from: usize, inputs: usize, outputs: usize) -> Step {
    Step::Conv { from, window: Window { inputs, outputs, size: 3, stride: 1 }, norm: true, relu: true }
}

fn head(from: usize, inputs: usize) -> Step {
    Step::Conv { from, window: Window { inputs, outputs: 1, size: 1, stride: 1 }, norm: false, relu: false }
}
