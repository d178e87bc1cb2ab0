//! Which files of a repository a model needs.

use anyhow::bail;
use ounce_model::hub::{HubModel, Part, choose_gguf, gguf_tagged, shard_stem};

use super::RemoteFile;

/// What is taken of a GGUF repository whose quantizations were not chosen between.
const USUAL_QUANT: &str = "Q4_K_M";

/// Files of a Hugging Face folder beside the weights; `*` stands for anything.
const TEXTS: [&str; 18] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "?_*/config.json",
    "LICENSE*",
];

/// What the user asked for beside the reference.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Patterns that replace the choice of needed files.
    pub include: Vec<String>,
    /// Patterns of files that are left out.
    pub exclude: Vec<String>,
}

/// The files to fetch.
///
/// # Errors
/// If the repository holds no weights that ounce reads, or nothing fits.
pub fn select(files: Vec<RemoteFile>, model: &HubModel, wanted: &Wanted) -> anyhow::Result<Vec<RemoteFile>> {
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let mut needed = match &model.part {
        _ if !wanted.include.is_empty() => matching(&names, &wanted.include),
        Part::File(file) => {
            let below = format!("{file}/");
            names.iter().filter(|name| *name == file || name.starts_with(&below)).cloned().collect()
        }
        Part::Quant(tag) => whole_set(&names, &choose_gguf(&names, tag)?),
        Part::Whole => whole_model(&names, model)?,
    };
    needed.retain(|name| !wanted.exclude.iter().any(|pattern| fits(pattern, name)));
    if needed.is_empty() {
        bail!("{model} holds no file that fits; it holds {}", names.join(", "));
    }
    Ok(files.into_iter().filter(|file| needed.contains(&file.name)).collect())
}

/// The file that a reference leads to; none where it leads to the folder.
pub fn entry_point(files: &[RemoteFile], model: &HubModel) -> Option<String> {
    match &model.part {
        Part::Whole => None,
        Part::File(file) => Some(file.clone()),
        Part::Quant(_) => {
            files.iter().map(|file| &file.name).filter(|name| name.ends_with(".gguf")).min().cloned()
        }
    }
}

fn whole_model(names: &[String], model: &HubModel) -> anyhow::Result<Vec<String>> {
    let at_root = |end: &'static str| {
        names.iter().filter(move |name| name.ends_with(end) && !name.contains('/')).cloned()
    };
    let safetensors: Vec<String> = at_root(".safetensors").collect();
    if !safetensors.is_empty() {
        // Some repositories hold the same weights again under another name.
        let usual: Vec<String> =
            safetensors.iter().filter(|name| name.starts_with("model")).cloned().collect();
        let mut needed = if usual.is_empty() { safetensors } else { usual };
        needed.extend(at_root(".safetensors.index.json"));
        needed.extend(matching(names, &TEXTS.map(String::from)));
        return Ok(needed);
    }
    let gguf: Vec<String> = names.iter().filter(|name| name.ends_with(".gguf")).cloned().collect();
    let mut stems: Vec<&str> = gguf.iter().map(|name| shard_stem(name)).collect();
    stems.dedup();
    match (gguf.first(), stems.len()) {
        (Some(only), 1) => Ok(whole_set(names, only)),
        (Some(_), _) if !gguf_tagged(names, USUAL_QUANT).is_empty() => {
            Ok(whole_set(names, &choose_gguf(names, USUAL_QUANT)?))
        }
        (Some(_), _) => bail!(
            "{model} holds several GGUF files; name one as {}:QUANT, of {}",
            model.repo,
            gguf.join(", ")
        ),
        (None, _) => bail!("{model} holds neither safetensors nor GGUF files, so ounce can't read it"),
    }
}

/// A GGUF file and the other shards of it.
fn whole_set(names: &[String], first: &str) -> Vec<String> {
    let stem = shard_stem(first);
    names.iter().filter(|name| name.ends_with(".gguf") && shard_stem(name) == stem).cloned().collect()
}

fn matching(names: &[String], patterns: &[String]) -> Vec<String> {
    names.iter().filter(|name| patterns.iter().any(|pattern| fits(pattern, name))).cloned().collect()
}

/// Whether a name fits a pattern in which `*` stands for any text, also one with `/`, and `?` for a character.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the last `*` has to take one character more.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (p, n) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], reference: &str, wanted: &Wanted) -> anyhow::Result<Vec<String>> {
        let file = |name: &&str| RemoteFile {
            name: name.to_string(),
            size: 1,
            content: "0".repeat(40),
            is_sha256: false,
        };
        let model = HubModel::parse(reference).expect("a reference");
        let files = select(names.iter().map(file).collect(), &model, wanted)?;
        Ok(files.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn folders_need_their_safetensors_and_texts_only() {
        let names = [
            "config.json",
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "README.md",
            "onnx/model.onnx",
            "1_Pooling/config.json",
            "tokenizer.json",
            "LICENSE.txt",
            "original/params.json",
        ];
        let got = chosen(&names, "o/n", &Wanted::default()).unwrap();
        let left_out = [
            "consolidated.safetensors",
            "pytorch_model.bin",
            "README.md",
            "onnx/model.onnx",
            "original/params.json",
        ];
        assert_eq!(
            got,
            names.iter().filter(|name| !left_out.contains(name)).map(|it| it.to_string()).collect::<Vec<_>>()
        );
        let wanted = Wanted { include: vec!["*.json".into()], exclude: vec!["*/*".into()] };
        assert_eq!(
            chosen(&names, "o/n", &wanted).unwrap(),
            ["config.json", "model.safetensors.index.json", "tokenizer.json"]
        );
        assert!(chosen(&["pytorch_model.bin"], "o/n", &Wanted::default()).is_err());
    }

    #[test]
    fn gguf_repositories_give_one_quantization() {
        let names =
            ["a-Q4_K_M.gguf", "a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf", "README.md"];
        let none = Wanted::default();
        assert_eq!(chosen(&names, "o/n:Q8_0", &none).unwrap(), names[1..3]);
        assert_eq!(chosen(&names, "o/n", &none).unwrap(), names[..1]);
        assert_eq!(chosen(&names[1..], "o/n", &none).unwrap(), names[1..3]);
        assert_eq!(chosen(&names, "hf://o/n/README.md", &none).unwrap(), names[3..]);
        let error = chosen(&["a-Q2_K.gguf", "a-Q8_0.gguf"], "o/n", &none).unwrap_err().to_string();
        assert!(error.contains("o/n:QUANT"), "{error}");
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name, answer) in [
            ("*", "a/b", true),
            ("*.json", "a.json", true),
            ("*.json", "a.jsonl", false),
            ("a?c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "a", false),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(fits(pattern, name), answer, "{pattern} {name}");
        }
    }
}
