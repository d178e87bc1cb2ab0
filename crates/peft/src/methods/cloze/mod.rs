//! Prompt learning on a frozen masked language model (Taylor et al., "Clinical Prompt Learning with Frozen Language Models", arXiv
//! 2205.05535, section 3): a text's label is the word that fills a gap behind it.
//!
//! `h` is the state `[d]` that the head's output matrix is given for the gap in `template(x)`.
//!
//! - **Template**: given words, and soft ones: trained vectors `P`, `[n, e]`, in the place of embedded tokens, which begin as the vectors of
//!   words (in braces) or of tokens drawn from the vocabulary (`--soft-template n`).
//! - **Verbalizer**: `p(y) = softmax_y(mean over words of y of logit_w(h))`; a word of several tokens has the mean of their logits. The soft
//!   one has a vector for each label, `p(y) = softmax_y(W h + b)`, `W` `[C, d]`, which begins as the mean of its words' output vectors,
//!   so that it begins with the scores of the other.
//!
//! Only the text is ever cut, never the template. Under a template other methods' parts may lie (`--method bottleneck`); by itself it trains
//! nothing else.
//!
//! Parameters: `n e + C (d + 1)`.

mod demonstrate;
pub mod template;
pub mod verbalizer;

use candle_core::Tensor;
use ounce_eval::method::{Family, Method};
use ounce_model::Model;
use ounce_model::spec::Spec;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::graph::ops::{self, Factor, Kernels};
use ounce_train::graph::{Hook, Pass, Weight};
use ounce_train::loss::CrossEntropy;
use ounce_train::{Batch, IGNORE, Loss, ParamKind};
use serde::{Deserialize, Serialize};

use self::template::Template;
use self::verbalizer::{Label, Verbalized};
use crate::adapter::Adapter;
use crate::{Error, Result};

const NUMBER: u16 = 16;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Clinical prompt learning",
    family: Family::Peft,
    paper: "Clinical Prompt Learning with Frozen Language Models",
    arxiv: Some("2205.05535"),
    gives: "A few labelled documents suffice to classify text: the question becomes a gap to fill, and only a few thousand numbers are trained.",
    claim: "Prompts on frozen models match or beat fine-tuning in part of the clinical tasks, most clearly with few examples.",
    command: Some(
        "ounce tune MASKED-LM --data FILE --template '<text> {It was} [MASK].' --verbalizer LABELS --soft-verbalizer -o ADAPTER",
    ),
    demonstrate: Some(demonstrate::demonstrate),
};

/// A template and a verbalizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cloze {
    /// The text with its gap.
    pub template: Template,
    /// The labels and their words.
    pub labels: Vec<Label>,
    /// Whether labels have vectors that are trained.
    pub soft: bool,
}

/// How a cloze is asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked<'a> {
    /// `<text> It was [MASK].`
    pub template: &'a str,
    /// Soft tokens in front of the gap.
    pub free: usize,
    /// Labels and words.
    pub verbalizer: &'a [(String, Vec<String>)],
    /// Whether labels have vectors that are trained.
    pub soft: bool,
    /// Decides the tokens that free soft ones begin as.
    pub seed: u64,
}

impl Cloze {
    /// What is asked for, in a tokenizer's tokens, and which words have several of them.
    ///
    /// # Errors
    /// If the template or a word does not suit the tokenizer.
    pub fn new(tokenizer: &Tokenizer, asked: &Asked<'_>) -> Result<(Cloze, Vec<String>)> {
        let template = Template::parse(tokenizer, asked.template, asked.free, asked.seed)?;
        let (labels, several) = verbalizer::labels(tokenizer, &template, asked.verbalizer)?;
        Ok((Cloze { template, labels, soft: asked.soft }, several))
    }

    /// The names of the labels.
    pub fn names(&self) -> Vec<String> {
        self.labels.iter().map(|label| label.name.clone()).collect()
    }

    /// The number of a label.
    ///
    /// # Errors
    /// If the verbalizer has no such label.
    pub fn label(&self, name: &str) -> Result<usize> {
        self.labels.iter().position(|label| label.name == name).ok_or_else(|| {
            Error::Option(format!(
                "the data has the label {name:?}, for which the verbalizer has no words; it has {}",
                self.names().join(", ")
            ))
        })
    }

