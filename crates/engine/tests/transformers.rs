//! Every family's forward pass against transformers: the golden files under `tests/golden/models` hold tiny
//! random models that transformers wrote, and its float32 results for 64 tokens.

use std::path::{Path, PathBuf};

use ounce_engine::Engine;
use ounce_model::Model;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::weights::TensorSource;

/// Largest difference allowed, relative to the root mean square of the reference. Both sides compute in f32;
/// in f64 the references themselves move by about 1e-5.
const TOLERANCE: f64 = 2e-4;

fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models");
    let mut models: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("golden models").map(|entry| entry.expect("entry").path()).collect();
    models.sort();
    assert!(models.len() >= 30, "the golden models are there: {}", models.len());
    models
}

struct Golden(SafetensorsFile);

impl Golden {
    fn open(folder: &Path) -> Golden {
        Golden(SafetensorsFile::open(&folder.join("golden.safetensors")).expect("golden file"))
    }

    fn f32(&self, name: &str) -> Option<Vec<f32>> {
        self.0.info(name)?;
        Some(self.0.tensor(name).expect("tensor").to_f32().expect("f32"))
    }

    fn ids(&self, name: &str) -> Option<Vec<u32>> {
        self.0.info(name)?;
        let tensor = self.0.tensor(name).expect("tensor");
        Some(tensor.data.as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes) as u32).collect())
    }
}

/// The largest difference relative to the reference's scale.
fn difference(found: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(found.len(), reference.len(), "as many values as the reference has");
    let square: f64 = reference.iter().map(|&x| f64::from(x).powi(2)).sum();
    let scale = (square / reference.len() as f64).sqrt();
    let largest = found.iter().zip(reference).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    largest / scale
}

/// Runs `check` on every model and lists all that fail, so that one bad family does not hide another.
fn for_all(check: impl Fn(&Path, &Golden) -> Vec<(String, f64)>) {
    let mut compared = 0;
    let mut failures = Vec::new();
    for folder in models() {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        for (what, difference) in check(&folder, &Golden::open(&folder)) {
            compared += 1;
            println!("{name:24} {what:32} {difference:.2e}");
            if !(difference <= TOLERANCE) {
                failures.push(format!("{name}: {what} differs by {difference:.2e} of the reference's scale"));
            }
        }
    }
    assert!(compared > 30, "{compared} comparisons are too few to mean anything");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_whole_text_at_once() {
    for_all(|folder, golden| {
        let model = Model::open(folder).unwrap_or_else(|error| panic!("{error}"));
        let engine = Engine::new(&model).unwrap_or_else(|error| panic!("{error}"));
        let ids = golden.ids("input_ids").expect("ids");
        let types = golden.ids("token_type_ids").unwrap_or_default();
        let mut found = Vec::new();
        if let Some(reference) = golden.f32("logits") {
            let logits = if model.spec.causal {
                engine.session().logits(&ids).expect("logits")
            } else {
                engine.masked_logits(&ids, &types).expect("logits")
            };
            found.push(("logits".to_string(), difference(&logits, &reference)));
        }
        if let Some(reference) = golden.f32("last_hidden_state") {
            let hidden = engine.encode(&ids, &types).expect("hidden states");
            found.push(("hidden states".to_string(), difference(&hidden, &reference)));
        }
        if let Some(reference) = golden.f32("embedding") {
            let embedding = engine.embed(&ids, &types).expect("embedding");
            found.push(("embedding".to_string(), difference(&embedding, &reference)));
        }
        found
    });
}

#[test]
fn one_token_after_another() {
    for_all(|folder, golden| {
        let model = Model::open(folder).unwrap_or_else(|error| panic!("{error}"));
        let Some(reference) = golden.f32("logits").filter(|_| model.spec.causal) else { return Vec::new() };
        let engine = Engine::new(&model).unwrap_or_else(|error| panic!("{error}"));
        let ids = golden.ids("input_ids").expect("ids");
        let vocab = model.spec.vocab_size;
        let mut session = engine.session();
        // A prompt of 20, then single steps: the cache and the prefill must agree.
        let mut stepped = session.logits(&ids[..20]).expect("prompt");
        for &id in &ids[20..] {
            stepped.extend(session.feed(&[id], |_| {}).expect("step"));
        }
        let grows = model.spec.ropes();
        if grows.into_iter().any(|rope| rope.depends_on_length()) {
            // The reference saw the whole length at once, which a step knows only at the end.
            let last = ids.len() - 1;
            let found = difference(&stepped[last * vocab..], &reference[last * vocab..]);
            return vec![("last step".to_string(), found)];
        }
        vec![("steps".to_string(), difference(&stepped, &reference))]
    });
}
