//! The loss as a function of parameters and tokens, `L(N, D) = E + A / N^α + B / D^β`, and what follows for a budget.
//!
//! Fitted in log space with Huber's loss, as in Chinchilla (arXiv 2203.15556, approach 3) and MiniCPM
//! (arXiv 2404.06395, section 4.5): a few bad runs do not pull the fit.

use super::minimise::bfgs;
use crate::{Error, Result};

/// One run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// Parameters.
    pub params: f64,
    /// Tokens seen.
    pub tokens: f64,
    /// Loss at the end of a decayed run.
    pub loss: f64,
}

/// Where Huber's loss turns from squares to lines, in log loss.
pub const HUBER_DELTA: f64 = 1e-3;

/// `E + A / N^α + B / D^β`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct ScalingLaw {
    /// The loss that no size removes.
    pub irreducible: f64,
    /// `A`.
    pub params_scale: f64,
    /// `α`.
    pub params_exponent: f64,
    /// `B`.
    pub tokens_scale: f64,
    /// `β`.
    pub tokens_exponent: f64,
    /// Sum of Huber's losses of the log residuals.
    pub objective: f64,
}

/// A compute budget's best use.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Split {
    /// Parameters.
    pub params: f64,
    /// Tokens.
    pub tokens: f64,
    /// The loss that the law predicts.
    pub loss: f64,
}

impl ScalingLaw {
    /// Fits at least six runs, from many starts.
    ///
    /// # Errors
    /// If there are too few runs, a number is not above 0, or sizes or tokens do not vary.
    pub fn fit(runs: &[Run]) -> Result<ScalingLaw> {
        let problem = Problem::new(runs)?;
        let exponents = [0.1, 0.3, 0.6, 1.0];
        // Shares of the loss, in the middle of the runs, that fall to size, tokens and neither.
        let shares: [[f64; 3]; 5] =
            [[0.3, 0.3, 0.4], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.45, 0.45, 0.1]];
        let mut best: Option<super::minimise::Minimum> = None;
        for share in shares {
            for alpha in exponents {
                for beta in exponents {
                    let term = |it: f64| it.ln() + problem.log_loss;
                    let start = [term(share[0]), term(share[1]), term(share[2]), alpha, beta];
                    let found = bfgs(&|at, gradient| problem.objective(at, gradient), &start, 500);
                    let better = best.as_ref().is_none_or(|it| found.value < it.value);
                    if found.value.is_finite() && better {
                        best = Some(found);
                    }
                }
            }
        }
        let best = best.ok_or_else(|| Error::Fit("no law fits these runs".to_string()))?;
        Ok(problem.law(&best.at, best.value))
    }

    /// Fits from this law on; for resampled runs, where one start is enough.
    ///
    /// # Errors
    /// As [`ScalingLaw::fit`].
    pub fn refit(&self, runs: &[Run]) -> Result<ScalingLaw> {
        let problem = Problem::new(runs)?;
        let found = bfgs(&|at, gradient| problem.objective(at, gradient), &problem.place(self), 500);
        Ok(problem.law(&found.at, found.value))
    }

    /// The predicted loss.
    pub fn at(&self, params: f64, tokens: f64) -> f64 {
        self.irreducible
            + self.params_scale * params.powf(-self.params_exponent)
            + self.tokens_scale * tokens.powf(-self.tokens_exponent)
    }

    /// The split of `compute = 6 N D` operations with the least loss; none unless both exponents are above 0.
    pub fn best_split(&self, compute: f64) -> Option<Split> {
        let (a, b) = (self.params_exponent, self.tokens_exponent);
        if !(a > 0.0 && b > 0.0 && compute > 0.0) {
            return None;
        }
        let factor = (a * self.params_scale / (b * self.tokens_scale)).powf(1.0 / (a + b));
        let params = factor * (compute / 6.0).powf(b / (a + b));
        let tokens = (compute / 6.0).powf(a / (a + b)) / factor;
        Some(Split { params, tokens, loss: self.at(params, tokens) })
    }
}

/// The runs in logarithms, sizes and tokens relative to their middle, which keeps scale and exponent apart.
struct Problem {
    points: Vec<[f64; 3]>,
    log_params: f64,
    log_tokens: f64,
    log_loss: f64,
}

