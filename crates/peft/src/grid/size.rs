//! Settings of a method that train as many numbers as a budget allows, by its formula.

use ounce_model::spec::Spec;

use crate::adapter::{Clock, adapter};
use crate::{Kind, Result, Settings, Targets};

/// Widths, ranks and numbers of vectors that are tried.
const STEPS: [usize; 20] = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384];
/// What the width of narrow networks is divided by.
const DIVISORS: [usize; 13] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256];

/// How many numbers settings train, by the formula of their method.
///
/// # Errors
/// If the settings contradict themselves.
pub fn parameters(settings: &Settings, base: &Spec) -> Result<u64> {
    Ok(adapter(settings, &Clock::default())?.parameters(base))
}

/// The settings of a method that train most numbers up to the budget; none if its smallest train more, or nothing. Where a
/// budget is small only the last layers are adapted; all layers go before a greater width.
///
/// # Errors
/// If settings contradict themselves.
pub fn within(kind: Kind, base: &Spec, budget: u64) -> Result<Option<Settings>> {
    let usual = Settings::of(kind);
    let mut best: Option<(usize, u64, Settings)> = None;
    for (layers, targets) in reaches(&usual.targets, base) {
        for settings in sized(Settings { targets: targets.clone(), ..usual.clone() }, base) {
            let count = parameters(&settings, base)?;
            let better = |known: &(usize, u64, Settings)| (layers, count) > (known.0, known.1);
            if count > 0 && count <= budget && best.as_ref().is_none_or(better) {
                best = Some((layers, count, settings));
            }
        }
    }
    Ok(best.map(|it| it.2))
}

/// The targets, and those in the last layers only.
fn reaches(targets: &Targets, base: &Spec) -> Vec<(usize, Targets)> {
    let all = base.layers.len();
    let mut reaches = vec![(all, targets.clone())];
    for layers in (1..all).rev() {
        let last = |slot: &str| {
            let layer = slot.split('.').nth(1).and_then(|it| it.parse::<usize>().ok());
            layer.is_some_and(|layer| layer >= all - layers)
        };
        let slots: Vec<String> =
            targets.of(base).into_iter().map(|it| it.0).filter(|slot| last(slot)).collect();
        reaches.push((layers, Targets::Slots(slots)));
    }
    reaches
}

/// The same settings in all sizes that the base's matrices allow.
fn sized(settings: Settings, base: &Spec) -> Vec<Settings> {
    let sides = settings.targets.of(base).into_iter().map(|(_, output, input)| output.min(input));
    let most = sides.min().unwrap_or(usize::MAX);
    let ranks = || STEPS.into_iter().filter(|rank| *rank <= most);
    match settings.method {
        Kind::Lora | Kind::LoraFa | Kind::Dora | Kind::Flora | Kind::Dylora => ranks()
            // α twice the rank: what is added does not shrink as it gets wider.
            .map(|rank| Settings { rank, alpha: 2.0 * rank as f64, ..settings.clone() })
            .collect(),
        Kind::Adalora => ranks()
            .filter(|rank| rank + rank.div_ceil(2) <= most)
            .map(|rank| Settings {
                rank,
                initial_rank: rank + rank.div_ceil(2),
                alpha: 2.0 * rank as f64,
                ..settings.clone()
            })
            .collect(),
        Kind::Vera | Kind::Sherl => STEPS.map(|rank| Settings { rank, ..settings.clone() }).into(),
        Kind::Krona => {
            ranks().map(|rank| Settings { rank, alpha: rank as f64, ..settings.clone() }).collect()
        }
        // As many vectors as half the width of the narrow networks.
        Kind::Mam => DIVISORS
            .map(|reduction| {
                let tokens = (base.hidden_size / reduction / 2).clamp(1, base.context_length.max(4) / 4);
                Settings { reduction, tokens, ..settings.clone() }
            })
            .into(),
        Kind::Svfit => ranks().map(|rank| Settings { rank, ..settings.clone() }).collect(),
        Kind::Prompt | Kind::PTuning | Kind::Prefix | Kind::GatedPrefix => STEPS
            .into_iter()
            .filter(|tokens| *tokens <= base.context_length / 4)
            .map(|tokens| Settings { tokens, ..settings.clone() })
            .collect(),
        Kind::Bottleneck | Kind::Parallel | Kind::Compacter | Kind::Language | Kind::Aside => {
            DIVISORS.map(|reduction| Settings { reduction, ..settings.clone() }).into()
        }
        Kind::Ia3 | Kind::Ssf | Kind::Bitfit => vec![settings],
        // Their numbers hang on a template's words, and on labels that are described.
        Kind::Cloze | Kind::Crosstune => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use ounce_eval::method::{Fixture, Lab};

    use super::*;
    use crate::desk::Desk;

    #[test]
    fn sizes_keep_the_budget_and_come_near_it() {
        let base = Desk.model(Fixture::Encoder).expect("encoder").spec;
        for kind in Kind::ALL {
            for budget in [900, 9_000, 45_000] {
                let Some(settings) = within(kind, &base, budget).expect("settings") else { continue };
                let count = parameters(&settings, &base).expect("formula");
                assert!(count <= budget && count > 0, "{kind}: {count} of {budget}");
                if kind == Kind::Lora {
                    assert!(count * 3 > budget, "{kind}: {count} of {budget}");
                }
            }
        }
        assert!(within(Kind::Lora, &base, 0).expect("settings").is_none());
    }
}