    /// How many numbers it trains.
    pub fn parameters(&self, base: &Spec) -> u64 {
        let template = self.template.soft().count() * base.embedding_width();
        let labels = if self.soft { self.labels.len() * (head_width(base) + 1) } else { 0 };
        (template + labels) as u64
    }
}

/// Width of what the output matrix is given.
fn head_width(base: &Spec) -> usize {
    match &base.head {
        Some(head) if head.tied => base.embedding_width(),
        _ => base.hidden_size,
    }
}

/// A cloze with its weights, at work.
pub(crate) struct Gap {
    cloze: Cloze,
    /// Tokens with their weights, by label.
    words: Vec<Vec<(usize, f32)>>,
    /// `P`.
    soft_tokens: Option<Weight>,
    /// `W` and `b`.
    vectors: Option<[Weight; 2]>,
}

impl Gap {
    /// The weights as they begin.
    pub fn new(cloze: &Cloze, base: &Model) -> Result<Gap> {
        let Some(head) = base.spec.head.as_ref().filter(|_| !base.spec.causal) else {
            return Err(Error::Option(format!(
                "a template needs a model that fills gaps, a masked language model; this {} model has no such head",
                base.spec.family
            )));
        };
        let words: Vec<Vec<(usize, f32)>> = cloze.labels.iter().map(verbalizer::weights).collect();
        if words.iter().flatten().any(|(id, _)| *id >= base.spec.vocab_size) {
            return Err(Error::Option("the verbalizer's words are of another model's vocabulary".into()));
        }
        let row = |table: &ounce_model::Tensor, id: usize| -> Result<Vec<f32>> {
            let mut values = vec![0.0; table.row_len()];
            table
                .decode_row(id, &mut values)
                .map_err(|error| Error::Option(format!("a table of vectors: {error}")))?;
            Ok(values)
        };
        let soft: Vec<usize> = cloze.template.soft().map(|piece| piece.id as usize).collect();
        let soft_tokens = match soft.is_empty() {
            true => None,
            false => {
                let table = base.weights.get("embed.tokens.weight")?;
                let values: Vec<f32> =
                    soft.iter().map(|&id| row(&table, id)).collect::<Result<Vec<_>>>()?.concat();
                let shape = [soft.len(), base.spec.embedding_width()];
                Some(Weight::new("cloze.template", &shape, ParamKind::Embedding, values)?)
            }
        };
        let vectors = match cloze.soft {
            false => None,
            true => {
                let name = if head.tied { "embed.tokens.weight" } else { "head.weight" };
                let (table, width) = (base.weights.get(name)?, head_width(&base.spec));
                let bias = if head.bias { base.weights.f32("head.bias")? } else { Vec::new() };
                let (mut matrix, mut shift) = (vec![0.0; words.len() * width], vec![0.0; words.len()]);
                for ((out, shift), words) in matrix.chunks_exact_mut(width).zip(&mut shift).zip(&words) {
                    for &(id, share) in words {
                        let share = share * head.scale;
                        out.iter_mut().zip(row(&table, id)?).for_each(|(sum, value)| *sum += share * value);
                        *shift += share * bias.get(id).copied().unwrap_or(0.0);
                    }
                }
                Some([
                    Weight::new("cloze.labels", &[words.len(), width], ParamKind::Matrix, matrix)?,
                    Weight::new("cloze.label_bias", &[words.len()], ParamKind::Bias, shift)?,
                ])
            }
        };
        Ok(Gap { cloze: cloze.clone(), words, soft_tokens, vectors })
    }

