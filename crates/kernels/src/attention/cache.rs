//! Keys and values of one layer of one sequence, in blocks of positions.
//!
//! A block holds up to [`BLOCK`] positions in one piece of memory, head after head:
//!
//! - keys in panels of sixteen positions, `[panel][dim][16]`, so that sixteen scores are computed side by side;
//! - values in panels of sixteen dims, `[panel][position][16]`, so that sixteen dims are summed side by side; dims
//!   past the head's are zero;
//! - for [`KvType::Q8_0`] and [`KvType::Q4_0`] a scale a position for keys, and one for values.
//!
//! A layer that attends by another's keys keeps the values only.
//!
//! A long sequence grows by whole blocks, without moving what it holds; the last block of a short one doubles. Sequences
//! that begin alike may share blocks; one that writes to a shared block copies it first.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::Arc;

use super::hadamard;
use super::memory::Lines;
use super::stored::Stored;
use crate::vector::LANES;

/// Positions of a full block: few enough that a head's keys and values stay in the second-level cache while the
/// queries of a tile take turns with them.
pub(super) const BLOCK: usize = 256;

/// Positions that a sequence's first block begins with.
const FIRST: usize = 2 * LANES;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// As they are computed, four bytes.
    #[default]
    F32,
    /// Half precision, two bytes: a relative error of at most 2⁻¹¹ (below 2⁻¹⁴ an absolute one of 2⁻²⁵); what lies
    /// beyond ±65504 becomes that.
    F16,
    /// The upper half of an f32, two bytes: a relative error of at most 2⁻⁸.
    Bf16,
    /// int8 with one f32 scale a position and head, a byte and 4/head_dim. Keys and values are Hadamard-transformed
    /// first, so that single large dims do not spoil the others: the error has a norm of at most
    /// √head_dim · m / 254 with m the greatest magnitude after the transform, and evenly spread rows have an m of
    /// about 2.5 times their root mean square.
    Q8_0,
    /// Four bits with one f32 scale a position and head, half a byte and 4/head_dim. Keys and values are Hadamard-transformed
    /// first, after which their dims are spread about as a normal distribution is, and rounded to the sixteen numbers
    /// that suit one best: the error has a norm of about a tenth of the row's, and never more than the row's.
    Q4_0,
}

impl KvType {
    /// Every type there is.
    pub const ALL: [KvType; 5] = [KvType::F32, KvType::F16, KvType::Bf16, KvType::Q8_0, KvType::Q4_0];

    /// Bytes of sixteen stored numbers, scales apart.
    fn sixteen(self) -> usize {
        match self {
            KvType::F32 => 64,
            KvType::F16 | KvType::Bf16 => 32,
            KvType::Q8_0 => 16,
            KvType::Q4_0 => 8,
        }
    }

    /// Whether positions have scales (and are Hadamard-transformed).
    pub(super) fn is_scaled(self) -> bool {
        matches!(self, KvType::Q8_0 | KvType::Q4_0)
    }
}

thread_local! {
    /// One head's row before and after rounding; kept, so that a step allocates nothing.
    static ROWS: RefCell<(Lines, Lines)> = RefCell::default();
}

/// An expression in which a name is the type of sixteen neighbours of a [`KvType`].
macro_rules! with_element {
    ($kv_type:expr, $element:ident => $body:expr) => {
        match $kv_type {
            $crate::attention::KvType::F32 => {
                type $element = [f32; $crate::vector::LANES];
                $body
            }
            $crate::attention::KvType::F16 => {
                type $element = [half::f16; $crate::vector::LANES];
                $body
            }
            $crate::attention::KvType::Bf16 => {
                type $element = [half::bf16; $crate::vector::LANES];
                $body
            }
            $crate::attention::KvType::Q8_0 => {
                type $element = [i8; $crate::vector::LANES];
                $body
            }
            $crate::attention::KvType::Q4_0 => {
                type $element = [u8; $crate::vector::LANES / 2];
                $body
            }
        }
    };
}
pub(super) use with_element;

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub struct LayerCache {
    kv_heads: usize,
    head_dim: usize,
    kv_type: KvType,
    /// Whether keys are kept; a layer that attends by another's has values only.
    has_keys: bool,
    len: usize,
    /// Positions that stay allocated whatever is truncated.
    reserved: usize,
    /// All but the last have [`BLOCK`] positions.
    blocks: Vec<Arc<Block>>,
}

