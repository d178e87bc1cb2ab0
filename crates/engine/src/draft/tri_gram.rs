//! ADED's drafter (Liu et al. 2024, "Adaptive draft-verification for LLM decoding", arXiv 2407.12021): a table of what follows
//! two tokens, corrected by the model's own predictions while it writes, and a search for the continuations worth checking.
//!
//! The table `T[(a, b)] -> {c: p}` holds the likeliest continuations of each two tokens. After each step it moves towards
//! the model: `p <- (1 - mu) p + mu p_model`.
//!
//! The table has room for a fixed number of contexts, taken when it is made: what a server holds does not grow while it runs. A context's
//! place is one of eight that its hash names; a ninth takes the place of one of them.
//!
//! The search is a Monte-Carlo tree search over the table. A child `c` of a node with `N` visits is worth
//! `Q / n + (c1 + ln((N + c2 + 1) / c2)) p sqrt(N) / (1 + n)`, where `n` are its own visits and `Q` the sum of its rewards; a
//! path's reward is 1 plus the sum of the probabilities along it. The most visited paths are drafted.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Continuations kept for two tokens.
const KEPT: usize = 8;

/// Groups of contexts, a power of two.
const GROUPS: usize = 1 << 12;

/// Contexts of a group. All groups together take 2.4 MB.
const WAYS: usize = 8;

/// Probability below which a continuation is forgotten.
const WEAK: f32 = 0.005;

/// What no context has in front: free places are marked by it.
const FREE: (u32, u32) = (u32::MAX, u32::MAX);

/// Two tokens and what follows them.
#[derive(Debug, Clone, Copy)]
struct Entry {
    context: (u32, u32),
    /// Continuations in use.
    count: u32,
    next: [(u32, f32); KEPT],
}

/// What follows two tokens, with probabilities.
#[derive(Debug, Clone)]
pub struct TriGrams {
    /// `[GROUPS, WAYS]`.
    entries: Box<[Entry]>,
    /// The place of each group that is taken next when it is full.
    victims: Box<[u8]>,
    len: usize,
    /// How fast the table follows the model, 0 to 1.
    mu: f32,
}

/// How long the search for drafts looks.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// Paths that are tried.
    pub iterations: usize,
    /// Tokens of a path at most.
    pub depth: usize,
    /// Paths that are drafted at most.
    pub paths: usize,
    /// Exploration, the paper's `c1`.
    pub c1: f32,
    /// Its growth with visits, the paper's `c2`.
    pub c2: f32,
}

impl Default for Search {
    fn default() -> Search {
        Search { iterations: 150, depth: 4, paths: 1, c1: 32.0, c2: 8.0 }
    }
}

impl TriGrams {
    /// An empty table that follows the model at rate `mu`.
    pub fn new(mu: f32) -> TriGrams {
        // No zeros: the system gives pages of zeros only when they are written to, and all shall be held from now on.
        let entry = Entry { context: FREE, count: 0, next: [(u32::MAX, 0.0); KEPT] };
        let entries = vec![entry; GROUPS * WAYS].into_boxed_slice();
        TriGrams { entries, victims: vec![0; GROUPS].into_boxed_slice(), len: 0, mu }
    }

    /// Contexts known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The group of a context, by Fibonacci hashing.
    fn group(context: (u32, u32)) -> usize {
        let both = u64::from(context.0) << 32 | u64::from(context.1);
        let mixed = (both ^ (both >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - GROUPS.trailing_zeros())) as usize
    }

    /// Where a context is.
    fn find(&self, context: (u32, u32)) -> Option<usize> {
        let start = TriGrams::group(context) * WAYS;
        let group = &self.entries[start..start + WAYS];
        group.iter().position(|it| it.count > 0 && it.context == context).map(|at| start + at)
    }

    /// Fills the table with how often tokens follow each other in `text`.
    pub fn count(&mut self, text: &[u32]) {
        let mut counts: HashMap<(u32, u32), HashMap<u32, u32>> = HashMap::new();
        for three in text.windows(3) {
            *counts.entry((three[0], three[1])).or_default().entry(three[2]).or_default() += 1;
        }
        for (context, next) in counts {
            let total: u32 = next.values().sum();
            let mut next: Vec<(u32, f32)> =
                next.into_iter().map(|(token, count)| (token, count as f32 / total as f32)).collect();
            next.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            next.truncate(KEPT);
            self.insert(context, next);
        }
    }