impl Problem {
    fn new(runs: &[Run]) -> Result<Problem> {
        if runs.len() < 6 {
            let what = format!("a law of five numbers needs at least six runs, found {}", runs.len());
            return Err(Error::Fit(what));
        }
        let positive = |it: f64| it > 0.0 && it.is_finite();
        if runs.iter().any(|run| ![run.params, run.tokens, run.loss].into_iter().all(positive)) {
            return Err(Error::Fit("parameters, tokens and losses should be above 0".to_string()));
        }
        let varies = |it: fn(&Run) -> f64| runs.iter().any(|run| it(run) != it(&runs[0]));
        if !(varies(|run| run.params) && varies(|run| run.tokens)) {
            return Err(Error::Fit("the runs should differ in parameters and in tokens".to_string()));
        }
        let mean = |it: fn(&Run) -> f64| runs.iter().map(|run| it(run).ln()).sum::<f64>() / runs.len() as f64;
        let (n, d, l) = (mean(|run| run.params), mean(|run| run.tokens), mean(|run| run.loss));
        let point = |run: &Run| [run.params.ln() - n, run.tokens.ln() - d, run.loss.ln()];
        Ok(Problem { points: runs.iter().map(point).collect(), log_params: n, log_tokens: d, log_loss: l })
    }

    /// Sum of Huber's losses at `[ln A − α n̄, ln B − β d̄, ln E, α, β]`, and its gradient.
    fn objective(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        let mut sum = 0.0;
        for &[n, d, loss] in &self.points {
            let terms = [at[0] - at[3] * n, at[1] - at[4] * d, at[2]];
            let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let parts = terms.map(|term| (term - top).exp());
            let total: f64 = parts.iter().sum();
            let residual = top + total.ln() - loss;
            let slope = residual.clamp(-HUBER_DELTA, HUBER_DELTA);
            sum += if residual.abs() <= HUBER_DELTA {
                0.5 * residual * residual
            } else {
                HUBER_DELTA * (residual.abs() - 0.5 * HUBER_DELTA)
            };
            let share = parts.map(|part| slope * part / total);
            gradient[0] += share[0];
            gradient[1] += share[1];
            gradient[2] += share[2];
            gradient[3] -= share[0] * n;
            gradient[4] -= share[1] * d;
        }
        // Objectives are tiny where fits are good; the search's tolerances are for numbers around one.
        gradient.iter_mut().for_each(|it| *it /= HUBER_DELTA);
        sum / HUBER_DELTA
    }

    fn law(&self, at: &[f64], value: f64) -> ScalingLaw {
        ScalingLaw {
            irreducible: at[2].exp(),
            params_scale: (at[0] + at[3] * self.log_params).exp(),
            params_exponent: at[3],
            tokens_scale: (at[1] + at[4] * self.log_tokens).exp(),
            tokens_exponent: at[4],
            objective: value * HUBER_DELTA,
        }
    }

    fn place(&self, law: &ScalingLaw) -> [f64; 5] {
        [
            law.params_scale.ln() - law.params_exponent * self.log_params,
            law.tokens_scale.ln() - law.tokens_exponent * self.log_tokens,
            law.irreducible.ln(),
            law.params_exponent,
            law.tokens_exponent,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(noise: impl Fn(usize) -> f64) -> Vec<Run> {
        let mut runs = Vec::new();
        for params in [1e6, 4e6, 16e6, 64e6] {
            for tokens in [2e7, 8e7, 3.2e8, 1.28e9] {
                let loss = 1.7 + 120.0 * f64::powf(params, -0.34) + 410.0 * f64::powf(tokens, -0.28);
                runs.push(Run { params, tokens, loss: loss * noise(runs.len()) });
            }
        }
        runs
    }

    #[test]
    fn the_law_that_made_the_runs_is_found_despite_one_bad_run() {
        let law = ScalingLaw::fit(&runs(|run| if run == 5 { 1.5 } else { 1.0 })).expect("a fit");
        // The bad run still pulls a little, by Huber's constant slope.
        assert!((law.irreducible - 1.7).abs() < 0.02, "{law:?}");
        assert!((law.params_exponent - 0.34).abs() < 0.005, "{law:?}");
        assert!((law.tokens_exponent - 0.28).abs() < 0.005, "{law:?}");
        let again = law.refit(&runs(|_| 1.0)).expect("a fit");
        assert!(again.objective < 1e-12 && (again.params_scale - 120.0).abs() < 0.01, "{again:?}");
    }

    #[test]
    fn the_best_split_is_better_than_its_neighbours() {
        let law = ScalingLaw::fit(&runs(|_| 1.0)).expect("a fit");
        let compute = 1e16;
        let best = law.best_split(compute).expect("a split");
        assert!((6.0 * best.params * best.tokens / compute - 1.0).abs() < 1e-9);
        for factor in [0.9, 1.1] {
            let params = best.params * factor;
            assert!(law.at(params, compute / 6.0 / params) > best.loss);
        }
    }

    #[test]
    fn too_few_runs_are_refused() {
        assert!(ScalingLaw::fit(&runs(|_| 1.0)[..5]).is_err());
        assert!(ScalingLaw::fit(&runs(|_| 1.0)[..4]).is_err());
        let mut same = runs(|_| 1.0);
        same.iter_mut().for_each(|run| run.tokens = 1e7);
        assert!(ScalingLaw::fit(&same).expect_err("one size").to_string().contains("differ"));
    }
}
