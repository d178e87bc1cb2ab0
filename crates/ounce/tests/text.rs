//! Commands that take text: run, tokenize, logits, eval, embed.

mod common;

use common::{Desk, golden, read_npy};
use ounce_model::Tensor;
use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::weights::TensorSource;

/// A tensor of a golden model's reference values.
fn reference(model: &str, name: &str) -> Tensor {
    let path = format!("{}/golden.safetensors", golden(model));
    SafetensorsFile::open(path.as_ref()).and_then(|file| file.tensor(name)).expect("golden values")
}

fn ids(tensor: &Tensor) -> Vec<String> {
    tensor
        .data
        .chunks_exact(4)
        .map(|it| i32::from_le_bytes([it[0], it[1], it[2], it[3]]).to_string())
        .collect()
}

#[test]
fn a_single_argument_that_is_no_model_is_a_prompt_for_the_built_in_one() {
    let desk = Desk::new();
    let ran = desk.run(&["run", "Once upon a time", "-n", "12", "--seed", "3"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("built-in ounce-tales") && ran.stderr.contains("seed 3"), "{}", ran.stderr);
    assert!(ran.stdout.len() > 12 && ran.stdout.ends_with('\n'), "{:?}", ran.stdout);
    assert_eq!(ran.stdout, desk.ok(&["run", "builtin", "Once upon a time", "-n", "12", "--seed", "3"]));
    assert_eq!(
        ran.stdout,
        desk.run_with(&["run", "builtin", "-", "-n", "12", "--seed", "3"], "Once upon a time").stdout
    );
    assert_eq!(
        ran.stdout,
        desk.run_with(&["run", "builtin", "-n", "12", "--seed", "3"], "Once upon a time").stdout
    );
}

#[test]
fn seeds_and_the_models_defaults_are_reported() {
    let desk = Desk::new();
    let report = desk.json(&["run", "builtin", "Once", "-n", "2"]);
    let again = report["sampling"]["seed"].as_u64().expect("a seed").to_string();
    assert_eq!(report["text"], desk.json(&["run", "builtin", "Once", "-n", "2", "--seed", &again])["text"]);
    let generation = ounce_lab::builtin::LANGUAGE.file("generation_config.json").expect("part of the model");
    let generation: serde_json::Value = serde_json::from_slice(generation).expect("JSON");
    if let Some(temperature) = generation.get("temperature").and_then(serde_json::Value::as_f64) {
        assert!((report["sampling"]["temperature"].as_f64().expect("a number") - temperature).abs() < 1e-6);
    }
    let ignored = desk.json(&["run", "builtin", "Once", "-n", "2", "--ignore-defaults"]);
    assert_eq!(ignored["sampling"]["top_k"], 40);
}

#[test]
fn answers_end_at_stop_strings_and_limits() {
    let desk = Desk::new();
    let run =
        |more: &[&str]| desk.json(&[&["run", "builtin", "Once upon a time", "--greedy"], more].concat());
    let whole = run(&["-n", "20"]);
    assert_eq!(
        (whole["finish"].as_str(), whole["tokens"].as_array().map(Vec::len)),
        (Some("length"), Some(20))
    );
    let text = whole["text"].as_str().expect("text");
    let stop = &text[5..9];
    let cut = run(&["-n", "20", "--stop", stop]);
    assert_eq!((cut["finish"].as_str(), cut["text"].as_str()), (Some("stop"), text.split(stop).next()));
    assert!(desk.fails(&["run", "builtin", "x", "--stop", ""]).contains("empty"));
}

#[test]
fn logprobs_come_with_each_token() {
    let desk = Desk::new();
    let report = desk.json(&["run", "builtin", "Once upon", "--greedy", "-n", "3", "--logprobs", "2"]);
    for (step, token) in
        report["logprobs"].as_array().expect("steps").iter().zip(report["tokens"].as_array().expect("ids"))
    {
        assert_eq!(step["id"], *token);
        assert_eq!(step["likeliest"].as_array().map(Vec::len), Some(2));
        assert_eq!(step["likeliest"][0][0]["logprob"], step["logprob"], "greedy takes the likeliest");
    }
    let text = desk.ok(&["run", "builtin", "Once upon", "--greedy", "-n", "3", "--logprobs", "2"]);
    assert!(text.contains("likeliest"), "{text}");
}

#[test]
fn verbose_reports_speed_and_memory_on_stderr() {
    let desk = Desk::new();
    let ran = desk.run(&["run", "builtin", "Once", "-n", "4", "--verbose"]);
    for word in ["load", "prompt", "decode", "tokens/s", "cache", "peak"] {
        assert!(ran.stderr.contains(word) && !ran.stdout.contains("tokens/s"), "{word}: {}", ran.stderr);
    }
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let desk = Desk::new();
    let long = "a cat ".repeat(2000);
    assert!(desk.fails(&["run", "builtin", &long]).contains("context"));
    assert!(desk.fails(&["run", "builtin", "hi", "--system", "Be brief."]).contains("chat template"));
    assert!(desk.fails(&["run", &golden("bge"), "hi"]).contains("encoder"));
    assert!(desk.fails(&["run", &golden("llama"), "hi"]).contains("tokenizer"));
}

#[test]
fn chat_models_answer_a_message_and_raw_goes_on_with_it() {
    let desk = Desk::new();
    desk.ok(&["convert", "builtin", "chat"]);
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    desk.write("chat/chat_template.jinja", template);
    assert!(desk.ok(&["show", "chat"]).contains("chat template   yes"));
    let tokens = |text: &str| desk.json(&["tokenize", "chat", text, "--no-special"])["tokens"].clone();
    let run = |more: &[&str]| {
        desk.json(&[&["run", "chat", "Hi", "-n", "2"], more].concat())["prompt_tokens"].clone()
    };
    assert_eq!(run(&[]), tokens("user: Hi\nassistant:"));
    assert_eq!(run(&["--system", "Be kind."]), tokens("system: Be kind.\nuser: Hi\nassistant:"));
    assert_eq!(run(&["--raw"]), desk.json(&["tokenize", "chat", "Hi"])["tokens"]);
}

#[test]
fn tokens_are_shown_counted_and_turned_back() {
    let desk = Desk::new();
    let report = desk.json(&["tokenize", "builtin", "Once upon a ü", "--no-special"]);
    let ids: Vec<String> = report["ids"].as_array().expect("ids").iter().map(ToString::to_string).collect();
    assert_eq!(report["bytes"], 14);
    assert_eq!(desk.ok(&["tokenize", "builtin", "--decode", &ids.join(",")]), "Once upon a ü\n");
    assert_eq!(
        desk.ok(&["tokenize", "builtin", "Once upon a ü", "--no-special", "--count"]),
        format!("{}\n", ids.len())
    );
    let lines = desk.run_with(&["tokenize", "builtin", "--no-special"], "Once upon a ü");
    assert_eq!(lines.stdout.lines().count(), ids.len());
    assert!(lines.stdout.contains("\" upon\"") && lines.stderr.contains("14 bytes"), "{}", lines.stdout);
    assert!(desk.fails(&["tokenize", "builtin", "--decode", "99999999"]).contains("no token"));
}

#[test]
fn logits_are_those_of_the_reference() {
    let desk = Desk::new();
    for (model, npy) in [("llama", "a.npy"), ("bert_mlm", "b.npy")] {
        // Token types of the reference would be needed for BERT; its shape is what is checked here.
        let expected = reference(model, "logits");
        let tokens = ids(&reference(model, "input_ids")).join(",");
        let report = desk.json(&["logits", &golden(model), "--tokens", &tokens, "--npy", npy]);
        let (shape, values) = read_npy(&desk.path(npy));
        assert_eq!(shape, expected.shape, "{model}");
        assert_eq!(report["positions"][0]["likeliest"].as_array().map(Vec::len), Some(5));
        if model == "llama" {
            let expected = expected.to_f32().expect("f32");
            let worst = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-3, "{worst}");
        }
    }
}

