//! Writes generated stories to the standard output.
//!
//! `cargo run --release -p ounce-lab --example stories -- --seed 1 --bytes 40000000 > train.txt`
//!
//! With `--documents` texts stand between lines `<|endoftext|>`, some of them together: what models are trained on.
//! Seeds below 1000 are for training, the others are held out (see `ounce_lab::stories`).

use std::error::Error;
use std::io::Write;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut seed, mut bytes, mut documents) = (1u64, 1_000_000usize, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        if flag == "--documents" {
            documents = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a number"))?;
        match flag.as_str() {
            "--seed" => seed = value.parse()?,
            "--bytes" => bytes = value.parse()?,
            _ => return Err(format!("unknown option {flag}; use --seed N, --bytes N and --documents").into()),
        }
    }
    let write = if documents { ounce_lab::stories::documents } else { ounce_lab::stories::corpus };
    std::io::stdout().write_all(write(seed, bytes).as_bytes())?;
    Ok(())
}
