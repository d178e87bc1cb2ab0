//! Classifiers of texts, tokens and spans against transformers (`tests/golden/classifiers.py`).

use std::path::Path;

use ounce_engine::{Engine, Mode};
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::formats::{WriteOptions, hf};
use ounce_model::weights::TensorSource;
use ounce_model::{Model, families::classifier::label_names};

#[test]
fn scores_are_those_of_transformers_also_after_writing() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/classifiers");
    let mut count = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let folder = entry.unwrap().path();
        let file = SafetensorsFile::open(&folder.join("scores.safetensors")).unwrap();
        let expected = file.tensor("scores").unwrap().to_f32().unwrap();
        let ids = file.tensor("input_ids").unwrap();
        let ids: Vec<u32> =
            ids.data.as_chunks::<4>().0.iter().map(|&it| i32::from_le_bytes(it) as u32).collect();
        let model = Model::open(&folder).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let copy = scratch.path().join("copy");
        hf::write_model(&model, &copy, &WriteOptions::default(), &mut |_, _| Ok(())).unwrap();
        for model in [&model, &Model::open(&copy).unwrap()] {
            let engine = Engine::load(model, Mode::Reference).unwrap();
            let scores = engine.classify(&ids, &[]).unwrap();
            assert_eq!(scores.len(), expected.len(), "{}", folder.display());
            for (found, expected) in scores.iter().zip(&expected) {
                assert!((found - expected).abs() < 2e-4, "{}: {found} for {expected}", folder.display());
            }
            let labels = model.spec.classifier.unwrap().labels;
            assert_eq!(label_names(&model.config, labels)[1], "LABEL_1");
            assert!(engine.classify(&[], &[]).is_err());
        }
        count += 1;
    }
    assert_eq!(count, 10, "all golden classifiers");
}

#[test]
fn a_language_model_has_no_labels() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama");
    let engine = Engine::new(&Model::open(model).unwrap()).unwrap();
    assert!(engine.classify(&[5], &[]).unwrap_err().to_string().contains("no classifier"));
}
