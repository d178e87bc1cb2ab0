//! The reference family: how its loss falls with size and tokens, and the size that has a given loss.
//!
//! `L(N, D) = a N^−α + b D^−β`, and on demand `+ E`. Where all members saw as many tokens, the second term is a constant, which
//! is fitted as such. (arXiv 2412.04315, equation 3.)

use ounce_train::laws::minimise::bfgs;
use ounce_train::laws::scaling::Run;
use ounce_train::{Error, Result};
use serde::Serialize;

/// The fitted law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LossLaw {
    /// `a`.
    pub size_scale: f64,
    /// `α`.
    pub size_exponent: f64,
    /// `b`; 0 where tokens don't vary.
    pub tokens_scale: f64,
    /// `β`.
    pub tokens_exponent: f64,
    /// `E`: what no size removes; where tokens don't vary, what that many tokens can't remove.
    pub irreducible: f64,
    /// Root mean square of the residuals of `ln L`.
    pub residual: f64,
}

impl LossLaw {
    /// Fits the members of the family, from many starts.
    ///
    /// # Errors
    /// If they are fewer than the numbers of the law, a number is not above 0, or all have one size.
    pub fn fit(runs: &[Run], irreducible: bool) -> Result<LossLaw> {
        let problem = Problem::new(runs, irreducible)?;
        let mut best: Option<LossLaw> = None;
        for share in [0.2, 0.5, 0.8] {
            for alpha in [0.1, 0.3, 0.8] {
                for beta in [0.1, 0.4] {
                    let rest = f64::ln((1.0 - share) / 2.0);
                    let start = [share.ln(), f64::ln(alpha), rest, f64::ln(beta), rest];
                    let found = problem.search(start, problem.log_loss);
                    if found.residual.is_finite() && best.is_none_or(|it| found.residual < it.residual) {
                        best = Some(found);
                    }
                }
            }
        }
        best.ok_or_else(|| Error::Fit("no law fits the reference family's losses".to_string()))
    }

    /// The loss of a size that saw so many tokens.
    pub fn at(&self, size: f64, tokens: f64) -> f64 {
        self.size_scale * size.powf(-self.size_exponent) + self.floor(tokens)
    }

    /// The loss that so many tokens leave to any size.
    pub fn floor(&self, tokens: f64) -> f64 {
        self.tokens_scale * tokens.powf(-self.tokens_exponent) + self.irreducible
    }

    /// The size that has this loss after so many tokens; none if no size has.
    pub fn size(&self, loss: f64, tokens: f64) -> Option<f64> {
        let own = loss - self.floor(tokens);
        let size = (own / self.size_scale).powf(-1.0 / self.size_exponent);
        (own > 0.0 && size.is_finite()).then_some(size)
    }
}

/// The runs in logarithms, relative to their middle.
struct Problem {
    points: Vec<[f64; 3]>,
    log_size: f64,
    log_tokens: f64,
    log_loss: f64,
    /// Whether the law has a term of tokens, and a constant.
    terms: [bool; 2],
}

impl Problem {
    fn new(runs: &[Run], irreducible: bool) -> Result<Problem> {
        let positive = |it: f64| it > 0.0 && it.is_finite();
        if runs.iter().any(|run| ![run.params, run.tokens, run.loss].into_iter().all(positive)) {
            return Err(Error::Fit(
                "sizes, tokens and losses of the reference family should be above 0".into(),
            ));
        }
        let varies = |it: fn(&Run) -> f64| runs.iter().any(|run| it(run) != it(&runs[0]));
        let tokens = varies(|run| run.tokens);
        let terms = [tokens, irreducible || !tokens];
        let needed = 2 + 2 * usize::from(terms[0]) + usize::from(terms[1]);
        if runs.len() < needed || !varies(|run| run.params) {
            return Err(Error::Fit(format!(
                "the law of the reference family has {needed} numbers and needs as many members of different sizes, found {}",
                runs.len()
            )));
        }
        let mean = |it: fn(&Run) -> f64| runs.iter().map(|run| it(run).ln()).sum::<f64>() / runs.len() as f64;
        let (n, d, l) = (mean(|run| run.params), mean(|run| run.tokens), mean(|run| run.loss));
        let points =
            runs.iter().map(|run| [run.params.ln() - n, run.tokens.ln() - d, run.loss.ln()]).collect();
        Ok(Problem { points, log_size: n, log_tokens: d, log_loss: l, terms })
    }

