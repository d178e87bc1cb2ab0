//! From the hidden states of one text to the scores of labels.

use ounce_model::Weights;
use ounce_model::spec::{Activation, Scored, Spec};

use crate::arithmetic::Mode;
use crate::error::Result;
use crate::feed_forward::activate;
use crate::linear::Linear;
use crate::profile::Operator;
use crate::scratch::Scratch;

/// A classifier with its weights.
#[derive(Debug)]
pub(crate) struct Classifier {
    of: Scored,
    dense: Option<(Linear, Activation)>,
    output: Linear,
    hidden: usize,
}

impl Classifier {
    /// Takes the weights, if `spec` has a classifier.
    pub(crate) fn load(weights: &Weights, spec: &Spec, mode: Mode) -> Result<Option<Classifier>> {
        let Some(classifier) = spec.classifier else { return Ok(None) };
        let (name, dense) = match classifier.of {
            Scored::Text { dense, .. } => ("classifier", dense),
            Scored::Tokens => ("token_classifier", None),
            Scored::Spans => ("span_classifier", None),
        };
        let dense = match dense {
            Some(activation) => Some((Linear::load(weights, "classifier.dense", mode)?, activation)),
            None => None,
        };
        let output = Linear::load(weights, name, mode)?;
        Ok(Some(Classifier { of: classifier.of, dense, output, hidden: spec.hidden_size }))
    }

    /// Scores of the text `[labels]`, or of each token `[tokens, labels]`, from hidden states `[tokens, hidden]`.
    pub(crate) fn scores(&self, states: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let read = match self.of {
            Scored::Text { last: false, .. } => &states[..self.hidden],
            Scored::Text { last: true, .. } => &states[states.len() - self.hidden..],
            Scored::Tokens | Scored::Spans => states,
        };
        match &self.dense {
            Some((dense, activation)) => {
                let mut x = dense.forward(read, Operator::Head, scratch);
                activate(*activation, &mut x);
                self.output.forward(&x, Operator::Head, scratch)
            }
            None => self.output.forward(read, Operator::Head, scratch),
        }
    }
}
