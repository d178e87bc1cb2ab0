//! The `tokenizer.model` of SentencePiece: a protobuf message, read by walking its fields.
//!
//! Read are the pieces, the kind of model (BPE or unigram), the special ids and the normalizer's settings; everything
//! else is skipped. What comes out is a [`GgufVocab`], which holds the same facts.

use std::path::Path;

use super::MAX_ID;
use super::gguf::{GgufVocab, TokenType};
use crate::{Error, Result};

/// A field of a message: its number and its value.
enum Field<'a> {
    Number(u64),
    Float(f32),
    Bytes(&'a [u8]),
    Other,
}

/// Reads the content of such a file; `path` is only named in errors.
pub(crate) fn read(content: &[u8], path: &Path) -> Result<GgufVocab> {
    let damaged = |what: String| Error::format(path, format!("not a usable SentencePiece model ({what})"));
    let (mut tokens, mut scores, mut types) = (Vec::new(), Vec::new(), Vec::new());
    let (mut kind, mut unk, mut bos, mut eos, mut pad) = (1, Some(0), Some(1), Some(2), None);
    let (mut charsmap, mut prefix, mut squeeze) = (Vec::new(), true, true);
    walk(content, &mut |number, field| {
        match (number, field) {
            (1, Field::Bytes(piece)) => {
                if tokens.len() == MAX_ID as usize {
                    return Err(format!("more than {MAX_ID} pieces"));
                }
                let (text, score, piece_type) = read_piece(piece)?;
                tokens.push(text);
                scores.push(score);
                types.push(piece_type);
            }
            (2, Field::Bytes(trainer)) => walk(trainer, &mut |number, field| {
                if let Field::Number(value) = field {
                    // Ids are written as 64-bit complements when they are -1, which means "none".
                    let id = u32::try_from(value).ok().filter(|id| *id < MAX_ID);
                    match number {
                        3 => kind = value,
                        40 => unk = id,
                        41 => bos = id,
                        42 => eos = id,
                        43 => pad = id,
                        _ => {}
                    }
                }
                Ok(())
            })?,
            (3, Field::Bytes(normalizer)) => walk(normalizer, &mut |number, field| {
                match (number, field) {
                    (2, Field::Bytes(map)) => charsmap = map.to_vec(),
                    (3, Field::Number(value)) => prefix = value != 0,
                    (4, Field::Number(value)) => squeeze = value != 0,
                    _ => {}
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })
    .map_err(damaged)?;

    let model = match kind {
        1 => "t5",
        2 => "llama",
        other => {
            let what = format!(
                "kind {other}; BPE and unigram models are supported, word and character models are not"
            );
            return Err(damaged(what));
        }
    };
    if tokens.is_empty() {
        return Err(damaged("no pieces".into()));
    }
    for (token, piece_type) in tokens.iter_mut().zip(&types) {
        // Such tokens are looked for in the text as it was written, where spaces are spaces.
        if *piece_type == TokenType::UserDefined as i32 {
            *token = token.replace(super::build::SPACE_MARK, " ");
        }
    }
    Ok(GgufVocab {
        model: model.into(),
        tokens,
        scores: Some(scores),
        token_types: Some(types),
        bos,
        eos,
        unk,
        pad,
        // The file doesn't say; it is what the families that come without a tokenizer.json do.
        add_bos: Some(model == "llama" && bos.is_some()),
        add_eos: Some(model == "t5" && eos.is_some()),
        add_space_prefix: Some(prefix),
        remove_extra_whitespaces: Some(squeeze),
        precompiled_charsmap: (!charsmap.is_empty()).then_some(charsmap),
        ..GgufVocab::default()
    })
}

fn read_piece(content: &[u8]) -> Result<(String, f32, i32), String> {
    let (mut text, mut score, mut kind) = (None, 0.0, TokenType::Normal as i32);
    walk(content, &mut |number, field| {
        match (number, field) {
            (1, Field::Bytes(bytes)) => {
                text =
                    Some(String::from_utf8(bytes.to_vec()).map_err(|_| "a piece is not UTF-8".to_string())?);
            }
            (2, Field::Float(value)) if !value.is_nan() => score = value,
            (3, Field::Number(value)) => {
                kind = i32::try_from(value).map_err(|_| format!("a piece of type {value}"))?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok((text.ok_or("a piece without text")?, score, kind))
}

/// Calls `visit` with each field of a message.
fn walk<'a>(
    content: &'a [u8],
    visit: &mut dyn FnMut(u64, Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut at = 0;
    while at < content.len() {
        let start = at;
        let cut_off = || format!("a field is cut off at byte {start}");
        let key = varint(content, &mut at).ok_or_else(cut_off)?;
        let field = match key & 7 {
            0 => Field::Number(varint(content, &mut at).ok_or_else(cut_off)?),
            1 => {
                take(content, &mut at, 8).ok_or_else(cut_off)?;
                Field::Other
            }
            2 => {
                let length =
                    varint(content, &mut at).and_then(|n| usize::try_from(n).ok()).ok_or_else(cut_off)?;
                Field::Bytes(take(content, &mut at, length).ok_or_else(cut_off)?)
            }
            5 => {
                let word = take(content, &mut at, 4).and_then(|w| <[u8; 4]>::try_from(w).ok());
                Field::Float(f32::from_le_bytes(word.ok_or_else(cut_off)?))
            }
            other => return Err(format!("a field of unknown kind {other} at byte {start}")),
        };
        visit(key >> 3, field)?;
    }
    Ok(())
}

fn take<'a>(content: &'a [u8], at: &mut usize, length: usize) -> Option<&'a [u8]> {
    let end = at.checked_add(length)?;
    let bytes = content.get(*at..end)?;
    *at = end;
    Some(bytes)
}

fn varint(content: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *content.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
        let number = [&[2 << 3 | 5][..], &score.to_le_bytes(), &[3 << 3, kind]].concat();
        field(1, &[field(1, text.as_bytes()), number].concat())
    }

    fn model() -> Vec<u8> {
        let trainer = field(2, &[3 << 3, 2]);
        let normalizer = field(3, &[3 << 3, 1, 4 << 3, 0]);
        let pieces = [
            piece("<unk>", 0.0, 2),
            piece("<s>", 0.0, 3),
            piece("</s>", 0.0, 3),
            piece("▁", -3.0, 1),
            piece("a", -2.0, 1),
            piece("▁a", -1.0, 1),
        ];
        [pieces.concat(), trainer, normalizer].concat()
    }

    #[test]
    fn a_small_model_is_read() {
        let vocab = read(&model(), Path::new("tokenizer.model")).unwrap();
        assert_eq!((vocab.model.as_str(), vocab.tokens.len()), ("llama", 6));
        assert_eq!((vocab.add_space_prefix, vocab.remove_extra_whitespaces), (Some(true), Some(false)));
        let tokenizer = vocab.to_tokenizer().unwrap();
        assert_eq!(tokenizer.encode("a  aa", true).unwrap(), [1, 5, 3, 5, 4]);
    }

    #[test]
    fn damage_never_panics() {
        let content = model();
        for at in 0..content.len() {
            let _ = read(&content[..at], Path::new("m"));
            let mut changed = content.clone();
            changed[at] ^= 0xA5;
            let _ = read(&changed, Path::new("m"));
        }
        let error = read(&content[..content.len() - 1], Path::new("m")).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{error}");
    }
}
