//! Folders with linear layers in 8-bit floats and in NF4, read again.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use ounce_kernels::{DType, quant};
use ounce_model::Model;
use ounce_model::formats::{Packing, WriteOptions, hf};
use serde_json::Value;

fn golden(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name)).unwrap()
}

fn written(model: &Model, options: &WriteOptions) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy");
    let forecast = hf::forecast(model, &path, options).unwrap();
    let bytes = hf::write_model(model, &path, options, &mut |_, _| Ok(())).unwrap();
    assert_eq!(bytes, forecast.bytes);
    (folder, path)
}

fn settings(path: &Path) -> Value {
    let config: Value = serde_json::from_slice(&std::fs::read(path.join("config.json")).unwrap()).unwrap();
    config["quantization_config"].clone()
}

fn is_linear(name: &str, shape: &[usize]) -> bool {
    name.starts_with("layers.") && shape.len() == 2
}

fn nf4() -> WriteOptions {
    WriteOptions { packing: Some(Packing::Nf4), ..WriteOptions::default() }
}

fn float8() -> WriteOptions {
    WriteOptions {
        dtype: Some(DType::F8E4M3),
        packing: Some(Packing::CompressedTensors),
        ..WriteOptions::default()
    }
}

/// The numbers of NF4 to the digits of the paper.
const NUMBERS: [f32; 16] = [
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105, 0.0, 0.0795803, 0.1609302,
    0.2461123, 0.3379152, 0.4407098, 0.562617, 0.7229568, 1.0,
];

#[test]
fn nf4_takes_the_nearest_number_of_each_block_and_leaves_the_rest() {
    for name in ["llama", "llama_tied", "phi3", "mixtral"] {
        let before = golden(name);
        let (_folder, path) = written(&before, &nf4());
        let after = Model::open(&path).unwrap();
        assert_eq!(before.spec, after.spec, "{name}");
        let said = settings(&path);
        assert_eq!((&said["bnb_4bit_quant_type"], &said["load_in_4bit"]), (&"nf4".into(), &true.into()));
        let mut linear = 0;
        for tensor in before.weights.names() {
            let shape = before.weights.info(tensor).unwrap().1.to_vec();
            let (old, new) = (before.weights.f32(tensor).unwrap(), after.weights.f32(tensor).unwrap());
            if !is_linear(tensor, &shape) || tensor.contains(".router.") {
                assert_eq!(old, new, "{name}: {tensor} stays");
                continue;
            }
            linear += 1;
            let narrow = after.weights.info(tensor).unwrap().0;
            // Experts and fused matrices lie whole in the file, and blocks run through them: errors say enough.
            let largest = old.iter().fold(0.0f32, |most, it| most.max(it.abs()));
            let rounding = if narrow == DType::F32 { 1e-6 } else { 1.0 / 256.0 };
            for (old, new) in old.iter().zip(&new) {
                assert!((old - new).abs() <= largest * (0.1520 + rounding), "{name}: {tensor}: {old} {new}");
            }
            if name == "llama" && narrow == DType::F32 {
                for (old, new) in old.chunks(64).zip(new.chunks(64)) {
                    let most = old.iter().fold(0.0f32, |most, it| most.max(it.abs()));
                    for (old, new) in old.iter().zip(new) {
                        let far = |number: &f32| (number * most - old).abs();
                        let least = NUMBERS.iter().map(far).fold(f32::INFINITY, f32::min);
                        assert!(((old - new).abs() - least).abs() < 1e-6 * most, "{tensor}: {old} {new}");
                    }
                }
            }
        }
        assert!(linear > 0, "{name}");
    }
}

#[test]
fn eight_bit_floats_have_a_scale_for_each_row() {
    for name in ["llama", "qwen3"] {
        let before = golden(name);
        let (_folder, path) = written(&before, &float8());
        let after = Model::open(&path).unwrap();
        assert_eq!(before.spec, after.spec, "{name}");
        let weights = &settings(&path)["config_groups"]["group_0"]["weights"];
        assert_eq!((&weights["type"], &weights["strategy"]), (&"float".into(), &"channel".into()));
        for tensor in before.weights.names() {
            let shape = before.weights.info(tensor).unwrap().1.to_vec();
            let (old, new) = (before.weights.f32(tensor).unwrap(), after.weights.f32(tensor).unwrap());
            if !is_linear(tensor, &shape) {
                assert_eq!(old, new, "{name}: {tensor} stays");
                continue;
            }
            for (old, new) in old.chunks(shape[1]).zip(new.chunks(shape[1])) {
                let most = old.iter().fold(0.0f32, |most, it| most.max(it.abs()));
                for (old, new) in old.iter().zip(new) {
                    // Three bits of mantissa, and steps of 2^-9 of the scale below 2^-6 of it; BF16 rounds again.
                    let bound = (old.abs() / 16.0 + old.abs() / 128.0).max(most / 448.0 / 900.0);
                    assert!((old - new).abs() <= bound, "{name}: {tensor}: {old} {new}");
                }
            }
        }
    }
}

