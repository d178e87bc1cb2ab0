//! `config.json`, `generation_config.json`, `modules.json` and `tokenizer.json`.

use serde_json::{Value, json};

use crate::folder::Folder;
use crate::refused;

const HUGE: u64 = 1 << 60;

/// Opens the sound folder with one file replaced.
fn replaced(name: &str, content: &[u8], words: &[&str]) {
    let folder = Folder::new();
    folder.write(name, content);
    let case = format!("{name}: {}", String::from_utf8_lossy(&content[..content.len().min(80)]));
    refused(&case, &[words, &[name]].concat(), || folder.open());
}

#[test]
fn text_that_is_no_settings_is_refused() {
    let nested = "[".repeat(100_000);
    let cases: [(&[u8], &str); 9] = [
        (b"", "is no valid JSON (EOF"),
        (b"{", "is no valid JSON"),
        (b"{\"a\":\"", "is no valid JSON"),
        (b"\xff", "is no valid JSON"),
        (b"[]", "should hold a JSON object"),
        (b"null", "should hold a JSON object"),
        (b"{\"a\":1e400}", "is no valid JSON (number out of range"),
        (b"{\"a\":NaN}", "is no valid JSON"),
        (nested.as_bytes(), "is no valid JSON (recursion limit"),
    ];
    for name in ["config.json", "generation_config.json"] {
        for (content, words) in cases {
            replaced(name, content, &[words, "fetch"]);
        }
    }
}

#[test]
fn files_of_absurd_length_are_not_read() {
    for name in ["config.json", "generation_config.json", "modules.json", "special_tokens_map.json"] {
        let folder = Folder::new();
        std::fs::File::create(folder.file(name)).unwrap().set_len(1 << 40).unwrap();
        refused(name, &[name, "has 1099511627776 bytes", "is it the right file?"], || folder.open());
    }
    let folder = Folder::new();
    folder.remove("config.json");
    refused("no settings", &["has no config.json"], || folder.open());
    folder.write("config.json/x", "");
    refused("a folder", &["config.json"], || folder.open());
}

