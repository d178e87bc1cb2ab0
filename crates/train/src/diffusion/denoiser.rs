//! A network that looks at a noisy drawing and three words and says what the drawing is without the noise.
//!
//! It has the parts of a text-to-image U-Net at one resolution: convolutions that are told how much noise there is,
//! self-attention among the points, cross-attention to the words, gated feed-forward layers (GEGLU). Points are 2 × 2 pixels.
//! Every matrix is a numbered [`Layer`], and whoever runs the network says how layers compute ([`Products`]): plainly, or
//! quantized. The words' vectors begin with one that is the same for every prompt and far longer than a word's, as CLIP's first
//! token is.

use candle_core::{Device, Tensor, Var};
use ounce_model::spec::Norm;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::glyphs::{PIXELS, SIZE, WORDS};
use super::pass::Pass;
use crate::graph::ops::Kernels;
use crate::{Param, ParamKind, Result};

/// Pixels along an edge of a point.
pub(super) const PATCH: usize = 2;
/// Points along an edge of a drawing.
pub(super) const GRID: usize = SIZE / PATCH;
/// Points of a drawing.
pub(super) const POINTS: usize = GRID * GRID;
/// Values of a point.
pub(super) const CHANNELS: usize = PIXELS / POINTS;
/// Numbers by which the network is told the level of the noise.
pub(super) const FEATURES: usize = 16;

/// Tokens of a prompt: the first, and its words.
pub const TOKENS: usize = 4;

/// The norm in front of every part.
pub(super) const NORM: fn() -> Norm = || Norm::layer(1e-5);

/// How large a network is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Values of a point within the network, a multiple of the heads.
    pub width: usize,
    /// Heads of both kinds of attention.
    pub heads: usize,
    /// Values of a word's vector.
    pub word_width: usize,
    /// Blocks: a convolution and a transformer's layer each.
    pub blocks: usize,
    /// How many times longer than a word's vector the first token's is.
    pub outlier: f32,
    /// Layers of a text encoder between words and denoiser; 0 for words as they are.
    pub text_layers: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { width: 48, heads: 3, word_width: 32, blocks: 3, outlier: 50.0, text_layers: 0 }
    }
}

/// What a layer is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// A 3 × 3 convolution.
    Convolution,
    /// What brings the level of the noise in.
    Time,
    /// Attention among the points.
    SelfAttention,
    /// Attention from the points to the words.
    CrossAttention,
    /// The layers behind attention.
    FeedForward,
    /// The text encoder.
    Text,
}

/// A matrix of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name; its weight's has `.weight` behind it.
    pub name: String,
    /// What it is a part of.
    pub part: Part,
    /// Columns of its matrix: inputs, of a convolution those of all nine points.
    pub inputs: usize,
    /// Rows of its matrix.
    pub outputs: usize,
    /// Whether its inputs are the words' vectors, [`TOKENS`] a prompt.
    pub sees_words: bool,
    pub(super) weight: usize,
    pub(super) bias: usize,
}

impl Layer {
    /// Weights of its matrix.
    pub fn weights(&self) -> usize {
        self.inputs * self.outputs
    }

    /// Values that it reads for one drawing.
    pub fn activations(&self) -> usize {
        match self.part {
            Part::Time => self.inputs,
            Part::Text => TOKENS * self.inputs,
            Part::Convolution => POINTS * self.inputs / 9,
            _ if self.sees_words => TOKENS * self.inputs,
            _ => POINTS * self.inputs,
        }
    }
}

/// A norm's weight and bias among the parameters.
pub(super) type NormAt = [usize; 2];

/// Queries, keys, values and output among the layers.
pub(super) type AttentionAt = [usize; 4];

/// What a block is made of.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub norms: [NormAt; 4],
    pub time: usize,
    pub convolution: usize,
    pub own: AttentionAt,
    pub cross: AttentionAt,
    pub up: usize,
    pub down: usize,
}

/// A layer of the text encoder.
#[derive(Debug, Clone)]
pub(super) struct TextBlock {
    pub norms: [NormAt; 2],
    pub own: AttentionAt,
    pub up: usize,
    pub down: usize,
}

/// The text encoder: its layers, and behind them a norm and a matrix through which all that the denoiser learns of a prompt goes.
#[derive(Debug, Clone)]
pub(super) struct TextEncoder {
    pub blocks: Vec<TextBlock>,
    pub norm: NormAt,
    pub exit: usize,
}

