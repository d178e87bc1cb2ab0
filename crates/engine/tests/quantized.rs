//! Checkpoints that other tools quantized, against what their own libraries decode and what transformers computes from
//! that (`tests/golden/quantized.py`), and what is said of damaged ones.

use std::path::{Path, PathBuf};

use ounce_engine::{Engine, Mode};
use ounce_kernels::{DType, quant};
use ounce_model::Model;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::formats::{Packing, WriteOptions, hf};
use ounce_model::weights::TensorSource;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quantized").join(name)
}

/// Each case, the format in which `down_proj` is shown, and that of `k_proj` if it is another.
const CASES: [(&str, DType, Option<DType>); 26] = [
    ("gptq_4", DType::G4x32, None),
    ("gptq_4_asymmetric", DType::G4x32, None),
    ("gptq_4_v2", DType::G4x64, None),
    ("gptq_3", DType::G3x32, None),
    ("gptq_3_v2", DType::G3x32, None),
    ("gptq_2", DType::G2x32, None),
    ("gptq_8_row", DType::G8x128, Some(DType::G8x64)),
    ("gptq_4_scattered", DType::F16, None),
    ("gptq_4_runs", DType::G4x32, None),
    ("awq_32", DType::G4x32, None),
    ("awq_64", DType::G4x64, None),
    ("compressed_4", DType::G4x32, None),
    ("compressed_4_asymmetric", DType::G4x64, None),
    ("compressed_8_row", DType::G8x128, Some(DType::G8x64)),
    ("compressed_3", DType::G3x32, None),
    ("compressed_2", DType::G2x32, None),
    ("compressed_5", DType::F16, None),
    ("compressed_4_f32", DType::F32, None),
    ("compressed_4_order", DType::F16, None),
    ("compressed_int8", DType::G8x128, Some(DType::G8x64)),
    ("compressed_f8_row", DType::BF16, None),
    ("compressed_f8", DType::F16, None),
    ("compressed_mxfp4", DType::MXFP4, None),
    ("bnb_nf4", DType::F16, None),
    ("bnb_nf4_double", DType::BF16, None),
    ("bnb_fp4", DType::F16, None),
];

/// A weight by its name in the file.
fn weight(model: &Model, file_name: &str) -> ounce_model::Tensor {
    let name = model.weights.names().find(|name| model.weights.file_name(name) == Some(file_name));
    model.weights.get(name.expect("such a weight")).unwrap_or_else(|error| panic!("{error}"))
}

/// The values as the library gives them: rounded once to its type.
fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    let (mut bytes, mut out) = (Vec::new(), vec![0.0; values.len()]);
    quant::encode(dtype, values, &mut bytes).expect("values that fit");
    quant::decode(dtype, &bytes, &mut out).expect("values");
    out
}

