//! From tokenized documents to the batches of an objective.

use anyhow::{Context, bail, ensure};
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::config::{Config, Objective};
use ounce_train::data::masked::{MaskSettings, MaskedStream};
use ounce_train::data::reference::{Reference, Scored};
use ounce_train::data::samples::{BatchSize, SampleSettings, SampleStream};
use ounce_train::data::{BatchSource, Documents, LanguageStream, Packing, StreamSettings};
use ounce_train::net::Net;

use crate::progress::{Progress, Unit};

/// What batches are made with.
pub(super) struct Batches<'r> {
    pub config: &'r Config,
    pub tokenizer: &'r Tokenizer,
    /// The most tokens of a sequence.
    pub context: usize,
}

/// Whether hidden tokens are learned.
pub(super) fn is_masked(config: &Config, model: &Model) -> anyhow::Result<bool> {
    use Objective::{Answers, Auto, Language, Masked, Preferences};
    match (config.data.objective, model.spec.causal) {
        (Objective::Retrieve, _) => {
            bail!("queries and passages are learned by adapters; see ounce tune --objective retrieve")
        }
        (Masked, true) => bail!("data.objective masked is for encoders; this model is a decoder"),
        (Language | Answers | Preferences, false) => {
            bail!(
                "this model is an encoder, which learns hidden tokens; set data.objective to masked or auto"
            )
        }
        (Masked | Auto, false) => Ok(true),
        _ => Ok(false),
    }
}

impl Batches<'_> {
    /// The source of a run's batches, and the tokens that one has, about.
    pub fn of(
        &self,
        documents: Documents,
        net: &mut Net,
        epochs: Option<u64>,
        shuffle: bool,
    ) -> anyhow::Result<(Box<dyn BatchSource>, usize)> {
        let Batches { config, context, .. } = *self;
        let (sequences, seed) = (config.train.batch, config.train.seed);
        let tokens = sequences * context;
        if is_masked(config, net.skeleton())? {
            let source = MaskedStream::new(documents, self.masks(epochs)?)?;
            return Ok((Box::new(source), tokens));
        }
        match self.objective(&documents)? {
            Objective::Answers => self.answers(documents, epochs, shuffle),
            Objective::Preferences => {
                let reference = self.reference(&documents, net)?;
                let settings = self.samples(BatchSize::Tokens(tokens), epochs, shuffle);
                let source = SampleStream::new(documents, settings)?.with_reference(reference)?;
                Ok((Box::new(source), tokens))
            }
            _ => {
                ensure!(
                    config.data.packing == Packing::None,
                    "data.packing lays out answers; text has no padding to save, set it to none"
                );
                let layout = config.data.layout;
                let settings = StreamSettings { context, sequences, seed, shuffle, epochs, layout };
                Ok((Box::new(LanguageStream::new(documents, settings)?), tokens))
            }
        }
    }

    /// What a decoder learns: as the file says, or as the data speaks for.
    fn objective(&self, documents: &Documents) -> anyhow::Result<Objective> {
        let header = documents.cache().header();
        let begins = !self.config.model.from.is_empty();
        match (self.config.data.objective, header.has_loss, header.pairs) {
            (Objective::Preferences, _, false) => {
                bail!(
                    "preferences are learned from records with the columns chosen and rejected; this data has none"
                )
            }
            (Objective::Preferences, ..) if !begins => {
                bail!("preferences are learned by a model that can answer; name it in model.from")
            }
            (Objective::Answers, false, _) => {
                bail!("the data has no answers to learn; set data.objective to language")
            }
            (Objective::Auto, _, true) if begins => Ok(Objective::Preferences),
            (Objective::Auto, true, _) => Ok(Objective::Answers),
            (Objective::Auto, false, _) => Ok(Objective::Language),
            (objective, ..) => Ok(objective),
        }
    }

    /// Answers in rows. A batch has `train.batch` rows of the context, or as many samples as have so many tokens together.
    fn answers(
        &self,
        documents: Documents,
        epochs: Option<u64>,
        shuffle: bool,
    ) -> anyhow::Result<(Box<dyn BatchSource>, usize)> {
        let sequences = self.config.train.batch;
        let tokens = sequences * self.context;
        let a_row_each = matches!(self.config.data.packing, Packing::Fixed | Packing::Padded);
        let size = if a_row_each { BatchSize::Samples(sequences) } else { BatchSize::Tokens(tokens) };
        let source = SampleStream::new(documents, self.samples(size, epochs, shuffle))?;
        let mean = source.tokens_per_epoch() as usize / source.units().max(1);
        Ok((Box::new(source), if a_row_each { (sequences * mean).max(1) } else { tokens }))
    }

    fn samples(&self, size: BatchSize, epochs: Option<u64>, shuffle: bool) -> SampleSettings {
        let config = self.config;
        SampleSettings {
            context: self.context,
            size,
            seed: config.train.seed,
            shuffle,
            epochs,
            packing: config.data.packing,
            isolated: config.data.isolated,
            pad: self.tokenizer.special().pad.unwrap_or(0),
        }
    }

    /// What the model thinks of the answers before it learns to choose: from a file beside the tokens, or computed.
    fn reference(&self, documents: &Documents, net: &mut Net) -> anyhow::Result<Reference> {
        let cache = documents.cache();
        let path = cache.path().with_extension("reference.bin");
        let tokens = self.config.train.batch * self.context;
        let of = Scored { cache, context: self.context, tokens, model: net.fingerprint()? };
        let mut bar = Progress::new("asking the reference", Unit::Items);
        let watch = crate::interrupt::Watch::start();
        let mut progress = |done, total| {
            bar.set(done, total);
            watch.check()
        };
        let mut score = |batch: &ounce_train::Batch| net.log_probabilities(batch);
        Ok(Reference::open_or_compute(&path, of, &mut score, &mut progress)?)
    }

    fn masks(&self, epochs: Option<u64>) -> anyhow::Result<MaskSettings> {
        let (config, tokenizer) = (self.config, self.tokenizer);
        let special = tokenizer.special();
        let need = |id: Option<u32>, what: &str| {
            id.with_context(|| format!("the tokenizer has no {what} token, which masked training needs"))
        };
        let never = (0..tokenizer.id_limit()).filter(|&id| tokenizer.is_special(id)).collect();
        Ok(MaskSettings {
            context: self.context,
            sequences: config.train.batch,
            seed: config.train.seed,
            epochs,
            rate: config.data.mask,
            longest_run: 1,
            mask: need(special.mask, "mask")?,
            cls: need(special.cls.or(special.bos), "cls")?,
            sep: need(special.sep.or(special.eos.first().copied()), "sep")?,
            never,
            order: None,
        })
    }
}
