//! Trains a small convolutional network on random pictures with plain candle and AdamW, and times its steps: the ground on
//! which vision work would be built.
//!
//! ```text
//! cargo run --release --bin cnn -- --batch 64 --steps 12
//! ```
//!
//! Three 3 × 3 convolutions of 32, 64 and 128 channels with ReLU on 3 × 32 × 32, the first two with 2 × 2 max pooling, the mean
//! over places, a linear layer to 10 labels: `tests/compare/cnn_step.py` is the same in PyTorch. Prints one line of
//! JSON. RAYON_NUM_THREADS sets the threads.

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{
    AdamW, Conv2d, Conv2dConfig, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, conv2d, linear,
    loss,
};

struct Cnn {
    convolutions: [Conv2d; 3],
    head: Linear,
}

impl Cnn {
    fn new(vars: VarBuilder) -> Result<Cnn> {
        let config = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
        let convolution = |from, to, name: &str| conv2d(from, to, 3, config, vars.pp(name));
        let convolutions =
            [convolution(3, 32, "conv1")?, convolution(32, 64, "conv2")?, convolution(64, 128, "conv3")?];
        Ok(Cnn { convolutions, head: linear(128, 10, vars.pp("head"))? })
    }

    fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let mut x = pictures.clone();
        for (number, convolution) in self.convolutions.iter().enumerate() {
            x = convolution.forward(&x)?.relu()?;
            if number < 2 {
                x = x.max_pool2d(2)?;
            }
        }
        self.head.forward(&x.mean((2, 3))?)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |flag: &str, usual: usize| {
        let at = arguments.iter().position(|it| it == flag);
        at.and_then(|at| arguments.get(at + 1)).map_or(Ok(usual), |it| it.parse::<usize>())
    };
    let (batch, steps) = (number("--batch", 64)?, number("--steps", 12)?);
    let map = VarMap::new();
    let net = Cnn::new(VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let vars: Vec<Var> = map.all_vars();
    let mut optimizer = AdamW::new(vars, ParamsAdamW { lr: 1e-3, ..ParamsAdamW::default() })?;
    let pictures = Tensor::randn(0f32, 1f32, (batch, 3, 32, 32), &Device::Cpu)?;
    let labels: Vec<u32> = (0..batch as u32).map(|at| at % 10).collect();
    let labels = Tensor::new(labels, &Device::Cpu)?;
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let start = Instant::now();
        let loss = loss::cross_entropy(&net.forward(&pictures)?, &labels)?;
        optimizer.backward_step(&loss)?;
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(loss.to_scalar::<f32>()?);
    }
    candle_train::report(&seconds, &losses)
}
