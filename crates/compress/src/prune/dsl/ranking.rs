//! How good a ranking of all items is.

use super::implicit::Choices;
use super::table::SparseTable;

/// Means over users who have something held out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ranked {
    /// The part of what is held out among the first `k`.
    pub recall: f64,
    /// Gains `1 / log₂(rank + 1)` of what is held out, over those of the best ranking.
    pub ndcg: f64,
    /// The part of users for whom something of it is among the first `k`.
    pub hits: f64,
}

/// The `k` items of the highest scores that are not in `seen` (ascending), the highest first; of equal ones the first.
pub fn top(scores: &[f32], seen: &[u32], k: usize) -> Vec<u32> {
    let mut items: Vec<u32> = Vec::with_capacity(scores.len());
    let mut seen = seen.iter().copied().peekable();
    for item in 0..scores.len() as u32 {
        match seen.next_if_eq(&item) {
            Some(_) => {}
            None => items.push(item),
        }
    }
    let order = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
    if k < items.len() && k > 0 {
        items.select_nth_unstable_by(k - 1, order);
    }
    items.truncate(k);
    items.sort_unstable_by(order);
    items
}

/// Judges one user's ranking by what is held out (ascending, not empty).
fn judge(ranking: &[u32], held_out: &[u32], k: usize) -> Ranked {
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let found = ranking.iter().enumerate().filter(|(_, item)| held_out.binary_search(item).is_ok());
    let (mut count, mut gained) = (0, 0.0);
    for (rank, _) in found {
        count += 1;
        gained += gain(rank);
    }
    let best: f64 = (0..held_out.len().min(k)).map(gain).sum();
    Ranked {
        recall: count as f64 / held_out.len() as f64,
        ndcg: gained / best,
        hits: f64::from(u8::from(count > 0)),
    }
}

/// Ranks all items for all users; `score` writes a user's scores.
pub fn evaluate(choices: &Choices, k: usize, mut score: impl FnMut(usize, &mut [f32])) -> Ranked {
    let mut scores = vec![0.0; choices.items];
    let (mut sum, mut users) = (Ranked::default(), 0.0);
    for (user, (seen, held_out)) in choices.seen.iter().zip(&choices.held_out).enumerate() {
        if held_out.is_empty() {
            continue;
        }
        score(user, &mut scores);
        let found = judge(&top(&scores, seen, k), held_out, k);
        sum.recall += found.recall;
        sum.ndcg += found.ndcg;
        sum.hits += found.hits;
        users += 1.0;
    }
    let mean = |sum: f64| if users > 0.0 { sum / users } else { 0.0 };
    Ranked { recall: mean(sum.recall), ndcg: mean(sum.ndcg), hits: mean(sum.hits) }
}

/// Scores of items by sparse vectors: those of items lie by columns, so that only products of two stored numbers are made.
#[derive(Debug, Clone)]
pub struct Scorer<'t> {
    users: &'t SparseTable,
    columns: Vec<Vec<(u32, f32)>>,
    /// Products made so far.
    pub macs: u64,
}

impl<'t> Scorer<'t> {
    /// Lays the items' numbers out.
    pub fn new(users: &'t SparseTable, items: &SparseTable) -> Scorer<'t> {
        Scorer { users, columns: items.by_columns(), macs: 0 }
    }

    /// Writes the scores of all items for a user.
    pub fn score(&mut self, user: usize, scores: &mut [f32]) {
        scores.fill(0.0);
        let (columns, values) = self.users.row(user);
        for (column, value) in columns.iter().zip(values) {
            let column = &self.columns[*column as usize];
            column.iter().for_each(|(item, other)| scores[*item as usize] += value * other);
            self.macs += column.len() as u64;
        }
    }
}
