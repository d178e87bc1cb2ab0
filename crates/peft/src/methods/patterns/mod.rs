//! Pattern-exploiting training with adapters (Schick and Schütze, "Exploiting Cloze Questions for Few Shot Text Classification and Natural Language
//! Inference", arXiv 2001.07676, section 3), as "Few-shot learning for automated content analysis" puts it on adapters.
//!
//! 1. For each pattern `P` (a template of [`super::cloze`] with given words `v(y)`) and each run an adapter is trained by
//!    `L = (1 − α) CE + α MLM`: cross-entropy of `q(y|x) = softmax_y s(y|x)`, `s` the logit of `v(y)` at the gap, and that of hidden tokens of the
//!    unlabelled texts.
//! 2. They label the unlabelled texts: `p(y|x) = softmax_y(Σ_k w_k s_k(y|x) / (T Σ_k w_k))`, `T = 2`, `w_k` the share of labelled texts that the
//!    pattern got right before anything was learned.
//! 3. A classifier, an adapter and a head, learns these: `T² KL(p ‖ softmax(logits / T))`.
//!
//! With more generations (iPET) each pattern learns anew from what the others are surest of, `5` times as much each time, as many of each label.
//! How far the runs agree on the unlabelled texts is Krippendorff's alpha.
//!
//! Parameters: those of the method under the patterns, and the classifier's head.

mod demonstrate;
mod soft;

use std::sync::Arc;

use ounce_eval::method::{Family, Method};
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::data::agreement::kappa::krippendorff;
use ounce_train::data::labelled::texts::{Labelled, examples};
use ounce_train::data::labelled::{Example, LabelledSettings, LabelledStream, batch};
use ounce_train::data::masked::{MaskSettings, MaskedStream};
use ounce_train::data::{BatchSource, Cache, Documents};
use ounce_train::loss::CrossEntropy;
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Options};
use ounce_train::{Batch, Loss, Param, Trainable};

use super::cloze::Cloze;
use crate::few::Dice;
use crate::{Adapted, Error, Kind, Result, Settings};

const NUMBER: u16 = 101;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "Few-shot content analysis",
    family: Family::Peft,
    paper: "Few-shot learning for automated content analysis: Efficient coding of arguments and claims in the debate on arms deliveries to Ukraine",
    arxiv: None,
    gives: "Cloze patterns and label words turn some dozens of marked sentences into a classifier whose weights are a few MB to share.",
    claim: "Adapters with pattern-exploiting training are as valid as full fine-tuning, and a related earlier task helps much.",
    command: Some(
        "ounce tune MASKED-LM --data FILE --patterns FILE --verbalizer LABELS --unlabelled FILE -o ADAPTER",
    ),
    demonstrate: Some(demonstrate::demonstrate),
};

/// How much more each generation labels.
const GROWTH: usize = 5;

/// How patterns are exploited.
#[derive(Debug, Clone)]
pub struct Exploit {
    /// The patterns, of the same labels, without anything soft.
    pub patterns: Vec<Cloze>,
    /// What is trained under them, and under the classifier.
    pub settings: Settings,
    /// α: the part of hidden tokens in the loss.
    pub words: f64,
    /// T.
    pub temperature: f64,
    /// Runs of each pattern.
    pub runs: usize,
    /// Generations; 1 for no pattern that learns from others.
    pub generations: usize,
    /// Steps of each pattern, and of the classifier.
    pub steps: [u64; 2],
    /// Highest learning rate.
    pub rate: f64,
    /// Texts of a step.
    pub at_once: usize,
    /// Tokens of a text at most.
    pub limit: usize,
    /// Decides what is random.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Exploited {
    /// The classifier.
    pub net: Adapted,
    /// The classifier's labels.
    pub labels: Vec<String>,
    /// w: what each pattern got right before anything was learned.
    pub weights: Vec<f64>,
    /// Krippendorff's alpha of all patterns' and runs' labels of the unlabelled texts.
    pub agreement: f64,
    /// Probabilities of the unlabelled texts' labels.
    pub soft: Vec<Vec<f32>>,
}

/// Labelled texts, with the numbers of their labels.
pub type Few = [(String, usize)];

/// Told what is being done and how far it is, 0 to 1; may end it.
pub type Told<'t> = dyn FnMut(&str, f64) -> Result<()> + 't;

