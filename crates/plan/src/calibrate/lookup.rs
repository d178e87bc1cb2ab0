//! What a calibration says of sizes between those that were measured.

use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::account::Operator;

use super::{Calibration, Level, kv_name, stands_for};

/// The value at `x` on the line through neighbouring points, both on logarithmic axes; beyond the ends that of the end. None
/// without points.
pub(crate) fn between(points: impl Iterator<Item = (f64, f64)>, x: f64) -> Option<f64> {
    let mut points: Vec<(f64, f64)> = points.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let x = x.max(f64::MIN_POSITIVE);
    let below = points.iter().rfind(|(at, _)| *at <= x);
    let above = points.iter().find(|(at, _)| *at >= x);
    match (below, above) {
        (Some(&(low, at_low)), Some(&(high, at_high))) if low < high => {
            let low = low.max(0.5);
            let share = ((x.max(low)).ln() - low.ln()) / (high.ln() - low.ln());
            Some((at_low.ln() * (1.0 - share) + at_high.ln() * share).exp())
        }
        (Some(&(_, value)), _) | (None, Some(&(_, value))) => Some(value),
        (None, None) => None,
    }
}

impl Calibration {
    /// Multiplications and additions a second of products in a format, with the matrix in one place; those of a similar
    /// format where this one was not measured.
    pub fn product_rate(&self, dtype: DType, packed: bool, vectors: f64, level: Level) -> Option<f64> {
        let measured = |dtype: DType| {
            let rows = self.products.iter();
            let rows = rows.filter(move |row| row.dtype == dtype.name() && row.packed == packed);
            let rows = rows.filter(move |row| row.level == level);
            between(rows.map(|row| (row.vectors as f64, row.operations_per_second)), vectors)
        };
        let [similar, other] = stands_for(dtype);
        let known = measured(dtype).or_else(|| measured(similar)).or_else(|| measured(other));
        known.or_else(|| measured(DType::F32))
    }

    /// Seconds for each value of activations that are brought to the form of a format's kernel.
    pub fn preparation_seconds(&self, dtype: DType, vectors: f64) -> f64 {
        let measured = |dtype: DType| {
            let rows = self.preparations.iter().filter(move |row| row.dtype == dtype.name());
            between(rows.map(|row| (row.vectors as f64, row.seconds_per_value)), vectors)
        };
        let [similar, other] = stands_for(dtype);
        measured(dtype).or_else(|| measured(similar)).or_else(|| measured(other)).unwrap_or(0.0)
    }

    /// How much of the way from a core's cache to memory it is where so many bytes are read in turn: 0 for the cache, 1 for
    /// memory, by how fast they were seen to be read.
    pub fn distance(&self, bytes: f64) -> f64 {
        let pace = |bytes: f64| {
            between(self.streams.iter().map(|it| (it.bytes as f64, 1.0 / it.bytes_per_second)), bytes)
        };
        let (Some(here), Some(near), Some(far)) = (pace(bytes), pace(0.0), pace(f64::MAX)) else {
            return 1.0;
        };
        if far > near { ((here - near) / (far - near)).clamp(0.0, 1.0) } else { 1.0 }
    }

    /// Multiplications and additions a second of attention.
    pub fn attention_rate(&self, kv: KvType, sharing: f64, queries: f64, positions: f64) -> Option<f64> {
        // Machines that were measured before there was a type have the one that is read most like it.
        let measured = |kv: KvType| self.attention.iter().any(|row| row.kv == kv_name(kv));
        let kv = if measured(kv) { kv } else { KvType::Q8_0 };
        let of_kv: Vec<_> = self.attention.iter().filter(|row| row.kv == kv_name(kv)).collect();
        let counts = |pick: fn(&super::Attention) -> usize| {
            let mut all: Vec<usize> = of_kv.iter().map(|row| pick(row)).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let by_positions = |sharing: usize, queries: usize| {
            let rows = of_kv.iter().filter(move |row| (row.sharing, row.queries) == (sharing, queries));
            // A cache that holds nothing is one that holds the queries' own positions.
            between(
                rows.map(|row| (row.positions.max(1) as f64, row.operations_per_second)),
                positions.max(1.0),
            )
        };
        let by_sharing = |queries: usize| {
            let sharings = counts(|row| row.sharing);
            let points = sharings.into_iter().filter_map(|it| Some((it as f64, by_positions(it, queries)?)));
            between(points, sharing)
        };
        let points =
            counts(|row| row.queries).into_iter().filter_map(|it| Some((it as f64, by_sharing(it)?)));
        between(points, queries)
    }

    /// Seconds for each value of what is done to every value.
    pub fn element_seconds(&self, operator: Operator, kv: KvType, vectors: f64) -> f64 {
        let rows = self.elements.iter().filter(|row| row.operator == operator);
        let measured = rows.clone().any(|row| row.kv.as_deref().is_none_or(|name| name == kv_name(kv)));
        let kv = if measured { kv } else { KvType::Q8_0 };
        let rows = rows.filter(|row| row.kv.as_deref().is_none_or(|name| name == kv_name(kv)));
        between(rows.map(|row| (row.vectors as f64, row.seconds_per_value)), vectors).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_on_the_line_between_neighbours() {
        let points = || [(1.0, 10.0), (4.0, 40.0), (16.0, 40.0)].into_iter();
        for (x, y) in [(0.5, 10.0), (1.0, 10.0), (2.0, 20.0), (4.0, 40.0), (8.0, 40.0), (99.0, 40.0)] {
            let found = between(points(), x).unwrap();
            assert!((found - y).abs() < 1e-9, "{x}: {found}");
        }
        assert_eq!(between(std::iter::empty(), 1.0), None);
    }
}
