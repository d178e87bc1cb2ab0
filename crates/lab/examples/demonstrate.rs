//! Runs the demonstrations of the catalogue's working methods and keeps their evidence.
//!
//! `cargo run --release -p ounce-lab --example demonstrate -- docs/evidence 20`
//!
//! The first argument is the folder of the evidence store, the others are numbers of methods; without numbers all
//! working methods are run.

use ounce_lab::bench::Workbench;
use ounce_lab::{catalogue, store::Store};
use std::error::Error;

/// The seed of stored evidence.
const SEED: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = Store::new(arguments.next().ok_or("name the folder of the evidence store")?);
    let numbers: Vec<u16> = arguments.map(|number| number.parse()).collect::<Result<_, _>>()?;
    let bench = Workbench::new(SEED, |message: &str, done| eprintln!("{:3.0} % {message}", done * 100.0));
    for method in catalogue::methods() {
        if !numbers.is_empty() && !numbers.contains(&method.number) {
            continue;
        }
        let Some(evidence) = bench.run(method)? else { continue };
        for expectation in &evidence.expectations {
            let verdict = if expectation.holds { "holds" } else { "FAILS" };
            println!("{verdict}  {}: {}", expectation.text, expectation.measured);
        }
        println!("{} in {:.1} s", store.write(&evidence)?.display(), evidence.cost.seconds);
    }
    Ok(())
}