/// How the layers' products are computed.
pub trait Products {
    /// Layer number `layer` applied to `x`, rows of its inputs (of a convolution: points of images with their channels).
    ///
    /// # Errors
    /// If they do not fit each other.
    fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> Result<Tensor>;
}

/// With the network's own weights.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Products for Plain {
    fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> Result<Tensor> {
        pass.apply(layer, x, pass.weight(layer))
    }
}

/// The network with its weights.
#[derive(Debug, Clone)]
pub struct Denoiser {
    pub(super) options: Options,
    pub(super) on: Kernels,
    layers: Vec<Layer>,
    pub(super) params: Vec<Param>,
    pub(super) blocks: Vec<Block>,
    /// The first token's vector; it is not trained.
    pub(super) begin: Vec<f32>,
    pub(super) entry: usize,
    pub(super) times: [usize; 2],
    pub(super) exit: usize,
    pub(super) exit_norm: NormAt,
    pub(super) places: usize,
    pub(super) words: usize,
    pub(super) text: Option<TextEncoder>,
}

impl Denoiser {
    /// A network with random weights.
    pub fn new(options: Options, on: Kernels, seed: u64) -> Denoiser {
        let mut make =
            Maker { random: ChaCha8Rng::seed_from_u64(seed), layers: Vec::new(), params: Vec::new() };
        let Options { width, word_width, .. } = options;
        let far = options.outlier * (word_width as f32).sqrt();
        let mut begin = make.normal(word_width, 1.0);
        begin[0] = far;
        // Behind the text encoder's norm no token is longer than others.
        let long = if options.text_layers > 0 { 1.0 } else { far };
        let places = make.param("places", &[POINTS, width], ParamKind::Embedding, 0.1);
        let words = make.param("words", &[WORDS, word_width], ParamKind::Embedding, 1.0);
        let entry = make.layer("entry", Part::Convolution, 9 * CHANNELS, width, 1.0);
        let times = [
            make.layer("time.0", Part::Time, FEATURES, width, 1.0),
            make.layer("time.1", Part::Time, width, width, 1.0),
        ];
        let blocks = (0..options.blocks).map(|number| make.block(number, width, word_width, long)).collect();
        let exit_norm = make.norm("exit", width);
        let exit = make.layer("exit", Part::Convolution, 9 * width, CHANNELS, 0.1);
        let text = (options.text_layers > 0).then(|| make.text(options.text_layers, word_width));
        let Maker { layers, params, .. } = make;
        Denoiser {
            options,
            on,
            layers,
            params,
            blocks,
            begin,
            entry,
            times,
            exit,
            exit_norm,
            places,
            words,
            text,
        }
    }

    /// Its matrices.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Everything that is trained.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The weights of a layer, row by row.
    pub fn weight(&self, layer: usize) -> &[f32] {
        &self.params[self.layers[layer].weight].value
    }

    /// Values that are no layer's matrix: biases, norms, tables, the first token.
    pub fn other_values(&self) -> usize {
        let all: usize = self.params.iter().map(|param| param.value.len()).sum();
        all + self.begin.len() - self.layers.iter().map(Layer::weights).sum::<usize>()
    }

    /// The network ready to compute, without a way back.
    ///
    /// # Errors
    /// If memory does not suffice.
    pub fn pass(&self) -> Result<Pass<'_>> {
        let tensor = |param: &Param| Tensor::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu);
        Ok(Pass { net: self, values: self.params.iter().map(tensor).collect::<Result<_, _>>()? })
    }

    /// The same for one step of training: weights are variables.
    pub(super) fn tracked(&self, vars: &[Var]) -> Pass<'_> {
        Pass { net: self, values: vars.iter().map(|var| var.as_tensor().clone()).collect() }
    }
}

/// Makes parameters and layers.
struct Maker {
    random: ChaCha8Rng,
    layers: Vec<Layer>,
    params: Vec<Param>,
}

impl Maker {
    fn normal(&mut self, count: usize, deviation: f32) -> Vec<f32> {
        super::normal(&mut self.random, count).into_iter().map(|value| value * deviation).collect()
    }

    fn param(&mut self, name: &str, shape: &[usize], kind: ParamKind, deviation: f32) -> usize {
        let values = self.normal(shape.iter().product(), deviation);
        self.params.push(Param::new(name, shape, kind, values));
        self.params.len() - 1
    }

