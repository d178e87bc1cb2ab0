//! The nearest level, and weighted sums over values, in sixteen lanes: what the search for scales does most of the time.

/// Lanes in which sums are held.
const LANES: usize = 16;

/// What values are rounded to, before step and offset.
pub(super) trait Nearest: Copy {
    /// The level nearest to `x`.
    fn nearest(self, x: f32) -> f32;

    /// The lowest and the highest level.
    fn ends(self) -> (f32, f32);

    /// How many there are.
    fn count(self) -> usize;
}

/// Added and taken off again it rounds what is smaller than 2^22 to whole numbers, ties to even; every instruction set can do
/// that for many values at once.
const ROUND: f32 = 12_582_912.0;

/// The whole number nearest to `x` among those from `low` to `high`, ties to even.
#[inline(always)]
pub(super) fn nearest_whole(x: f32, low: f32, high: f32) -> f32 {
    (x.clamp(low, high) + ROUND) - ROUND
}

/// The whole numbers from `low` to `high`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole {
    pub low: f32,
    pub high: f32,
}

impl Nearest for Whole {
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        nearest_whole(x, self.low, self.high)
    }

    #[inline(always)]
    fn ends(self) -> (f32, f32) {
        (self.low, self.high)
    }

    #[inline(always)]
    fn count(self) -> usize {
        (self.high - self.low) as usize + 1
    }
}

/// The entries of a rising table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entries {
    ends: (f32, f32),
    /// Where the next entry becomes the nearest, and by how much it is larger.
    next: [(f32, f32); 15],
}

impl Entries {
    #[inline(always)]
    pub(super) fn new(table: &[i8; 16]) -> Entries {
        let entry = |index: usize| f32::from(table[index]);
        let mut next = [(0.0, 0.0); 15];
        for (index, next) in next.iter_mut().enumerate() {
            let (low, high) = (entry(index), entry(index + 1));
            *next = ((low + high) * 0.5, high - low);
        }
        Entries { ends: (entry(0), entry(15)), next }
    }
}

impl Nearest for Entries {
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        let mut level = self.ends.0;
        for (from, more) in self.next {
            level += if x >= from { more } else { 0.0 };
        }
        level
    }

    #[inline(always)]
    fn ends(self) -> (f32, f32) {
        self.ends
    }

    #[inline(always)]
    fn count(self) -> usize {
        16
    }
}

/// The sums over all values of what `each` makes of a value and its weight. Parts of all formats are whole lanes; what is over
/// is left out.
#[inline(always)]
pub(super) fn sums<const N: usize>(
    values: &[f32],
    weights: &[f32],
    each: impl Fn(f32, f32) -> [f32; N],
) -> [f32; N] {
    let mut lanes = [[0.0f32; LANES]; N];
    let chunks = values.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0);
    for (x, w) in chunks {
        for lane in 0..LANES {
            let terms = each(x[lane], w[lane]);
            for sum in 0..N {
                lanes[sum][lane] += terms[sum];
            }
        }
    }
    lanes.map(|lanes| {
        let by_8 = halved::<16, 8>(lanes);
        let by_4 = halved::<8, 4>(by_8);
        let [a, b] = halved::<4, 2>(by_4);
        a + b
    })
}

/// Each half's value added to the other's; `TO` is half of `FROM`. The steps have names so that they stay in registers.
#[inline(always)]
fn halved<const FROM: usize, const TO: usize>(lanes: [f32; FROM]) -> [f32; TO] {
    std::array::from_fn(|lane| lanes[lane] + lanes[lane + TO])
}

#[cfg(test)]
mod tests {
    use super::super::{Levels, table};
    use super::*;

    #[test]
    fn levels_are_those_that_codes_stand_for() {
        for grid in table::GRIDS {
            let levels = grid.levels();
            let find = |x: f32| match levels {
                Levels::Range { low, high } => Whole { low: low.into(), high: high.into() }.nearest(x),
                Levels::Table { levels, .. } => Entries::new(levels).nearest(x),
            };
            for step in -3000..3000 {
                let x = step as f32 * 0.0625;
                assert_eq!(find(x), levels.nearest(x).1, "{}: {x}", grid.dtype());
            }
        }
    }

    #[test]
    fn sums_take_every_value_with_its_weight() {
        assert!(table::GRIDS.iter().all(|grid| grid.part().is_multiple_of(LANES)));
        for count in [16, 32, 64, 256] {
            let x: Vec<f32> = (0..count).map(|i| i as f32).collect();
            let w: Vec<f32> = (0..count).map(|i| (i % 3) as f32).collect();
            let [plain, weighted] = sums(&x, &w, |x, w| [x, x * w]);
            assert_eq!(plain, x.iter().sum::<f32>());
            assert_eq!(weighted, x.iter().zip(&w).map(|(x, w)| x * w).sum::<f32>());
        }
    }
}
