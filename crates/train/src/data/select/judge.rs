//! What the model that is to be trained makes of questions with answers: the losses that [`AnswerLoss`] wants, and a vector
//! for what a question means to it.

use super::AnswerLoss;
use crate::data::encode::Sequence;
use crate::net::Net;
use crate::{Batch, IGNORE, Result};

/// What a model makes of one example.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The answer's loss with and without the question.
    pub loss: AnswerLoss,
    /// Tokens of the answer.
    pub tokens: usize,
    /// What the question means to the model: the mean over its tokens of the last layer's output, each token's scaled to
    /// length one. See [`centre`].
    pub vector: Vec<f32>,
}

/// Judges examples as one batch; none for those without a question, or with nothing to predict of the answer alone. `begin`
/// stands before an answer that is alone; without it the first of its tokens is not predicted there.
///
/// # Errors
/// If an example does not fit the network.
pub fn judge(net: &mut Net, examples: &[Sequence], begin: Option<u32>) -> Result<Vec<Option<Judgement>>> {
    let (mut whole, mut alone) = (Batch::default(), Batch::default());
    let mut questions = Vec::new();
    let parts: Vec<Option<usize>> = examples
        .iter()
        .map(|example| {
            let question = example.counts.iter().position(|counts| *counts).filter(|length| *length > 0)?;
            let answer = example.ids.iter().zip(&example.counts).filter(|(_, counts)| **counts);
            let answer: Vec<u32> = begin.into_iter().chain(answer.map(|(id, _)| *id)).collect();
            if answer.len() < 2 {
                return None;
            }
            push(&mut alone, &answer, |_| true);
            push(&mut whole, &example.ids, |token| example.counts[token]);
            questions.push(question);
            Some(answer.len() - usize::from(begin.is_some()))
        })
        .collect();
    let (with_question, vectors) = net.log_probabilities_and_means(&whole, &questions)?;
    let without = net.log_probabilities(&alone)?;
    let mean = |batch: &Batch, values: &[f64]| -> Vec<f64> {
        let mut rest = batch.targets.as_slice();
        let of = |(length, value): (&usize, &f64)| {
            let (own, more) = rest.split_at(*length);
            rest = more;
            -value / own.iter().filter(|target| **target != IGNORE).count() as f64
        };
        batch.lengths.iter().zip(values).map(of).collect()
    };
    let losses = mean(&whole, &with_question).into_iter().zip(mean(&alone, &without));
    let mut found = losses.zip(vectors);
    let mut judgement = |tokens: usize| {
        let ((with_question, alone), vector) = found.next()?;
        Some(Judgement { loss: AnswerLoss { with_question, alone }, tokens, vector })
    };
    Ok(parts.into_iter().map(|tokens| tokens.and_then(&mut judgement)).collect())
}

/// Adds a sequence whose tokens are predicted where `counts` says.
fn push(batch: &mut Batch, ids: &[u32], counts: impl Fn(usize) -> bool) {
    let count = ids.len() - 1;
    batch.tokens.extend(&ids[..count]);
    batch.targets.extend((1..=count).map(|token| if counts(token) { ids[token] } else { IGNORE }));
    batch.lengths.push(count);
}

/// Takes what all vectors have in common out of them, and scales them to length one: without that, what every question shares
/// (its form, a template) outweighs what it is about.
pub fn centre(vectors: &mut [Vec<f32>]) {
    let Some(width) = vectors.first().map(Vec::len) else { return };
    let mut mean = vec![0.0f64; width];
    for vector in &*vectors {
        mean.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    mean.iter_mut().for_each(|sum| *sum /= vectors.len() as f64);
    for vector in vectors {
        vector.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= *mean as f32);
        scale_to_one(vector);
    }
}

/// Scales a vector to length one; one of zeros stays.
pub(crate) fn scale_to_one(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ounce_model::Model;

    use super::*;
    use crate::Trainable;
    use crate::net::Options;

    fn net() -> Net {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama");
        Net::with_frozen(&Model::open(path).unwrap(), Options::default(), &|_| false).unwrap()
    }

    fn example(ids: &[u32], question: usize) -> Sequence {
        let counts = (0..ids.len()).map(|token| token >= question).collect();
        Sequence { ids: ids.to_vec(), counts, truncated: false }
    }

    /// The mean loss of a sequence's last tokens.
    fn loss(net: &mut Net, ids: &[u32], first: usize) -> f64 {
        let mut batch = Batch::next_token([ids]);
        batch.targets[..first - 1].fill(IGNORE);
        net.loss(&batch).unwrap().mean()
    }

    #[test]
    fn losses_are_those_of_the_answer_after_its_question_and_alone() {
        let mut net = net();
        let examples = [
            example(&[5, 9, 11, 20, 21, 22], 3),
            example(&[7, 8], 0),
            example(&[5, 30, 31], 1),
            example(&[5, 9, 11, 23], 3),
        ];
        let judged = judge(&mut net, &examples, Some(1)).unwrap();
        assert!(judged[1].is_none(), "there is no question");
        let first = judged[0].as_ref().unwrap();
        assert!((first.loss.with_question - loss(&mut net, &[5, 9, 11, 20, 21, 22], 3)).abs() < 1e-5);
        assert!((first.loss.alone - loss(&mut net, &[1, 20, 21, 22], 1)).abs() < 1e-5);
        assert_eq!((first.tokens, judged[2].as_ref().unwrap().tokens), (3, 2));
        // Equal questions mean the same, whatever the answer.
        let last = judged[3].as_ref().unwrap();
        assert!(first.vector.iter().zip(&last.vector).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_ne!(first.vector, judged[2].as_ref().unwrap().vector);
        // Without a first token, one token alone can't be predicted.
        let judged = judge(&mut net, &examples, None).unwrap();
        assert!(judged[3].is_none());
        let alone = judged[0].as_ref().unwrap().loss.alone;
        assert!((alone - loss(&mut net, &[20, 21, 22], 1)).abs() < 1e-5);
    }

    #[test]
    fn what_vectors_share_is_taken_out() {
        let mut vectors = vec![vec![100.0, 1.0], vec![100.0, -1.0], vec![100.0, 0.0]];
        centre(&mut vectors);
        assert_eq!(vectors[0], [0.0, 1.0]);
        assert_eq!(vectors[1], [0.0, -1.0]);
        assert_eq!(vectors[2], [0.0, 0.0]);
        centre(&mut []);
    }
}
