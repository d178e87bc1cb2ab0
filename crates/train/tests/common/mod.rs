//! The golden models and the batch that their gradients are of.

#![allow(dead_code)] // each test file uses a part of this

use std::path::{Path, PathBuf};

use ounce_train::{Batch, IGNORE};

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The names and the metadata of a golden file.
pub fn header(path: &Path) -> serde_json::Value {
    let bytes = std::fs::read(path).expect("golden");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("golden")) as usize;
    serde_json::from_slice(&bytes[8..8 + length]).expect("golden")
}

/// The batch of the script.
pub fn batch(name: &str, masked: bool) -> Batch {
    let path = golden().join("models").join(name).join("golden.safetensors");
    let header = header(&path);
    let bytes = std::fs::read(&path).expect("golden");
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("golden")) as usize;
    let ints = |tensor: &str| -> Option<Vec<u32>> {
        let offsets = header.get(tensor)?["data_offsets"].as_array()?;
        let at = |index: usize| start + offsets[index].as_u64().expect("golden") as usize;
        let bytes = &bytes[at(0)..at(1)];
        Some(bytes.chunks_exact(4).map(|it| u32::from_le_bytes(it.try_into().expect("golden"))).collect())
    };
    let ids = ints("input_ids").expect("golden");
    let mut batch = Batch::default();
    for range in [0..40, 40..64] {
        let own = &ids[range.clone()];
        let (tokens, targets) = if masked { (own, own) } else { (&own[..own.len() - 1], &own[1..]) };
        let hidden = |(index, &target): (usize, &u32)| if index % 7 == 3 { IGNORE } else { target };
        batch.tokens.extend(tokens);
        batch.targets.extend(targets.iter().enumerate().map(hidden));
        batch.lengths.push(tokens.len());
        if let Some(types) = ints("token_type_ids") {
            batch.types.extend(&types[range][..tokens.len()]);
        }
    }
    batch
}

/// A test for each golden model whose gradients are known, one a family: `families!(compare)` calls `compare` with its name.
#[allow(unused_macros)]
macro_rules! families {
    ($compare:expr) => {
        families!(@tests $compare;
            llama,
            llama_tied,
            llama_bias,
            llama_rope_dynamic,
            gemma2,
            gemma3,
            qwen2_window,
            qwen3,
            phi3,
            gpt2,
            gpt_neox,
            gpt_neox_sequential,
            smollm3,
            granite,
            olmo2,
            stablelm,
            stablelm_parallel,
            mixtral,
            qwen2_moe,
            qwen3_moe,
            bert_mlm,
            roberta_mlm,
            distilbert_mlm,
            albert_mlm,
        );
    };
    (@tests $compare:expr; $($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            ($compare)(stringify!($name));
        }
    )*};
}
#[allow(unused_imports)]
pub(crate) use families;
