//! A trained model end to end: stories260K, a llama2.c checkpoint of 260 000 weights, writes the story that its own
//! program writes and reaches the perplexity that other programs give it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ounce_engine::sample::logprobs;
use ounce_engine::{Engine, Generation, Sampler, Sampling};
use ounce_model::Model;

/// The folder of the checkpoint, or none with the reason printed.
fn data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/stories260k");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

#[test]
fn greedy_text_is_the_known_story() {
    let Some(folder) = data() else { return };
    let model = Model::open(folder.join("stories260K.bin")).unwrap_or_else(|error| panic!("{error}"));
    let tokenizer = model.tokenizer.clone().expect("tok512.bin lies beside it");
    let engine = Engine::new(&model).expect("an engine");
    let mut ids = Vec::new();
    let generation = Generation { max_tokens: 60, end_ids: vec![1, 2], top_logprobs: None };
    let mut sampler = Sampler::new(Sampling::greedy(), model.spec.vocab_size).expect("greedy");
    generation
        .run(
            &mut engine.session(),
            &mut sampler,
            &[1],
            |_| {},
            |step| {
                ids.push(step.id);
                Ok(ControlFlow::Continue(()))
            },
        )
        .expect("a story");
    let text = tokenizer.decode(&ids, true).expect("text");
    let known = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, \
                 she saw a big, red ball";
    assert!(text.starts_with(known), "{text}");
}

#[test]
fn perplexity_of_stories_is_the_known_one() {
    let Some(folder) = data() else { return };
    let model = Model::open(folder.join("stories260K.bin")).unwrap_or_else(|error| panic!("{error}"));
    let tokenizer = model.tokenizer.clone().expect("tok512.bin lies beside it");
    let engine = Engine::new(&model).expect("an engine");
    let sample = std::fs::read_to_string(folder.join("tinystories_sample.txt")).expect("the sample");
    let (mut loss, mut tokens) = (0.0f64, 0);
    for story in sample.split("<|endoftext|>").map(str::trim).filter(|story| story.len() > 200) {
        let ids = tokenizer.encode(story, true).expect("ids");
        assert_eq!(ids[0], 1, "a story begins with the beginning-of-text token");
        let logits = engine.session().logits(&ids).expect("logits");
        for (logits, &id) in logits.chunks_exact(model.spec.vocab_size).zip(&ids[1..]) {
            loss -= f64::from(logprobs(logits, id, 0).0.logprob);
            tokens += 1;
        }
    }
    let perplexity = (loss / f64::from(tokens)).exp();
    println!("{perplexity} over {tokens} tokens");
    // What a separate implementation in PyTorch gives for the same ids.
    assert_eq!(tokens, 1804);
    assert!((perplexity / 3.5482 - 1.0).abs() < 1e-3, "{perplexity}");
}
