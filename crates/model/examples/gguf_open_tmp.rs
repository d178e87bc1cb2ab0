//! temporary
use ounce_model::Model;
fn main() {
    for p in std::env::args().skip(1) {
        let t = std::time::Instant::now();
        match Model::open(&p) { Ok(m) => println!("{p}: {} {:?} tok {:?} eos {:?} {:?}", m.spec.family, m.weights, m.tokenizer, m.end_ids(), t.elapsed()), Err(e) => println!("{p}: {e}") }
    }
}
