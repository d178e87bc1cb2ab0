//! Labels as words that fill a gap: the flags of templates and verbalizers, and what such a run is fed with.

use std::path::Path;

use anyhow::{Context, bail};
use ounce_model::Model;
use ounce_peft::methods::cloze::{Asked, Cloze, verbalizer};
use ounce_train::config::{Config, Objective};
use ounce_train::data::BatchSource;
use ounce_train::data::labelled::judge::Judge;
use ounce_train::data::labelled::texts::Labelled;
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream, read, split};

use super::Fed;
use crate::source;

/// Flags of templates.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Labels as words that fill a gap (masked language models)")]
pub(super) struct ClozeArgs {
    /// The text with its gap, such as `<text> It was [MASK].`; the vectors of words in {braces} are trained
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// Labels and the words that stand for them: 'good=great,fine;bad=poor', or a file with a label a line
    #[arg(long, value_name = "LABELS")]
    pub verbalizer: Option<String>,
    /// Trained vectors in front of the gap
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub soft_template: usize,
    /// Train a vector for each label, which begins as the mean of its words'
    #[arg(long, requires = "verbalizer")]
    pub soft_verbalizer: bool,
    /// How many times faster vectors of a template learn than all else
    #[arg(long, value_name = "RATIO", default_value_t = 5.0)]
    pub template_rate: f64,
}

impl ClozeArgs {
    /// Whether there is to be a gap.
    pub fn wanted(&self) -> bool {
        self.template.is_some() || self.soft_template > 0
    }

    /// Labels and words as they are given.
    pub fn words(&self) -> anyhow::Result<Vec<(String, Vec<String>)>> {
        let Some(given) = &self.verbalizer else {
            bail!(
                "a template needs --verbalizer: the words that stand for each label, 'good=great,fine;bad=poor' or a file"
            );
        };
        let path = Path::new(given);
        let text = match path.is_file() {
            true => std::fs::read_to_string(path).with_context(|| format!("{given} can't be read"))?,
            false if !given.contains(['=', ';', '\n']) => {
                bail!("{given} is no file, and no list of labels such as 'good=great,fine;bad=poor'")
            }
            false => given.clone(),
        };
        Ok(verbalizer::parse(&text)?)
    }

    /// The cloze, if one is asked for.
    pub fn cloze(&self, model: &Model, seed: u64, notes: &mut Vec<String>) -> anyhow::Result<Option<Cloze>> {
        if !self.wanted() {
            return Ok(None);
        }
        let template = self.template.as_deref().unwrap_or("<text> [MASK]");
        let words = self.words()?;
        let asked = Asked {
            template,
            free: self.soft_template,
            verbalizer: &words,
            soft: self.soft_verbalizer,
            seed,
        };
        let (cloze, several) = Cloze::new(source::tokenizer(model)?, &asked)?;
        if !several.is_empty() {
            notes.push(format!("of several tokens, whose logits are averaged: {}", several.join(", ")));
        }
        Ok(Some(cloze))
    }
}

/// What a run on texts with a gap is fed with.
pub(super) fn fed(
    config: &Config,
    model: &Model,
    cloze: &Cloze,
    notes: &mut Vec<String>,
) -> anyhow::Result<Fed> {
    if !matches!(config.data.objective, Objective::Auto | Objective::Classify) {
        bail!("a template is for labels of texts; leave --objective out or set it to classify");
    }
    let seed = config.train.seed;
    let whole = read::texts(&config.data.train)?;
    let (train, held) = match (config.data.validation.is_empty(), config.data.held_out) {
        (false, _) => (whole, Some(read::texts(&config.data.validation)?)),
        (true, 0.0) => (whole, None),
        (true, part) => {
            let (train, held) = split(whole, part, seed, |it: &Labelled| it.text.clone())?;
            (train, Some(held))
        }
    };
    let train = examples(config, model, cloze, &train, "training", notes)?;
    let sequences = train.len() as u64;
    let stream = |examples, epochs, shuffle| {
        let settings = LabelledSettings { examples: config.train.batch, seed, shuffle, epochs };
        LabelledStream::new(examples, settings)
    };
    let train: Box<dyn BatchSource> = Box::new(stream(train, None, true)?);
    let (mut validation, mut judge): (Option<Box<dyn BatchSource>>, Option<Judge>) = (None, None);
    if let Some(held) = held {
        let examples = examples(config, model, cloze, &held, "validation", notes)?;
        judge = Some(Judge::Texts { examples: examples.clone(), labels: cloze.labels.len() });
        validation = Some(Box::new(stream(examples, Some(1), false)?));
    }
    let per_step = (config.train.batch * config.train.accumulation) as u64;
    let average = train.tokens_per_epoch().div_ceil(sequences.max(1));
    Ok(Fed {
        train,
        validation,
        judge,
        context: config.data.context,
        tokens_per_step: per_step * average,
        lengths: (per_step, sequences),
        usual_rate: None,
    })
}

/// Texts in the template.
pub(super) fn examples(
    config: &Config,
    model: &Model,
    cloze: &Cloze,
    texts: &[Labelled],
    what: &str,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Example>> {
    let tokenizer = source::tokenizer(model)?;
    let limit = match config.data.context {
        0 => model.spec.context_length,
        context => context.min(model.spec.context_length),
    };
    let types = model.spec.embedding.token_types > 1;
    let (mut all, mut cut) = (Vec::with_capacity(texts.len()), 0);
    for Labelled { text, pair, label } in texts {
        let text = pair.as_ref().map_or_else(|| text.clone(), |pair| format!("{text} {pair}"));
        let label = cloze.label(label)?;
        let (example, was_cut) = cloze.template.example(tokenizer, &text, Some(label), limit, types)?;
        cut += usize::from(was_cut);
        all.push(example);
    }
    if cut > 0 {
        notes.push(format!(
            "{cut} of {} {what} texts leave no room for the template in {limit} tokens and were cut",
            all.len()
        ));
    }
    Ok(all)
}
