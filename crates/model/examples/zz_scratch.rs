//! scratch
use ounce_model::tokenizer::{GgufVocab, Tokenizer, pre};
fn main() {
    let dir = std::path::Path::new("/work/main/tests/golden/tokenizer");
    let t = Tokenizer::from_json_bytes(&std::fs::read(dir.join("gpt2.json")).unwrap()).unwrap();
    let lines: Vec<String> = serde_json::from_slice(&std::fs::read(dir.join("lines.json")).unwrap()).unwrap();
    let mut out = serde_json::Map::new();
    for p in pre::TABLE {
        let name = p.names[0];
        let mut v = GgufVocab::from_tokenizer_named(&t, Some(name)).unwrap();
        v.huggingface_json = None;
        v.add_bos = Some(false);
        let tok = v.to_tokenizer().unwrap();
        let ids: Vec<Vec<u32>> = lines.iter().map(|l| tok.encode(l, false).unwrap()).collect();
        out.insert(name.into(), serde_json::json!(ids));
    }
    std::fs::write("/tmp/pre_ids.json", serde_json::Value::Object(out).to_string()).unwrap();
}