#[test]
fn hidden_states_are_those_of_the_reference() {
    let desk = Desk::new();
    let tokens = ids(&reference("minilm", "input_ids")).join(",");
    desk.ok(&["logits", &golden("minilm"), "--tokens", &tokens, "--hidden", "--npy", "h.npy"]);
    let expected = reference("minilm", "last_hidden_state");
    let (shape, values) = read_npy(&desk.path("h.npy"));
    assert_eq!(shape, expected.shape);
    let expected = expected.to_f32().expect("f32");
    assert!(values.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-3));
    assert!(desk.fails(&["logits", &golden("minilm"), "--tokens", "1,2"]).contains("without logits"));
}

#[test]
fn perplexity_follows_from_the_logits() {
    let desk = Desk::new();
    let text = "Once upon a time there was a cat.";
    desk.write("text.txt", text);
    // The logits are the reference mode's; the fast one rounds the activations of BF16 weights.
    let report = desk.json(&["eval", "builtin", "--perplexity", "text.txt", "--mode", "reference"]);
    let tokens: Vec<u32> =
        serde_json::from_value(desk.json(&["tokenize", "builtin", text, "--no-special"])["ids"].clone())
            .expect("ids");
    let prefix = report["prefix_token"].as_u64().expect("a prefix").to_string();
    let given: Vec<String> = std::iter::once(prefix).chain(tokens.iter().map(u32::to_string)).collect();
    desk.ok(&["logits", "builtin", "--tokens", &given.join(","), "--npy", "l.npy"]);
    let (shape, logits) = read_npy(&desk.path("l.npy"));
    let nats: f64 = tokens
        .iter()
        .zip(logits.chunks_exact(shape[1]))
        .map(|(&token, logits)| {
            let sum: f64 = logits.iter().map(|&it| f64::from(it).exp()).sum();
            sum.ln() - f64::from(logits[token as usize])
        })
        .sum();
    let value = |name: &str| report[name]["value"].as_f64().expect("a number");
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-5, "{a} against {b}");
    near(value("token_perplexity"), (nats / tokens.len() as f64).exp());
    near(value("word_perplexity"), (nats / 8.0).exp());
    near(value("bits_per_byte"), nats / 33.0 / std::f64::consts::LN_2);
}

