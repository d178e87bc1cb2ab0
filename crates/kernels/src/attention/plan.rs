//! Who computes what: the blocks of all tiles of all sequences on one line, cut into as many even shares as there are
//! threads.
//!
//! A cut may fall inside a tile, between two blocks. The tile's results do not depend on it: blocks are always
//! computed each on its own and folded in order, be it by one thread as it goes or by the last one of several.

use std::ops::Range;

use super::cache::BLOCK;
use super::fold::partial_len;
use super::{Shape, Task};

/// Queries of a tile: enough that keys and values are widened for many at once, few enough that what is kept for each
/// stays in the second-level cache.
const TILE: usize = 96;

/// What a position costs on top of the products with each query, in queries.
const POSITION_COST: usize = 4;

/// Queries of one sequence that share a key/value head. They are numbered by position, then head.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    pub task: usize,
    pub kv_head: usize,
    pub members: Range<usize>,
    /// Blocks of positions that any of the queries sees.
    pub blocks: Range<usize>,
}

/// A place on the line of all blocks, which lie in the order of these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    task: usize,
    kv_head: usize,
    /// The tile's number within its head.
    row: usize,
    block: usize,
}

impl Cursor {
    fn is_in_tile_of(&self, other: &Cursor) -> bool {
        Cursor { block: other.block, ..*self } == *other
    }
}

/// What one thread does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    from: Cursor,
    to: Cursor,
    /// The thread that has the first blocks of the tile this share begins in; itself if it begins with a tile.
    pub owner: usize,
    /// Threads that share the tile in which this share ends, counted at its owner; 0 if it is not cut.
    pub sharers: usize,
    /// Where the folded first blocks of the tile that this share ends in are kept.
    pub folded: usize,
    /// Where the blocks of the tile that this share begins in are kept, one after another.
    pub blocks: usize,
}

/// A part of a tile that one thread computes.
pub(super) struct Piece {
    pub tile: Tile,
    pub blocks: Range<usize>,
}

impl Piece {
    pub(super) fn begins_tile(&self) -> bool {
        self.blocks.start == self.tile.blocks.start
    }

    pub(super) fn ends_tile(&self) -> bool {
        self.blocks.end == self.tile.blocks.end
    }
}

/// The sequences' tiles.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    pub tasks: &'a [Task<'a>],
    pub shape: &'a Shape,
}

