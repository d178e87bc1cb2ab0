//! A task for encoders, made of tales: of two sentences, does the second follow the first, come right before it, or stand in another
//! tale? Three labels, equally frequent.

use ounce_eval::method::{Fixture, Lab, Text};
use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::data::labelled::frame::Framed;
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream, Target, batch};
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Net, Options};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Error, Result};

/// Names of the labels.
const LABELS: [&str; 3] = ["follows", "precedes", "elsewhere"];

/// Tokens of an example at most.
const LIMIT: usize = 48;

/// Examples that judge at once.
const AT_ONCE: usize = 64;

/// Pairs of sentences of one tale.
const PAIRS: usize = 3;

/// An encoder, and pairs of sentences to learn from and to be judged by.
pub(crate) struct Ordering {
    encoder: Model,
    pub train: Vec<Example>,
    test: Vec<Example>,
}

fn sentences(tale: &str) -> Vec<&str> {
    tale.split_inclusive(['.', '!', '?']).map(str::trim).filter(|it| it.len() > 12).collect()
}

/// Examples of a text's tales; neighbours are of one tale, and the label is drawn.
fn examples(encoder: &Model, text: &str, seed: u64) -> Result<Vec<Example>> {
    let Some(tokenizer) = &encoder.tokenizer else {
        return Err(Error::Option("the built-in encoder has no tokenizer".into()));
    };
    let tales: Vec<Vec<&str>> = text.split("\n\n").map(sentences).filter(|it| it.len() > 2).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut examples = Vec::new();
    for (number, tale) in tales.iter().enumerate() {
        for _ in 0..PAIRS.min(tale.len() - 1) {
            let at = random.random_range(0..tale.len() - 1);
            let label = random.random_range(0..LABELS.len());
            let (first, second) = match label {
                0 => (tale[at], tale[at + 1]),
                1 => (tale[at + 1], tale[at]),
                _ => {
                    let other = &tales[(number + random.random_range(1..tales.len().max(2))) % tales.len()];
                    (tale[at], other[random.random_range(0..other.len())])
                }
            };
            let framed = Framed::new(tokenizer, Some(first), second, true)?;
            let (ids, types) = framed.sequence(&framed.beginning(LIMIT)?.0);
            if !ids.is_empty() {
                examples.push(Example { ids, types, target: Target::Label(label as u32) });
            }
        }
    }
    Ok(examples)
}

impl Ordering {
    /// The built-in encoder, and examples of so many bytes of tales each.
    pub fn new(lab: &dyn Lab, train: usize, test: usize) -> Result<Ordering> {
        let encoder = lab.model(Fixture::Encoder)?;
        let train = examples(&encoder, &lab.text(Text::Train, train), lab.seed())?;
        let test = examples(&encoder, &lab.text(Text::HeldOut, test), lab.seed())?;
        Ok(Ordering { encoder, train, test })
    }

    /// The encoder with a classifier of random weights.
    pub fn model(&self, seed: u64) -> Result<Model> {
        let labels = LABELS.map(str::to_owned);
        Ok(with_classifier(&self.encoder, Task::Texts, &labels, Init::default(), seed)?)
    }

    /// Examples to learn from, in an order of the seed, for ever.
    pub fn source(&self, examples: usize, seed: u64) -> Result<LabelledStream> {
        let settings = LabelledSettings { examples, seed, shuffle: true, epochs: None };
        Ok(LabelledStream::new(self.train.clone(), settings)?)
    }

    /// The share of right labels of examples that were not learned from.
    pub fn accuracy(&self, model: &Model) -> Result<f64> {
        let mut net = Net::with_frozen(model, Options::default(), &|_| false)?;
        let mut right = 0;
        for some in self.test.chunks(AT_ONCE) {
            let scores = net.scores(&batch(some))?;
            for (example, scores) in some.iter().zip(scores.chunks_exact(LABELS.len())) {
                let best =
                    (0..LABELS.len()).fold(0, |best, id| if scores[id] > scores[best] { id } else { best });
                right += usize::from(example.target == Target::Label(best as u32));
            }
        }
        Ok(right as f64 / self.test.len().max(1) as f64)
    }

    /// For notes.
    pub fn said(&self) -> String {
        format!(
            "The built-in encoder learns to tell of two sentences of generated tales whether the second follows, precedes, or is of another \
             tale; {} pairs to learn from, {} of other tales to be judged by.",
            self.train.len(),
            self.test.len()
        )
    }
}
