//! Perplexity of texts of any length, by windows that slide over the tokens.
//!
//! The semantics are those of lm-evaluation-harness's `loglikelihood_rolling`: every token is predicted exactly
//! once; the first window begins with a prefix token (beginning-of-text, else end-of-text); each later window
//! predicts `stride` more tokens and sees as many before them as fit the context; the last window keeps its full
//! length. With the default stride, the whole context, windows touch without overlap, as in the harness.
//!
//! In: token ids, one list a document. Out: the sum of log-likelihoods, from which [`Report`] derives
//! perplexities. Tokenizing and splitting of texts is the caller's.

use ounce_engine::{Engine, Error, Result};
use ounce_kernels::softmax::log_sum_exp;
use serde::Serialize;

use crate::walk::{Plan, Walk, runs_whole};

/// How windows slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Tokens that a window gives the model at most.
    pub context: usize,
    /// Tokens that a window after the first predicts, from 1 to `context`. Fewer cost more and see more.
    pub stride: usize,
    /// Stands before a document's first token. Without it that token is not predicted.
    pub prefix: Option<u32>,
}

/// One window over a document whose prefix, if there is one, is its token 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first token given to the model.
    pub start: usize,
    /// The first token to be predicted.
    pub first: usize,
    /// One past the last token to be predicted; the token before it is the last one given.
    pub end: usize,
}

/// What one window found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowScore {
    /// Tokens predicted.
    pub tokens: usize,
    /// Sum of their log-probabilities, natural logarithm.
    pub log_likelihood: f64,
}

/// The windows over `tokens` tokens, the prefix included; nothing if there is nothing to predict.
///
/// # Errors
/// If the stride is 0 or longer than the context.
pub fn windows(tokens: usize, options: &Options) -> Result<Vec<Window>> {
    let Options { context, stride, .. } = *options;
    if stride == 0 || stride > context {
        return Err(Error::Option(format!(
            "the stride should be from 1 to the context of {context}, found {stride}"
        )));
    }
    let mut windows = Vec::new();
    let mut first = 1;
    while first < tokens {
        let count = if first == 1 { context } else { stride };
        let end = tokens.min(first + count);
        let start = (end - 1).saturating_sub(context);
        windows.push(Window { start, first, end });
        first = end;
    }
    Ok(windows)
}

/// Scores documents one by one. `progress` is told the tokens predicted so far and in all, and may stop the work.
///
/// # Errors
/// If an option is out of its range, a token is unknown to the model, the model is an encoder, or `progress`
/// returns an error.
pub fn score(
    engine: &Engine,
    documents: &[Vec<u32>],
    options: &Options,
    mut progress: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<WindowScore>> {
    let plan = Plan::new(documents, options)?;
    let vocab = engine.spec().vocab_size;
    let whole = runs_whole(engine);
    let mut done = 0;
    let mut scores = Vec::new();
    for (ids, window) in plan.windows() {
        let mut walk = Walk::new(engine, ids, window, whole)?;
        let mut score = WindowScore { tokens: 0, log_likelihood: 0.0 };
        while walk.step(|targets, logits| {
            for (&target, logits) in targets.iter().zip(logits.chunks_exact(vocab)) {
                score.log_likelihood += f64::from(logits[target as usize]) - log_sum_exp(logits);
            }
            score.tokens += targets.len();
            progress(done + score.tokens, plan.tokens)
        })? {}
        done += score.tokens;
        scores.push(score);
    }
    Ok(scores)
}

/// Whether Python takes a character for white space: its set holds four control characters that Unicode's White_Space has
/// not.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Words and bytes of a text, by which log-likelihoods are made comparable between tokenizers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TextSize {
    /// Pieces between runs of white space; a text that begins or ends with white space has an empty piece there,
    /// as Python's `re.split(r"\s+", text)` counts.
    pub words: usize,
    /// Bytes in UTF-8.
    pub bytes: usize,
}

impl TextSize {
    /// The size of a text.
    pub fn of(text: &str) -> TextSize {
        let mut runs = 0;
        let mut in_run = false;
        for c in text.chars() {
            runs += usize::from(is_space(c) && !in_run);
            in_run = is_space(c);
        }
        TextSize { words: runs + 1, bytes: text.len() }
    }
}

impl std::ops::Add for TextSize {
    type Output = TextSize;

    fn add(self, other: TextSize) -> TextSize {
        TextSize { words: self.words + other.words, bytes: self.bytes + other.bytes }
    }
}

/// A value with its standard error, estimated from how the windows differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Its standard error; none for a single window.
    pub stderr: Option<f64>,
}

impl Estimate {
    /// The mean over all tokens, given each window's tokens and the sum of its values: windows are taken as a
    /// sample of clusters of unequal length (the ratio estimator).
    pub(crate) fn of_mean(windows: &[(usize, f64)]) -> Estimate {
        let tokens = windows.iter().map(|&(tokens, _)| tokens).sum::<usize>() as f64;
        let mean = windows.iter().map(|&(_, sum)| sum).sum::<f64>() / tokens;
        let count = windows.len() as f64;
        let squares: f64 = windows.iter().map(|&(tokens, sum)| (sum - mean * tokens as f64).powi(2)).sum();
        let stderr = (windows.len() > 1).then(|| (squares * count / (count - 1.0)).sqrt() / tokens);
        Estimate { value: mean, stderr }
    }

    /// `value`, a function of this estimate that has this slope there: its error is the estimate's times the slope.
    pub(crate) fn with_slope(self, value: f64, slope: f64) -> Estimate {
        Estimate { value, stderr: self.stderr.map(|stderr| stderr * slope.abs()) }
    }
}