impl Tiles<'_> {
    /// Query heads that share a key/value head.
    pub(super) fn sharing(&self, task: usize) -> usize {
        self.shape.heads / self.tasks[task].cache.kv_heads().max(1)
    }

    /// Queries for each key/value head.
    fn members(&self, task: usize) -> usize {
        self.tasks[task].count(self.shape) * self.sharing(task)
    }

    /// What a query of a task sees.
    pub(super) fn visible(&self, task: usize, member: usize) -> Range<usize> {
        let (index, task) = (member / self.sharing(task), &self.tasks[task]);
        self.shape.visible(task.start + index, task.cache.len())
    }

    /// Where a query of a tile begins in its task's queries and results.
    pub(super) fn query_place(&self, tile: &Tile, member: usize) -> usize {
        let sharing = self.sharing(tile.task);
        let head = tile.kv_head * sharing + member % sharing;
        (member / sharing * self.shape.heads + head) * self.tasks[tile.task].cache.head_dim()
    }

    fn tile(&self, cursor: &Cursor) -> Tile {
        let &Cursor { task, kv_head, row, .. } = cursor;
        let members = row * TILE..((row + 1) * TILE).min(self.members(task));
        let (first, last) = (self.visible(task, members.start), self.visible(task, members.end - 1));
        Tile { task, kv_head, members, blocks: first.start / BLOCK..last.end.div_ceil(BLOCK) }
    }

    /// The cost of a tile.
    fn cost(&self, tile: &Tile) -> usize {
        let last = self.visible(tile.task, tile.members.end - 1);
        let first = self.visible(tile.task, tile.members.start);
        (last.end - first.start) * (tile.members.len() + POSITION_COST)
    }

    /// The first tiles of the rows of a task's head.
    fn rows(&self, task: usize, kv_head: usize) -> impl Iterator<Item = Cursor> {
        (0..self.members(task).div_ceil(TILE)).map(move |row| Cursor { task, kv_head, row, block: 0 })
    }

    /// The cost of each head of a task.
    fn head_cost(&self, task: usize) -> usize {
        self.rows(task, 0).map(|cursor| self.cost(&self.tile(&cursor))).sum()
    }

    /// The cost of everything.
    pub(super) fn total_cost(&self) -> usize {
        let costs = |(number, task): (usize, &Task<'_>)| self.head_cost(number) * task.cache.kv_heads();
        self.tasks.iter().enumerate().map(costs).sum()
    }

    /// The first block of the tile at or behind `cursor`, whose row may lie past its head's end.
    fn settle(&self, mut cursor: Cursor) -> Cursor {
        while let Some(task) = self.tasks.get(cursor.task) {
            if cursor.row * TILE < self.members(cursor.task) {
                cursor.block = self.tile(&cursor).blocks.start;
                return cursor;
            }
            (cursor.row, cursor.kv_head) = (0, cursor.kv_head + 1);
            if cursor.kv_head >= task.cache.kv_heads() || self.members(cursor.task) == 0 {
                (cursor.kv_head, cursor.task) = (0, cursor.task + 1);
            }
        }
        self.end()
    }

    /// Behind everything.
    fn end(&self) -> Cursor {
        Cursor { task: self.tasks.len(), kv_head: 0, row: 0, block: 0 }
    }

    /// The pieces of a share, in order.
    pub(super) fn pieces(&self, share: &Share) -> impl Iterator<Item = Piece> {
        let (mut cursor, to) = (share.from, share.to);
        std::iter::from_fn(move || {
            if cursor >= to {
                return None;
            }
            let tile = self.tile(&cursor);
            let end = if cursor.is_in_tile_of(&to) { to.block } else { tile.blocks.end };
            let blocks = cursor.block..end;
            cursor = self.settle(Cursor { row: cursor.row + 1, ..cursor });
            Some(Piece { tile, blocks })
        })
    }

    /// The blocks of `tile` that a share begins with.
    pub(super) fn first_blocks(&self, share: &Share, tile: &Tile) -> Range<usize> {
        share.from.block..if share.from.is_in_tile_of(&share.to) { share.to.block } else { tile.blocks.end }
    }

    /// Cuts everything into a share for each of `threads`. Gives the number of f32 that the shares keep for each
    /// other.
    pub(super) fn cut(&self, total_cost: usize, threads: usize, shares: &mut Vec<Share>) -> usize {
        shares.clear();
        let share = |from, owner| Share { from, to: self.end(), owner, sharers: 0, folded: 0, blocks: 0 };
        shares.push(share(self.settle(Cursor { task: 0, ..self.end() }), 0));
        let mut before = 0;
        for (number, task) in self.tasks.iter().enumerate() {
            let head_cost = self.head_cost(number);
            for kv_head in 0..task.cache.kv_heads() {
                // Most heads lie between two cuts.
                if total_cost * shares.len() / threads >= before + head_cost {
                    before += head_cost;
                    continue;
                }
                for cursor in self.rows(number, kv_head) {
                    let tile = self.tile(&cursor);
                    let cost = self.cost(&tile);
                    while shares.len() < threads && total_cost * shares.len() / threads < before + cost {
                        let target = total_cost * shares.len() / threads - before;
                        let block = tile.blocks.start + target * tile.blocks.len() / cost;
                        self.cut_at(Cursor { block, ..cursor }, &tile, shares);
                    }
                    before += cost;
                }
            }
        }
        while shares.len() < threads {
            shares.push(share(self.end(), shares.len()));
        }
        self.place(shares)
    }

    /// Ends the last share before a block of a tile, and begins the next with it.
    fn cut_at(&self, cut: Cursor, tile: &Tile, shares: &mut Vec<Share>) {
        let number = shares.len();
        let previous = &mut shares[number - 1];
        previous.to = cut;
        // The tile was begun by the previous share, or by the owner of what that one begins in.
        let begun_before = previous.from.is_in_tile_of(&cut) && previous.from.block > tile.blocks.start;
        let owner = match (cut.block > tile.blocks.start, begun_before) {
            (false, _) => number,
            (true, false) => number - 1,
            (true, true) => previous.owner,
        };
        shares.push(Share { from: cut, to: self.end(), owner, sharers: 0, folded: 0, blocks: 0 });
    }

    /// Gives the parts of cut tiles places to be kept in, and counts who shares them.
    fn place(&self, shares: &mut [Share]) -> usize {
        let mut used = 0;
        for number in 0..shares.len() {
            let share = shares[number];
            if share.owner == number {
                continue;
            }
            let tile = self.tile(&share.from);
            let size = partial_len(tile.members.len(), self.tasks[tile.task].cache.padded_dim());
            // An empty share between two cuts at the same place has no part in the tile.
            let owner = &mut shares[share.owner];
            if owner.sharers == 0 {
                (owner.folded, owner.sharers) = (used, 1);
                used += size;
            }
            let blocks = self.first_blocks(&share, &tile).len();
            owner.sharers += usize::from(blocks > 0);
            shares[number].blocks = used;
            used += size * blocks;
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KvType, LayerCache};
    use super::*;

    /// The blocks of each share, in order: `(task, kv_head, first member, block)`.
    fn shares_of(tiles: Tiles<'_>, threads: usize) -> Vec<Vec<(usize, usize, usize, usize)>> {
        let mut shares = Vec::new();
        tiles.cut(tiles.total_cost(), threads, &mut shares);
        assert_eq!(shares.len(), threads);
        let blocks = |piece: Piece| {
            let tile = piece.tile;
            piece.blocks.map(move |block| (tile.task, tile.kv_head, tile.members.start, block))
        };
        shares.iter().map(|share| tiles.pieces(share).flat_map(blocks).collect()).collect()
    }

    #[test]
    fn shares_are_even_and_cover_every_block_once_in_order() {
        let shape = Shape { heads: 9, scale: 1.0, softcap: None, window: None, causal: true };
        for sequences in
            [&[(8192, 1)][..], &[(1024, 1)], &[(5000, 1), (300, 1), (2000, 1)], &[(100, 1), (4096, 1)]]
        {
            let caches: Vec<LayerCache> = sequences
                .iter()
                .map(|&(len, _)| {
                    let mut cache = LayerCache::new(3, 16, KvType::Q8_0);
                    cache.push(&vec![1.0; len * 48], &vec![1.0; len * 48]);
                    cache
                })
                .collect();
            let queries = vec![1.0; 9 * 16];
            let mut outs = vec![vec![0.0; 9 * 16]; sequences.len()];
            let tasks: Vec<Task> = caches
                .iter()
                .zip(&mut outs)
                .map(|(cache, out)| Task {
                    cache,
                    keys: cache,
                    queries: &queries,
                    start: cache.len() - 1,
                    out,
                })
                .collect();
            let tiles = Tiles { tasks: &tasks, shape: &shape };
            let all = shares_of(tiles, 1).concat();
            let expected: usize = sequences.iter().map(|(len, _)| 3 * usize::div_ceil(*len, BLOCK)).sum();
            assert_eq!(all.len(), expected);
            for threads in [2, 3, 4, 7] {
                let shares = shares_of(tiles, threads);
                assert_eq!(shares.concat(), all, "{sequences:?} on {threads}");
                let even = all.len().div_ceil(threads);
                let most = shares.iter().map(Vec::len).max().unwrap_or(0);
                // A cut comes before the block it falls in; a last block may be a part of one.
                assert!(most <= even + 2, "{most} blocks of {} on {threads}: {sequences:?}", all.len());
            }
        }
    }

    #[test]
    fn a_prompt_is_cut_where_its_cost_is_halved() {
        let shape = Shape { heads: 4, scale: 1.0, softcap: None, window: None, causal: true };
        let mut cache = LayerCache::new(1, 16, KvType::F32);
        cache.push(&vec![1.0; 2048 * 16], &vec![1.0; 2048 * 16]);
        let (queries, mut out) = (vec![1.0; 2048 * 64], vec![0.0; 2048 * 64]);
        let tasks = [Task { cache: &cache, keys: &cache, queries: &queries, start: 0, out: &mut out }];
        let shares = shares_of(Tiles { tasks: &tasks, shape: &shape }, 2);
        let [first, second] = [&shares[0], &shares[1]].map(|share| share.len() as f64);
        assert!((first / second - 1.0).abs() < 0.1, "{first} {second}");
    }
}
