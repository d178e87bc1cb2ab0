//! Merges from scores and scores from merges.
//!
//! SentencePiece's BPE joins the neighbours whose joint token has the highest score. Files that hold scores name no
//! merges; ranking every way to split every token by the token's score gives the same choices.

use std::collections::HashMap;

use super::gguf::TokenType;

/// Longer tokens are not made by merging: no vocabulary has them, and trying all splits of such a token takes time that
/// grows with its square.
const LONGEST: usize = 512;

/// The merges of a vocabulary with scores, best first. Only normal tokens come from merges; both halves may be anything
/// with a text.
pub(crate) fn merges_from_scores(
    tokens: &[String],
    scores: &[f32],
    types: &[TokenType],
) -> Vec<(String, String)> {
    let mergeable = |id: usize| matches!(types[id], TokenType::Normal | TokenType::UserDefined);
    let known: HashMap<&str, usize> =
        tokens.iter().enumerate().filter(|(id, _)| mergeable(*id)).map(|(id, t)| (t.as_str(), id)).collect();
    // (score, length of the left half, token id) of each merge.
    let mut merges = Vec::new();
    let made = |id: usize| types[id] == TokenType::Normal && tokens[id].len() <= LONGEST;
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| made(*id)) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if known.contains_key(left) && known.contains_key(right) {
                merges.push((scores[id], at, id));
            }
        }
    }
    // Among splits of one token the longest left half goes first, as in the merges other converters write.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)).then(b.1.cmp(&a.1)));
    let halves = |(_, at, id): (f32, usize, usize)| {
        let (left, right) = tokens[id].split_at(at);
        (left.to_string(), right.to_string())
    };
    merges.into_iter().map(halves).collect()
}

/// Scores that give these merges back, and whether they give exactly these.
///
/// A token's score is minus the rank of the first merge that makes it. Tokens no merge makes have a score below all.
pub(crate) fn scores_from_merges(
    tokens: &[String],
    merges: &[(String, String)],
    types: &[TokenType],
) -> (Vec<f32>, bool) {
    let mut rank: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (i, (left, right)) in merges.iter().enumerate() {
        rank.entry(format!("{left}{right}")).or_insert(i);
    }
    let lowest = -(merges.len() as f32) - 1.0;
    let score = |(id, token): (usize, &String)| match (types[id], rank.get(token)) {
        (TokenType::Normal, Some(rank)) => -(*rank as f32),
        (TokenType::Normal | TokenType::UserDefined, _) => lowest,
        _ => 0.0,
    };
    let scores: Vec<f32> = tokens.iter().enumerate().map(score).collect();
    let exact = merges_from_scores(tokens, &scores, types) == merges;
    (scores, exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_follow_the_scores() {
        let tokens = ["<unk>", "a", "b", "ab", "aba", "ba"].map(String::from);
        let scores = [0.0, -9.0, -9.0, -1.0, -3.0, -2.0];
        let mut types = [TokenType::Normal; 6];
        types[0] = TokenType::Unknown;
        let merges = merges_from_scores(&tokens, &scores, &types);
        let expected = [("a", "b"), ("b", "a"), ("ab", "a"), ("a", "ba")];
        assert_eq!(merges, expected.map(|(l, r)| (l.to_string(), r.to_string())));
        let (again, exact) = scores_from_merges(&tokens, &merges, &types);
        assert!(exact);
        assert_eq!(again, [0.0, -5.0, -5.0, 0.0, -2.0, -1.0]);
        // A merge less: "aba" could still be made from "a" and "ba", so scores can't say it.
        assert!(!scores_from_merges(&tokens, &merges[..3], &types).1);
    }
}
