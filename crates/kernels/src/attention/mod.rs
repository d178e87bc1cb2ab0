//! Attention over a cache of keys and values: scores, softmax and weighted sums for all sequences of a batch.
//!
//! Query heads that share a key/value head are computed together, and so are neighbouring positions of a prompt. A
//! tile of such queries goes over the cache in blocks of positions: scores of a block, their exponentials relative
//! to the block's greatest, and the values mixed by them; then what the block gave is folded into what was known
//! before (online softmax, Milakov & Gimelshein 2018; Dao et al. 2022). No score lives longer than its block, and
//! keys and values are read once for many queries.
//!
//! - `cache`: keys and values, how they lie and how they are rounded (`stored`, `hadamard`, `memory`).
//! - `plan`, `share`: even shares of the work for the threads. Blocks are always the same and always folded in order, so
//!   that results do not depend on the threads, on other sequences, or on what else was asked in the same call.
//! - `tile`, `kernel`, `fold`, `lanes`: the arithmetic, written once for every instruction set.

mod cache;
mod fold;
mod hadamard;
mod kernel;
pub(crate) mod lanes;
pub(crate) mod memory;
mod plan;
mod share;
mod stored;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;

pub use cache::{KvType, LayerCache};

use crate::isa::Isa;
use crate::pool::Pool;
use memory::Lines;
use plan::{Share, Tiles};
use share::{Output, Work};

/// What attention computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Query heads, a multiple of the key/value heads.
    pub heads: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)` on the scores.
    pub softcap: Option<f32>,
    /// Positions that a query reaches, its own included.
    pub window: Option<usize>,
    /// Whether a query sees only its own position and what is before it.
    pub causal: bool,
}

impl Shape {
    /// The positions that a query at `position` attends to when `len` are there. Without causality a window
    /// reaches to both sides.
    pub fn visible(&self, position: usize, len: usize) -> Range<usize> {
        let reach = self.window.unwrap_or(len).max(1) - 1;
        let end = if self.causal { position + 1 } else { (position + reach).saturating_add(1).min(len) };
        position.saturating_sub(reach)..end
    }
}

/// One sequence of a batch.
#[derive(Debug)]
pub struct Task<'a> {
    /// Keys and values of the sequence, those of the queries' own positions included.
    pub cache: &'a LayerCache,
    /// The cache whose keys the queries are compared with: the same, or that of a layer whose attention this one copies.
    pub keys: &'a LayerCache,
    /// Queries of neighbouring positions, `[count, heads · head_dim]`.
    pub queries: &'a [f32],
    /// Position of the first query.
    pub start: usize,
    /// Takes the weighted sums of values, of the queries' shape.
    pub out: &'a mut [f32],
}

impl Task<'_> {
    /// Positions that queries are of.
    fn count(&self, shape: &Shape) -> usize {
        self.queries.len() / (shape.heads * self.cache.head_dim()).max(1)
    }
}

/// Cost below which waking the other threads takes longer than the work: about two microseconds of products.
const ALONE: usize = 1 << 16;

/// What the calling thread needs to plan; kept, so that a step allocates nothing.
#[derive(Default)]
struct Plan {
    shares: Vec<Share>,
    outputs: Vec<Output>,
    arrived: Vec<AtomicUsize>,
    kept: Lines,
}

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::default();
}

/// Attends from the queries of every sequence to what its cache holds. All sequences are one piece of work for the
/// pool. What a query gets does not depend on other queries or sequences, nor on the number of threads, to the last
/// bit.
///
/// # Panics
/// If a task's output is not as long as its queries, its cache lacks a query's position, or its keys are of another shape.
pub fn attend(tasks: &mut [Task<'_>], shape: &Shape, pool: &Pool) {
    attend_with(Isa::current(), tasks, shape, pool);
}

/// [`attend`] on a given instruction set.
///
/// # Panics
/// As [`attend`], and if the processor lacks the instruction set.
pub fn attend_with(isa: Isa, tasks: &mut [Task<'_>], shape: &Shape, pool: &Pool) {
    assert!(isa.is_available(), "this processor has no {}", isa.name());
    for task in &*tasks {
        assert_eq!(task.queries.len(), task.out.len(), "as many results as queries");
        assert!(
            task.start + task.count(shape) <= task.cache.len(),
            "the cache holds the queries' own positions"
        );
        assert!(task.keys.keys_fit(task.cache), "keys for all values, of the same shape");
    }
    PLAN.with_borrow_mut(|plan| {
        plan.outputs.clear();
        plan.outputs.extend(
            tasks.iter_mut().map(|task| Output { pointer: task.out.as_mut_ptr(), length: task.out.len() }),
        );
        let tiles = Tiles { tasks: &*tasks, shape };
        let cost = tiles.total_cost();
        let dim = tasks.iter().map(|task| task.cache.head_dim()).max().unwrap_or(0);
        let threads = if cost * dim < ALONE { 1 } else { pool.threads() };
        plan.kept.grow(tiles.cut(cost, threads, &mut plan.shares));
        plan.arrived.clear();
        plan.arrived.resize_with(threads, || AtomicUsize::new(0));
        let work = Work {
            tiles,
            shares: &plan.shares,
            outputs: &plan.outputs,
            arrived: &plan.arrived,
            kept: plan.kept.as_mut_slice::<f32>().as_mut_ptr(),
        };
        if threads == 1 {
            share::run(isa, &work, 0);
        } else {
            pool.run(&|thread| share::run(isa, &work, thread));
        }
    });
}
