//! Which thread computes which heads of which sequences, and what a query sees.

use std::ops::Range;

use super::Shape;
use crate::pool::Pool;

impl Shape {
    /// Positions before a query's own that it reaches.
    fn reach(&self) -> usize {
        self.window.unwrap_or(usize::MAX).max(1) - 1
    }

    /// The keys that queries at `positions` of a sequence see, taken together; both are ranges without gaps.
    pub(super) fn seen(&self, positions: Range<usize>, length: usize) -> Range<usize> {
        let end = if self.causal { positions.end } else { positions.end.saturating_add(self.reach()) };
        positions.start.saturating_sub(self.reach())..end.min(length)
    }

    /// The queries that see any of the keys at `positions`.
    pub(super) fn seeing(&self, positions: Range<usize>, length: usize) -> Range<usize> {
        let start = if self.causal { positions.start } else { positions.start.saturating_sub(self.reach()) };
        start..positions.end.saturating_add(self.reach()).min(length)
    }
}

/// One query head of one sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// The sequence's first token.
    pub start: usize,
    /// Its tokens.
    pub length: usize,
    /// The query head.
    pub head: usize,
}

/// A call's pieces in order, and where each thread's begin.
pub(super) struct Plan {
    pieces: Vec<Piece>,
    begins: Vec<usize>,
}

impl Plan {
    /// Pieces for all heads of the sequences, in runs of about the same cost.
    pub(super) fn new(shape: &Shape, lengths: &[usize], threads: usize) -> Plan {
        let mut pieces = Vec::with_capacity(lengths.len() * shape.heads);
        let mut start = 0;
        for &length in lengths.iter().filter(|&&length| length > 0) {
            pieces.extend((0..shape.heads).map(|head| Piece { start, length, head }));
            start += length;
        }
        // Pairs of positions, and some for what is done once a position.
        let cost = |piece: &Piece| {
            (piece.length * (piece.length.min(shape.window.unwrap_or(usize::MAX)) + 32)) as u128
        };
        let total: u128 = pieces.iter().map(cost).sum();
        let (mut begins, mut before) = (vec![0; threads], 0);
        for (index, piece) in pieces.iter().enumerate() {
            // A piece is the thread's in whose even share its middle lies.
            let middle = before + cost(piece) / 2;
            let thread = (middle * threads as u128 / total) as usize;
            for begin in &mut begins[(thread + 1).min(threads)..] {
                *begin = index + 1;
            }
            before += cost(piece);
        }
        begins.push(pieces.len());
        Plan { pieces, begins }
    }

    /// Tokens of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.pieces.iter().map(|piece| piece.length).max().unwrap_or(0)
    }

    /// Calls `job` with each thread's number and pieces.
    pub(super) fn run(&self, pool: &Pool, job: impl Fn(usize, &[Piece]) + Sync) {
        pool.run(&|thread| {
            let pieces = &self.pieces[self.begins[thread]..self.begins[thread + 1]];
            if !pieces.is_empty() {
                job(thread, pieces);
            }
        });
    }
}
