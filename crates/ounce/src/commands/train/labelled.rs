//! Runs on data with labels: texts, words with tags, questions whose answers stand in a text.

use anyhow::bail;
use ounce_model::Model;
use ounce_model::families::classifier::label_names;
use ounce_train::config::{Config, Objective};
use ounce_train::data::BatchSource;
use ounce_train::data::labelled::judge::Judge;
use ounce_train::data::labelled::questions::{Asked, Question};
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream, read, split, tags, texts};
use ounce_train::net::classifier::{Task, with_classifier};

use super::setup::{self, Fed};
use crate::source;

/// The highest learning rate for a model that knows its language (BERT's range is 2e-5 to 5e-5).
const TUNING_RATE: f64 = 5e-5;

/// What a run with labels is to learn; none for language models.
pub(in crate::commands) fn task(config: &Config, model: &Model) -> anyhow::Result<Option<Task>> {
    let own = model.spec.classifier.map(|classifier| Task::of(classifier.of));
    Ok(match (config.data.objective, own) {
        (Objective::Classify, _) => Some(Task::Texts),
        (Objective::Tag, _) => Some(Task::Tokens),
        (Objective::Spans, _) => Some(Task::Spans),
        (Objective::Auto, own) => own,
        (_, Some(_)) => bail!(
            "this model is a classifier; set data.objective to classify, tag or spans, or leave it auto"
        ),
        (_, None) => None,
    })
}

/// What is read of the files, by task.
enum Read {
    Texts(Vec<texts::Labelled>),
    Tokens(Vec<tags::Tagged>),
    Spans(Vec<Question>),
}

impl Read {
    fn of(task: Task, paths: &[std::path::PathBuf]) -> anyhow::Result<Read> {
        Ok(match task {
            Task::Texts => Read::Texts(read::texts(paths)?),
            Task::Tokens => Read::Tokens(read::tags(paths)?),
            Task::Spans => Read::Spans(read::questions(paths)?),
        })
    }

    fn split(self, held_out: f64, seed: u64) -> ounce_train::Result<(Read, Read)> {
        Ok(match self {
            Read::Texts(all) => {
                let (kept, held) = split(all, held_out, seed, |it| it.text.clone())?;
                (Read::Texts(kept), Read::Texts(held))
            }
            Read::Tokens(all) => {
                let (kept, held) = split(all, held_out, seed, |it| it.words.join(" "))?;
                (Read::Tokens(kept), Read::Tokens(held))
            }
            Read::Spans(all) => {
                let (kept, held) = split(all, held_out, seed, |it| it.context.clone())?;
                (Read::Spans(kept), Read::Spans(held))
            }
        })
    }

    fn labels(&self) -> Vec<String> {
        match self {
            Read::Texts(all) => texts::names(all.iter().map(|it| it.label.as_str())),
            Read::Tokens(all) => texts::names(all.iter().flat_map(|it| &it.tags).map(String::as_str)),
            Read::Spans(_) => Vec::new(),
        }
    }
}

