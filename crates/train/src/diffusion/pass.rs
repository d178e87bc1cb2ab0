//! The denoiser's forward pass.

use candle_core::{D, Device, Tensor};
use ounce_kernels::grad::attention::Shape;

use super::denoiser::{
    AttentionAt, Block, CHANNELS, Denoiser, FEATURES, GRID, Layer, NORM, NormAt, PATCH, POINTS, Part,
    Products, TOKENS,
};
use super::glyphs::{PIXELS, Prompt};
use crate::graph::ops::activation::{self, Activation};
use crate::graph::ops::{Factor, attention, linear, norm, patches, softmax};
use crate::{Error, Result};

/// Heads of the text encoder.
const TEXT_HEADS: usize = 2;

/// A network ready to compute.
#[derive(Debug)]
pub struct Pass<'n> {
    pub(super) net: &'n Denoiser,
    /// The parameters' values.
    pub(super) values: Vec<Tensor>,
}

impl Pass<'_> {
    /// The network.
    pub fn net(&self) -> &Denoiser {
        self.net
    }

    fn layer(&self, layer: usize) -> &Layer {
        &self.net.layers()[layer]
    }

    /// A layer's matrix, `[outputs, inputs]`.
    pub fn weight(&self, layer: usize) -> &Tensor {
        &self.values[self.layer(layer).weight]
    }

    /// A layer with another matrix in the place of its own; its bias stays.
    ///
    /// # Errors
    /// If `x` or the matrix do not fit the layer.
    pub fn apply(&self, layer: usize, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let on = self.net.on;
        let (layer, factor) = (self.layer(layer), Factor::Dense(weight.clone()));
        let bias = Some(&self.values[layer.bias]);
        match layer.part {
            Part::Convolution => {
                let seen = patches(on, x, (GRID, GRID), layer.inputs / 9)?;
                linear(on, &seen, &factor, bias)
            }
            _ => linear(on, x, &factor, bias),
        }
    }

    /// The drawings without noise, `[images, pixels]`, as the network sees them in `x` of that shape. `angles` says how much
    /// noise there is in each: `x = cos φ · drawing + sin φ · noise`.
    ///
    /// # Errors
    /// If there are not as many angles and prompts as drawings, or `products` fails.
    pub fn forward(
        &self,
        x: &Tensor,
        angles: &[f32],
        prompts: &[Prompt],
        products: &mut dyn Products,
    ) -> Result<Tensor> {
        let (images, pixels) = x.dims2()?;
        if pixels != PIXELS || angles.len() != images || prompts.len() != images {
            return Err(Error::Batch(format!(
                "{images} drawings of {pixels} pixels with {} angles and {} prompts",
                angles.len(),
                prompts.len()
            )));
        }
        let width = self.net.options.width;
        let x = x.reshape((images, GRID, PATCH, GRID, PATCH))?.permute((0, 1, 3, 2, 4))?;
        let x = x.reshape((images * POINTS, CHANNELS))?;
        let h = products.product(self, self.net.entry, &x)?.reshape((images, POINTS, width))?;
        let mut h = h.broadcast_add(&self.values[self.net.places])?.reshape((images * POINTS, width))?;
        let time = self.time(angles, products)?;
        let words = self.words(prompts)?;
        let words = self.encoded(words, images, products)?;
        for block in &self.net.blocks {
            h = self.block(block, h, &time, &words, images, products)?;
        }
        let h = self.silu(&self.norm(&h, self.net.exit_norm)?)?;
        let out = products.product(self, self.net.exit, &h)?;
        let out = out.reshape((images, GRID, GRID, PATCH, PATCH))?.permute((0, 1, 3, 2, 4))?;
        Ok(out.reshape((images, PIXELS))?)
    }

    fn norm(&self, x: &Tensor, [weight, bias]: NormAt) -> Result<Tensor> {
        norm(self.net.on, x, &self.values[weight], Some(&self.values[bias]), &NORM())
    }

    fn silu(&self, x: &Tensor) -> Result<Tensor> {
        activation::plain(self.net.on, Activation::Silu, x)
    }

    /// What the level of the noise means, `[images, width]`.
    fn time(&self, angles: &[f32], products: &mut dyn Products) -> Result<Tensor> {
        let features = |&angle: &f32| {
            (0..FEATURES / 2).flat_map(move |k| {
                let (sin, cos) = (angle * (1 + k) as f32).sin_cos();
                [sin, cos]
            })
        };
        let values: Vec<f32> = angles.iter().flat_map(features).collect();
        let x = Tensor::from_vec(values, (angles.len(), FEATURES), &Device::Cpu)?;
        let x = self.silu(&products.product(self, self.net.times[0], &x)?)?;
        self.silu(&products.product(self, self.net.times[1], &x)?)
    }

    /// The tokens' vectors, `[images · TOKENS, word width]`.
    fn words(&self, prompts: &[Prompt]) -> Result<Tensor> {
        let (images, width) = (prompts.len(), self.net.options.word_width);
        let ids: Vec<u32> = prompts.iter().flat_map(Prompt::words).collect();
        let ids = Tensor::from_vec(ids, images * (TOKENS - 1), &Device::Cpu)?;
        let words =
            self.values[self.net.words].index_select(&ids, 0)?.reshape((images, TOKENS - 1, width))?;
        let begin = Tensor::from_slice(&self.net.begin, (1, 1, width), &Device::Cpu)?;
        let tokens = Tensor::cat(&[begin.broadcast_as((images, 1, width))?, words], 1)?;
        Ok(tokens.reshape((images * TOKENS, width))?)
    }

    /// The tokens' vectors behind the text encoder, if there is one, `[images · TOKENS, word width]`.
    fn encoded(&self, words: Tensor, images: usize, products: &mut dyn Products) -> Result<Tensor> {
        let Some(text) = &self.net.text else { return Ok(words) };
        let head_dim = self.net.options.word_width / TEXT_HEADS;
        let shape = Shape {
            heads: TEXT_HEADS,
            kv_heads: TEXT_HEADS,
            head_dim,
            scale: (head_dim as f32).sqrt().recip(),
            softcap: None,
            window: None,
            causal: false,
        };
        let lengths: std::sync::Arc<[usize]> = vec![TOKENS; images].into();
        let mut h = words;
        for block in &text.blocks {
            let x = self.norm(&h, block.norms[0])?;
            let [query, key, value, output] = block.own;
            let [q, k, v] = [query, key, value].map(|layer| products.product(self, layer, &x));
            let mixed = attention(self.net.on, shape, &lengths, &q?, &k?, &v?)?;
            h = (h + products.product(self, output, &mixed)?)?;
            let x = self.norm(&h, block.norms[1])?;
            let up =
                activation::plain(self.net.on, Activation::Gelu, &products.product(self, block.up, &x)?)?;
            h = (h + products.product(self, block.down, &up)?)?;
        }
        let x = self.norm(&h, text.norm)?;
        products.product(self, text.exit, &x)
    }

    fn block(
        &self,
        block: &Block,
        h: Tensor,
        time: &Tensor,
        words: &Tensor,
        images: usize,
        products: &mut dyn Products,
    ) -> Result<Tensor> {
        let width = self.net.options.width;
        let time = products.product(self, block.time, time)?.reshape((images, 1, width))?;
        let x = self.norm(&h, block.norms[0])?.reshape((images, POINTS, width))?;
        let x = self.silu(&x.broadcast_add(&time)?.reshape((images * POINTS, width))?)?;
        let h = (h + products.product(self, block.convolution, &x)?)?;
        let x = self.norm(&h, block.norms[1])?;
        let h = (&h + self.own(block.own, &x, images, products)?)?;
        let x = self.norm(&h, block.norms[2])?;
        let h = (&h + self.cross(block.cross, &x, words, images, products)?)?;
        let x = self.norm(&h, block.norms[3])?;
        let up = products.product(self, block.up, &x)?;
        let (gate, up) = (up.narrow(1, 0, 4 * width)?, up.narrow(1, 4 * width, 4 * width)?);
        let x = activation::gated(self.net.on, Activation::Gelu, &gate, &up)?;
        Ok((&h + products.product(self, block.down, &x)?)?)
    }

    /// The width of a head, and the factor on scores.
    fn head(&self) -> (usize, f32) {
        let width = self.net.options.width / self.net.options.heads;
        (width, (width as f32).sqrt().recip())
    }

    fn own(
        &self,
        [query, key, value, output]: AttentionAt,
        x: &Tensor,
        images: usize,
        products: &mut dyn Products,
    ) -> Result<Tensor> {
        let [q, k, v] = [query, key, value].map(|layer| products.product(self, layer, x));
        let (heads, (head_dim, scale)) = (self.net.options.heads, self.head());
        let shape =
            Shape { heads, kv_heads: heads, head_dim, scale, softcap: None, window: None, causal: false };
        let lengths = vec![POINTS; images].into();
        let mixed = attention(self.net.on, shape, &lengths, &q?, &k?, &v?)?;
        products.product(self, output, &mixed)
    }

    fn cross(
        &self,
        [query, key, value, output]: AttentionAt,
        x: &Tensor,
        words: &Tensor,
        images: usize,
        products: &mut dyn Products,
    ) -> Result<Tensor> {
        let (heads, (head_dim, scale)) = (self.net.options.heads, self.head());
        let mut split = |layer, x: &Tensor, count| -> Result<Tensor> {
            let x = products.product(self, layer, x)?.reshape((images, count, heads, head_dim))?;
            Ok(x.transpose(1, 2)?.contiguous()?)
        };
        let q = split(query, x, POINTS)?;
        let (k, v) = (split(key, words, TOKENS)?, split(value, words, TOKENS)?);
        let scores = (q.matmul(&k.transpose(D::Minus1, D::Minus2)?.contiguous()?)? * f64::from(scale))?;
        let mixed = softmax(self.net.on, &scores)?.matmul(&v)?;
        let mixed = mixed.transpose(1, 2)?.reshape((images * POINTS, heads * head_dim))?;
        products.product(self, output, &mixed)
    }
}
