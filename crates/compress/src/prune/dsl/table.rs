//! Embedding tables of which only some numbers exist, by rows (CSR).

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use crate::prune::lowest;

/// A table `[rows, width]` that stores some of its numbers; the others are zero.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseTable {
    rows: usize,
    width: usize,
    /// Where each row's numbers begin among those stored, and behind the last row their count.
    starts: Vec<u32>,
    columns: Vec<u16>,
    /// The stored numbers, row by row.
    pub values: Vec<f32>,
}

impl SparseTable {
    /// Zeros at these places, each `row · width + column`, ascending.
    pub(super) fn at(rows: usize, width: usize, places: &[u32]) -> SparseTable {
        let mut starts = vec![0u32; rows + 1];
        for place in places {
            starts[*place as usize / width + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let columns = places.iter().map(|place| (*place as usize % width) as u16).collect();
        SparseTable { rows, width, starts, columns, values: vec![0.0; places.len()] }
    }

    /// `count` places anywhere in the table, with values drawn evenly from `±reach`.
    pub fn random(
        rows: usize,
        width: usize,
        count: usize,
        reach: f32,
        random: &mut ChaCha8Rng,
    ) -> SparseTable {
        let all = rows * width;
        let mut places: Vec<u32> = match count >= all {
            true => (0..all as u32).collect(),
            false => index::sample(random, all, count).into_iter().map(|place| place as u32).collect(),
        };
        places.sort_unstable();
        let mut table = SparseTable::at(rows, width, &places);
        table.values.iter_mut().for_each(|value| *value = random.random_range(-reach..reach));
        table
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a row, zeros included.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Numbers that are stored.
    pub fn stored(&self) -> usize {
        self.values.len()
    }

    /// Where a row's numbers are among those stored.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }

    /// A row's columns and values.
    pub fn row(&self, row: usize) -> (&[u16], &[f32]) {
        let range = self.range(row);
        (&self.columns[range.clone()], &self.values[range])
    }

    /// The places of what is stored, each `row · width + column`, ascending.
    pub fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let of =
            move |row: usize| self.row(row).0.iter().map(move |column| row * self.width + *column as usize);
        (0..self.rows).flat_map(of)
    }

    /// All numbers, zeros included.
    pub fn dense(&self) -> Vec<f32> {
        let mut all = vec![0.0; self.rows * self.width];
        self.places().zip(&self.values).for_each(|(place, value)| all[place] = *value);
        all
    }

    /// The same numbers by columns: of each column its rows and values.
    pub fn by_columns(&self) -> Vec<Vec<(u32, f32)>> {
        let mut columns = vec![Vec::new(); self.width];
        for row in 0..self.rows {
            let (own, values) = self.row(row);
            own.iter()
                .zip(values)
                .for_each(|(column, value)| columns[*column as usize].push((row as u32, *value)));
        }
        columns
    }
}

/// A table that learns, with what its optimizer remembers of each stored number.
#[derive(Debug, Clone)]
pub struct Learned {
    /// The numbers.
    pub table: SparseTable,
    /// The loss's gradient by each of them.
    pub gradient: Vec<f32>,
    pub(super) m: Vec<f32>,
    pub(super) v: Vec<f32>,
}

/// Where weights enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Where the gradient is largest.
    Gradient,
    /// Anywhere (SET, Mocanu et al., 2018), for comparison.
    Random,
}

impl Learned {
    /// A table with nothing remembered.
    pub fn new(table: SparseTable) -> Learned {
        let count = table.stored();
        Learned { table, gradient: vec![0.0; count], m: vec![0.0; count], v: vec![0.0; count] }
    }

    /// Lets the `count` smallest weights leave and as many others enter with the value 0 and nothing remembered, at the places of
    /// the largest `slopes`, the loss's gradient by every number of the table; of equal ones the first. The number of weights stays.
    /// Gives how many places are other ones than before.
    pub fn explore(
        &mut self,
        count: usize,
        growth: Growth,
        slopes: &[f32],
        random: &mut ChaCha8Rng,
    ) -> usize {
        let all = self.table.rows * self.table.width;
        let stored = self.table.stored();
        // What leaves makes room, so that as many as are stored could enter, or as there are empty places beside.
        let count = count.min(stored).min(all - stored);
        let sizes: Vec<f32> = self.table.values.iter().map(|value| value.abs()).collect();
        let mut leaves = vec![false; stored];
        lowest(&sizes, count).into_iter().for_each(|at| leaves[at] = true);
        // What is remembered by place: none where nothing is stored.
        let mut kept: Vec<Option<u32>> = vec![None; all];
        let mut left = vec![false; all];
        for (at, place) in self.table.places().enumerate() {
            match leaves[at] {
                true => left[place] = true,
                false => kept[place] = Some(at as u32),
            }
        }
        let empty: Vec<usize> = (0..all).filter(|place| kept[*place].is_none()).collect();
        let entering: Vec<usize> = match growth {
            Growth::Gradient => {
                let scores: Vec<f32> = empty.iter().map(|place| -slopes[*place].abs()).collect();
                // The first of equal ones: `lowest` takes the later, so it is asked from behind.
                let turned: Vec<f32> = scores.into_iter().rev().collect();
                lowest(&turned, count).into_iter().map(|at| empty[empty.len() - 1 - at]).collect()
            }
            Growth::Random => {
                index::sample(random, empty.len(), count).into_iter().map(|at| empty[at]).collect()
            }
        };
        let moved = entering.iter().filter(|place| !left[**place]).count();
        let mut enters = vec![false; all];
        entering.into_iter().for_each(|place| enters[place] = true);
        let places: Vec<u32> = (0..all)
            .filter(|place| kept[*place].is_some() || enters[*place])
            .map(|place| place as u32)
            .collect();
        let mut next = Learned::new(SparseTable::at(self.table.rows, self.table.width, &places));
        for (to, place) in places.iter().enumerate() {
            if let Some(from) = kept[*place as usize] {
                let from = from as usize;
                (next.table.values[to], next.m[to], next.v[to]) =
                    (self.table.values[from], self.m[from], self.v[from]);
            }
        }
        *self = next;
        moved
    }

    /// Keeps the `count` largest weights, with what is remembered of them.
    pub fn prune(&mut self, count: usize) {
        let stored = self.table.stored();
        let sizes: Vec<f32> = self.table.values.iter().map(|value| value.abs()).collect();
        let mut keeps = vec![true; stored];
        lowest(&sizes, stored.saturating_sub(count)).into_iter().for_each(|at| keeps[at] = false);
        let (at, places): (Vec<usize>, Vec<u32>) = self
            .table
            .places()
            .enumerate()
            .filter(|(at, _)| keeps[*at])
            .map(|(at, place)| (at, place as u32))
            .unzip();
        let mut next = Learned::new(SparseTable::at(self.table.rows, self.table.width, &places));
        for (to, from) in at.into_iter().enumerate() {
            (next.table.values[to], next.m[to], next.v[to]) =
                (self.table.values[from], self.m[from], self.v[from]);
        }
        *self = next;
    }
}
