//! An axis: its range, its ticks and their labels.

/// A mark on an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// Where, 0 to 1.
    pub at: f64,
    /// What stands beside it; nothing beside a minor tick.
    pub label: Option<String>,
}

/// Maps values to 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

/// Endings of labels, each a thousand times the one before.
const ENDINGS: [&str; 5] = ["", " K", " M", " B", " T"];

impl Axis {
    /// The axis that holds the values, all fit for it, with a margin on both sides as a share of the range.
    pub fn new(values: impl Iterator<Item = f64>, log: bool, margin: f64) -> Axis {
        let scale = |value: f64| if log { value.log10() } else { value };
        let range = values
            .map(scale)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (mut low, mut high) = if range.0 <= range.1 { range } else { (0.0, 1.0) };
        if !log && margin == 0.0 && low > 0.0 && low < high * 0.02 {
            // Zero is as good as there.
            low = 0.0;
        }
        let size = low.abs().max(high.abs());
        if high - low <= size * 1e-9 {
            // One value: it stands in the middle.
            let half = if log || size == 0.0 { 0.5 } else { size * 0.1 };
            (low, high) = (low - half, high + half);
        }
        let margin = (high - low) * margin;
        Axis { low: low - margin, high: high + margin, log }
    }

    /// Where a value stands, 0 to 1.
    pub fn at(&self, value: f64) -> f64 {
        let value = if self.log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }

    /// About `wanted` labelled ticks, and minor ones on a logarithmic axis.
    pub fn ticks(&self, wanted: usize) -> Vec<Tick> {
        let decades = self.high - self.low;
        if !self.log {
            self.even_ticks(self.low, self.high, wanted)
        } else if decades < 1.0 {
            self.even_ticks(10f64.powf(self.low), 10f64.powf(self.high), wanted)
        } else {
            self.decade_ticks(decades, wanted)
        }
    }

    /// Ticks at multiples of 1, 2, 2.5 or 5 times a power of ten.
    fn even_ticks(&self, low: f64, high: f64, wanted: usize) -> Vec<Tick> {
        let step = nice_step((high - low) / wanted as f64);
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        let count = (last - first).clamp(0.0, 4.0 * wanted as f64) as usize;
        let values = (0..=count).map(|index| (first + index as f64) * step);
        let largest = (first * step).abs().max((last * step).abs());
        let tick = |value: f64| Tick { at: self.at(value), label: Some(label(value, largest, step)) };
        values.map(tick).collect()
    }

    /// Ticks at powers of ten, or at 1, 2 and 5 times them if there are few.
    fn decade_ticks(&self, decades: f64, wanted: usize) -> Vec<Tick> {
        let stride = (decades / wanted as f64).ceil().max(1.0) as i32;
        let labelled: &[i32] = if decades * 3.0 <= wanted as f64 + 1.0 { &[1, 2, 5] } else { &[1] };
        let mut ticks = Vec::new();
        for power in self.low.floor() as i32..=self.high.ceil() as i32 {
            let named = power.rem_euclid(stride) == 0;
            for digit in 1..10 {
                let value = f64::from(digit) * 10f64.powi(power);
                let at = self.at(value);
                if !(-1e-9..=1.0 + 1e-9).contains(&at) || (digit > 1 && decades > 8.0) {
                    continue;
                }
                let named = named && labelled.contains(&digit);
                ticks.push(Tick { at, label: named.then(|| label(value, value, value)) });
            }
        }
        ticks
    }
}

/// The nice number nearest to `step`.
fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let digits = step / power;
    // Each bound is the geometric mean of two neighbours.
    let nice = [(1.0, 1.414), (2.0, 2.236), (2.5, 3.536), (5.0, 7.071)];
    nice.into_iter().find(|&(_, bound)| digits < bound).map_or(10.0, |(nice, _)| nice) * power
}

/// A value as a label, with the unit that suits `largest` and the digits that `step` needs.
fn label(value: f64, largest: f64, step: f64) -> String {
    if value.abs() < step * 1e-6 {
        return "0".to_string();
    }
    if !(1e-4..1e15).contains(&largest) {
        let exponent = value.abs().log10().floor();
        let digits = (exponent - step.log10().floor()).clamp(0.0, 6.0) as usize + 1;
        return trimmed(&format!("{value:.digits$e}"));
    }
    let mut unit = 1.0;
    let mut ending = 0;
    while largest / unit >= 9_999.5 && ending == 0 || largest / unit >= 999.5 && ending > 0 {
        (unit, ending) = (unit * 1e3, ending + 1);
    }
    let step = step / unit;
    // The last digit of 2.5 is a tenth of its first.
    let places = (0..=9).find(|&places| is_whole(step * 10f64.powi(places))).unwrap_or(9) as usize;
    format!("{:.places$}{}", value / unit, ENDINGS[ending.min(ENDINGS.len() - 1)]).replace('-', "−")
}

fn is_whole(value: f64) -> bool {
    value > 0.5 && (value - value.round()).abs() < 1e-6 * value
}

/// `1.50e-5` without the zeros that tell nothing.
fn trimmed(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits}e{exponent}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool, wanted: usize) -> Vec<String> {
        let axis = Axis::new([low, high].into_iter(), log, 0.0);
        axis.ticks(wanted).into_iter().filter_map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_in_one_unit() {
        assert_eq!(labels(0.1, 9.7, false, 5), ["0", "2", "4", "6", "8"]);
        assert_eq!(labels(-1.0, 1.0, false, 4), ["−1.0", "−0.5", "0", "0.5", "1.0"]);
        assert_eq!(labels(0.0, 1.0, false, 4), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(0.0, 2.1e9, false, 5), ["0", "0.5 B", "1.0 B", "1.5 B", "2.0 B"]);
        assert_eq!(labels(0.0, 4000.0, false, 4), ["0", "1000", "2000", "3000", "4000"]);
        assert_eq!(labels(0.0, 3e-5, false, 3), ["0", "1e−5", "2e−5", "3e−5"]);
        assert_eq!(labels(3.101, 3.1051, false, 4), ["3.101", "3.102", "3.103", "3.104", "3.105"]);
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten() {
        assert_eq!(labels(1e3, 1e9, true, 7), ["1000", "10 K", "100 K", "1 M", "10 M", "100 M", "1 B"]);
        assert_eq!(labels(0.5, 20.0, true, 6), ["0.5", "1", "2", "5", "10", "20"]);
        assert_eq!(labels(2.0, 3.0, true, 4), ["2.00", "2.25", "2.50", "2.75", "3.00"]);
        assert!(labels(1e-300, 1e300, true, 8).len() <= 9);
    }

    #[test]
    fn any_range_gives_few_ticks_inside() {
        for (low, high) in [(0.0, 0.0), (5.0, 5.0), (-1e300, 1e300), (1e16, 1e16 + 2.0), (1e-300, 2e-300)] {
            let axis = Axis::new([low, high].into_iter(), false, 0.04);
            let ticks = axis.ticks(6);
            assert!((1..=10).contains(&ticks.len()), "{low} to {high}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (-1e-6..=1.0 + 1e-6).contains(&tick.at)), "{low}: {ticks:?}");
        }
    }
}
