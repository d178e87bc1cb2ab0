//! The splitting rules behind `tokenizer.ggml.pre`: how byte-level BPE cuts a text before it merges.
//!
//! A GGUF file only names the rule; the wrong one gives wrong ids without any sign. So a name that isn't in the table is
//! an error, never a guess. The patterns are the ones of the models' own `tokenizer.json` files. Applied one after
//! the other: each cuts the pieces left by the one before into its matches and what lies between.

use serde_json::{Value, json};

use crate::{Error, Result};

/// A splitting rule and what goes with it.
#[derive(Debug)]
pub struct Pre {
    /// Its names in `tokenizer.ggml.pre`; the first is written where nothing tells more.
    pub names: &'static [&'static str],
    /// The patterns, in order.
    pub patterns: &'static [&'static str],
    /// How many of the last patterns see the byte-level spelling instead of the text.
    pub after_bytes: usize,
    /// Whether a piece that is a token as a whole is taken without merging.
    pub ignore_merges: bool,
    /// Whether text is brought to Unicode's composed form (NFC) first.
    pub nfc: bool,
    /// Whether a beginning-of-text id is added when the file doesn't say.
    pub add_bos: bool,
    /// Whether texts stand between a first and a separator id, as encoders want them.
    pub encoder: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const PUNCTUATION: &str = r"[\p{P}$+<=>^~|`]+";
const DIGIT: &str = r"\p{N}";
const DIGITS: &str = r"\p{N}+";
const THREE_DIGITS: &str = r"[0-9][0-9][0-9]";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const CJK: &str = r"[一-龥ࠀ-一가-퟿]+";
const DEEPSEEK_LETTERS: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1F7D}ᾀ-ᾴᾶ-ᾼ\u{1FBE}ῂ-ῄῆ-ῌῐ-\u{1FD3}ῖ-\u{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u{2126}ℨ\u{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const SEED: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";

const PLAIN: Pre = Pre {
    names: &[],
    patterns: &[],
    after_bytes: 0,
    ignore_merges: false,
    nfc: false,
    add_bos: false,
    encoder: false,
};

/// Every rule this crate knows.
pub static TABLE: &[Pre] = &[
    Pre { names: &["default"], patterns: &[PUNCTUATION, GPT2, DIGITS, THREE_DIGITS], ..PLAIN },
    Pre {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "jais",
            "trillion",
            "granite-docling",
        ],
        patterns: &[GPT2],
        ..PLAIN
    },
    Pre { names: &["roberta-bpe", "jina-v1-en", "jina-v2-code"], patterns: &[GPT2], encoder: true, ..PLAIN },
    Pre { names: &["olmo", "mpt", "modern-bert"], patterns: &[GPT2], nfc: true, ..PLAIN },
    Pre {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Pre { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Pre {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "megrez", "f2llmv2"],
        patterns: &[QWEN2],
        nfc: true,
        ..PLAIN
    },
    Pre { names: &["stablelm2", "hunyuan", "solar-open", "grok-2"], patterns: &[QWEN2], ..PLAIN },
    Pre { names: &["qwen35"], patterns: &[QWEN35], nfc: true, ..PLAIN },
    Pre {
        names: &["deepseek-llm"],
        patterns: &["[\r\n]", DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK, DIGITS],
        ..PLAIN
    },
    Pre {
        names: &["deepseek-coder"],
        patterns: &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT],
        ..PLAIN
    },
    Pre {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        patterns: &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
        ..PLAIN
    },
    Pre { names: &["falcon"], patterns: &[PUNCTUATION, GPT2, DIGITS, THREE_DIGITS], after_bytes: 2, ..PLAIN },
    Pre {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[DIGIT, GPT2],
        ..PLAIN
    },
    Pre { names: &["command-r"], patterns: &[DIGIT, GPT2], nfc: true, ..PLAIN },
    Pre { names: &["bloom", "poro-chat", "gpt3-finnish"], patterns: &[BLOOM], ..PLAIN },
    Pre { names: &["viking"], patterns: &[BLOOM, DIGIT], ..PLAIN },
    Pre { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Pre { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], patterns: &[GPT4O], ..PLAIN },
    Pre { names: &["superbpe"], patterns: &[DIGITS, r"(?=(\d{3})+(?!\d))"], ..PLAIN },
    Pre { names: &["bailingmoe", "bailingmoe2", "llada-moe"], patterns: &[BAILING], ..PLAIN },
    Pre { names: &["seed-coder"], patterns: &[SEED], ..PLAIN },
];

impl Pre {
    /// The normalizer that belongs to the rule, as in a `tokenizer.json`.
    pub(crate) fn normalizer(&self) -> Value {
        if self.nfc { json!({"type": "NFC"}) } else { Value::Null }
    }
}

/// The rule with this name.
///
/// # Errors
/// When the table has no such name.
pub fn find(name: &str) -> Result<&'static Pre> {
    TABLE.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
        Error::unsupported(format!(
            "tokenizer.ggml.pre is {name:?}, a splitting rule that isn't known here, and any other would give wrong \
             ids; convert the model from its Hugging Face folder, or use a GGUF file that embeds \
             tokenizer.huggingface.json"
        ))
    })
}