#[test]
fn one_scale_suits_the_largest_weight_of_its_matrix() {
    let before = golden("llama");
    let options = WriteOptions { packing: Some(Packing::MatrixFloats), ..float8() };
    let (_folder, path) = written(&before, &options);
    assert_eq!(settings(&path)["config_groups"]["group_0"]["weights"]["strategy"], "tensor");
    let after = Model::open(&path).unwrap();
    for tensor in before.weights.names() {
        let shape = before.weights.info(tensor).unwrap().1.to_vec();
        let (old, new) = (before.weights.f32(tensor).unwrap(), after.weights.f32(tensor).unwrap());
        let most = old.iter().fold(0.0f32, |most, it| most.max(it.abs()));
        for (old, new) in old.iter().zip(&new) {
            let bound = (old.abs() / 16.0 + old.abs() / 128.0).max(most / 448.0 / 900.0);
            let bound = if is_linear(tensor, &shape) { bound } else { 0.0 };
            assert!((old - new).abs() <= bound, "{tensor}: {old} {new}");
        }
    }
    let alone = WriteOptions { packing: Some(Packing::MatrixFloats), ..WriteOptions::default() };
    let error = hf::forecast(&before, &path.with_extension("x"), &alone).unwrap_err().to_string();
    assert!(error.contains("F8_E4M3"), "{error}");
}

#[test]
fn blocks_with_powers_of_two_keep_their_codes() {
    let before = golden("llama");
    let options = WriteOptions { dtype: Some(DType::MXFP4), ..WriteOptions::default() };
    let (_folder, path) = written(&before, &options);
    assert_eq!(settings(&path)["format"], "mxfp4-pack-quantized");
    let after = Model::open(&path).unwrap();
    let mut packed = 0;
    for tensor in before.weights.names() {
        let new = after.weights.get(tensor).unwrap();
        let old = before.weights.f32(tensor).unwrap();
        if new.dtype != DType::MXFP4 {
            assert_eq!(old, new.to_f32().unwrap(), "{tensor} stays");
            continue;
        }
        packed += 1;
        let mut bytes = Vec::new();
        quant::encode_rows(DType::MXFP4, &old, new.row_len(), &mut bytes).unwrap();
        assert_eq!(bytes, *new.data, "{tensor}");
    }
    assert!(packed > 0);
}

#[test]
fn what_is_read_and_written_again_is_the_same() {
    let model = golden("llama");
    let mxfp4 = WriteOptions { dtype: Some(DType::MXFP4), ..WriteOptions::default() };
    for options in [nf4(), float8(), mxfp4] {
        let (_folder, path) = written(&model, &options);
        let (_other, again) = written(&Model::open(&path).unwrap(), &options);
        let (a, b) = (Model::open(&path).unwrap(), Model::open(&again).unwrap());
        for name in a.weights.names() {
            let (a, b) = (a.weights.get(name).unwrap(), b.weights.get(name).unwrap());
            assert_eq!((a.dtype, &*a.data), (b.dtype, &*b.data), "{name}");
        }
    }
}

#[test]
fn layers_that_other_tools_do_not_pack_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |model: &Model, options: &WriteOptions| {
        hf::forecast(model, &folder.path().join("x"), options).unwrap_err().to_string()
    };
    let message = refused(&golden("gpt2"), &nf4());
    assert!(message.contains("no weight of this model can be packed"), "{message}");
    let both = WriteOptions { dtype: Some(DType::G4x64), ..nf4() };
    let message = refused(&golden("llama"), &both);
    assert!(message.contains("NF4 is a format of its own"), "{message}");
    assert!(quant::can_encode(DType::F8E4M3));
}