    /// Moves what follows `(a, b)` towards the model's probabilities of some tokens; those not named lose.
    pub fn adapt(&mut self, (a, b): (u32, u32), model: &[(u32, f32)]) {
        let mut next = self.after((a, b)).to_vec();
        // What is new is taken as it is: there is nothing to correct yet.
        let mu = if next.is_empty() { 1.0 } else { self.mu };
        next.iter_mut().for_each(|(_, p)| *p *= 1.0 - mu);
        for &(token, probability) in model {
            match next.iter_mut().find(|(known, _)| *known == token) {
                Some((_, p)) => *p += mu * probability,
                None => next.push((token, mu * probability)),
            }
        }
        next.retain(|(_, p)| *p >= WEAK);
        next.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        next.truncate(KEPT);
        self.insert((a, b), next);
    }

    fn insert(&mut self, context: (u32, u32), next: Vec<(u32, f32)>) {
        let group = TriGrams::group(context);
        let (start, known) = (group * WAYS, self.find(context));
        let at = known.or_else(|| (start..start + WAYS).find(|&at| self.entries[at].count == 0));
        let at = at.unwrap_or_else(|| {
            let victim = usize::from(self.victims[group]) % WAYS;
            self.victims[group] = (victim as u8 + 1) % WAYS as u8;
            start + victim
        });
        let entry = &mut self.entries[at];
        self.len -= usize::from(entry.count > 0);
        entry.context = context;
        entry.count = next.len().min(KEPT) as u32;
        self.len += usize::from(entry.count > 0);
        entry.next.iter_mut().zip(next).for_each(|(slot, new)| *slot = new);
    }

    /// What may follow two tokens, the likeliest first.
    pub fn after(&self, context: (u32, u32)) -> &[(u32, f32)] {
        self.find(context).map_or(&[], |at| &self.entries[at].next[..self.entries[at].count as usize])
    }

    /// The likeliest chain behind two tokens, without a search; a token less likely than `least` ends it.
    pub fn chain(&self, mut context: (u32, u32), count: usize, least: f32) -> Vec<u32> {
        let mut chain = Vec::new();
        while chain.len() < count
            && let Some(&(token, p)) = self.after(context).first()
            && p >= least
        {
            chain.push(token);
            context = (context.1, token);
        }
        chain
    }