/// The name of the rule a `tokenizer.json` follows.
///
/// Several names share their patterns; the one that also has the same merging and normalizing is preferred.
///
/// # Errors
/// When no rule in the table splits as this tokenizer does.
pub fn recognise(tokenizer_json: &Value) -> Result<&'static str> {
    let steps =
        patterns_of(tokenizer_json.get("pre_tokenizer").unwrap_or(&Value::Null)).ok_or_else(no_match)?;
    let ignore_merges =
        tokenizer_json.pointer("/model/ignore_merges").and_then(Value::as_bool).unwrap_or(false);
    let normalizer = tokenizer_json.get("normalizer").unwrap_or(&Value::Null);
    let nfc = normalizer.get("type").and_then(Value::as_str) == Some("NFC");
    let encoder =
        tokenizer_json.pointer("/post_processor/type").and_then(Value::as_str) == Some("RobertaProcessing");
    let same = |pre: &&Pre| {
        pre.names[0] != "default"
            && pre.patterns.len() == steps.len()
            && pre.patterns.iter().zip(&steps).all(|(a, b)| canonical(a) == *b)
    };
    let closeness = |pre: &&Pre| {
        [pre.ignore_merges == ignore_merges, pre.encoder == encoder, pre.nfc == nfc].map(|same| !same)
    };
    TABLE.iter().filter(same).min_by_key(closeness).map(|pre| pre.names[0]).ok_or_else(no_match)
}

fn no_match() -> Error {
    Error::unsupported(
        "no splitting rule that GGUF has a name for splits text as this tokenizer does; other programs would read \
         wrong ids from the file, so name the rule (tokenizer.ggml.pre) yourself if you know one that fits",
    )
}

/// The patterns a pre-tokenizer applies one after the other; `None` if it does anything else.
fn patterns_of(pre_tokenizer: &Value) -> Option<Vec<String>> {
    let text = |key: &str| pre_tokenizer.get(key)?.as_str();
    let flag = |key: &str| pre_tokenizer.get(key).and_then(Value::as_bool);
    match text("type")? {
        "Sequence" => {
            let parts = pre_tokenizer.get("pretokenizers")?.as_array()?;
            parts.iter().map(patterns_of).collect::<Option<Vec<_>>>().map(|parts| parts.concat())
        }
        "ByteLevel" => match (flag("add_prefix_space"), flag("use_regex").unwrap_or(true)) {
            (Some(true), _) => None,
            (_, true) => Some(vec![canonical(GPT2)]),
            (_, false) => Some(vec![]),
        },
        "Digits" => Some(vec![if flag("individual_digits")? { DIGIT } else { DIGITS }.to_string()]),
        "Punctuation" if text("behavior") == Some("Contiguous") => Some(vec![PUNCTUATION.to_string()]),
        "Split" => {
            let pattern = pre_tokenizer.get("pattern")?.get("Regex")?.as_str()?;
            // Keeping only the matches is the same as cutting at them, for patterns that match everything.
            match (text("behavior")?, flag("invert")?) {
                ("Isolated", _) | ("Removed", true) => Some(vec![canonical(pattern)]),
                _ => None,
            }
        }
        _ => None,
    }
}

/// One spelling for patterns that match the same: ways to write "ignore case", possessive repetition, last alternatives.
fn canonical(pattern: &str) -> String {
    let mut text = pattern
        .replace("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)")
        .replace("|[.,!?…。，、।۔،])]", "|.,!?…。，、।۔،)]")
        .replace("?+", "?")
        .replace("++", "+")
        .replace("}+", "}")
        .replace("{1}", "");
    if text.ends_with(r"|\s+(?!\S)") {
        text.push_str(r"|\s+");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_unknown_ones_refused() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|pre| pre.names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        let error = find("made-up").unwrap_err().to_string();
        assert!(error.contains("\"made-up\""), "{error}");
    }

    #[test]
    fn every_pattern_compiles() {
        for pattern in TABLE.iter().flat_map(|pre| pre.patterns) {
            let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            serde_json::from_value::<tokenizers::PreTokenizerWrapper>(split).expect(pattern);
        }
    }

    #[test]
    fn rules_are_recognised_in_the_spelling_of_the_models() {
        let split = |regex: &str, behavior: &str, invert: bool| {
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
        };
        let json =
            json!({"pre_tokenizer": split(LLAMA3, "Isolated", false), "model": {"ignore_merges": true}});
        assert_eq!(recognise(&json).unwrap(), "llama-bpe");
        let json =
            json!({"pre_tokenizer": split(&LLAMA3.replace("]?", "]?+"), "Removed", true), "model": {}});
        assert_eq!(recognise(&json).unwrap(), "dbrx");
        let json = json!({"pre_tokenizer": split(QWEN2, "Isolated", false), "normalizer": {"type": "NFC"}});
        assert_eq!(recognise(&json).unwrap(), "qwen2");
        let json =
            json!({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}});
        assert_eq!(recognise(&json).unwrap(), "gpt-2");
        let json = json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]}});
        assert_eq!(recognise(&json).unwrap(), "smollm");
        assert!(recognise(&json!({"pre_tokenizer": split("[a-z]+", "Isolated", false)})).is_err());
        assert!(recognise(&json!({"pre_tokenizer": {"type": "Whitespace"}})).is_err());
    }
}
