//! Step Law: the learning rate and batch size of a language model from its size and the tokens it is trained on
//! (arXiv 2503.04715).
//!
//! `η = 1.79 · N^-0.713 · D^0.307` and `B = 0.58 · D^0.571` tokens, `N` parameters without embeddings and `D` tokens;
//! for AdamW with a warm-up and a cosine to a **fixed** final rate of 1e-5.

use serde::Serialize;

/// The rate at the end of the runs that the law was fitted on.
pub const FINAL_RATE: f64 = 1e-5;

/// Factor, exponent of parameters and exponent of tokens of the learning rate.
pub const RATE: [f64; 3] = [1.79, -0.713, 0.307];

/// Factor and exponent of tokens of the batch, in tokens.
pub const BATCH: [f64; 2] = [0.58, 0.571];

/// What the law says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Advice {
    /// Peak learning rate.
    pub rate: f64,
    /// Tokens in a batch, not rounded.
    pub batch_tokens: f64,
    /// Why it may not hold here.
    pub warnings: Vec<String>,
}

/// Learning rate and batch size for `params` parameters without embeddings and `tokens` tokens.
pub fn step_law(params: f64, tokens: f64) -> Advice {
    let rate = RATE[0] * params.powf(RATE[1]) * tokens.powf(RATE[2]);
    let batch_tokens = BATCH[0] * tokens.powf(BATCH[1]);
    let mut warnings = Vec::new();
    if !(60e6..=1e9).contains(&params) {
        warnings.push(format!(
            "the law was fitted on models of about 60 million to 1 billion parameters without embeddings, not {params:.3e}"
        ));
    }
    if tokens > 100e9 {
        warnings.push(format!("the law was fitted on up to about 100 billion tokens, not {tokens:.3e}"));
    }
    let steps = tokens / batch_tokens;
    if !(steps >= 1000.0) {
        warnings.push(format!("the run would have only {steps:.0} steps; the law supposes at least 1000"));
    }
    Advice { rate, batch_tokens, warnings }
}

impl Advice {
    /// The batch as a whole number of units (a context, or context times accumulation), one at least.
    pub fn round_batch(&self, unit: usize) -> usize {
        let unit = unit.max(1);
        let units = (self.batch_tokens / unit as f64).round().max(1.0);
        units as usize * unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_gives_the_papers_numbers() {
        // A billion parameters, a hundred billion tokens: about 1.65e-3 and 1.1 million tokens.
        let advice = step_law(1e9, 1e11);
        let rate = (1.79f64.ln() - 0.713 * 1e9f64.ln() + 0.307 * 1e11f64.ln()).exp();
        assert!((advice.rate / rate - 1.0).abs() < 1e-12);
        assert!((advice.rate - 1.633e-3).abs() < 2e-6, "{}", advice.rate);
        assert!((advice.batch_tokens - 1.107e6).abs() < 3e3, "{}", advice.batch_tokens);
        assert!(advice.warnings.is_empty(), "{:?}", advice.warnings);
        assert_eq!(advice.round_batch(2048), 2048 * 541);
    }

    #[test]
    fn it_says_where_it_was_not_fitted() {
        let warnings = |params, tokens| step_law(params, tokens).warnings.join(" ");
        assert!(warnings(1e6, 1e11).contains("parameters"));
        assert!(warnings(1e8, 1e12).contains("tokens"));
        assert!(warnings(1e8, 1e6).contains("steps"));
        assert!(warnings(1e8, 0.0).contains("steps"));
    }
}