    /// Down from `[ln of the size's part, ln α, ln of the tokens' part, ln β, ln of the constant]`, parts relative to `level`.
    fn search(&self, start: [f64; 5], level: f64) -> LossLaw {
        let start = [start[0] + level, start[1], start[2] + level, start[3], start[4] + level];
        let found = bfgs(&|at, gradient| self.squares(at, gradient), &start, 500);
        let at = &found.at;
        let (alpha, beta) = (at[1].exp(), at[3].exp());
        let on = |term: usize, value: f64| if self.terms[term] { value } else { 0.0 };
        LossLaw {
            size_scale: (at[0] + alpha * self.log_size).exp(),
            size_exponent: alpha,
            tokens_scale: on(0, (at[2] + beta * self.log_tokens).exp()),
            tokens_exponent: on(0, beta),
            irreducible: on(1, at[4].exp()),
            residual: (found.value / self.points.len() as f64).sqrt(),
        }
    }

    fn squares(&self, at: &[f64], gradient: &mut [f64]) -> f64 {
        gradient.fill(0.0);
        let (alpha, beta) = (at[1].exp(), at[3].exp());
        let on = |term: usize, value: f64| if self.terms[term] { value } else { 0.0 };
        let mut sum = 0.0;
        for &[n, d, loss] in &self.points {
            let parts = [(at[0] - alpha * n).exp(), on(0, (at[2] - beta * d).exp()), on(1, at[4].exp())];
            let total: f64 = parts.iter().sum();
            let residual = total.ln() - loss;
            sum += residual * residual;
            let share = parts.map(|part| 2.0 * residual * part / total);
            gradient[0] += share[0];
            gradient[1] -= share[0] * n * alpha;
            gradient[2] += share[1];
            gradient[3] -= share[1] * d * beta;
            gradient[4] += share[2];
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(tokens: &[f64]) -> Vec<Run> {
        let sizes = [5e6, 3e7, 1e8, 2.5e8, 4.8e8, 8.3e8];
        let run = |params: f64, tokens: f64| Run {
            params,
            tokens,
            loss: 30.0 * params.powf(-0.25) + 60.0 * tokens.powf(-0.3),
        };
        sizes.iter().flat_map(|&size| tokens.iter().map(move |&tokens| run(size, tokens))).collect()
    }

    #[test]
    fn the_law_that_made_the_losses_is_found() {
        let law = LossLaw::fit(&runs(&[1e9, 1e10, 1e11]), false).expect("a fit");
        assert!(
            (law.size_exponent - 0.25).abs() < 1e-3 && (law.tokens_exponent - 0.3).abs() < 1e-3,
            "{law:?}"
        );
        let size = law.size(law.at(2e8, 1e12), 1e12).expect("a size");
        assert!((size / 2e8 - 1.0).abs() < 1e-9, "{size}");
        assert_eq!(law.size(0.5 * law.floor(1e12), 1e12), None);
    }

    #[test]
    fn with_one_number_of_tokens_their_part_is_a_constant() {
        let law = LossLaw::fit(&runs(&[1e10]), false).expect("a fit");
        assert!((law.size_exponent - 0.25).abs() < 5e-3, "{law:?}");
        assert!(law.tokens_scale == 0.0 && (law.irreducible - 0.06).abs() < 5e-3, "{law:?}");
        assert!(LossLaw::fit(&runs(&[1e10])[..2], false).is_err());
    }
}
