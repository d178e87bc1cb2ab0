//! What tasks need of Python: its regular expressions and its random samples.

use fancy_regex::Regex;
use rand_mt::Mt;

/// A regular expression in Python's syntax.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// If it is none.
    pub fn new(source: &str) -> Result<Pattern, String> {
        Regex::new(&translated(source))
            .map(Pattern)
            .map_err(|error| format!("{source:?} is no regular expression ({error})"))
    }

    /// The matches, as `re.findall` gives them: the groups of each, or the whole where there are none; a group that took no
    /// part is empty.
    ///
    /// # Errors
    /// If the expression needs too many steps on this text.
    pub fn find_all<'t>(&self, text: &'t str) -> Result<Vec<Vec<&'t str>>, String> {
        let groups = self.0.captures_len() - 1;
        self.0
            .captures_iter(text)
            .map(|found| {
                let found = found.map_err(too_long)?;
                let group = |at: usize| found.get(at).map_or("", |it| it.as_str());
                Ok(if groups == 0 { vec![group(0)] } else { (1..=groups).map(group).collect() })
            })
            .collect()
    }

    /// The text with every match replaced, as `re.sub` does; `\1` and `\g<1>` stand for groups.
    ///
    /// # Errors
    /// As [`Pattern::find_all`].
    pub fn replace(&self, text: &str, replacement: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut end = 0;
        for found in self.0.captures_iter(text) {
            let found = found.map_err(too_long)?;
            let Some(whole) = found.get(0) else { continue };
            out.push_str(&text[end..whole.start()]);
            let mut rest = replacement;
            while let Some(at) = rest.find('\\') {
                out.push_str(&rest[..at]);
                rest = &rest[at + 1..];
                let (name, after) = match rest.strip_prefix("g<").and_then(|it| it.split_once('>')) {
                    Some((name, after)) => (name, after),
                    None => rest.split_at(rest.chars().next().map_or(0, char::len_utf8)),
                };
                match (name.parse::<usize>(), name) {
                    (Ok(group), _) => out.push_str(found.get(group).map_or("", |it| it.as_str())),
                    (_, "n") => out.push('\n'),
                    (_, "t") => out.push('\t'),
                    _ => out.push_str(found.name(name).map_or(name, |it| it.as_str())),
                }
                rest = after;
            }
            out.push_str(rest);
            end = whole.end();
        }
        out.push_str(&text[end..]);
        Ok(out)
    }
}

fn too_long(error: fancy_regex::Error) -> String {
    format!("a regular expression comes to no end on what the model wrote ({error})")
}

/// Python's syntax in that of the crate: `$` also stands before a last line end, `\Z` is the very end, and brackets inside
/// a class are plain.
fn translated(source: &str) -> String {
    let by_lines = source.contains("(?m") || source.contains("(?sm") || source.contains("(?im");
    let mut out = String::with_capacity(source.len() + 8);
    let (mut class, mut first) = (false, false);
    let mut rest = source.chars();
    while let Some(c) = rest.next() {
        let was_first = std::mem::take(&mut first);
        match c {
            '\\' => match rest.next() {
                Some('Z') if !class => out.push_str("\\z"),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            '[' if !class => {
                (class, first) = (true, true);
                out.push('[');
            }
            '^' if was_first => {
                first = true;
                out.push('^');
            }
            ']' if class && !was_first => {
                class = false;
                out.push(']');
            }
            '[' | ']' | '&' | '~' if class => out.extend(['\\', c]),
            '$' if !class && !by_lines => out.push_str("(?=\\n?\\z)"),
            c => out.push(c),
        }
    }
    out
}

/// Python's `random.Random(seed)`, as far as examples are drawn with it.
#[derive(Debug)]
pub(super) struct Random(Mt);

impl Random {
    pub fn new(seed: u32) -> Random {
        Random(Mt::new_with_key([seed]))
    }

    /// `randrange(limit)`; a limit of 0 gives 0.
    fn below(&mut self, limit: usize) -> usize {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let bits = u32::BITS - limit.leading_zeros();
        if bits == 0 {
            return 0;
        }
        loop {
            let drawn = self.0.next_u32() >> (u32::BITS - bits);
            if drawn < limit {
                return drawn as usize;
            }
        }
    }

    /// The places that `sample(population, count)` takes; `None` if there are too few.
    pub fn sample(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population {
            return None;
        }
        // Python takes a pool where that needs less memory than a set; the draws differ.
        let mut set_size = 21usize;
        if count > 5 {
            set_size += 4usize.pow(((count * 3) as f64).log(4.0).ceil() as u32);
        }
        if population <= set_size {
            let mut pool: Vec<usize> = (0..population).collect();
            let draw = |at: usize| {
                let drawn = self.below(population - at);
                let taken = pool[drawn];
                pool[drawn] = pool[population - at - 1];
                taken
            };
            return Some((0..count).map(draw).collect());
        }
        let mut taken: Vec<usize> = Vec::with_capacity(count);
        while taken.len() < count {
            let drawn = self.below(population);
            if !taken.contains(&drawn) {
                taken.push(drawn);
            }
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pattern: &str, text: &str) -> Vec<Vec<String>> {
        let found = Pattern::new(pattern).unwrap().find_all(text).unwrap().into_iter();
        found.map(|groups| groups.into_iter().map(str::to_string).collect()).collect()
    }

    #[test]
    fn expressions_are_pythons() {
        // Python 3.11: re.findall and re.sub.
        assert_eq!(all(r"#### (\-?[0-9\.\,]+)", "so 4\n#### 1,234."), [["1,234."]]);
        assert_eq!(all(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "a 5 or $12"), [["", "5"], ["$12", ""]]);
        assert_eq!(all("[[a]", "b[a"), [["["], ["a"]]);
        let sub = |pattern: &str, text: &str| Pattern::new(pattern).unwrap().replace(text, "").unwrap();
        assert_eq!(sub(r"\.$", "5.\n"), "5\n");
        assert_eq!(sub(r"\.\Z", "5.\n"), "5.\n");
        assert_eq!(sub("(?s).*#### ", "a\nb #### 7"), "7");
        assert_eq!(sub("(?<=a)b(?!c)", "ab abc"), "a abc");
        let swap = Pattern::new(r"(\w) (?P<two>\w)").unwrap();
        assert_eq!(swap.replace("a b", r"\g<two> \1\n").unwrap(), "b a\n");
        assert!(Pattern::new("(").is_err());
    }

    #[test]
    fn samples_are_pythons() {
        // Python 3.11: r = random.Random(seed); [r.sample(range(n), k) for n, k in …]
        let mut random = Random::new(1234);
        for (population, expected) in [
            (10, &[7, 1, 0][..]),
            (100, &[11, 74, 4, 85, 88]),
            (100, &[10, 12, 98, 45, 30, 2, 3, 44]),
            (1000, &[663, 638]),
            (1, &[0]),
        ] {
            assert_eq!(random.sample(population, expected.len()).unwrap(), expected);
        }
        let mut random = Random::new(0);
        assert_eq!(random.sample(50, 6).unwrap(), [24, 48, 26, 2, 16, 32]);
        assert_eq!(random.sample(7, 7).unwrap(), [3, 6, 2, 5, 1, 0, 4]);
        assert_eq!(random.sample(2, 3), None);
    }
}
