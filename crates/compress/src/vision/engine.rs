//! Networks as they are deployed: norms folded, bias and ReLU inside the convolution, one image at a time, nothing allocated
//! while they run. The same steps in f32 and in bytes, so that a comparison of both is one of arithmetic alone.

use ounce_kernels::conv::{Codes, FloatConv, GROUP, IntConv, Layout, Scales};
use ounce_kernels::isa::Isa;
use ounce_train::vision::{Architecture, Folded, FoldedConv, Step};

use crate::quantize::axes::Grid;
use crate::{Error, Result};

/// What values are and how they are computed with.
pub trait Arithmetic {
    /// A value of an image.
    type Value: Copy + PartialOrd + Default;
    /// A convolution.
    type Conv;

    /// Runs a convolution into an image of values.
    fn run(conv: &Self::Conv, isa: Isa, image: (&[Self::Value], Layout), out: (&mut [Self::Value], Layout));
    /// Runs the last convolution into real numbers.
    fn run_last(conv: &Self::Conv, isa: Isa, image: (&[Self::Value], Layout), out: (&mut [f32], Layout));
    /// The mean of some values.
    fn mean(values: impl Iterator<Item = Self::Value>, count: usize) -> Self::Value;
}

/// f32.
#[derive(Debug)]
pub enum Floats {}

impl Arithmetic for Floats {
    type Value = f32;
    type Conv = FloatConv;

    fn run(conv: &FloatConv, isa: Isa, image: (&[f32], Layout), out: (&mut [f32], Layout)) {
        conv.run(isa, image, out, 0);
    }

    fn run_last(conv: &FloatConv, isa: Isa, image: (&[f32], Layout), out: (&mut [f32], Layout)) {
        conv.run(isa, image, out, 0);
    }

    fn mean(values: impl Iterator<Item = f32>, count: usize) -> f32 {
        values.sum::<f32>() / count as f32
    }
}

/// Bytes: codes of a grid whose zero is 0.
#[derive(Debug)]
pub enum Bytes {}

impl Arithmetic for Bytes {
    type Value = u8;
    type Conv = IntConv;

    fn run(conv: &IntConv, isa: Isa, image: (&[u8], Layout), out: (&mut [u8], Layout)) {
        conv.run(isa, image, out, 0);
    }

    fn run_last(conv: &IntConv, isa: Isa, image: (&[u8], Layout), out: (&mut [f32], Layout)) {
        conv.run_to_floats(isa, image, out, 0);
    }

    fn mean(values: impl Iterator<Item = u8>, count: usize) -> u8 {
        let sum: usize = values.map(usize::from).sum();
        ((sum + count / 2) / count) as u8
    }
}

/// Sees values, row by row, and may change them.
type Watch<'w, T> = &'w mut dyn FnMut(usize, &mut [T]);

/// A network ready to run, with a buffer for each of its values.
pub struct Engine<A: Arithmetic> {
    steps: Vec<Step>,
    convs: Vec<Option<A::Conv>>,
    layouts: Vec<Layout>,
    values: Vec<Vec<A::Value>>,
    out: Vec<f32>,
    isa: Isa,
    /// Channels of the image as it is given.
    channels: usize,
}

/// The engine in f32.
pub type FloatEngine = Engine<Floats>;
/// The engine in bytes.
pub type IntEngine = Engine<Bytes>;

/// Layouts of all values: borders for the windows that read them, channels in groups of `group`.
fn layouts(architecture: &Architecture, group: usize) -> Result<Vec<Layout>> {
    let shapes = architecture.shapes().map_err(Error::Train)?;
    let mut layouts: Vec<Layout> = shapes
        .into_iter()
        .map(|(height, width, channels)| Layout { height, width, channels, border: 0 })
        .collect();
    layouts[0].channels = layouts[0].channels.next_multiple_of(group);
    for step in &architecture.steps {
        if let Step::Conv { from, window, .. } = step {
            layouts[*from].border = layouts[*from].border.max(window.padding());
        }
    }
    match architecture.steps.last() {
        Some(Step::Conv { relu: false, .. }) => Ok(layouts),
        _ => Err(Error::Option("a network to deploy ends with a convolution that gives logits".into())),
    }
}

impl FloatEngine {
    /// From a folded network.
    ///
    /// # Errors
    /// If the network doesn't end in logits.
    pub fn new(folded: &Folded) -> Result<FloatEngine> {
        let of = |conv: &FoldedConv| FloatConv::new(conv.window, &conv.weights, &conv.bias, conv.relu);
        let convs = folded.convs.iter().map(|conv| conv.as_ref().map(of)).collect();
        Engine::build(&folded.architecture, convs, 1)
    }