    /// The paths behind two tokens that a search visits most, the most visited first; none is the beginning of another.
    pub fn search(&self, context: (u32, u32), search: &Search, seed: u64) -> Vec<Vec<u32>> {
        if self.after(context).is_empty() {
            return Vec::new();
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut tree = Tree::new(context);
        for _ in 0..search.iterations {
            tree.iterate(self, search, &mut random);
        }
        tree.paths(search)
    }
}

#[derive(Debug)]
struct Node {
    context: (u32, u32),
    p: f32,
    visits: f32,
    reward: f32,
    depth: usize,
    parent: usize,
    children: Vec<usize>,
    expanded: bool,
}

#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    fn new(context: (u32, u32)) -> Tree {
        let root = Node {
            context,
            p: 0.0,
            visits: 0.0,
            reward: 0.0,
            depth: 0,
            parent: 0,
            children: Vec::new(),
            expanded: false,
        };
        Tree { nodes: vec![root] }
    }

    fn iterate(&mut self, table: &TriGrams, search: &Search, random: &mut ChaCha8Rng) {
        let mut at = 0;
        let mut sum = 0.0;
        while !self.nodes[at].children.is_empty() {
            at = self.best_child(at, search);
            sum += self.nodes[at].p;
        }
        if !self.nodes[at].expanded && self.nodes[at].depth < search.depth {
            self.nodes[at].expanded = true;
            for &(token, p) in table.after(self.nodes[at].context) {
                let context = (self.nodes[at].context.1, token);
                let child = Node {
                    context,
                    p,
                    visits: 0.0,
                    reward: 0.0,
                    depth: self.nodes[at].depth + 1,
                    parent: at,
                    children: Vec::new(),
                    expanded: false,
                };
                let index = self.nodes.len();
                self.nodes.push(child);
                self.nodes[at].children.push(index);
            }
        }
        // Roll out to the full depth by the table's own probabilities.
        let mut context = self.nodes[at].context;
        for _ in self.nodes[at].depth..search.depth {
            let next = table.after(context);
            let total: f32 = next.iter().map(|(_, p)| p).sum();
            let mut rest = random.random::<f32>() * total;
            let Some(&(token, p)) = next.iter().find(|(_, p)| {
                rest -= p;
                rest < 0.0
            }) else {
                break;
            };
            sum += p;
            context = (context.1, token);
        }
        loop {
            self.nodes[at].visits += 1.0;
            self.nodes[at].reward += 1.0 + sum;
            if at == 0 {
                return;
            }
            at = self.nodes[at].parent;
        }
    }

    fn best_child(&self, parent: usize, search: &Search) -> usize {
        let visits = self.nodes[parent].visits;
        let worth = |&child: &usize| {
            let Node { visits: own, reward, p, .. } = &self.nodes[child];
            if *own == 0.0 {
                return f32::INFINITY;
            }
            let explore = search.c1 + ((visits + search.c2 + 1.0) / search.c2).ln();
            reward / own + explore * p * visits.sqrt() / (1.0 + own)
        };
        let children = &self.nodes[parent].children;
        // The first among equals, which is the likeliest.
        children.iter().copied().rev().max_by(|a, b| worth(a).total_cmp(&worth(b))).unwrap_or(parent)
    }

    fn paths(&self, search: &Search) -> Vec<Vec<u32>> {
        let mut nodes: Vec<usize> =
            (1..self.nodes.len()).filter(|&node| self.nodes[node].visits > 0.0).collect();
        nodes.sort_by(|&a, &b| self.nodes[b].visits.total_cmp(&self.nodes[a].visits).then(a.cmp(&b)));
        let mut paths: Vec<Vec<u32>> = Vec::new();
        for node in nodes {
            let path = self.path(node);
            // A visit of a node is one of its parent, so that longer paths follow their beginnings.
            match paths.iter().position(|known| path.starts_with(known)) {
                Some(known) => paths[known] = path,
                None if paths.len() < search.paths => paths.push(path),
                None => {}
            }
        }
        paths
    }

    fn path(&self, mut node: usize) -> Vec<u32> {
        let mut path = Vec::new();
        while node != 0 {
            path.push(self.nodes[node].context.1);
            node = self.nodes[node].parent;
        }
        path.reverse();
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_probabilities_and_the_chain_follows_the_likeliest() {
        let mut table = TriGrams::new(0.2);
        table.count(&[1, 2, 3, 1, 2, 3, 1, 2, 4, 1, 2, 3]);
        assert_eq!(table.after((1, 2)), [(3, 0.75), (4, 0.25)]);
        assert_eq!(table.chain((1, 2), 4, 0.1), [3, 1, 2, 3]);
        assert!(table.chain((1, 2), 4, 0.9).is_empty() && table.chain((9, 9), 4, 0.0).is_empty());
    }

    #[test]
    fn the_table_moves_towards_the_model_and_forgets_the_weak() {
        let mut table = TriGrams::new(0.5);
        table.count(&[1, 2, 3]);
        table.adapt((1, 2), &[(4, 1.0)]);
        let close = |found: &[(u32, f32)], expected: &[(u32, f32)]| {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6)
        };
        assert!(close(table.after((1, 2)), &[(3, 0.5), (4, 0.5)]));
        (0..7).for_each(|_| table.adapt((1, 2), &[(4, 1.0)]));
        assert!(close(table.after((1, 2)), &[(4, 1.0 - 0.5f32.powi(8))]), "{:?}", table.after((1, 2)));
        // The first time, the model is all there is.
        table.adapt((7, 8), &[(1, 0.75), (2, 0.25)]);
        assert!(close(table.after((7, 8)), &[(1, 0.75), (2, 0.25)]));
    }

    #[test]
    fn a_full_table_stays_as_large_and_knows_what_came_last() {
        let mut table = TriGrams::new(0.2);
        let contexts = (GROUPS * WAYS) as u32;
        (0..4 * contexts).for_each(|n| table.adapt((n, n / 3), &[(n + 1, 1.0)]));
        assert!(table.len() <= contexts as usize && table.len() > contexts as usize / 2, "{}", table.len());
        // Of the last few, hardly one has lost its place.
        let last = (4 * contexts - contexts / 8)..4 * contexts;
        let known = last.clone().filter(|&n| table.after((n, n / 3)) == [(n + 1, 1.0)]).count();
        assert!(known > last.len() * 9 / 10, "{known} of {}", last.len());
        // One that is told to have no continuation any more is gone.
        let before = table.len();
        let n = 4 * contexts - 1;
        table.insert((n, n / 3), Vec::new());
        assert_eq!((table.after((n, n / 3)), table.len()), (&[][..], before - 1));
    }

    #[test]
    fn the_search_drafts_the_likely_paths_and_no_beginning_twice() {
        let mut table = TriGrams::new(0.2);
        table.adapt((0, 1), &[(2, 0.8), (3, 0.2)]);
        table.adapt((1, 2), &[(4, 1.0)]);
        table.adapt((2, 4), &[(5, 0.9), (6, 0.1)]);
        table.adapt((1, 3), &[(7, 1.0)]);
        let search = Search { paths: 2, depth: 3, ..Search::default() };
        let paths = table.search((0, 1), &search, 1);
        assert_eq!(paths[0], [2, 4, 5], "{paths:?}");
        assert_eq!(paths.len(), 2);
        assert!(!paths[1].starts_with(&paths[0]) && !paths[0].starts_with(&paths[1]));
        assert!(table.search((5, 5), &search, 1).is_empty());
    }
}