/// A piece of memory for `capacity` positions, a multiple of sixteen.
#[derive(Debug, Clone)]
struct Block {
    capacity: usize,
    lines: Lines,
}

/// Where the parts of a head begin, in bytes from the head's own beginning; `end` is where the next head begins.
#[derive(Debug, Clone, Copy)]
struct Places {
    values: usize,
    key_scales: usize,
    value_scales: usize,
    end: usize,
}

/// One head's part of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadBlock<'a> {
    /// Positions that there is room for: values' panels are `capacity · 16` apart.
    pub capacity: usize,
    /// Elements, `[capacity / 16][head_dim][16]`.
    pub keys: &'a [u8],
    /// Elements, `[padded dim / 16][capacity][16]`.
    pub values: &'a [u8],
    /// One a position, or none.
    pub key_scales: &'a [f32],
    /// One a position, or none.
    pub value_scales: &'a [f32],
}

impl LayerCache {
    /// An empty cache for `kv_heads` heads of `head_dim`; both 0 for a layer without attention.
    pub fn new(kv_heads: usize, head_dim: usize, kv_type: KvType) -> LayerCache {
        LayerCache { kv_heads, head_dim, kv_type, has_keys: true, len: 0, reserved: 0, blocks: Vec::new() }
    }

    /// As [`LayerCache::new`], for a layer that attends by the keys of another's cache: it keeps values only.
    pub fn of_values(kv_heads: usize, head_dim: usize, kv_type: KvType) -> LayerCache {
        LayerCache { has_keys: false, ..LayerCache::new(kv_heads, head_dim, kv_type) }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Key/value heads.
    pub fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Dims of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Whether these keys can be attended by in the place of another cache's own.
    pub(super) fn keys_fit(&self, values: &LayerCache) -> bool {
        let shape = |it: &LayerCache| (it.kv_heads, it.head_dim, it.kv_type);
        shape(self) == shape(values) && self.len >= values.len && (self.has_keys || values.len == 0)
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes held, room for positions to come included.
    pub fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.lines.bytes()).sum()
    }

