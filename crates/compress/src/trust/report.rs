//! Rows and expectations.

use ounce_eval::method::{Evidence, Row};
use ounce_eval::trust::{Dimension, Scorecard};

use super::grid::{BITS, Cell, MARGIN, Quantize, Setting, WAYS};
use crate::prune::Criterion;

/// The row that the others are compared with.
pub(super) const DENSE: &str = "dense, bf16";

/// Fills in the evidence.
pub(super) fn fill(evidence: &mut Evidence, dense: &Scorecard, cells: &[Cell], bytes: f64) {
    evidence.rows.push(dense_row(dense, bytes));
    evidence.rows.extend(cells.iter().map(cell_row));
    expect_ability(evidence, dense);
    let trust = |setting: Setting| {
        cells.iter().find(|cell| cell.setting == setting).and_then(Cell::trust).unwrap_or(f64::NAN)
    };
    let at = |bits: usize| WAYS.map(|way| trust(Setting::Bits(way, bits)));
    let told = |deltas: [f64; 3]| deltas.map(|it| format!("{it:+.2}")).join(", ");
    let [eight, four, three] = BITS.map(at);
    evidence.expect(
        "the mean trust delta at 8 and at 4 bits is within 3 points (rounded, GPTQ, AWQ)",
        format!("8 bits {}; 4 bits {}", told(eight), told(four)),
        eight.iter().chain(&four).all(|delta| delta.abs() <= MARGIN),
    );
    evidence.expect(
        "the mean trust delta at 3 bits is worse than at 4 bits (rounded, GPTQ, AWQ)",
        format!("3 bits {}; 4 bits {}", told(three), told(four)),
        three.iter().zip(&four).all(|(three, four)| three < four),
    );
    let magnitude = trust(Setting::TwoOfFour(Criterion::Magnitude));
    evidence.expect(
        "2:4 by magnitude is worse than any 4 bits",
        format!("{magnitude:+.2}; 4 bits {}", told(four)),
        four.iter().all(|four| magnitude < *four),
    );
    expect_hidden(evidence, cells);
    expect_spread(evidence, cells);
}

fn dense_row(card: &Scorecard, bytes: f64) -> Row {
    let mut row = Row::new(DENSE).with("bytes", bytes / 1024.0, "KiB");
    row = row.with("trust", card.trust.unwrap_or(f64::NAN), "points");
    for score in &card.scores {
        row = row.with(score.dimension.name(), score.score.value, "points");
        if let Some(ability) = score.ability.filter(|it| it.share != score.score) {
            row = row.with(format!("{}: {}", score.dimension, ability.what), ability.share.value, "%");
        }
        if let Some((what, share)) = score.beside {
            row = row.with(format!("{}: {what}", score.dimension), share, "%");
        }
    }
    row
}

fn cell_row(cell: &Cell) -> Row {
    let mut row = Row::new(cell.setting.to_string()).with("bytes", cell.bytes / 1024.0, "KiB");
    let mut put = |name: String, value: Option<f64>, unit: &str| {
        if let Some(value) = value {
            row.values.push(ounce_eval::method::Value { name, value, unit: unit.into() });
        }
    };
    put("trust".into(), cell.mean(|run| run.card.trust), "points");
    put("trust delta".into(), cell.trust(), "points");
    put("spread over calibrations".into(), cell.spread(), "points");
    let fails = |run: &super::grid::Run| {
        let trust = run.comparison.changes.iter().filter(|it| it.dimension.is_trust());
        Some(trust.filter(|it| !it.passes).count() as f64)
    };
    put(format!("dimensions of 8 that lose more than {MARGIN}"), cell.mean(fails), "");
    for dimension in Dimension::ALL {
        put(dimension.name().into(), cell.mean(|run| Some(run.card.get(dimension)?.score.value)), "points");
        let score = cell.runs.first().and_then(|run| run.card.get(dimension));
        let Some(score) = score else { continue };
        if let Some(ability) = score.ability.filter(|it| it.share != score.score) {
            let share = cell.mean(|run| Some(run.card.get(dimension)?.ability?.share.value));
            put(format!("{dimension}: {}", ability.what), share, "%");
        }
        if let Some((what, _)) = score.beside {
            let share = cell.mean(|run| Some(run.card.get(dimension)?.beside?.1));
            put(format!("{dimension}: {what}"), share, "%");
        }
    }
    row
}

/// Without ability a score says nothing.
fn expect_ability(evidence: &mut Evidence, dense: &Scorecard) {
    let told = |score: &ounce_eval::trust::Score| {
        let ability = score.ability?;
        let (share, chance) = (ability.share, ability.chance);
        Some(format!("{} {:.0} ({:.0} at least) for {chance:.0}", score.dimension, share.value, share.low))
    };
    let all: Vec<String> = dense.scores.iter().filter_map(told).collect();
    let clear = dense.scores.iter().all(|score| score.ability.is_some_and(|it| it.is_clear()));
    evidence.expect(
        "the dense model can do what each dimension is about, with its whole 95 % interval above chance",
        all.join("; "),
        clear && dense.scores.len() == Dimension::ALL.len(),
    );
}

/// Something breaks that benign accuracy does not show.
fn expect_hidden(evidence: &mut Evidence, cells: &[Cell]) {
    let mut worst: Option<(f64, String)> = None;
    for cell in cells {
        let Some(benign) = cell.delta(Dimension::Benign).filter(|benign| *benign >= -2.0) else { continue };
        for &dimension in Dimension::TRUST {
            let Some(delta) = cell.delta(dimension) else { continue };
            if worst.as_ref().is_none_or(|(least, _)| delta < *least) {
                worst = Some((
                    delta,
                    format!(
                        "{dimension} {delta:+.2} where benign accuracy changes by {benign:+.2} ({})",
                        cell.setting
                    ),
                ));
            }
        }
    }
    evidence.expect(
        "at least one dimension drops by 5 points or more in a setting whose benign accuracy drops by 2 points at most",
        worst.as_ref().map_or("benign accuracy drops more everywhere".into(), |it| format!("at worst {}", it.1)),
        worst.is_some_and(|it| it.0 <= -5.0),
    );
}

/// One calibration says less where bits are few.
fn expect_spread(evidence: &mut Evidence, cells: &[Cell]) {
    let spread = |way: Quantize, bits: usize| {
        let cell = cells.iter().find(|cell| cell.setting == Setting::Bits(way, bits));
        cell.and_then(Cell::spread).unwrap_or(f64::NAN)
    };
    let ways = [(Quantize::Gptq, "GPTQ"), (Quantize::Awq, "AWQ")];
    let pairs = ways.map(|(way, name)| (name, spread(way, 3), spread(way, 4)));
    evidence.expect(
        "the spread over calibrations is larger at 3 bits than at 4 bits (GPTQ, AWQ)",
        pairs.map(|(name, three, four)| format!("{name} {three:.2} for {four:.2}")).join("; "),
        pairs.iter().all(|(_, three, four)| three > four),
    );
}
