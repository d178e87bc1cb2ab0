//! Candidates as a table.

use ounce_plan::budget::Miss;
use ounce_plan::search::{Candidate, reason, told};

use super::Found;
use super::budget::Asked;
use crate::output;
use crate::units::{self, time};

/// Prints what was found.
///
/// # Errors
/// As [`output::print_table`].
pub fn print(found: &Found, asked: &Asked) -> anyhow::Result<()> {
    output::line(format!("asked for: {}\n", asked.told()))?;
    let energy = found.candidates.iter().any(|it| it.costs.energy_per_token.is_some());
    let mut head = vec!["", "candidate", "bits", "file", "memory", "first token", "a token"];
    head.extend(energy.then_some("energy"));
    head.extend(["loss (KL)", "from", "front", "why not"]);
    let mut table = output::table(&head);
    for (index, candidate) in found.candidates.iter().enumerate() {
        let costs = &candidate.costs;
        let mark = if found.chosen == Some(index) { "→" } else { "" };
        let mut row = vec![
            mark.to_owned(),
            candidate.name.clone(),
            format!("{:.2}", candidate.bits_per_weight),
            units::bytes(costs.disk),
            units::bytes(costs.memory),
            time(costs.first_token),
            time(costs.per_token),
        ];
        if energy {
            row.push(costs.energy_per_token.map_or(String::new(), |it| format!("{it:.3} J")));
        }
        row.push(candidate.expected.map_or("?".into(), |it| format!("{:.5}", it.kl)));
        row.push(candidate.expected.map_or(String::new(), |it| it.basis.name().to_owned()));
        row.push(if candidate.on_front { "●" } else { "" }.to_owned());
        row.push(if found.chosen == Some(index) {
            "chosen".to_owned()
        } else {
            reason(candidate, found.choice(), told)
        });
        table.add_row(row);
    }
    output::print_table(&table)?;
    if let Some(reason) = &found.left_out {
        output::note(reason);
    }
    match (found.choice(), found.nearest) {
        (Some(choice), _) => output::line(format!("\n{}: {}", choice.name, expected(choice))),
        (None, Some(nearest)) => {
            let nearest = &found.candidates[nearest];
            let over = |miss: &Miss| told(miss);
            output::line(format!(
                "\nno candidate meets this budget; the nearest is {} ({}), which misses {}",
                nearest.name,
                expected(nearest),
                nearest.misses.iter().map(over).collect::<Vec<_>>().join(", ")
            ))?;
            let Some(place) = found.trainable else { return Ok(()) };
            output::line(format!(
                "{} misses quality alone, which training may bring: ounce fit tries that",
                found.candidates[place].name
            ))
        }
        (None, None) => output::line("\nno candidate meets this budget"),
    }
}

/// What is expected of a candidate, in words.
pub fn expected(candidate: &Candidate) -> String {
    let costs = &candidate.costs;
    let loss = candidate
        .expected
        .map_or("loss unknown".to_owned(), |it| format!("KL {:.5} ({})", it.kl, it.basis.name()));
    format!(
        "file {}, memory {}, first token {}, a token {}, {loss}",
        units::bytes(costs.disk),
        units::bytes(costs.memory),
        time(costs.first_token),
        time(costs.per_token)
    )
}
