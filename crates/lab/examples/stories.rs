//! Writes generated stories to the standard output.
//!
//! `cargo run --release -p ounce-lab --example stories -- --seed 1 --bytes 40000000 > train.txt`
//!
//! Seeds below 1000 are for training, the others are held out (see `ounce_lab::stories`).

use std::error::Error;
use std::io::Write;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut seed, mut bytes) = (1u64, 1_000_000usize);
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a number"))?;
        match flag.as_str() {
            "--seed" => seed = value.parse()?,
            "--bytes" => bytes = value.parse()?,
            _ => return Err(format!("unknown option {flag}; use --seed N and --bytes N").into()),
        }
    }
    std::io::stdout().write_all(ounce_lab::stories::corpus(seed, bytes).as_bytes())?;
    Ok(())
}