/// Perplexities of scored texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Tokens predicted.
    pub tokens: usize,
    /// Windows run.
    pub windows: usize,
    /// Words and bytes of the texts.
    pub size: TextSize,
    /// Sum of the log-probabilities, natural logarithm.
    pub log_likelihood: f64,
    /// `exp(−log-likelihood / tokens)`.
    pub token_perplexity: Estimate,
    /// `exp(−log-likelihood / words)`.
    pub word_perplexity: Estimate,
    /// `exp(−log-likelihood / bytes)`.
    pub byte_perplexity: Estimate,
    /// `−log-likelihood / (bytes · ln 2)`.
    pub bits_per_byte: Estimate,
}

impl Report {
    /// Sums up the windows over texts of that size.
    ///
    /// # Errors
    /// If nothing was predicted.
    pub fn new(scores: &[WindowScore], size: TextSize) -> Result<Report> {
        let tokens: usize = scores.iter().map(|score| score.tokens).sum();
        if tokens == 0 {
            return Err(Error::Unsuitable("there is nothing to predict; give a longer text".to_string()));
        }
        let log_likelihood: f64 = scores.iter().map(|score| score.log_likelihood).sum();
        let nats = -log_likelihood;
        let windows: Vec<_> = scores.iter().map(|score| (score.tokens, -score.log_likelihood)).collect();
        let mean = Estimate::of_mean(&windows);
        let perplexity = |count: usize| {
            let value = (nats / count as f64).exp();
            mean.with_slope(value, value * tokens as f64 / count as f64)
        };
        let per_bit = 1.0 / (size.bytes as f64 * std::f64::consts::LN_2);
        Ok(Report {
            tokens,
            windows: scores.len(),
            size,
            log_likelihood,
            token_perplexity: perplexity(tokens),
            word_perplexity: perplexity(size.words),
            byte_perplexity: perplexity(size.bytes),
            bits_per_byte: mean.with_slope(nats * per_bit, tokens as f64 * per_bit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(context: usize, stride: usize) -> Options {
        Options { context, stride, prefix: Some(0) }
    }

    /// The windows of lm-evaluation-harness, written out: pairs of given and predicted positions.
    fn harness_windows(tokens: usize, context: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
        let list: Vec<usize> = (1..=tokens).collect();
        let first = context.min(tokens);
        let mut pairs = vec![([&[0], &list[..first - 1]].concat(), list[..first].to_vec())];
        let mut predicted = first;
        while predicted < tokens {
            let count = (tokens - predicted).min(context);
            let end = predicted + count;
            pairs.push((list[end - context - 1..end - 1].to_vec(), list[end - count..end].to_vec()));
            predicted = end;
        }
        pairs
    }

    #[test]
    fn windows_are_those_of_the_harness() {
        for (tokens, context) in [(1, 4), (3, 4), (4, 4), (5, 4), (8, 4), (11, 4), (9, 1), (30, 7)] {
            let ours: Vec<_> = windows(tokens + 1, &options(context, context))
                .unwrap()
                .into_iter()
                .map(|it| {
                    ((it.start..it.end - 1).collect::<Vec<_>>(), (it.first..it.end).collect::<Vec<_>>())
                })
                .collect();
            assert_eq!(ours, harness_windows(tokens, context), "{tokens} tokens, context {context}");
        }
    }

    #[test]
    fn every_token_is_predicted_once_whatever_the_stride() {
        for tokens in 0..40 {
            for context in 1..9 {
                for stride in 1..=context {
                    let windows = windows(tokens, &options(context, stride)).unwrap();
                    let predicted: Vec<usize> = windows.iter().flat_map(|it| it.first..it.end).collect();
                    assert_eq!(predicted, (1..tokens).collect::<Vec<_>>(), "{tokens} {context} {stride}");
                    for it in windows {
                        assert!(it.start < it.first && it.end - 1 - it.start <= context, "{it:?}");
                        assert!(it.start == 0 || it.end - 1 - it.start == context, "short window {it:?}");
                    }
                }
            }
        }
        assert!(windows(9, &options(4, 0)).is_err() && windows(9, &options(4, 5)).is_err());
    }

    #[test]
    fn words_are_counted_as_python_splits() {
        // len(re.split(r"\s+", text)) of each.
        for (text, words) in
            [("", 1), ("a", 1), ("a b", 2), (" a \n b ", 4), ("\u{1f}a\u{a0}b", 3), ("a\u{200b}b", 1)]
        {
            assert_eq!(TextSize::of(text).words, words, "{text:?}");
        }
        assert_eq!(TextSize::of("né").bytes, 3);
    }

    #[test]
    fn reports_follow_their_formulas() {
        let scores =
            [(10, -20.0), (10, -30.0)].map(|(tokens, log_likelihood)| WindowScore { tokens, log_likelihood });
        let report = Report::new(&scores, TextSize { words: 8, bytes: 50 }).unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(report.token_perplexity.value, 2.5f64.exp());
        near(report.word_perplexity.value, 6.25f64.exp());
        near(report.byte_perplexity.value, 1f64.exp());
        near(report.bits_per_byte.value, 1.0 / std::f64::consts::LN_2);
        // Two windows of equal length with means 2 and 3: the mean's standard error is 0.5.
        near(report.token_perplexity.stderr.unwrap(), 2.5f64.exp() * 0.5);
        assert_eq!(Report::new(&scores[..1], report.size).unwrap().bits_per_byte.stderr, None);
        assert!(Report::new(&[], TextSize::default()).is_err());
    }
}
