//! A very small template language. A template, a table of slots and a random generator go in; text comes out.
//!
//! - `{slot}` is replaced by the slot's value, which may hold slots itself; `{a:slot}` puts "a" or "an" before it.
//! - `[x|y|z]` is one of its alternatives, each equally likely; alternatives may hold slots and further brackets.
//! - Letters that begin a sentence are made capital by [`capitalize`], so templates need not care.
//!
//! A slot that has no value is written as `{slot}` unchanged; the generator's test looks for braces.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Values of the slots of one story.
pub type Slots = BTreeMap<&'static str, String>;

/// A number below `n`, at least 1. Written out so that a seed's text never depends on a library's range algorithm.
pub fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n.max(1) as u64) >> 32) as usize
}

/// True with a probability of `percent` in a hundred.
pub fn chance(rng: &mut ChaCha8Rng, percent: usize) -> bool {
    below(rng, 100) < percent
}

/// One element of a table that isn't empty.
pub fn pick<'t, T>(rng: &mut ChaCha8Rng, table: &'t [T]) -> &'t T {
    &table[below(rng, table.len())]
}

/// Expands a template and appends it to `out`. Values that name themselves are cut off after eight levels.
pub fn expand(template: &str, slots: &Slots, rng: &mut ChaCha8Rng, out: &mut String) {
    expand_level(template, slots, rng, out, 0);
}

fn expand_level(template: &str, slots: &Slots, rng: &mut ChaCha8Rng, out: &mut String, level: usize) {
    let mut rest = template;
    while let Some(at) = rest.find(['{', '[']) {
        out.push_str(&rest[..at]);
        let open = rest.as_bytes()[at];
        let Some(end) = closing(&rest[at..]) else {
            out.push_str(&rest[at..]);
            return;
        };
        let inside = &rest[at + 1..at + end];
        if open == b'[' {
            let options = alternatives(inside);
            expand_level(options[below(rng, options.len())], slots, rng, out, level);
        } else {
            fill(inside, slots, rng, out, level);
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
}

fn fill(inside: &str, slots: &Slots, rng: &mut ChaCha8Rng, out: &mut String, level: usize) {
    let (article, name) = inside.strip_prefix("a:").map_or((false, inside), |name| (true, name));
    match slots.get(name) {
        Some(value) if level < 8 => {
            if article {
                out.push_str(if value.starts_with(['a', 'e', 'i', 'o', 'u']) { "an " } else { "a " });
            }
            expand_level(value, slots, rng, out, level + 1);
        }
        _ => {
            out.push('{');
            out.push_str(inside);
            out.push('}');
        }
    }
}

/// Offset of the bracket that closes the one `text` begins with.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Splits at the bars that stand outside inner brackets.
fn alternatives(inside: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0usize, 0usize, Vec::new());
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => {
                parts.push(&inside[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inside[start..]);
    parts
}

/// Makes the first letter of the text and of every sentence capital. A quoted sentence followed by its speaker
/// (`"Come!" said Tom`) isn't touched, because the quote stands between the mark and the next word.
pub fn capitalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut due, mut after_mark) = (true, false);
    for c in text.chars() {
        if due && c.is_alphabetic() {
            out.extend(c.to_uppercase());
            due = false;
        } else {
            out.push(c);
        }
        if c.is_whitespace() {
            due |= after_mark;
        } else if c != '"' || !due {
            due = false;
        }
        after_mark = matches!(c, '.' | '!' | '?') || (after_mark && c.is_whitespace());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn expanded(template: &str) -> String {
        let mut slots = Slots::new();
        slots.insert("animal", "owl".into());
        slots.insert("toy", "kite".into());
        slots.insert("nested", "{a:toy} or {a:animal}".into());
        slots.insert("endless", "{endless}".into());
        let mut out = String::new();
        expand(template, &slots, &mut ChaCha8Rng::seed_from_u64(1), &mut out);
        out
    }

    #[test]
    fn slots_articles_and_alternatives_are_filled() {
        for (template, wanted) in [
            ("plain", "plain"),
            ("{a:animal} and {a:toy}", "an owl and a kite"),
            ("see {nested}.", "see a kite or an owl."),
            ("{unknown}", "{unknown}"),
            ("{endless}", "{endless}"),
            ("open {toy", "open {toy"),
            ("[x|x] [{toy}|[kite|kite]]", "x kite"),
        ] {
            assert_eq!(expanded(template), wanted, "template {template:?}");
        }
    }

    #[test]
    fn sentences_begin_with_a_capital_letter() {
        for (text, wanted) in [
            ("she ran. he sat! why? so", "She ran. He sat! Why? So"),
            ("\"come here!\" said Tom. they went", "\"Come here!\" said Tom. They went"),
            ("\"no,\" he said. \"no.\" he left", "\"No,\" he said. \"No.\" he left"),
        ] {
            assert_eq!(capitalize(text), wanted);
        }
    }

    #[test]
    fn every_alternative_can_be_drawn() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut seen = [0usize; 5];
        for _ in 0..1000 {
            seen[below(&mut rng, 5)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 120), "{seen:?}");
    }
}