#[test]
fn weights_are_those_that_the_libraries_decode() {
    for (name, down, key) in CASES {
        let model = Model::open(folder(name)).unwrap_or_else(|error| panic!("{error}"));
        assert!(model.config.get("quantization_config").is_none(), "{name}: the model is no longer packed");
        let golden = SafetensorsFile::open(&folder(name).join("golden.safetensors")).expect("golden file");
        for (part, dtype) in [("mlp.down_proj", down), ("self_attn.k_proj", key.unwrap_or(down))] {
            let file_name = format!("model.layers.0.{part}.weight");
            let (tensor, expected) =
                (weight(&model, &file_name), golden.tensor(&file_name).expect("decoded"));
            assert_eq!(tensor.dtype, dtype, "{name}: {part}");
            assert_eq!(tensor.shape, expected.shape, "{name}: {part}");
            let found = rounded(&tensor.to_f32().expect("values"), expected.dtype);
            let expected = expected.to_f32().expect("values");
            let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
            if let Some(at) = differs {
                panic!("{name}: {part}: value {at} is {} and should be {}", found[at], expected[at]);
            }
        }
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for (name, ..) in CASES {
        let model = Model::open(folder(name)).unwrap_or_else(|error| panic!("{error}"));
        let golden = SafetensorsFile::open(&folder(name).join("golden.safetensors")).expect("golden file");
        let ids = golden.tensor("ids").expect("ids");
        let ids: Vec<u32> = ids.data.as_chunks::<4>().0.iter().map(|&id| u32::from_le_bytes(id)).collect();
        let expected = golden.tensor("logits").expect("logits").to_f32().expect("f32");
        let scale = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
        let difference = |found: &[f32]| {
            let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            differences.fold(0.0, f32::max) / scale
        };
        let engine = Engine::new(&model).unwrap_or_else(|error| panic!("{error}"));
        let found = difference(&engine.session().logits(&ids).expect("logits"));
        // Decoded weights are rounded to the checkpoint's own type, and the reference's are not.
        let down = weight(&model, "model.layers.0.mlp.down_proj.weight").dtype;
        let lossless = down.group_shape().is_some() || down == DType::MXFP4;
        assert!(found < if lossless { 2e-4 } else { 2e-2 }, "{name}: {found:e}");
        let engine = Engine::load(&model, Mode::fast()).unwrap_or_else(|error| panic!("{error}"));
        let found = difference(&engine.session().logits(&ids).expect("logits"));
        assert!(found < 0.1, "{name}, fast: {found:e}");
    }
}

/// A file, what to look for in it, and what to put in its place.
type Edit = (&'static str, &'static str, &'static str);

/// Opens a golden model with parts of its files replaced by others of the same length.
fn damaged(name: &str, edits: &[Edit]) -> String {
    let target = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        let mut content = std::fs::read(folder(name).join(file)).expect("golden file");
        for (_, from, to) in edits.iter().filter(|(of, ..)| *of == file) {
            let mut at = 0;
            while let Some(found) = content[at..].windows(from.len()).position(|it| it == from.as_bytes()) {
                content.splice(at + found..at + found + from.len(), to.bytes());
                at += found + to.len();
            }
            assert!(at > 0, "{name}: {file} has no {from}");
        }
        std::fs::write(target.path().join(file), content).expect("a file");
    }
    match Model::open(target.path()) {
        Ok(_) => panic!("{name} with {edits:?} should be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn damaged_checkpoints_are_refused_in_one_sentence() {
    const CONFIG: &str = "config.json";
    const WEIGHTS: &str = "model.safetensors";
    let scales = "down_proj.scales";
    let cases: [(&str, &[Edit], &[&str]); 22] = [
        (
            "gptq_4",
            &[(CONFIG, "\"gptq\",\n  \"bits\": 4", "\"gptq\",\n  \"bits\": 5")],
            &["key bits", "5 bits", "2, 3, 4 and 8"],
        ),
        (
            "gptq_4",
            &[(CONFIG, "\"checkpoint_format\": \"gptq\"", "\"checkpoint_format\": \"marlin\"")],
            &["marlin", "gptq_v2"],
        ),
        ("gptq_4", &[(CONFIG, "int32", "int16")], &["int16"]),
        (
            "gptq_4",
            &[(CONFIG, "\"group_size\": 32", "\"group_size\": 0")],
            &["group_size", "should not be 0"],
        ),
        (
            "gptq_4",
            &[(CONFIG, "\"quant_method\": \"gptq\"", "\"quant_method\": \"aqlm\"")],
            &["packed by aqlm", "it reads gptq, awq"],
        ),
        ("gptq_4", &[(WEIGHTS, scales, "down_proj.scalez")], &["down_proj.scales", "is missing"]),
        ("gptq_4", &[(WEIGHTS, "qzeros", "qzeroz")], &["qzeros", "is missing"]),
        ("gptq_4", &[(WEIGHTS, "[4,64]", "[64,4]")], &["scales has shape [64, 4]"]),
        ("gptq_4", &[(WEIGHTS, "[4,8]", "[8,4]")], &["qzeros has shape [8, 4] where [4, 8] belongs"]),
        ("gptq_4", &[(WEIGHTS, "qweight", "qweighs")], &["there is no such weight"]),
        ("awq_32", &[(CONFIG, "\"bits\": 4", "\"bits\": 3")], &["AWQ with 3 bits"]),
        ("awq_32", &[(CONFIG, "gemm", "gemv")], &["version gemv"]),
        (
            "awq_32",
            &[(CONFIG, "\"group_size\": 32", "\"group_size\": 48")],
            &["scales has shape [4, 64] where [3, 64]", "belongs"],
        ),
        ("compressed_4", &[(CONFIG, "\"num_bits\": 4", "\"num_bits\": 3")], &["do not hold", "[3] bits"]),
        ("compressed_4", &[(CONFIG, "\"num_bits\": 4", "\"num_bits\": 9")], &["9 bits"]),
        ("compressed_4", &[(CONFIG, "pack-quantized", "marlin-24")], &["marlin-24"]),
        ("compressed_4", &[(WEIGHTS, "weight_scale", "weight_scaly")], &["weight_scale", "is missing"]),
        ("compressed_4", &[(WEIGHTS, "weight_shape", "weight_shapy")], &["weight_shape", "is missing"]),
        ("bnb_nf4", &[(WEIGHTS, "\"blocksize\": 64", "\"blocksize\": 32")], &["absmax has shape"]),
        ("bnb_nf4", &[(CONFIG, "load_in_4bit\": true", "load_in_4bit\": false")], &["8 bits"]),
        ("bnb_nf4", &[(WEIGHTS, "\"shape\": [64, 128]", "\"shape\": [0, 9999]")], &["no matrix"]),
        (
            "bnb_nf4",
            &[(WEIGHTS, "\"shape\": [64, 128]", "\"shape\": [9, 999] ")],
            &["bytes where a matrix of [9, 999]"],
        ),
    ];
    for (name, edits, words) in cases {
        let message = damaged(name, edits);
        for word in words {
            assert!(message.contains(word), "{name} {edits:?}: {word:?} is missing in: {message}");
        }
        assert!(!message.contains('\n') && message.len() < 600, "{name}: no sentence: {message}");
    }
}

/// Writes a model and reads it again. The forecast has to be right.
fn again(model: &Model, options: &WriteOptions) -> (Model, tempfile::TempDir) {
    let target = tempfile::tempdir().expect("a folder");
    let path = target.path().join("written");
    let forecast = hf::forecast(model, &path, options).unwrap_or_else(|error| panic!("{error}"));
    let bytes = hf::write_model(model, &path, options, &mut |_, _| Ok(())).expect("a folder");
    let file = SafetensorsFile::open(&path.join("model.safetensors")).expect("weights");
    let sizes: u64 =
        file.names().iter().map(|name| file.tensor(name).expect("a tensor").data.len() as u64).sum();
    assert_eq!((forecast.bytes, forecast.bytes), (bytes, sizes));
    let names: Vec<&str> = forecast.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, file.names());
    (Model::open(&path).unwrap_or_else(|error| panic!("{error}")), target)
}

fn assert_same_weights(name: &str, model: &Model, written: &Model) {
    let names: Vec<&str> = model.weights.names().collect();
    assert_eq!(names, written.weights.names().collect::<Vec<_>>(), "{name}");
    for tensor in names {
        let [old, new] = [model, written].map(|model| model.weights.get(tensor).expect("a tensor"));
        assert_eq!((old.dtype, &old.shape), (new.dtype, &new.shape), "{name}: {tensor}");
        assert!(old.data[..] == new.data[..], "{name}: {tensor}");
    }
}

#[test]
fn packed_folders_read_back_are_equal() {
    for (name, dtype, other) in CASES {
        let model = Model::open(folder(name)).unwrap_or_else(|error| panic!("{error}"));
        let default = WriteOptions::default();
        let (written, target) = again(&model, &default);
        assert_same_weights(name, &model, &written);
        if dtype.group_shape().is_none() {
            continue;
        }
        let config = std::fs::read_to_string(target.path().join("written/config.json")).expect("settings");
        assert!(config.contains("pack-quantized"), "{name}: compressed-tensors unless said otherwise");
        // Two sizes of groups are two groups of the configuration, with their modules by name.
        assert_eq!(config.contains("group_1"), other.is_some(), "{name}");
        assert_eq!(config.contains("\"Linear\""), other.is_none(), "{name}");
        let gptq = WriteOptions { packing: Some(Packing::Gptq), ..default };
        if other.is_some() {
            let refused = hf::forecast(&model, &target.path().join("gptq"), &gptq).unwrap_err().to_string();
            assert!(refused.contains("one size of groups"), "{name}: {refused}");
            continue;
        }
        let (written, target) = again(&model, &gptq);
        assert_same_weights(name, &model, &written);
        let config = std::fs::read_to_string(target.path().join("written/config.json")).expect("settings");
        let has_zeros = name.contains("asymmetric") || ["gptq_2", "gptq_3_v2", "gptq_4_v2"].contains(&name);
        if has_zeros {
            assert!(
                config.contains("gptq_v2"),
                "{name}: a zero point of 0 has no place in the first version"
            );
        }
    }
}

#[test]
fn layers_are_quantized_while_they_are_written() {
    // The second has rows of 48 values, which no group divides: they stay as they are.
    for file in ["compressed_4_f32", "../models/llama"] {
        let model = Model::open(folder(file)).unwrap_or_else(|error| panic!("{error}"));
        for packing in [None, Some(Packing::CompressedTensors), Some(Packing::Gptq)] {
            for dtype in [DType::G2x32, DType::G3x32, DType::G4x64, DType::G8x256] {
                let options = WriteOptions { dtype: Some(dtype), packing, ..WriteOptions::default() };
                // Rows of other lengths get smaller groups, and GPTQ has one size; 48 rows of 3 bits fill no words.
                let one_size =
                    dtype == DType::G2x32 || (file == "compressed_4_f32" && dtype != DType::G8x256);
                if packing == Some(Packing::Gptq) && !one_size {
                    continue;
                }
                let (written, _target) = again(&model, &options);
                let mut packed = 0;
                for name in written.weights.names() {
                    let (found, shape) = written.weights.info(name).expect("a tensor");
                    let linear = name.starts_with("layers.") && shape.len() == 2;
                    let fitting = dtype.fitting(*shape.last().expect("no scalar")).filter(|_| linear);
                    assert_eq!(found, fitting.unwrap_or(DType::F32), "{name}");
                    let Some(fitting) = fitting else { continue };
                    packed += 1;
                    let mut expected = Vec::new();
                    let values = model.weights.f32(name).expect("values");
                    quant::encode(fitting, &values, &mut expected).expect("blocks");
                    assert!(written.weights.get(name).expect("a tensor").data[..] == expected[..], "{name}");
                }
                assert!(packed >= 7, "{packed} weights");
            }
        }
    }
}

#[test]
fn what_can_not_be_packed_is_refused() {
    let target = tempfile::tempdir().expect("a folder");
    let refused = |model: &str, options: WriteOptions| {
        let model = Model::open(folder(model)).unwrap_or_else(|error| panic!("{error}"));
        hf::forecast(&model, &target.path().join("x"), &options).unwrap_err().to_string()
    };
    let packing = Some(Packing::Gptq);
    let message = refused("../models/llama", WriteOptions { packing, ..WriteOptions::default() });
    assert!(message.contains("add --dtype g4_64"), "{message}");
    let dtype = Some(DType::G4x32);
    let message = refused("../models/gpt2", WriteOptions { dtype, ..WriteOptions::default() });
    assert!(message.contains("no weight of this model can be packed"), "{message}");
    let dtype = Some(DType::Q4_0);
    let message = refused("../models/llama", WriteOptions { dtype, ..WriteOptions::default() });
    assert!(message.contains("can't hold Q4_0"), "{message}");
}
