//! The `tokenizer.bin` of llama2.c: a SentencePiece BPE vocabulary with scores.
//!
//! Layout, little-endian: u32 length of the longest token, then for each token f32 score, u32 length in bytes, the bytes.
//! Tokens 0, 1 and 2 are unknown, beginning and end of text; byte tokens are spelled `<0x0A>`; spaces are spaces.

use std::path::Path;

use super::build::SPACE_MARK;
use super::gguf::{GgufVocab, TokenType};
use super::{MAX_ID, bytes, load};
use crate::{Error, Result};

/// Reads such a file as a vocabulary of kind `llama`; [`GgufVocab::to_tokenizer`] makes it a tokenizer.
///
/// # Errors
/// When the file is missing, cut off, or no such file.
pub fn read_file(path: impl AsRef<Path>) -> Result<GgufVocab> {
    let path = path.as_ref();
    let bytes = load::read(path)?.ok_or_else(|| Error::io(path)(std::io::ErrorKind::NotFound.into()))?;
    read(&bytes, path)
}

/// Reads the content of such a file; `path` is only named in errors.
pub fn read(content: &[u8], path: &Path) -> Result<GgufVocab> {
    let at = |offset: usize| content.get(offset..offset + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
    let cut_off = |offset: usize| {
        Error::format(path, format!("the file ends inside the token at byte {offset}; copy it again"))
    };
    let longest = at(0).map(u32::from_le_bytes).ok_or_else(|| cut_off(0))?;
    if longest == 0 || longest > 1 << 16 {
        let what =
            format!("the longest token is said to have {longest} bytes, so this is no llama2.c tokenizer");
        return Err(Error::format(path, what));
    }
    let (mut tokens, mut scores, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let mut offset = 4;
    while offset < content.len() {
        let score = at(offset).map(f32::from_le_bytes).ok_or_else(|| cut_off(offset))?;
        let length = at(offset + 4).map(u32::from_le_bytes).ok_or_else(|| cut_off(offset))? as usize;
        let text =
            content.get(offset + 8..).and_then(|rest| rest.get(..length)).ok_or_else(|| cut_off(offset))?;
        let text = std::str::from_utf8(text).map_err(|_| {
            Error::format(
                path,
                format!("token {} at byte {offset} is not UTF-8; the file is damaged", tokens.len()),
            )
        })?;
        if score.is_nan() || tokens.len() == MAX_ID as usize {
            let what = format!("token {} at byte {offset} is not a token; the file is damaged", tokens.len());
            return Err(Error::format(path, what));
        }
        let (token, kind) = match tokens.len() {
            0 => ("<unk>".to_string(), TokenType::Unknown),
            1 => ("<s>".to_string(), TokenType::Control),
            2 => ("</s>".to_string(), TokenType::Control),
            _ if bytes::byte_token(text).is_some() => (text.to_string(), TokenType::Byte),
            _ => (text.replace(' ', SPACE_MARK), TokenType::Normal),
        };
        tokens.push(token);
        scores.push(score);
        types.push(kind as i32);
        offset += 8 + length;
    }
    if tokens.len() < 3 {
        return Err(Error::format(path, "the file has fewer than three tokens; copy it again"));
    }
    Ok(GgufVocab {
        model: "llama".into(),
        tokens,
        scores: Some(scores),
        token_types: Some(types),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        add_bos: Some(true),
        add_eos: Some(false),
        add_space_prefix: Some(true),
        ..GgufVocab::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tokens: &[(&str, f32)]) -> Vec<u8> {
        let mut content = 8u32.to_le_bytes().to_vec();
        for (token, score) in tokens {
            content.extend(score.to_le_bytes());
            content.extend((token.len() as u32).to_le_bytes());
            content.extend(token.as_bytes());
        }
        content
    }

    const TOKENS: [(&str, f32); 10] = [
        ("<unk>", 0.0),
        ("\n<s>\n", 0.0),
        ("\n</s>\n", 0.0),
        ("<0x0A>", 0.0),
        (" ", -5.0),
        ("a", -6.0),
        ("b", -7.0),
        ("ab", -2.0),
        (" a", -1.0),
        ("\u{2581}x", -3.0),
    ];

    #[test]
    fn merges_by_score() {
        let tokenizer = read(&file(&TOKENS), Path::new("t.bin")).unwrap().to_tokenizer().unwrap();
        assert_eq!(tokenizer.encode("ab ab\n", true).unwrap(), [1, 8, 6, 8, 6, 3]);
        assert_eq!(tokenizer.decode(&[1, 8, 6, 8, 6, 3], true).unwrap(), "ab ab\n");
        assert_eq!((tokenizer.special().bos, tokenizer.special().eos.as_slice()), (Some(1), &[2][..]));
    }

    #[test]
    fn every_cut_is_an_error_or_a_shorter_vocabulary() {
        let content = file(&TOKENS);
        for length in 0..content.len() {
            if let Ok(vocab) = read(&content[..length], Path::new("t.bin")) {
                assert!(vocab.tokens.len() < TOKENS.len());
            }
        }
        let error = read(&content[..content.len() - 1], Path::new("t.bin")).unwrap_err().to_string();
        assert!(error.contains("t.bin") && error.contains("ends inside"), "{error}");
    }
}