/// The model with a head for the labels of the data, and what a run with labels is fed with.
pub(in crate::commands) fn fed(
    config: &Config,
    model: &Model,
    task: Task,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Model, Fed)> {
    if config.data.train.is_empty() {
        bail!("data.train names no files; add data.train = [\"train.jsonl\"]");
    }
    let seed = config.train.seed;
    let whole = Read::of(task, &config.data.train)?;
    // The model's labels stay where it has some.
    let own = model.spec.classifier.filter(|it| Task::of(it.of) == task && task != Task::Spans);
    let labels = match own {
        Some(classifier) => {
            let known = label_names(&model.config, classifier.labels);
            if let Some(other) = whole.labels().iter().find(|label| !known.contains(label)) {
                bail!("the data has the label {other:?}, but the model knows only {}", known.join(", "));
            }
            known
        }
        None => whole.labels(),
    };
    if task != Task::Spans && labels.len() < 2 {
        bail!("the data has {} different labels; a classifier tells two or more apart", labels.len());
    }
    let (train, held) = match (config.data.validation.is_empty(), config.data.held_out) {
        (false, _) => (whole, Some(Read::of(task, &config.data.validation)?)),
        (true, 0.0) => (whole, None),
        (true, part) => {
            let (train, held) = whole.split(part, seed)?;
            (train, Some(held))
        }
    };
    let made = with_classifier(model, task, &labels, config.model.initial(), seed)?;
    let encode = Encode { config, model: &made, labels: &labels };
    let (examples, _) = encode.run(train, "training", notes)?;
    let sequences = examples.len() as u64;
    let stream = |examples, epochs, shuffle| {
        let settings = LabelledSettings { examples: config.train.batch, seed, shuffle, epochs };
        LabelledStream::new(examples, settings)
    };
    let train: Box<dyn BatchSource> = Box::new(stream(examples, None, config.data.shuffle)?);
    let (mut validation, mut judge): (Option<Box<dyn BatchSource>>, Option<Judge>) = (None, None);
    if let Some(held) = held {
        let (examples, own) = encode.run(held, "validation", notes)?;
        let most = config.validation.batches * config.train.batch;
        judge = Some(if most > 0 { own.first(most) } else { own });
        validation = Some(Box::new(stream(examples, Some(1), false)?));
    }
    let per_step = (config.train.batch * config.train.accumulation) as u64;
    let average = train.tokens_per_epoch().div_ceil(sequences.max(1));
    let fed = Fed {
        train,
        validation,
        judge,
        context: setup::context(config, model),
        tokens_per_step: per_step * average,
        lengths: (per_step, sequences),
        usual_rate: (!config.model.from.is_empty()).then_some(TUNING_RATE),
    };
    Ok((made, fed))
}

/// From what was read to examples.
struct Encode<'c> {
    config: &'c Config,
    model: &'c Model,
    labels: &'c [String],
}

impl Encode<'_> {
    /// The examples, and a judge on them.
    fn run(&self, data: Read, what: &str, notes: &mut Vec<String>) -> anyhow::Result<(Vec<Example>, Judge)> {
        let tokenizer = source::tokenizer(self.model)?;
        let spec = &self.model.spec;
        let limit = match self.config.data.context {
            0 => spec.context_length,
            context => context.min(spec.context_length),
        };
        let (types, labels) = (spec.embedding.token_types > 1, self.labels.len());
        let mut note_cut = |cut: usize, all: usize| {
            if cut > 0 {
                notes
                    .push(format!("{cut} of {all} {what} texts are longer than {limit} tokens and were cut"));
            }
        };
        Ok(match data {
            Read::Texts(texts) => {
                let (examples, cut) = texts::examples(tokenizer, &texts, self.labels, limit, types)?;
                note_cut(cut, examples.len());
                (examples.clone(), Judge::Texts { examples, labels })
            }
            Read::Tokens(sentences) => {
                let (examples, cut) = tags::examples(tokenizer, &sentences, self.labels, limit, types)?;
                note_cut(cut, examples.len());
                let outside = self.labels.iter().position(|label| label == "O").map(|label| label as u32);
                (examples.clone(), Judge::Tokens { examples, labels, outside })
            }
            Read::Spans(questions) => {
                let (mut asked, mut left_out) = (Vec::with_capacity(questions.len()), 0);
                for question in questions {
                    match Asked::new(tokenizer, &question, limit, self.config.data.stride, types)? {
                        Some(windows) => asked.push((question, windows)),
                        None => left_out += 1,
                    }
                }
                if left_out > 0 {
                    notes.push(format!(
                        "{left_out} {what} questions are longer than {limit} tokens and were left out"
                    ));
                }
                let examples = asked.iter().flat_map(|(_, asked)| asked.windows.clone()).collect();
                let articles = self.config.validation.articles;
                (examples, Judge::Spans { questions: asked, articles })
            }
        })
    }
}
