//! The built-in model as other tools get it.

use ounce_lab::builtin;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model, hf};

/// The token that begins its texts is named in `tokenizer_config.json` only.
#[test]
fn the_token_that_begins_texts_is_known_and_converted() {
    let model = builtin::LANGUAGE.open().expect("opens");
    let scratch = tempfile::tempdir().expect("a folder");
    let (file, folder) = (scratch.path().join("model.gguf"), scratch.path().join("folder"));
    gguf_model::write_model(&model, &file, &WriteOptions::default(), &mut |_, _| Ok(())).expect("writes");
    hf::write_model(&model, &folder, &WriteOptions::default(), &mut |_, _| Ok(())).expect("writes");
    for model in [model, Model::open(&file).expect("opens"), Model::open(&folder).expect("opens")] {
        let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
        let name = model.origin.format.name();
        assert_eq!(tokenizer.special().bos, Some(0), "{name}");
        assert_eq!(tokenizer.special().eos, [0], "{name}");
        assert!(tokenizer.adds_bos() && !tokenizer.adds_eos(), "{name}");
    }
}
