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

/// A place on the line of all blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    tile: usize,
    task: usize,
    kv_head: usize,
    /// The tile's number within its head.
    row: usize,
    block: usize,
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

    /// The first tile at or behind `cursor`, whose row may lie past its head's end; none at the end of all.
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
        cursor
    }

    fn first(&self) -> Cursor {
        self.settle(Cursor { tile: 0, task: 0, kv_head: 0, row: 0, block: 0 })
    }

    fn next(&self, cursor: &Cursor) -> Cursor {
        self.settle(Cursor { tile: cursor.tile + 1, row: cursor.row + 1, ..*cursor })
    }

    /// Every tile, with where it begins.
    fn all(&self) -> impl Iterator<Item = (Cursor, Tile)> {
        let mut cursor = self.first();
        std::iter::from_fn(move || {
            let here = cursor;
            if here.task >= self.tasks.len() {
                return None;
            }
            cursor = self.next(&here);
            Some((here, self.tile(&here)))
        })
    }

    /// The cost of everything.
    pub(super) fn total_cost(&self) -> usize {
        self.all().map(|(_, tile)| self.cost(&tile)).sum()
    }

    /// The pieces of a share, in order.
    pub(super) fn pieces(&self, share: &Share) -> impl Iterator<Item = Piece> {
        let (mut cursor, to) = (share.from, share.to);
        std::iter::from_fn(move || {
            if (cursor.tile, cursor.block) >= (to.tile, to.block) {
                return None;
            }
            let tile = self.tile(&cursor);
            let end = if cursor.tile == to.tile { to.block } else { tile.blocks.end };
            let blocks = cursor.block..end;
            cursor = self.next(&cursor);
            Some(Piece { tile, blocks })
        })
    }

    /// The blocks of `tile` that a share begins with.
    pub(super) fn first_blocks(&self, share: &Share, tile: &Tile) -> Range<usize> {
        share.from.block..if share.to.tile == share.from.tile { share.to.block } else { tile.blocks.end }
    }

    /// Cuts everything into a share for each of `threads`. Gives the number of f32 that the shares keep for each other.
    pub(super) fn cut(&self, total_cost: usize, threads: usize, shares: &mut Vec<Share>) -> usize {
        shares.clear();
        let share = |from, owner| Share { from, to: from, owner, sharers: 0, folded: 0, blocks: 0 };
        shares.push(share(self.first(), 0));
        let (mut before, mut end) = (0, self.first());
        for (cursor, tile) in self.all() {
            let cost = self.cost(&tile);
            while shares.len() < threads {
                let target = total_cost * shares.len() / threads;
                if target >= before + cost {
                    break;
                }
                let block = tile.blocks.start + (target - before) * tile.blocks.len() / cost.max(1);
                let cut = Cursor { block, ..cursor };
                let number = shares.len();
                let inside = block > tile.blocks.start;
                let previous = &mut shares[number - 1];
                previous.to = cut;
                // The tile was begun by the previous share, or by the owner of what that one begins in.
                let begun_before = previous.from.tile == cut.tile && previous.from.block > tile.blocks.start;
                let owner = match (inside, begun_before) {
                    (false, _) => number,
                    (true, false) => number - 1,
                    (true, true) => previous.owner,
                };
                shares.push(share(cut, owner));
            }
            before += cost;
            end = Cursor { tile: cursor.tile + 1, task: self.tasks.len(), kv_head: 0, row: 0, block: 0 };
        }
        while shares.len() < threads {
            let number = shares.len();
            shares[number - 1].to = end;
            shares.push(share(end, number));
        }
        if let Some(last) = shares.last_mut() {
            last.to = end;
        }
        self.place(shares)
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