#[test]
fn wrong_values_are_refused_with_their_key() {
    let cases: Vec<(&str, Value, &str)> = vec![
        ("hidden_size", Value::Null, "is missing"),
        ("hidden_size", json!(0), "should not be 0"),
        ("hidden_size", json!(-1), "should be a whole number"),
        (
            "hidden_size",
            json!(HUGE),
            "should be a whole number from 0 to 2147483648, found 1152921504606846976",
        ),
        ("hidden_size", json!(8.5), "found 8.5"),
        ("hidden_size", json!("8"), "found \"8\""),
        ("hidden_size", json!(vec![1; 100]), "found a list of 100 items"),
        ("hidden_size", json!(true), "found true"),
        ("intermediate_size", json!(HUGE), "should be a whole number"),
        ("num_hidden_layers", json!(HUGE), "should be a whole number"),
        ("num_attention_heads", json!("NaN"), "found \"NaN\""),
        ("vocab_size", json!(1e300), "should be a whole number"),
        ("max_position_embeddings", json!(-5), "should be a whole number"),
        ("rms_norm_eps", json!("small"), "should be a finite number"),
        ("rms_norm_eps", json!(1e300), "should be a finite number"),
        ("rope_theta", json!(0), "should be positive"),
        ("rope_theta", json!(-1.0), "should be positive"),
        ("rope_scaling", json!("linear"), "should be an object"),
        ("rope_scaling", json!({"rope_type": "axial"}), "\"axial\" is none that ounce knows"),
        ("partial_rotary_factor", json!(2), "should be within 0 and 1"),
        ("head_dim", json!(1 << 30), "are more than the 4096"),
        ("hidden_act", json!("xielu"), "\"xielu\" is none that ounce knows"),
        ("tie_word_embeddings", json!("yes"), "should be true or false"),
        ("model_type", json!("mamba"), "is no family that ounce knows; it knows llama"),
        ("model_type", json!(5), "should be a string"),
        ("model_type", Value::Null, "(missing) is no family"),
        ("architectures", json!("LlamaForCausalLM"), "should be a list of strings"),
        (
            "quantization_config",
            json!({"quant_method": "aqlm"}),
            "packed by aqlm, which ounce does not read; it reads gptq",
        ),
        ("quantization_config", json!({}), "packed by an unnamed method"),
        ("quantization_config", json!("awq"), "should be an object"),
        ("compression_config", json!({"quant_method": "sparse"}), "packed by sparse"),
        ("eos_token_id", json!("</s>"), "should be a token id"),
        ("eos_token_id", json!([1, -1]), "should be a token id"),
    ];
    for (key, value, words) in cases {
        let case = format!("{key} {value}");
        refused(&case, &["config.json: ", key, words], || Folder::with_settings(&[(key, value)]).open());
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let scaling = |value: Value| ("rope_scaling", value);
    let cases: Vec<((&str, Value), &str)> = vec![
        (("num_key_value_heads", json!(0)), "layer 0: 2 attention heads can't share 0 key/value heads"),
        (("num_key_value_heads", json!(3)), "layer 0: 2 attention heads can't share 3 key/value heads"),
        (("num_attention_heads", json!(9)), "layer 0: a head has no dimensions"),
        (("num_attention_heads", json!(8)), "layer 0: 1 rotary dimensions do not fit heads of 1"),
        (("head_dim", json!(0)), "layer 0: a head has no dimensions"),
        (("head_dim", json!(3)), "layer 0: 3 rotary dimensions do not fit heads of 3"),
        (("num_hidden_layers", json!(1 << 30)), "1073741824 layers are more than the 10000"),
        (("num_attention_heads", json!(1 << 30)), "layer 0: a head has no dimensions"),
        (("rms_norm_eps", json!(-1e-5)), "the epsilon -0.00001 of a norm should be"),
        (("intermediate_size", json!(0)), "key intermediate_size: should not be 0"),
        (scaling(json!({"rope_type": "linear"})), "key factor: is missing"),
        (scaling(json!({"rope_type": "linear", "factor": 0})), "key factor: should be positive"),
        (
            scaling(json!({"rope_type": "linear", "factor": 1e-44})),
            "layer 0: the rotary settings give angles that are no numbers",
        ),
        (scaling(json!({"rope_type": "longrope", "short_factor": [1]})), "should list 2 positive divisors"),
    ];
    for ((key, value), words) in cases {
        let case = format!("{key} {value}");
        refused(&case, &["config.json: ", words], || Folder::with_settings(&[(key, value)]).open());
    }
    let large = json!(1u64 << 31);
    let sizes = [("hidden_size", large.clone()), ("vocab_size", large.clone()), ("intermediate_size", large)];
    refused("product", &["config.json: its sizes multiply to more", "holds"], || {
        Folder::with_settings(&[&sizes[..], &[("head_dim", json!(4))]].concat()).open()
    });
}

#[test]
fn layers_of_different_shape_are_checked() {
    let cases: Vec<(Value, &str)> = vec![
        (json!({}), "key ounce_layers: should be a list of 2 objects"),
        (json!([{}]), "key ounce_layers: should be a list of 2 objects"),
        (json!([{}, 1]), "key ounce_layers: item 1 should be an object"),
        (json!([{}, {"heads": 1}]), "key ounce_layers: item 1: heads is none of num_attention_heads"),
        (json!([{}, {"num_attention_heads": 0}]), "layer 1: 0 attention heads can't share 1"),
        (json!([{}, {"num_key_value_heads": 4}]), "layer 1: 2 attention heads can't share 4"),
        (json!([{"num_attention_heads": "2"}, {}]), "key num_attention_heads: should be a whole number"),
        (json!([{"intermediate_size": HUGE}, {}]), "key intermediate_size: should be a whole number"),
        (json!([{"intermediate_size": 0}, {}]), "layer 0: the feed-forward part has width 0"),
        (json!([{"attention": 0}, {}]), "key attention: should be true or false"),
        (json!([{}, {"shares": 1}]), "layer 1: it can't use the weights of layer 1"),
        (json!([{"shares": 1}, {}]), "layer 0: it can't use the weights of layer 1"),
        (json!([{}, {"shares": 0, "intermediate_size": 5}]), "layer 0, which has another shape"),
    ];
    for (value, words) in cases {
        let case = value.to_string();
        refused(&case, &["config.json: ", words], || {
            Folder::with_settings(&[("ounce_layers", value)]).open()
        });
    }
    let narrow = json!([{}, {"intermediate_size": 5}]);
    let words = ["tensor model.layers.1.mlp.gate_proj.weight: has shape [6, 8]", "asks for [5, 8]"];
    refused("narrow", &words, || Folder::with_settings(&[("ounce_layers", narrow)]).open());
    let none = json!([{}, {"attention": false}]);
    let words = ["tensor model.layers.1.input_layernorm.weight: is a weight of a layer that this family"];
    refused("no attention", &words, || Folder::with_settings(&[("ounce_layers", none)]).open());
}

#[test]
fn generation_settings_are_checked() {
    replaced(
        "generation_config.json",
        br#"{"eos_token_id":"</s>"}"#,
        &["key eos_token_id: should be a token id"],
    );
}

#[test]
fn modules_are_checked() {
    let pooling = |path: &str| format!(r#"[{{"type":"s.Pooling","path":"{path}"}}]"#);
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "is no valid JSON"),
        ("{}".into(), "should hold a list of modules"),
        ("[]".into(), "lists no Pooling module"),
        ("[1]".into(), "module 0 has no type"),
        (r#"[{"type":"s.Transformer"}]"#.into(), "lists no Pooling module"),
        (r#"[{"type":"s.Pooling"}]"#.into(), "module 0 has no path"),
        (r#"[{"type":"s.Dense","path":"2_Dense"}]"#.into(), "module 0, Dense, is none that ounce computes"),
        (pooling("../1_Pooling"), "leads out of the model's folder"),
        (pooling("/etc"), "leads out of the model's folder"),
    ];
    for (text, words) in cases {
        replaced("modules.json", text.as_bytes(), &[words]);
    }
    let folder = Folder::new();
    folder.write("modules.json", pooling("1_Pooling"));
    refused("missing", &["1_Pooling/config.json: is missing"], || folder.open());
    for (text, words) in [
        ("", "is no valid JSON"),
        ("{}", "key pooling_mode: no mode is none"),
        (r#"{"pooling_mode":"median"}"#, "key pooling_mode: median is none"),
        (r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":true}"#, "several modes at once"),
        (r#"{"pooling_mode_weightedmean_tokens":true}"#, "pooling_mode_weightedmean_tokens is none"),
        (r#"{"pooling_mode_cls_token":1}"#, "should be true or false"),
    ] {
        folder.write("1_Pooling/config.json", text);
        refused(text, &["1_Pooling/config.json: ", words], || folder.open());
    }
}

#[test]
fn a_damaged_tokenizer_is_refused() {
    replaced("tokenizer.json", br#"{"version":"1.0","model":{"#, &["not a usable tokenizer.json"]);
    replaced("tokenizer.json", b"\xff", &["is not UTF-8"]);
}