/// A pattern's adapter with its share of hidden tokens.
struct Pattern {
    net: Adapted,
    words: f64,
    hidden: Option<MaskedStream>,
}

impl Trainable for Pattern {
    fn params(&self) -> &[Param] {
        self.net.params()
    }

    fn params_mut(&mut self) -> &mut [Param] {
        self.net.params_mut()
    }

    fn loss(&mut self, batch: &Batch) -> ounce_train::Result<Loss> {
        self.net.loss(batch)
    }

    /// `(1 − α)` of the gaps' loss, and `α` of the hidden tokens', each as a mean.
    fn accumulate(&mut self, batch: &Batch, scale: f32) -> ounce_train::Result<Loss> {
        let Some(hidden) = &mut self.hidden else { return self.net.accumulate(batch, scale) };
        let loss = self.net.accumulate(batch, scale * (1.0 - self.words) as f32)?;
        if let Some(more) = hidden.next()? {
            let share = scale * batch.counted() as f32 / more.counted().max(1) as f32;
            self.net.by(&more, Some(share * self.words as f32), &mut CrossEntropy)?;
        }
        Ok(loss)
    }

    fn scores(&mut self, batch: &Batch) -> ounce_train::Result<Vec<f32>> {
        self.net.scores(batch)
    }

    fn workspace_bytes(&self, tokens: usize) -> usize {
        self.net.workspace_bytes(tokens)
    }

    fn save(&self, folder: &std::path::Path) -> ounce_train::Result<()> {
        self.net.save(folder)
    }
}

fn tokenizer(model: &Model) -> Result<&Tokenizer> {
    model.tokenizer.as_ref().ok_or_else(|| Error::Option("the model has no tokenizer".into()))
}

/// Hidden tokens of texts.
fn hidden(model: &Model, texts: &[String], limit: usize, at_once: usize, seed: u64) -> Result<MaskedStream> {
    let (known, vocabulary) = (tokenizer(model)?, model.spec.vocab_size as u32);
    let special = known.special();
    let (Some(mask), Some(cls), Some(sep)) = (special.mask, special.cls, special.sep) else {
        return Err(Error::Option("this tokenizer has no [MASK] between a [CLS] and a [SEP]".into()));
    };
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| known.encode(text, false)).collect::<ounce_model::Result<_>>()?;
    let filled = ids.iter().map(Vec::as_slice).filter(|ids| !ids.is_empty());
    let cache = Arc::new(Cache::in_memory(filled, vocabulary)?);
    // About as many tokens as a step of gaps has.
    let average = ids.iter().map(Vec::len).sum::<usize>() / ids.len().max(1) + 2;
    let settings = MaskSettings {
        context: limit,
        sequences: (at_once * average).div_ceil(limit).max(1),
        seed,
        epochs: None,
        rate: 0.15,
        longest_run: 1,
        mask,
        cls,
        sep,
        never: (0..vocabulary).filter(|id| known.is_special(*id)).collect(),
        order: None,
    };
    Ok(MaskedStream::new(Documents::all(cache), settings)?)
}

fn best(scores: &[f32]) -> usize {
    (0..scores.len()).fold(0, |best, at| if scores[at] > scores[best] { at } else { best })
}

/// `softmax(scores / T)`.
fn softened(scores: impl IntoIterator<Item = f64>, temperature: f64) -> Vec<f32> {
    let mut all: Vec<f32> = scores.into_iter().map(|score| (score / temperature) as f32).collect();
    ounce_kernels::softmax::softmax(&mut all);
    all
}

impl Exploit {
    fn check(&self, few: &Few, pool: &[String]) -> Result<()> {
        let Some(first) = self.patterns.first() else {
            return Err(Error::Option(
                "there are no patterns; write a template a line, '<text> It was [MASK].'".into(),
            ));
        };
        if self.patterns.iter().any(|it| it.names() != first.names()) {
            return Err(Error::Option("all patterns should have the same labels".into()));
        }
        if few.is_empty() || pool.is_empty() {
            return Err(Error::Option(
                "patterns need some labelled texts, and unlabelled ones to be labelled".into(),
            ));
        }
        if !(0.0..1.0).contains(&self.words)
            || self.temperature <= 0.0
            || self.runs == 0
            || self.generations == 0
        {
            return Err(Error::Option(format!(
                "hidden tokens are a part of the loss from 0 to below 1, runs and generations 1 or more; found {}, {} and {}",
                self.words, self.runs, self.generations
            )));
        }
        if matches!(self.settings.method, Kind::Cloze | Kind::Crosstune) {
            return Err(Error::Option(
                "patterns have nothing soft; choose a method that lies under them, bottleneck".into(),
            ));
        }
        Ok(())
    }