#[test]
fn documents_are_predicted_apart() {
    let desk = Desk::new();
    desk.write("two.txt", "Once upon a time.<|endoftext|>Once upon a time.");
    desk.write("one.txt", "Once upon a time.");
    let two =
        desk.json(&["eval", "builtin", "--perplexity", "two.txt", "--document-separator", "<|endoftext|>"]);
    let one = desk.json(&["eval", "builtin", "--perplexity", "one.txt"]);
    assert_eq!((two["documents"].as_u64(), two["windows"].as_u64()), (Some(2), Some(2)));
    assert_eq!(two["bits_per_byte"]["value"], one["bits_per_byte"]["value"]);
    let text = desk.ok(&["eval", "builtin", "--perplexity", "two.txt", "--context", "4", "--stride", "2"]);
    assert!(text.contains("token perplexity") && text.contains(" ± "), "{text}");
}

#[test]
fn a_quantized_model_is_compared_with_its_original() {
    let desk = Desk::new();
    desk.write("text.txt", "Once upon a time there was a cat. The cat was very happy.");
    let tiny = "builtin-tiny";
    let against = ["eval", tiny, "--against", tiny, "--perplexity", "text.txt", "--context", "8"];
    let same = desk.json(&against);
    let divergence = &same["divergence"];
    assert_eq!(
        (divergence["mean_kl"]["value"].as_f64(), divergence["max_kl"].as_f64()),
        (Some(0.0), Some(0.0))
    );
    assert_eq!(divergence["top1_agreement"]["value"].as_f64(), Some(1.0));

    let quantized = [&against[..], &["--quant", "q4_0"]].concat();
    let report = desk.json(&quantized);
    let value = |name: &str| report["divergence"][name]["value"].as_f64().expect("a number");
    let kl = value("mean_kl");
    assert!(kl > 1e-4 && kl < 1.0, "{kl}");
    // The perplexities are those that each model has alone.
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-6, "{a} against {b}");
    let alone = |more: &[&str]| {
        let report =
            desk.json(&[&["eval", tiny, "--perplexity", "text.txt", "--context", "8"], more].concat());
        report["token_perplexity"]["value"].as_f64().expect("a number")
    };
    near(value("original_perplexity"), alone(&[]));
    near(value("perplexity"), alone(&["--quant", "q4_0"]));
    near(value("perplexity"), report["token_perplexity"]["value"].as_f64().expect("a number"));

    let text = desk.ok(&quantized);
    for words in ["token perplexity", "against ", "KL, nats a token", "99.9 %", "ratio of perplexities"] {
        assert!(text.contains(words), "{words:?} is missing: {text}");
    }
}