    fn constant(&mut self, name: String, width: usize, kind: ParamKind, value: f32) -> usize {
        self.params.push(Param::new(name, &[width], kind, vec![value; width]));
        self.params.len() - 1
    }

    fn norm(&mut self, name: &str, width: usize) -> NormAt {
        let weight = self.constant(format!("{name}.norm.weight"), width, ParamKind::Norm, 1.0);
        [weight, self.constant(format!("{name}.norm.bias"), width, ParamKind::Bias, 0.0)]
    }

    /// `gain` is on the usual `1/√inputs`.
    fn layer(&mut self, name: &str, part: Part, inputs: usize, outputs: usize, gain: f32) -> usize {
        let deviation = gain / (inputs as f32).sqrt();
        let weight = self.param(&format!("{name}.weight"), &[outputs, inputs], ParamKind::Matrix, deviation);
        let bias = self.constant(format!("{name}.bias"), outputs, ParamKind::Bias, 0.0);
        let (name, sees_words) = (name.to_string(), false);
        self.layers.push(Layer { name, part, inputs, outputs, sees_words, weight, bias });
        self.layers.len() - 1
    }

    /// A layer on the words' vectors. It begins as if the first token were no longer than others, which a trained text
    /// model's neighbours have learned.
    fn word_layer(&mut self, name: &str, inputs: usize, outputs: usize, long: f32) -> usize {
        let layer = self.layer(name, Part::CrossAttention, inputs, outputs, 1.0);
        self.layers[layer].sees_words = true;
        let weight = &mut self.params[self.layers[layer].weight].value;
        weight.iter_mut().step_by(inputs).for_each(|value| *value /= long);
        layer
    }

    /// A layer of the text encoder; it sees the words' vectors.
    fn text_layer(&mut self, name: &str, inputs: usize, outputs: usize) -> usize {
        let layer = self.layer(name, Part::Text, inputs, outputs, 1.0);
        self.layers[layer].sees_words = true;
        layer
    }

    fn text(&mut self, layers: usize, width: usize) -> TextEncoder {
        let block = |number: usize, make: &mut Maker| {
            let name = |part: &str| format!("text.{number}.{part}");
            let norms = ["self", "feed"].map(|part| make.norm(&name(part), width));
            let own =
                ["query", "key", "value", "output"].map(|part| make.text_layer(&name(part), width, width));
            let up = make.text_layer(&name("up"), width, 4 * width);
            TextBlock { norms, own, up, down: make.text_layer(&name("down"), 4 * width, width) }
        };
        let blocks = (0..layers).map(|number| block(number, self)).collect();
        let norm = self.norm("text.exit", width);
        TextEncoder { blocks, norm, exit: self.text_layer("text.exit", width, width) }
    }

    fn block(&mut self, number: usize, width: usize, word_width: usize, long: f32) -> Block {
        let name = |part: &str| format!("blocks.{number}.{part}");
        let norms = ["convolution", "self", "cross", "feed"].map(|part| self.norm(&name(part), width));
        let mut own = |part: &str| self.layer(&name(part), Part::SelfAttention, width, width, 1.0);
        let own = [own("self.query"), own("self.key"), own("self.value"), own("self.output")];
        let cross = |part: &str| name(&format!("cross.{part}"));
        Block {
            norms,
            time: self.layer(&name("time"), Part::Time, width, width, 1.0),
            convolution: self.layer(&name("convolution"), Part::Convolution, 9 * width, width, 1.0),
            own,
            cross: [
                self.layer(&cross("query"), Part::CrossAttention, width, width, 1.0),
                self.word_layer(&cross("key"), word_width, width, long),
                self.word_layer(&cross("value"), word_width, width, long),
                self.layer(&cross("output"), Part::CrossAttention, width, width, 1.0),
            ],
            up: self.layer(&name("feed.up"), Part::FeedForward, width, 8 * width, 1.0),
            down: self.layer(&name("feed.down"), Part::FeedForward, 4 * width, width, 0.5),
        }
    }
}

/// A random seed of its own for each purpose.
pub(super) fn stream(seed: u64, purpose: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(purpose);
    // Streams of one seed begin apart; one draw makes that visible to nobody.
    let _: u64 = random.random();
    random
}
