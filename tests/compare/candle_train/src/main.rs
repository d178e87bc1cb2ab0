//! Trains the decoder of `ounce bench train` with plain candle: the flags and the line of JSON of
//! `tests/compare/train_step.py`, for `ounce bench train --against program=PATH`.
//!
//! Stock differentiable operations of candle-core and candle-nn, as a careful user writes it.

use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap, loss, ops, rotary_emb};

/// Sizes from `config.json`.
struct Shape {
    width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    kv: usize,
    vocab: usize,
    eps: f32,
    theta: f32,
}

struct Layer {
    norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    norm_after: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

struct Llama {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    shape: Shape,
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

impl Llama {
    fn new(shape: Shape, vb: &VarBuilder, context: usize) -> Result<Llama> {
        let (width, inner) = (shape.width, shape.inner);
        let kv = width / shape.heads * shape.kv;
        let mut layers = Vec::new();
        for layer in 0..shape.layers {
            let vb = vb.pp(format!("model.layers.{layer}"));
            layers.push(Layer {
                norm: vb.get(width, "input_layernorm.weight")?,
                q: vb.get((width, width), "self_attn.q_proj.weight")?,
                k: vb.get((kv, width), "self_attn.k_proj.weight")?,
                v: vb.get((kv, width), "self_attn.v_proj.weight")?,
                o: vb.get((width, width), "self_attn.o_proj.weight")?,
                norm_after: vb.get(width, "post_attention_layernorm.weight")?,
                gate: vb.get((inner, width), "mlp.gate_proj.weight")?,
                up: vb.get((inner, width), "mlp.up_proj.weight")?,
                down: vb.get((width, inner), "mlp.down_proj.weight")?,
            });
        }
        let dim = width / shape.heads;
        let radians: Vec<f32> =
            (0..dim / 2).map(|i| shape.theta.powf(-2.0 * i as f32 / dim as f32)).collect();
        let angles: Vec<f32> = (0..context).flat_map(|t| radians.iter().map(move |r| t as f32 * r)).collect();
        let angles = Tensor::from_vec(angles, (context, dim / 2), &Device::Cpu)?;
        let hidden = |i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..context).flat_map(|i| (0..context).map(move |j| hidden(i, j))).collect();
        Ok(Llama {
            embedding: vb.get((shape.vocab, width), "model.embed_tokens.weight")?,
            norm: vb.get(width, "model.norm.weight")?,
            head: vb.get((shape.vocab, width), "lm_head.weight")?,
            layers,
            shape,
            cos: angles.cos()?,
            sin: angles.sin()?,
            mask: Tensor::from_vec(mask, (context, context), &Device::Cpu)?,
        })
    }

    /// Logits `[batch · time, vocab]` of ids `[batch, time]`.
    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        let (width, heads, kv) = (self.shape.width, self.shape.heads, self.shape.kv);
        let dim = width / heads;
        let norm = |x: &Tensor, weight: &Tensor| ops::rms_norm_slow(x, weight, self.shape.eps);
        let linear = |x: &Tensor, weight: &Tensor| x.matmul(&weight.t()?);
        let mut x = self.embedding.index_select(&ids.flatten_all()?, 0)?;
        for layer in &self.layers {
            let h = norm(&x, &layer.norm)?;
            let split = |weight: &Tensor, n: usize| -> Result<Tensor> {
                linear(&h, weight)?.reshape((batch, time, n, dim))?.transpose(1, 2)?.contiguous()
            };
            let q = rotary_emb::rope_slow(&split(&layer.q, heads)?, &self.cos, &self.sin)?;
            let k = rotary_emb::rope_slow(&split(&layer.k, kv)?, &self.cos, &self.sin)?;
            let v = split(&layer.v, kv)?;
            let repeat = |x: Tensor| -> Result<Tensor> {
                if kv == heads {
                    return Ok(x);
                }
                let x = x.unsqueeze(2)?.expand((batch, kv, heads / kv, time, dim))?;
                x.reshape((batch, heads, time, dim))
            };
            let (k, v) = (repeat(k)?, repeat(v)?);
            let scores = (q.matmul(&k.t()?)? * (1.0 / (dim as f64).sqrt()))?.broadcast_add(&self.mask)?;
            let y = ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
            let y = y.transpose(1, 2)?.reshape((batch * time, width))?;
            x = (x + linear(&y, &layer.o)?)?;
            let h = norm(&x, &layer.norm_after)?;
            let gated = (linear(&h, &layer.gate)?.silu()? * linear(&h, &layer.up)?)?;
            x = (x + linear(&gated, &layer.down)?)?;
        }
        linear(&norm(&x, &self.norm)?, &self.head)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |flag: &str| arguments.iter().position(|it| it == flag).and_then(|at| arguments.get(at + 1));
    let number = |flag: &str| {
        option(flag).and_then(|it| it.parse::<usize>().ok()).ok_or(format!("{flag} N is missing"))
    };
    let folder = option("--folder").ok_or("--folder MODEL is missing")?;
    let (batch, context, steps) = (number("--batch")?, number("--context")?, number("--steps")?);
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(format!("{folder}/config.json"))?)?;
    let size =
        |key: &str| config[key].as_u64().map(|it| it as usize).ok_or(format!("config.json has no {key}"));
    let shape = Shape {
        width: size("hidden_size")?,
        inner: size("intermediate_size")?,
        layers: size("num_hidden_layers")?,
        heads: size("num_attention_heads")?,
        kv: size("num_key_value_heads")?,
        vocab: size("vocab_size")?,
        eps: config["rms_norm_eps"].as_f64().unwrap_or(1e-5) as f32,
        theta: config["rope_theta"].as_f64().unwrap_or(10_000.0) as f32,
    };
    let mut map = VarMap::new();
    let net = Llama::new(shape, &VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu), context)?;
    map.load(format!("{folder}/model.safetensors"))?;
    let bytes = std::fs::read(option("--tokens").ok_or("--tokens FILE is missing")?)?;
    let ids: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|it| u32::from_le_bytes(*it)).collect();
    let vars: Vec<Var> = map.all_vars();
    let rate = option("--lr").map_or(Ok(1e-3), |it| it.parse::<f64>())?;
    let warmup = option("--warmup").map_or(Ok(0), |it| it.parse::<usize>())?.max(1);
    let params = ParamsAdamW { lr: rate, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 };
    let mut optimizer = AdamW::new(vars, params)?;
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for (step, rows) in ids.chunks_exact(batch * (context + 1)).cycle().take(steps).enumerate() {
        optimizer.set_learning_rate(rate * ((step + 1) as f64 / warmup as f64).min(1.0));
        let rows = Tensor::from_slice(rows, (batch, context + 1), &Device::Cpu)?;
        let start = Instant::now();
        let logits = net.forward(&rows.narrow(1, 0, context)?.contiguous()?)?;
        let targets = rows.narrow(1, 1, context)?.flatten_all()?;
        let loss = loss::cross_entropy(&logits, &targets)?;
        optimizer.backward_step(&loss)?;
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(loss.to_scalar::<f32>()?);
    }
    candle_train::report(&seconds, &losses)
}