    /// Bytes held; what several caches share counts for each by its part, so that their sum is what they hold together.
    pub fn own_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.lines.bytes() / Arc::strong_count(block)).sum()
    }

    /// Bytes that pushing `count` positions will add.
    pub fn growth(&self, count: usize) -> usize {
        if self.kv_heads * self.head_dim == 0 || count == 0 {
            return 0;
        }
        let needed = self.len + count;
        let mut bytes = 0;
        for index in self.len / BLOCK..needed.div_ceil(BLOCK) {
            let (needed, capacity) = LayerCache::block_room(index, needed, LayerCache::room_wanted(self.len));
            let size = |capacity| self.kv_heads * self.places(capacity).end;
            bytes += match self.blocks.get(index) {
                None => size(capacity),
                Some(block) if block.capacity < needed => {
                    let kept = if Arc::strong_count(block) > 1 { 0 } else { size(block.capacity) };
                    size(capacity) - kept
                }
                Some(block) if Arc::strong_count(block) > 1 => size(block.capacity),
                Some(_) => 0,
            };
        }
        bytes
    }

    /// A cache with the first `len` positions of this one. It shares their blocks until one of both writes to one.
    pub fn fork(&self, len: usize) -> LayerCache {
        let len = len.min(self.len);
        let blocks = self.blocks[..len.div_ceil(BLOCK).min(self.blocks.len())].to_vec();
        LayerCache { len, reserved: 0, blocks, ..*self }
    }

    /// Makes room for `positions` in all, so that pushing up to there allocates nothing.
    pub fn reserve(&mut self, positions: usize) {
        self.reserved = self.reserved.max(positions);
        self.make_room(positions, positions);
    }

    /// Appends positions: `keys` and `values` are `[positions, kv_heads · head_dim]`; a cache of values takes no notice of keys.
    pub fn push(&mut self, keys: &[f32], values: &[f32]) {
        let width = self.kv_heads * self.head_dim;
        if width == 0 {
            return;
        }
        assert!(!self.has_keys || keys.len() == values.len(), "as many keys as values");
        let count = values.len() / width;
        self.make_room(self.len + count, LayerCache::room_wanted(self.len));
        with_element!(self.kv_type, E => self.push_as::<E>(keys, values));
        self.len += count;
    }

    /// Forgets all positions from `len` on, and gives back the memory of whole blocks that were not reserved.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.blocks.truncate(len.max(self.reserved).div_ceil(BLOCK));
        }
    }

    /// Writes what is held, as bytes that [`LayerCache::restore`] of the same program reads.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn save(&self, out: &mut impl Write) -> io::Result<()> {
        for block in self.blocks.iter().take(self.len.div_ceil(BLOCK)) {
            out.write_all(&block.capacity.to_ne_bytes())?;
            out.write_all(block.lines.as_slice())?;
        }
        Ok(())
    }

    /// Takes up the `len` positions that a cache of the same shape and type has saved, in place of what is held.
    ///
    /// # Errors
    /// If the bytes can't be read or are no such cache; then nothing is held.
    pub fn restore(&mut self, len: usize, input: &mut impl Read) -> io::Result<()> {
        (self.len, self.blocks) = (0, Vec::new());
        if self.kv_heads * self.head_dim == 0 {
            return Ok(());
        }
        let mut blocks = Vec::new();
        for index in 0..len.div_ceil(BLOCK) {
            let mut capacity = [0; size_of::<usize>()];
            input.read_exact(&mut capacity)?;
            let capacity = usize::from_ne_bytes(capacity);
            let needed = (len - index * BLOCK).min(BLOCK);
            if capacity > BLOCK || capacity < needed || !capacity.is_multiple_of(LANES) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "these are no keys and values"));
            }
            let mut lines = Lines::zeroed(self.kv_heads * self.places(capacity).end);
            input.read_exact(lines.as_mut_slice())?;
            blocks.push(Arc::new(Block { capacity, lines }));
        }
        (self.len, self.blocks) = (len, blocks);
        Ok(())
    }

    /// The key of a position and head, as far as it was kept, into `out`, `[head_dim]`.
    pub fn key(&self, position: usize, head: usize, out: &mut [f32]) {
        let stride = |dim: usize| (position % BLOCK / LANES * self.head_dim + dim) * LANES + position % LANES;
        let block = self.head_block(position / BLOCK, head);
        self.decode(block.keys, block.key_scales.get(position % BLOCK), stride, out);
    }

    /// The value of a position and head, as far as it was kept, into `out`, `[head_dim]`.
    pub fn value(&self, position: usize, head: usize, out: &mut [f32]) {
        let block = self.head_block(position / BLOCK, head);
        let at = |dim: usize| (dim / LANES * block.capacity + position % BLOCK) * LANES + dim % LANES;
        self.decode(block.values, block.value_scales.get(position % BLOCK), at, out);
    }

    /// Dims of a head in whole panels.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// A head's part of a block.
    pub(super) fn head_block(&self, block: usize, head: usize) -> HeadBlock<'_> {
        let Block { capacity, lines } = &*self.blocks[block];
        let places = self.places(*capacity);
        let bytes = &lines.as_slice::<u8>()[head * places.end..(head + 1) * places.end];
        let scales = if self.kv_type.is_scaled() { capacity * size_of::<f32>() } else { 0 };
        HeadBlock {
            capacity: *capacity,
            keys: &bytes[..self.key_bytes(*capacity)],
            values: &bytes[places.values..][..capacity / LANES * self.padded_dim() * self.kv_type.sixteen()],
            key_scales: bytemuck::cast_slice(
                &bytes[places.key_scales..][..if self.has_keys { scales } else { 0 }],
            ),
            value_scales: bytemuck::cast_slice(&bytes[places.value_scales..][..scales]),
        }
    }

    /// Bytes of a head's keys in a block.
    fn key_bytes(&self, capacity: usize) -> usize {
        if self.has_keys { capacity / LANES * self.head_dim * self.kv_type.sixteen() } else { 0 }
    }

    fn places(&self, capacity: usize) -> Places {
        let part = |bytes: usize| bytes.next_multiple_of(Lines::ALIGN);
        let scales = if self.kv_type.is_scaled() { part(capacity * size_of::<f32>()) } else { 0 };
        let values = part(self.key_bytes(capacity));
        let key_scales = values + part(capacity / LANES * self.padded_dim() * self.kv_type.sixteen());
        let value_scales = key_scales + if self.has_keys { scales } else { 0 };
        Places { values, key_scales, value_scales, end: value_scales + scales }
    }

    /// Bytes that an empty cache like this holds after pushes of these numbers of positions, without making one.
    pub fn bytes_after(&self, pushes: impl IntoIterator<Item = usize>) -> usize {
        if self.kv_heads * self.head_dim == 0 {
            return 0;
        }
        let (mut capacities, mut len): (Vec<usize>, usize) = (Vec::new(), 0);
        for count in pushes {
            let (needed, wanted) = (len + count, LayerCache::room_wanted(len));
            for index in capacities.len().saturating_sub(1)..needed.div_ceil(BLOCK) {
                let (needed, capacity) = LayerCache::block_room(index, needed, wanted);
                match capacities.get_mut(index) {
                    None => capacities.push(capacity),
                    Some(old) if *old < needed => *old = capacity,
                    Some(_) => {}
                }
            }
            len = needed;
        }
        capacities.iter().map(|&capacity| self.kv_heads * self.places(capacity).end).sum()
    }

    /// Positions that a cache of `len` asks room for when it grows: doubling keeps the number of copies small; only the
    /// last block is ever copied.
    fn room_wanted(len: usize) -> usize {
        (2 * len).max(FIRST)
    }

    /// Positions that block `index` has to hold, and how many it gets room for.
    fn block_room(index: usize, needed: usize, wanted: usize) -> (usize, usize) {
        let [needed, wanted] =
            [needed, wanted.max(needed)].map(|all| all.saturating_sub(index * BLOCK).min(BLOCK));
        let capacity = if index == 0 { wanted } else { BLOCK.min(wanted.max(BLOCK / 4)) };
        (needed, capacity.next_multiple_of(LANES))
    }

    /// Makes room for `needed` positions; where a block has to grow, for `wanted` if that is more.
    fn make_room(&mut self, needed: usize, wanted: usize) {
        if self.kv_heads * self.head_dim == 0 {
            return;
        }
        let blocks = needed.div_ceil(BLOCK);
        // Blocks before the last are full already.
        for index in self.blocks.len().saturating_sub(1)..blocks {
            let (needed, capacity) = LayerCache::block_room(index, needed, wanted);
            match self.blocks.get(index) {
                None => {
                    let lines = Lines::zeroed(self.kv_heads * self.places(capacity).end);
                    self.blocks.push(Arc::new(Block { capacity, lines }));
                }
                Some(block) if block.capacity < needed => self.grow_block(index, capacity),
                Some(_) => {}
            }
        }
    }

    /// Moves a block to more memory.
    fn grow_block(&mut self, index: usize, capacity: usize) {
        let to = self.places(capacity);
        let mut lines = Lines::zeroed(self.kv_heads * to.end);
        for head in 0..self.kv_heads {
            let old = self.head_block(index, head);
            let new = &mut lines.as_mut_slice::<u8>()[head * to.end..(head + 1) * to.end];
            new[..old.keys.len()].copy_from_slice(old.keys);
            let panel = self.kv_type.sixteen();
            let panels = new[to.values..to.key_scales].chunks_exact_mut(capacity * panel);
            for (new, old) in panels.zip(old.values.chunks_exact(old.capacity * panel)) {
                new[..old.len()].copy_from_slice(old);
            }
            for (at, scales) in [(to.key_scales, old.key_scales), (to.value_scales, old.value_scales)] {
                let scales: &[u8] = bytemuck::cast_slice(scales);
                new[at..at + scales.len()].copy_from_slice(scales);
            }
        }
        self.blocks[index] = Arc::new(Block { capacity, lines });
    }

    fn push_as<E: Stored>(&mut self, keys: &[f32], values: &[f32]) {
        let (dim, width, start) = (self.head_dim, self.kv_heads * self.head_dim, self.len);
        ROWS.with_borrow_mut(|(row, stored)| {
            row.grow(dim);
            stored.grow(dim);
            let (row, stored) = (&mut row.as_mut_slice()[..dim], &mut stored.as_mut_slice::<E::One>()[..dim]);
            let has_keys = self.has_keys;
            for (index, values) in values.chunks_exact(width).enumerate() {
                let keys = if has_keys { &keys[index * width..(index + 1) * width] } else { values };
                let (block, place) = ((start + index) / BLOCK, (start + index) % BLOCK);
                let capacity = self.blocks[block].capacity;
                let places = self.places(capacity);
                let bytes = Arc::make_mut(&mut self.blocks[block]).lines.as_mut_slice::<u8>();
                let rows = keys.chunks_exact(dim).zip(values.chunks_exact(dim));
                for (head, (key, value)) in bytes.chunks_exact_mut(places.end).zip(rows) {
                    let (head_keys, head) = head.split_at_mut(places.values);
                    let (head_values, scales) = head.split_at_mut(places.key_scales - places.values);
                    let mut keep_scale = |at: usize, scale: f32| {
                        if let Some(kept) = scales[at..].as_chunks_mut().0.get_mut(place) {
                            *kept = scale.to_ne_bytes();
                        }
                    };

                    if has_keys {
                        row.copy_from_slice(key);
                        keep_scale(0, E::encode(row, stored));
                        let sixteens: &mut [E] = bytemuck::cast_slice_mut(head_keys);
                        for (sixteen, key) in sixteens[place / LANES * dim..].iter_mut().zip(&*stored) {
                            sixteen.put(place % LANES, *key);
                        }
                    }

                    row.copy_from_slice(value);
                    keep_scale(places.value_scales - places.key_scales, E::encode(row, stored));
                    let sixteens: &mut [E] = bytemuck::cast_slice_mut(head_values);
                    for (panel, values) in stored.chunks(LANES).enumerate() {
                        let sixteen = &mut sixteens[panel * capacity + place];
                        values.iter().enumerate().for_each(|(lane, value)| sixteen.put(lane, *value));
                    }
                }
            }
        });
    }

    /// Elements of a head that lie where `at` says, turned back into f32.
    fn decode(&self, bytes: &[u8], scale: Option<&f32>, at: impl Fn(usize) -> usize, out: &mut [f32]) {
        with_element!(self.kv_type, E => gather::<E>(bytes, at, out));
        if let Some(scale) = scale {
            out.iter_mut().for_each(|x| *x *= scale);
            hadamard::transform(out, self.head_dim);
        }
    }
}

fn gather<E: Stored>(bytes: &[u8], at: impl Fn(usize) -> usize, out: &mut [f32]) {
    let sixteens: &[E] = bytemuck::cast_slice(bytes);
    for (dim, out) in out.iter_mut().enumerate() {
        *out = sixteens[at(dim) / LANES].get(at(dim) % LANES);
    }
}