    /// All that is trained.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.soft_tokens.iter().chain(self.vectors.iter().flatten())
    }

    /// The loss of the gaps' labels, and their scores, `[gaps, labels]`.
    pub fn loss(&self, pass: &Pass<'_>, hidden: &Tensor) -> ounce_train::Result<(Tensor, Loss, Vec<f32>)> {
        let batch = pass.batch();
        let labels = self.words.len();
        if let Some(label) = batch.targets.iter().find(|&&it| it != IGNORE && it as usize >= labels) {
            return Err(Error::Option(format!("label {label} is outside the verbalizer's {labels}")).into());
        }
        let Some([matrix, bias]) = &self.vectors else {
            let mut verbalized = Verbalized { weights: &self.words, scores: Vec::new() };
            let (value, loss) = pass.loss(hidden, &mut verbalized)?;
            return Ok((value, loss, verbalized.scores));
        };
        let (rows, targets) = gaps(batch);
        let on = Kernels::default();
        let states = ops::gather(on, hidden, &rows.iter().map(|&row| row as u32).collect(), 1.0, 1.0)?;
        let (matrix, bias) = (Factor::Dense(matrix.tensor()?), bias.tensor()?);
        let scores = ops::linear(on, &pass.transformed(&states)?, &matrix, Some(&bias))?;
        let found = scores.flatten_all()?.to_vec1::<f32>()?;
        let (value, sum) = ops::logit_loss(on, &scores, None, &targets, &rows, &mut CrossEntropy)?;
        Ok((value, Loss { sum, count: rows.len() }, found))
    }

    /// `inner` with soft tokens in their places.
    pub fn hook<'h>(
        &'h self,
        inner: Box<dyn Hook + 'h>,
        lengths: &[usize],
        virtual_tokens: usize,
    ) -> Box<dyn Hook + 'h> {
        match &self.soft_tokens {
            None => inner,
            Some(soft) => {
                let template = &self.cloze.template;
                Box::new(Placed {
                    inner,
                    soft: soft.clone(),
                    template,
                    lengths: lengths.to_vec(),
                    virtual_tokens,
                })
            }
        }
    }
}

/// The rows of a batch's gaps, and their labels.
fn gaps(batch: &Batch) -> (Vec<usize>, Vec<u32>) {
    batch.targets.iter().copied().enumerate().filter(|&(_, target)| target != IGNORE).unzip()
}

/// Puts soft tokens in their places; all else is another hook's.
struct Placed<'h> {
    inner: Box<dyn Hook + 'h>,
    soft: Weight,
    template: &'h Template,
    lengths: Vec<usize>,
    virtual_tokens: usize,
}

impl Hook for Placed<'_> {
    fn embedded(&mut self, x: Tensor) -> ounce_train::Result<Tensor> {
        let x = self.inner.embedded(x)?;
        let soft = self.soft.tensor()?;
        let count = soft.dims2()?.0 as u32;
        let mut ids: Vec<u32> = (0..x.dims2()?.0 as u32).map(|row| count + row).collect();
        let mut start = 0;
        for &length in &self.lengths {
            let rows = self.template.soft_rows(length, self.virtual_tokens);
            rows.zip(0..).for_each(|(row, number)| ids[start + row] = number);
            start += length;
        }
        ops::gather(Kernels::default(), &Tensor::cat(&[&soft, &x], 0)?, &ids.into(), 1.0, 1.0)
    }

    fn layer_input(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        self.inner.layer_input(layer, x)
    }

    fn attention_input(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        self.inner.attention_input(layer, x)
    }

    fn shared_attention(&mut self, layer: usize) -> ounce_train::Result<Option<[Tensor; 2]>> {
        self.inner.shared_attention(layer)
    }

    fn attends(&mut self, layer: usize, queries: &Tensor, keys: &Tensor) -> ounce_train::Result<()> {
        self.inner.attends(layer, queries, keys)
    }

    fn attended(&mut self, layer: usize, keys: Tensor, values: Tensor) -> ounce_train::Result<[Tensor; 2]> {
        self.inner.attended(layer, keys, values)
    }

    fn mixed(&mut self, layer: usize, queries: &Tensor, mixed: Tensor) -> ounce_train::Result<Tensor> {
        self.inner.mixed(layer, queries, mixed)
    }

    fn layer_output(&mut self, layer: usize, x: Tensor) -> ounce_train::Result<Tensor> {
        self.inner.layer_output(layer, x)
    }
}

/// Nothing beside the template: the model stays as it is.
pub struct Alone;

impl Adapter for Alone {
    fn parameters(&self, _base: &Spec) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests;