    fn examples(&self, model: &Model, pattern: &Cloze, texts: &Few) -> Result<Vec<Example>> {
        let (known, types) = (tokenizer(model)?, model.spec.embedding.token_types > 1);
        let one = |(text, label): &(String, usize)| {
            Ok(pattern.template.example(known, text, Some(*label), self.limit, types)?.0)
        };
        texts.iter().map(one).collect()
    }

    fn fit(&self, net: &mut dyn Trainable, all: Vec<Example>, steps: u64, seed: u64) -> Result<()> {
        let order =
            LabelledSettings { examples: self.at_once.min(all.len()), seed, shuffle: true, epochs: None };
        crate::few::fit(net, &mut LabelledStream::new(all, order)?, (self.rate, &[]), steps)
    }

    /// A pattern's adapter, trained first on `near` if there are such, then on `few`; and what it gets right of `few` before.
    fn pattern(
        &self,
        model: &Model,
        at: usize,
        seed: u64,
        near: &Few,
        few: &Few,
        pool: &[String],
    ) -> Result<(Pattern, f64)> {
        let cloze = &self.patterns[at];
        let settings = Settings { seed, cloze: Some(cloze.clone()), ..self.settings.clone() };
        let net = Adapted::new(model, &settings, Options::default())?;
        let hidden = match self.words > 0.0 {
            true => Some(hidden(model, pool, self.limit, self.at_once, seed)?),
            false => None,
        };
        let mut pattern = Pattern { net, words: self.words, hidden };
        let examples = self.examples(model, cloze, few)?;
        let labels = cloze.labels.len();
        let mut right = 0;
        for (some, texts) in examples.chunks(32).zip(few.chunks(32)) {
            let scores = pattern.scores(&batch(some))?;
            right += scores.chunks_exact(labels).zip(texts).filter(|(row, text)| best(row) == text.1).count();
        }
        if !near.is_empty() {
            self.fit(&mut pattern, self.examples(model, cloze, near)?, self.steps[0], seed)?;
        }
        self.fit(&mut pattern, examples, self.steps[0], seed)?;
        Ok((pattern, right as f64 / few.len() as f64))
    }

