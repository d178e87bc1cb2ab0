//! For encoders: whether words of a sentence changed places, and which words of a text it had before.

use ounce_eval::method::{Lab, Text};
use ounce_model::Model;
use ounce_train::Trainable;
use ounce_train::data::BatchSource;
use ounce_train::data::labelled::judge::Judge;
use ounce_train::data::labelled::tags::{self, Tagged};
use ounce_train::data::labelled::texts::{self, Labelled};
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream, batch};
use ounce_train::net::Init;
use ounce_train::net::classifier::{Task as Labels, with_classifier};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::cell::Value;
use super::super::task::{Learner, Task};
use crate::{Error, Result};

/// Sentences of a step.
const SENTENCES: usize = 12;
/// Tokens of a text at most.
const LONGEST: usize = 32;
/// Texts by which rates are chosen.
const CHOOSING: usize = 64;
/// The seed of a new head.
const HEAD: u64 = 7;

/// Which task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// Whether words changed places.
    Order,
    /// Which words were there before.
    Repeats,
}

/// The task.
pub struct Sentences {
    model: Model,
    name: String,
    asks: Asks,
    learn: Vec<Example>,
    choose: Vec<Example>,
    test: Vec<Example>,
}

impl Sentences {
    /// So many sentences to learn from and to be judged by.
    ///
    /// # Errors
    /// If the model has no tokenizer.
    pub fn new(
        lab: &dyn Lab,
        base: &Model,
        name: &str,
        asks: Asks,
        learn: usize,
        test: usize,
    ) -> Result<Sentences> {
        let labels: Vec<String> = match asks {
            Asks::Order => ["changed", "right"].map(str::to_owned).into(),
            Asks::Repeats => ["O", "again"].map(str::to_owned).into(),
        };
        let kind = if asks == Asks::Order { Labels::Texts } else { Labels::Tokens };
        let model = with_classifier(base, kind, &labels, Init::default(), HEAD)?;
        let tokenizer = model
            .tokenizer
            .as_ref()
            .ok_or_else(|| Error::Option(format!("{name} has no tokenizer, which texts need")))?;
        let types = model.spec.embedding.token_types > 1;
        let examples = |text: Text, count: usize, seed: u64| -> Result<Vec<Example>> {
            let sentences = drawn(lab, text, count, asks);
            let mut random = ChaCha8Rng::seed_from_u64(lab.seed() ^ seed);
            Ok(match asks {
                Asks::Order => {
                    let all: Vec<Labelled> =
                        sentences.into_iter().map(|words| ordered(words, &mut random)).collect();
                    texts::examples(tokenizer, &all, &labels, LONGEST, types)?.0
                }
                Asks::Repeats => {
                    let all: Vec<Tagged> = sentences.into_iter().map(repeats).collect();
                    tags::examples(tokenizer, &all, &labels, LONGEST, types)?.0
                }
            })
        };
        let learn = examples(Text::Train, learn, 1)?;
        let mut choose = examples(Text::HeldOut, CHOOSING + test, 2)?;
        let test = choose.split_off(CHOOSING.min(choose.len()));
        if test.is_empty() {
            return Err(Error::Option("there are too few sentences".into()));
        }
        Ok(Sentences { name: name.to_owned(), asks, learn, choose, test, model })
    }
}

/// Words of so many sentences; of pairs of them where words are to come again.
fn drawn(lab: &dyn Lab, text: Text, count: usize, asks: Asks) -> Vec<Vec<String>> {
    let text = lab.text(text, count * 220);
    let sentences = text.split_inclusive(['.', '!', '?']).map(|sentence| {
        let words = sentence.split_whitespace().map(str::to_owned);
        words.collect::<Vec<String>>()
    });
    let fits = |words: &Vec<String>| (4..=12).contains(&words.len());
    let sentences: Vec<Vec<String>> = sentences.filter(fits).collect();
    match asks {
        Asks::Order => sentences.into_iter().take(count).collect(),
        Asks::Repeats => sentences.chunks_exact(2).map(<[_]>::concat).take(count).collect(),
    }
}

/// A sentence, every other one by chance with its inner words in another order.
fn ordered(mut words: Vec<String>, random: &mut ChaCha8Rng) -> Labelled {
    let before = words.clone();
    // The last word has the full stop, and the first a capital: both would give it away.
    let last = words.len().saturating_sub(1);
    if random.random::<bool>() && last > 1 {
        words[1..last].shuffle(random);
    }
    let label = if words == before { "right" } else { "changed" };
    Labelled { text: words.join(" "), pair: None, label: label.to_owned() }
}

/// A text whose words are marked where they stood before.
fn repeats(words: Vec<String>) -> Tagged {
    let bare = |word: &String| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let known: Vec<String> = words.iter().map(bare).collect();
    let tag = |at: usize| if known[..at].contains(&known[at]) { "again" } else { "O" };
    let tags = (0..words.len()).map(|at| tag(at).to_owned()).collect();
    Tagged { words, tags }
}

impl Task for Sentences {
    fn name(&self) -> &str {
        match self.asks {
            Asks::Order => "order",
            Asks::Repeats => "repeats",
        }
    }

    fn model_name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> String {
        let pieces = [&self.learn, &self.choose, &self.test];
        let ids = pieces.map(|all| all.iter().map(|it| &it.ids).collect::<Vec<_>>());
        super::identity(&self.model, &ids.each_ref())
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn heads(&self) -> Vec<String> {
        ["classifier.", "token_classifier."].map(str::to_owned).into()
    }

    fn source(&self, seed: u64) -> Result<Box<dyn BatchSource>> {
        let settings = LabelledSettings { examples: SENTENCES, seed, shuffle: true, epochs: None };
        Ok(Box::new(LabelledStream::new(self.learn.clone(), settings)?))
    }

    fn loss(&self, learner: &mut Learner) -> Result<f64> {
        let mut sum = ounce_train::Loss::default();
        for some in self.choose.chunks(32) {
            sum += learner.loss(&batch(some))?;
        }
        Ok(sum.mean())
    }

    fn judge(&self, learner: &mut Learner, _seed: u64) -> Result<Vec<Value>> {
        let examples = self.test.clone();
        let judge = match self.asks {
            Asks::Order => Judge::Texts { examples, labels: 2 },
            Asks::Repeats => Judge::Tokens { examples, labels: 2, outside: Some(0) },
        };
        let found = judge.judge(learner, 32)?;
        let percent = |part: Option<f64>| 100.0 * part.unwrap_or(f64::NAN);
        let (accuracy, f1) =
            (Value::new("accuracy", percent(found.accuracy), "%"), Value::new("F1", percent(found.f1), "%"));
        // Most words are new: accuracy alone would praise who says so of all.
        Ok(if self.asks == Asks::Order { vec![accuracy, f1] } else { vec![f1, accuracy] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_change_places_inside_of_sentences_and_repeats_are_marked() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let sentence = "The cat saw a bird.";
        let all: Vec<Labelled> = (0..40).map(|_| ordered(words(sentence), &mut random)).collect();
        for it in &all {
            assert_eq!(it.label == "right", it.text == sentence, "{}", it.text);
            assert!(it.text.starts_with("The ") && it.text.ends_with(" bird."), "{}", it.text);
        }
        let changed = all.iter().filter(|it| it.label == "changed").count();
        assert!((8..30).contains(&changed), "{changed}");
        let tagged = repeats(words("The cat saw a bird. A cat, the bird."));
        assert_eq!(tagged.tags.join(" "), "O O O O O again again again again");
    }
}