#[test]
fn a_cache_of_fewer_bits_loses_more_and_takes_less_memory() {
    let desk = Desk::new();
    desk.write("text.txt", common::corpus(40));
    let against = ["eval", "builtin", "--against", "builtin", "--perplexity", "text.txt", "--kv"];
    let kl = |kv: &str| {
        let report = desk.json(&[&against[..], &[kv]].concat());
        report["divergence"]["mean_kl"]["value"].as_f64().expect("a number")
    };
    let (eight, four) = (kl("q8_0"), kl("q4_0"));
    assert!(eight > 0.0 && eight < 1e-3 && four > 4.0 * eight && four < 0.2, "{eight} {four}");
    let bytes = |kv: &str| {
        let run = ["run", "builtin", "Once upon a time", "-n", "24", "--kv", kv];
        desk.json(&run)["timings"]["kv_cache_bytes"].as_f64().expect("bytes")
    };
    assert!(bytes("q4_0") < 0.65 * bytes("q8_0"));
    let refused = desk.run(&["run", "builtin", "x", "--kv", "q3"]);
    assert!(refused.code == 2 && refused.stderr.contains("q8_0 or q4_0"), "{}", refused.stderr);
}

#[test]
fn models_with_other_tokens_are_not_compared() {
    let desk = Desk::new();
    desk.write("text.txt", "Once upon a time.");
    let refused =
        |original: &str| desk.fails(&["eval", "builtin", "--against", original, "--perplexity", "text.txt"]);
    assert!(refused(&golden("bge")).contains("encoder"));
    assert!(refused(&golden("llama")).contains("tokenizer"));
    let other = desk.path("other");
    desk.ok(&["convert", "builtin", "other"]);
    let file = other.join("tokenizer.json");
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("a tokenizer")).expect("JSON");
    tokenizer["model"]["merges"] = serde_json::json!([]);
    std::fs::write(&file, tokenizer.to_string()).expect("file");
    assert!(refused("other").contains("other tokens"), "{}", refused("other"));
}

#[test]
fn texts_that_can_not_be_measured_are_refused() {
    let desk = Desk::new();
    desk.write("empty.txt", "");
    desk.write("latin1.txt", b"caf\xe9");
    desk.write("good.txt", "Once upon a time.");
    for (args, words) in [
        (&["--perplexity", "missing.txt"][..], "missing.txt"),
        (&["--perplexity", "empty.txt"], "nothing to predict"),
        (&["--perplexity", "latin1.txt"], "UTF-8"),
        (&["--perplexity", "good.txt", "--context", "0"], "--context"),
        (&["--perplexity", "good.txt", "--stride", "9999"], "stride"),
    ] {
        let error = desk.fails(&[&["eval", "builtin"], args].concat());
        assert!(error.contains(words), "{args:?} should say {words:?}: {error}");
    }
}

