//! temporary
use ounce_model::{Model, formats::{WriteOptions, gguf_model, hf}};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dtype = a.get(1).and_then(|d| ounce_kernels::DType::parse(d));
    for pair in a[2..].chunks(2) {
        let m = match Model::open(&pair[0]) { Ok(m) => m, Err(e) => { println!("{}: {e}", pair[0]); continue } };
        if let Ok(list) = gguf_model::unexpressed(&m) { if !list.is_empty() { println!("{}: unexpressed {list:?}", pair[0]); } }
        let o = WriteOptions { dtype, overwrite: true, ..Default::default() };
        let p = std::path::Path::new(&pair[1]);
        let r = if pair[1].ends_with(".gguf") { gguf_model::write_model(&m, p, &o, &mut |_, _| Ok(())) } else { hf::write_model(&m, p, &o, &mut |_, _| Ok(())) };
        if let Err(e) = r { println!("{}: {e}", pair[0]); }
    }
}
