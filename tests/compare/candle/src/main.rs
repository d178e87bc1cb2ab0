//! candle's quantized llama with llama-bench's flags (-m -p -n -r -t -o json), for `ounce bench speed --against`.

use std::time::Instant;

use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

fn main() -> candle_core::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |flag: &str| arguments.iter().position(|it| it == flag).map(|at| arguments[at + 1].clone());
    let number = |flag: &str| option(flag).map_or(0, |it| it.parse::<usize>().expect("a number"));
    let path = option("-m").expect("-m FILE");
    let (prompt, generation, runs) = (number("-p"), number("-n"), number("-r").max(1));
    let mut file = std::fs::File::open(&path)?;
    let content = gguf_file::Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    let ids: Vec<u32> = (0..prompt.max(generation) as u32).map(|i| i.wrapping_mul(2_654_435_761) % 32_000).collect();
    let mut once = || -> candle_core::Result<f64> {
        let start = Instant::now();
        if prompt > 0 {
            let input = Tensor::new(&ids[..prompt], &Device::Cpu)?.unsqueeze(0)?;
            model.forward(&input, 0)?;
        }
        for index in 0..generation {
            let input = Tensor::new(&ids[index..index + 1], &Device::Cpu)?.unsqueeze(0)?;
            model.forward(&input, index)?;
        }
        Ok((prompt + generation) as f64 / start.elapsed().as_secs_f64())
    };
    once()?;
    let samples = (0..runs).map(|_| once()).collect::<candle_core::Result<Vec<f64>>>()?;
    println!("[{{\"n_prompt\": {prompt}, \"n_gen\": {generation}, \"avg_ts\": {}}}]", samples.iter().sum::<f64>() / runs as f64);
    Ok(())
}