#[test]
fn embeddings_are_those_of_the_reference() {
    let desk = Desk::new();
    let model = golden("bge");
    let texts = std::fs::read_to_string(format!("{model}/texts.json")).expect("texts");
    let texts: Vec<String> = serde_json::from_str(&texts).expect("a list");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    desk.ok(&[&["embed", &model, "--npy", "e.npy", "--"], texts.as_slice()].concat());
    let expected = reference("bge", "texts.embeddings");
    let (shape, values) = read_npy(&desk.path("e.npy"));
    assert_eq!(shape, expected.shape);
    let expected = expected.to_f32().expect("f32");
    assert!(values.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn lines_of_a_file_are_compared_with_each_other() {
    let desk = Desk::new();
    desk.write("lines.txt", "a cat\na dog\na cat\n");
    let report = desk.json(&["embed", &golden("bge"), "--file", "lines.txt", "--similarity"]);
    let cosine = |a: usize, b: usize| report["similarity"][a][b].as_f64().expect("a number");
    assert!(
        (cosine(0, 0) - 1.0).abs() < 1e-6 && (cosine(0, 2) - 1.0).abs() < 1e-6 && cosine(0, 1) < 0.999_999
    );
    let long = desk.run(&["embed", &golden("bge"), &"word ".repeat(3000)]);
    assert!(long.code == 0 && long.stderr.contains("cut"), "{}", long.stderr);
    assert!(desk.fails(&["embed", &golden("bge"), "hi", "--prompt-name", "nothing"]).contains("prompt"));
}

#[test]
fn prompts_of_the_model_stand_before_the_text() {
    let desk = Desk::new();
    let model = golden("e5");
    let texts = std::fs::read_to_string(format!("{model}/texts.json")).expect("texts");
    let texts: Vec<String> = serde_json::from_str(&texts).expect("a list");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    desk.ok(
        &[&["embed", &model, "--prompt-name", "query", "--npy", "q.npy", "--"], texts.as_slice()].concat()
    );
    let expected = reference("e5", "texts.query_embeddings").to_f32().expect("f32");
    let (_, values) = read_npy(&desk.path("q.npy"));
    assert!(
        values.len() == expected.len() && values.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5)
    );
}

#[test]
fn a_tokenizer_is_trained_and_read_again() {
    let desk = Desk::new();
    let story = "Once upon a time, there was a cat. The cat had a red hat.\n<|endoftext|>\n";
    desk.write("data/a.txt", story.repeat(50));
    desk.write("data/b.jsonl", "{\"body\": \"A dog saw the hat.\"}\n".repeat(50));
    let args = ["tokenizer", "train", "data/a.txt", "-o", "new", "--vocab", "320"];
    // A unigram vocabulary finds little in the few different words of this text.
    for (kind, least) in [("bpe", 1.5), ("unigram", 1.1)] {
        let report = desk.json(&[&args[..], &["--kind", kind, "--force"]].concat());
        assert_eq!(report["kind"], kind);
        assert!(report["tokens"].as_u64().is_some_and(|tokens| tokens > 270 && tokens <= 320), "{report}");
        assert!(report["bytes_per_token"].as_f64().is_some_and(|bytes| bytes > least), "{report}");
        assert!(desk.path("new/tokenizer_config.json").is_file());
    }
    assert!(desk.fails(&args).contains("exists already"));
    let column = ["tokenizer", "train", "data/b.jsonl", "-o", "other", "--vocab", "270", "--column"];
    desk.ok(&[&column[..], &["body"]].concat());
    let error = desk.fails(&[&column[..], &["boby", "--force"]].concat());
    assert!(
        error.contains("b.jsonl:1: there is no column \"boby\" among body; did you mean \"body\"?"),
        "{error}"
    );
    assert!(
        desk.fails(&["tokenizer", "train", "nowhere.txt", "-o", "x"]).contains("nowhere.txt: No such file")
    );
    assert!(!desk.path("x").exists());
}
