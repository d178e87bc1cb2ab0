//! Names close to one that does not exist.

/// The names most like `wanted`, best first, three at most; only those a typing error away.
pub fn close<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let mut near: Vec<(f64, &str)> = names
        .map(|name| (strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.truncate(3);
    near.into_iter().map(|(_, name)| name).collect()
}

/// `; did you mean A or B?`, or nothing.
pub fn question(names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!("; did you mean {}?", names.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_find_their_name() {
        let names = ["model.gguf", "notes.txt", "models"];
        assert_eq!(close("modle.gguf", names.into_iter()), ["model.gguf"]);
        assert!(close("zebra", names.into_iter()).is_empty());
        assert_eq!(question(&["a", "b"]), "; did you mean a or b?");
    }
}
