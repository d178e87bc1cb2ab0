//! Candidates whose matrices are products of two thin ones before they are quantized.

use std::time::{Duration, Instant};

use ounce_compress::lowrank;
use toml::Value;

use super::super::prune::structured::with_bar;
use super::bases;
use super::budget::Asked;
use super::candidates::{Subject, Way};
use super::trial::Trials;

/// Shares of each matrix's weights that its factors have.
const SHARES: [f64; 4] = [0.8, 0.67, 0.5, 0.33];

/// Whether even the smallest factors leave every candidate over the budget: nothing becomes smaller than its matrices do.
pub fn is_hopeless(ways: &[Way]) -> bool {
    let most = 1.0 / SHARES[SHARES.len() - 1];
    ways.iter().all(|way| way.candidate.misses.iter().any(|miss| miss.times > most))
}

/// Adds candidates that are factorised first, each pair the best for what its layer is given; stops when `time` is over. Gives the
/// reason if nothing was factorised.
///
/// # Errors
/// If a model can't be factorised or run, or the user stops the work.
pub fn add(
    subject: &mut Subject<'_>,
    trials: &Trials<'_>,
    asked: &Asked,
    ways: &mut Vec<Way>,
    time: Duration,
) -> anyhow::Result<Option<String>> {
    if bases::best_loss(ways) == Some(0.0) {
        return Ok(None);
    }
    let model = subject.model;
    let start = Instant::now();
    for share in SHARES {
        if start.elapsed() > time {
            break;
        }
        let plan = match lowrank::plan_in_blocks(model, share) {
            Ok(plan) => plan,
            Err(error) if share == SHARES[0] => return Ok(Some(format!("nothing is factorised: {error}"))),
            Err(_) => break,
        };
        let (thin, _) = with_bar("factorising", |progress| {
            lowrank::factorise(model, &plan, Some(trials.learn().to_vec()), progress)
        })?;
        let flags = [("ratio", Value::Float(share)), ("blocks", Value::Boolean(true))];
        let step = subject.step("factorize", flags);
        let name = format!("factors of {:.0} %", share * 100.0);
        if !bases::enter(subject, trials, asked, ways, thin, (step, name.clone()))? {
            let first = share == SHARES[0];
            return Ok(first
                .then(|| format!("nothing is factorised: {name} alone lose more than another that fits")));
        }
    }
    Ok(None)
}