    /// A pattern's scores of texts, `[texts, labels]`.
    fn asked(
        &self,
        model: &Model,
        pattern: &mut Pattern,
        at: usize,
        pool: &[String],
    ) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<(String, usize)> = pool.iter().map(|text| (text.clone(), 0)).collect();
        let labels = self.patterns[at].labels.len();
        let mut all = Vec::with_capacity(pool.len());
        for some in self.examples(model, &self.patterns[at], &texts)?.chunks(32) {
            all.extend(pattern.scores(&batch(some))?.chunks_exact(labels).map(<[f32]>::to_vec));
        }
        Ok(all)
    }

    /// The weighted mean of scores, softened; without those of `but`, where others are left.
    fn joined(&self, scores: &[Vec<Vec<f32>>], weights: &[f64], but: Option<usize>) -> Vec<Vec<f32>> {
        let Some(texts) = scores.first().map(Vec::len) else { return Vec::new() };
        let voices = (0..scores.len()).filter(|&at| but != Some(at) || scores.len() == 1);
        // A pattern that got nothing right still has a voice where all did so.
        let nothing = voices.clone().all(|at| weights[at] == 0.0);
        let weight = |at: usize| if nothing { 1.0 } else { weights[at] };
        let whole: f64 = voices.clone().map(weight).sum();
        let one = |text: usize| {
            let labels = scores[0][text].len();
            let mean = |label: usize| {
                voices.clone().map(|at| weight(at) * f64::from(scores[at][text][label])).sum::<f64>() / whole
            };
            softened((0..labels).map(mean), self.temperature)
        };
        (0..texts).map(one).collect()
    }

    /// What a generation learns besides: the texts that others are surest of, so many of each label.
    fn surest(&self, soft: &[Vec<f32>], pool: &[String], each: usize, seed: u64) -> Vec<(String, usize)> {
        let labels = soft.first().map_or(0, Vec::len);
        let mut chosen = Vec::new();
        for label in 0..labels {
            let mut own: Vec<usize> = (0..pool.len()).filter(|&at| best(&soft[at]) == label).collect();
            Dice::new(seed).shuffle(&mut own);
            own.sort_by(|&a, &b| soft[b][label].total_cmp(&soft[a][label]));
            chosen.extend(own.into_iter().take(each).map(|at| (pool[at].clone(), label)));
        }
        chosen
    }

    /// Trains all patterns, labels the unlabelled texts and trains the classifier. `near` are texts of a neighbouring task with the same labels,
    /// learned first; empty for none.
    ///
    /// # Errors
    /// If something does not fit, or `told` ends it.
    pub fn run(
        &self,
        model: &Model,
        near: &Few,
        few: &Few,
        pool: &[String],
        told: &mut Told<'_>,
    ) -> Result<Exploited> {
        self.check(few, pool)?;
        let voices = self.patterns.len() * self.runs;
        let parts = (voices * self.generations + 1) as f64;
        let (mut scores, mut weights): (Vec<Vec<Vec<f32>>>, Vec<f64>) = (Vec::new(), Vec::new());
        let mut each = few.len().div_ceil(self.patterns[0].labels.len());
        for generation in 0..self.generations {
            let (mut next, mut begun) = (Vec::new(), Vec::new());
            each *= if generation == 0 { 1 } else { GROWTH };
            for voice in 0..voices {
                let done = (generation * voices + voice) as f64 / parts;
                told("patterns", done)?;
                let (at, seed) = (
                    voice % self.patterns.len(),
                    self.seed.wrapping_add((voice / self.patterns.len()) as u64 * 7919),
                );
                let mut learned = few.to_vec();
                if generation > 0 {
                    let others = self.joined(&scores, &weights, Some(voice));
                    learned.extend(self.surest(&others, pool, each - each / GROWTH, seed));
                }
                let (mut pattern, right) = self.pattern(model, at, seed, near, &learned, pool)?;
                next.push(self.asked(model, &mut pattern, at, pool)?);
                begun.push(right);
            }
            // Weights are those of what was labelled by people.
            if generation == 0 {
                weights = begun;
            }
            scores = next;
        }
        told("the classifier", 1.0 - 1.0 / parts)?;
        let soft = self.joined(&scores, &weights, None);
        let labels = self.patterns[0].names();
        let net = self.classifier(model, &labels, few, pool, &soft)?;
        let counts: Vec<Vec<usize>> = (0..pool.len())
            .map(|text| {
                let mut counts = vec![0; labels.len()];
                scores.iter().for_each(|voice| counts[best(&voice[text])] += 1);
                counts
            })
            .collect();
        Ok(Exploited { net, labels, weights, agreement: krippendorff(&counts), soft })
    }

    /// An adapter and a head that learn the unlabelled texts' probabilities; of labelled ones the label is certain.
    fn classifier(
        &self,
        model: &Model,
        labels: &[String],
        few: &Few,
        pool: &[String],
        soft: &[Vec<f32>],
    ) -> Result<Adapted> {
        let made = with_classifier(model, Task::Texts, labels, Init::default(), self.seed)?;
        let mut trains = self.settings.trains.clone();
        trains.push("classifier.".into());
        let settings = Settings { seed: self.seed, trains, cloze: None, ..self.settings.clone() };
        let mut net = Adapted::new(&made, &settings, Options::default())?;
        let types = model.spec.embedding.token_types > 1;
        let texts: Vec<Labelled> = few
            .iter()
            .map(|(text, label)| (text, *label))
            .chain(pool.iter().zip(soft.iter().map(|row| best(row))))
            .map(|(text, label)| Labelled { text: text.clone(), pair: None, label: labels[label].clone() })
            .collect();
        let (examples, _) = examples(tokenizer(model)?, &texts, labels, self.limit, types)?;
        if examples.len() != texts.len() {
            return Err(Error::Option("an unlabelled text is empty; leave it out".into()));
        }
        let certain = few
            .iter()
            .map(|(_, label)| (0..labels.len()).map(|at| f32::from(u8::from(at == *label))).collect());
        let targets: Vec<Vec<f32>> = certain.chain(soft.iter().cloned()).collect();
        soft::fit(&mut net, &examples, &targets, self)?;
        Ok(net)
    }
}

#[cfg(test)]
mod tests;