    /// The logits of an image. `watch` sees each value, row by row, as soon as it is there, and may change it.
    pub fn run(&mut self, image: &[f32], watch: Watch<'_, f32>) -> &[f32] {
        self.load(image, |value| value);
        self.steps(Some(watch));
        &self.out
    }

    /// As [`FloatEngine::run`], unobserved.
    pub fn infer(&mut self, image: &[f32]) -> &[f32] {
        self.load(image, |value| value);
        self.steps(None);
        &self.out
    }

    /// As [`FloatEngine::infer`] for a camera's bytes, of which 255 is 1.
    pub fn infer_bytes(&mut self, image: &[u8]) -> &[f32] {
        self.load(image, |value| f32::from(value) * (1.0 / 255.0));
        self.steps(None);
        &self.out
    }
}

/// Codes of a network: of each convolution the grids of its rows, of each value its grid.
#[derive(Debug, Clone)]
pub struct Grids {
    /// By step; symmetric.
    pub weights: Vec<Option<Vec<Grid>>>,
    /// By value; codes 0 to 255, of which 0 is 0.
    pub values: Vec<Grid>,
}

impl IntEngine {
    /// From a folded network and its grids.
    ///
    /// # Errors
    /// If the network doesn't end in logits, or a grid doesn't fit bytes.
    pub fn new(folded: &Folded, grids: &Grids) -> Result<IntEngine> {
        let fits = |grid: &Grid| grid.zero == 0 && grid.low == 0 && grid.high <= 255;
        if grids.values.len() != folded.convs.len() + 1 || !grids.values.iter().all(fits) {
            return Err(Error::Option(
                "values of an engine in bytes have codes from 0, which stands for 0".into(),
            ));
        }
        let mut convs = Vec::with_capacity(folded.convs.len());
        for (index, conv) in folded.convs.iter().enumerate() {
            let (Some(conv), Some(rows), Step::Conv { from, .. }) =
                (conv, &grids.weights[index], folded.architecture.steps[index])
            else {
                convs.push(None);
                continue;
            };
            convs.push(Some(int_conv(conv, rows, &grids.values[from], &grids.values[index + 1])));
        }
        Engine::build(&folded.architecture, convs, GROUP)
    }

    /// The logits of an image of values from 0 to 1, which become bytes as cameras give them.
    pub fn infer(&mut self, image: &[f32]) -> &[f32] {
        self.load(image, |value| (value * 255.0).round_ties_even() as u8);
        self.steps(None);
        &self.out
    }

    /// As [`IntEngine::infer`] for bytes.
    pub fn infer_bytes(&mut self, image: &[u8]) -> &[f32] {
        self.load(image, |value| value);
        self.steps(None);
        &self.out
    }

    /// Bytes of weights, biases and multipliers.
    pub fn bytes(&self) -> usize {
        self.convs.iter().flatten().map(IntConv::bytes).sum()
    }
}

fn int_conv(conv: &FoldedConv, rows: &[Grid], image: &Grid, result: &Grid) -> IntConv {
    let mut window = conv.window;
    let (inputs, depth) = (window.inputs, window.depth());
    window.inputs = inputs.next_multiple_of(GROUP);
    let mut codes = Vec::with_capacity(window.outputs * window.depth());
    for (row, grid) in conv.weights.chunks(depth).zip(rows) {
        for pixel in row.chunks(inputs) {
            codes.extend(pixel.iter().map(|&value| grid.code(value) as i8));
            codes.extend(std::iter::repeat_n(0, window.inputs - inputs));
        }
    }
    let scales: Vec<f32> = rows.iter().map(|grid| grid.scale).collect();
    let scales = Scales {
        weights: &scales,
        bias: &conv.bias,
        image: image.scale,
        zero: 0,
        result: result.scale,
        codes: Codes { zero: 0, low: 0, high: result.high },
    };
    IntConv::new(window, &codes, &scales)
}

impl<A: Arithmetic> Engine<A> {
    fn build(architecture: &Architecture, convs: Vec<Option<A::Conv>>, group: usize) -> Result<Engine<A>> {
        let layouts = layouts(architecture, group)?;
        let values = layouts.iter().map(|layout| vec![A::Value::default(); layout.values()]).collect();
        let out = layouts.last().map_or(0, Layout::values);
        let (steps, isa) = (architecture.steps.clone(), Isa::current());
        let channels = architecture.channels;
        Ok(Engine { steps, convs, layouts, values, out: vec![0.0; out], isa, channels })
    }

    /// Computes on another path.
    #[must_use]
    pub fn on(mut self, isa: Isa) -> Engine<A> {
        self.isa = isa;
        self
    }

