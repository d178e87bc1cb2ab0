//! The spelling of bytes in vocabularies: the byte-level alphabet of GPT-2, byte tokens of SentencePiece, and text
//! cut in the middle of a character.

/// The byte a character of the byte-level alphabet stands for; `None` for characters outside it.
///
/// A visible byte is written as itself, the others as the characters from U+0100 on, in order.
pub(crate) fn char_to_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) if is_visible(byte) => Some(byte),
        Ok(_) => None,
        // The hidden bytes are 0..=32, 127..=160 and 173, in this order.
        Err(_) => match code - 0x100 {
            n @ 0..=32 => Some(n as u8),
            n @ 33..=66 => Some((n - 33 + 127) as u8),
            67 => Some(173),
            _ => None,
        },
    }
}

fn is_visible(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

/// The bytes a byte-level token stands for. A token with a character outside the alphabet stands for its own text.
pub(crate) fn byte_level(token: &str) -> Vec<u8> {
    token.chars().map(char_to_byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte a token such as `<0x0A>` stands for.
pub(crate) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// Moves the text at the front of `pending` into `text`, leaving at most the three bytes of an unfinished character.
/// What can't become UTF-8 any more turns into U+FFFD, and with `flush` an unfinished character does too.
pub(crate) fn drain_text(pending: &mut Vec<u8>, flush: bool, text: &mut String) {
    let mut done = 0;
    loop {
        let rest = &pending[done..];
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                done = pending.len();
                break;
            }
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                done += valid.len();
                match error.error_len() {
                    Some(length) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        done += length;
                    }
                    None => {
                        if flush {
                            text.push(char::REPLACEMENT_CHARACTER);
                            done += broken.len();
                        }
                        break;
                    }
                }
            }
        }
    }
    pending.drain(..done);
}

/// `bytes` as text in which everything that is not UTF-8 is spelled `<0xE2>`.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("<0x{byte:02X}>"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The character byte-level vocabularies write for `byte`: itself where it can be seen, else one from U+0100 on.
    fn byte_to_char(byte: u8) -> char {
        if is_visible(byte) {
            return char::from(byte);
        }
        let hidden_before = (0..byte).filter(|b| !is_visible(*b)).count() as u32;
        char::from_u32(0x100 + hidden_before).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    #[test]
    fn every_byte_has_its_own_character() {
        for byte in 0..=255u8 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(char_to_byte(' '), None);
    }

    #[test]
    fn byte_tokens_need_two_hex_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0x0>"), None);
        assert_eq!(byte_token("<0xé>"), None);
        assert_eq!(byte_token("0x0A"), None);
    }

    #[test]
    fn text_is_released_character_by_character() {
        let mut pending = vec![0xE2, 0x82];
        let mut text = String::new();
        drain_text(&mut pending, false, &mut text);
        assert_eq!((text.as_str(), pending.len()), ("", 2));
        pending.push(0xAC);
        drain_text(&mut pending, false, &mut text);
        assert_eq!((text.as_str(), pending.len()), ("€", 0));
        pending.extend([0xFF, b'a', 0xC3]);
        drain_text(&mut pending, true, &mut text);
        assert_eq!((text.as_str(), pending.len()), ("€\u{FFFD}a\u{FFFD}", 0));
    }

    #[test]
    fn readable_shows_stray_bytes() {
        assert_eq!(readable(&[b'a', 0xE2, 0x82]), "a<0xE2><0x82>");
    }
}