    /// A value as it was computed last, without its border.
    pub fn value(&self, value: usize) -> Vec<A::Value> {
        let (layout, values) = (&self.layouts[value], &self.values[value]);
        let row = layout.width * layout.channels;
        (0..layout.height).flat_map(|y| values[layout.at(y, 0)..][..row].iter().copied()).collect()
    }

    fn load<T: Copy>(&mut self, image: &[T], mut convert: impl FnMut(T) -> A::Value) {
        let (layout, values) = (&self.layouts[0], &mut self.values[0]);
        assert_eq!(
            image.len(),
            layout.height * layout.width * self.channels,
            "an image of the network's size"
        );
        for (y, row) in image.chunks(layout.width * self.channels).enumerate() {
            let start = layout.at(y, 0);
            let pixels = values[start..start + layout.width * layout.channels].chunks_mut(layout.channels);
            for (to, from) in pixels.zip(row.chunks(self.channels)) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = convert(*from));
            }
        }
    }

    fn steps(&mut self, mut watch: Option<Watch<'_, A::Value>>) {
        let last = self.steps.len() - 1;
        let mut see = |value: usize, layout: &Layout, values: &mut [A::Value]| {
            let Some(watch) = &mut watch else { return };
            for y in 0..layout.height {
                watch(value, &mut values[layout.at(y, 0)..][..layout.width * layout.channels]);
            }
        };
        see(0, &self.layouts[0], &mut self.values[0]);
        for (index, step) in self.steps.iter().enumerate() {
            let (before, behind) = self.values.split_at_mut(index + 1);
            let (out, to) = (&mut behind[0], self.layouts[index + 1]);
            let read = |value: usize| (before[value].as_slice(), self.layouts[value]);
            match *step {
                Step::Conv { from, .. } => {
                    let Some(conv) = &self.convs[index] else { continue };
                    if index == last {
                        A::run_last(conv, self.isa, read(from), (&mut self.out, to));
                        continue;
                    }
                    A::run(conv, self.isa, read(from), (out, to));
                }
                Step::Pool { from } => pool(read(from), (out, to)),
                Step::Grow { from } => grow(read(from), (out, to)),
                Step::Join { from: [a, b] } => join(read(a), read(b), (out, to)),
                Step::Mean { from } => {
                    let (image, layout) = read(from);
                    for channel in 0..layout.channels {
                        let pixels = (0..layout.height * layout.width).map(|pixel| {
                            image[layout.at(pixel / layout.width, pixel % layout.width) + channel]
                        });
                        out[to.at(0, 0) + channel] = A::mean(pixels, layout.height * layout.width);
                    }
                }
            }
            see(index + 1, &to, out);
        }
    }
}

/// The largest of each 2 × 2 pixels.
fn pool<T: Copy + PartialOrd>((image, from): (&[T], Layout), (out, to): (&mut [T], Layout)) {
    let channels = from.channels;
    for y in 0..to.height {
        let top = &image[from.at(2 * y, 0)..][..2 * to.width * channels];
        let bottom = &image[from.at(2 * y + 1, 0)..][..2 * to.width * channels];
        let row = &mut out[to.at(y, 0)..][..to.width * channels];
        let pairs = top.chunks_exact(2 * channels).zip(bottom.chunks_exact(2 * channels));
        for (to, (top, bottom)) in row.chunks_exact_mut(channels).zip(pairs) {
            let (a, b) = top.split_at(channels);
            let (c, d) = bottom.split_at(channels);
            for ((((to, &a), &b), &c), &d) in to.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                let (top, bottom) = (if a > b { a } else { b }, if c > d { c } else { d });
                *to = if top > bottom { top } else { bottom };
            }
        }
    }
}

/// Each pixel four times.
fn grow<T: Copy>((image, from): (&[T], Layout), (out, to): (&mut [T], Layout)) {
    let channels = from.channels;
    for y in 0..to.height {
        let line = &image[from.at(y / 2, 0)..][..from.width * channels];
        let row = &mut out[to.at(y, 0)..][..to.width * channels];
        for (to, pixel) in row.chunks_exact_mut(2 * channels).zip(line.chunks_exact(channels)) {
            to[..channels].copy_from_slice(pixel);
            to[channels..].copy_from_slice(pixel);
        }
    }
}

/// The channels of both.
fn join<T: Copy>((a, first): (&[T], Layout), (b, second): (&[T], Layout), (out, to): (&mut [T], Layout)) {
    for y in 0..to.height {
        let left = a[first.at(y, 0)..].chunks_exact(first.channels);
        let right = b[second.at(y, 0)..].chunks_exact(second.channels);
        let row = &mut out[to.at(y, 0)..][..to.width * to.channels];
        for ((to, left), right) in row.chunks_exact_mut(to.channels).zip(left).zip(right) {
            to[..first.channels].copy_from_slice(left);
            to[first.channels..].copy_from_slice(right);
        }
    }
}
