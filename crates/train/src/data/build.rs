//! Builds caches of tokens from files, or finds that one is there already.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ounce_model::storage::AtomicFile;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::cache::{Cache, Header, Writer};
use super::encode::{Encoder, Sequence};
use super::form::{Example, Form};
use super::readers::{ReadOptions, Record, Records, expand};
use crate::{Error, Result};

/// So many examples, or so many bytes of them, are tokenized at a time by all threads.
const EXAMPLES: usize = 4096;
const BYTES: usize = 8 << 20;

/// What a cache is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Files, folders, patterns.
    pub paths: Vec<PathBuf>,
    /// How they are read.
    pub read: ReadOptions,
    /// What their columns mean; by default the first record tells.
    pub form: Option<Form>,
    /// How examples become ids.
    pub encoder: Encoder,
}

/// A cache and how it came to be.
#[derive(Debug, Clone)]
pub struct Built {
    /// The cache.
    pub cache: Cache,
    /// Whether it was there already.
    pub reused: bool,
}

/// Told the bytes read and the bytes of all files; an error ends the work.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64) -> ounce_model::Result<()>;

impl Recipe {
    /// The cache at `path` if it was made from the same files, settings and tokenizer, else a new one in its place. A
    /// damaged one is made again.
    ///
    /// # Errors
    /// If a file can't be read or used, nothing is left to learn, or the cache can't be written.
    pub fn open_or_build(&self, path: &Path, progress: OnProgress<'_>) -> Result<Built> {
        let files = expand(&self.paths)?;
        let identity = self.identity(&files)?;
        if path.exists() {
            match Cache::open(path) {
                Ok(cache) if same(cache.header(), &identity) => return Ok(Built { cache, reused: true }),
                Ok(_) => tracing::info!("{} was made from something else and is made again", path.display()),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        let file = AtomicFile::create(path)?;
        let file = self.write(files, identity, file, path, progress)?;
        file.commit()?;
        Ok(Built { cache: Cache::open(path)?, reused: false })
    }

    /// A cache that is only in memory, for small data.
    ///
    /// # Errors
    /// As [`Recipe::open_or_build`].
    pub fn in_memory(&self) -> Result<Cache> {
        let files = expand(&self.paths)?;
        let identity = self.identity(&files)?;
        let path = Path::new("(in memory)");
        let buffer =
            self.write(files, identity, std::io::Cursor::new(Vec::new()), path, &mut |_, _| Ok(()))?;
        Cache::from_bytes(buffer.into_inner().into(), path)
    }

    fn write<W: std::io::Write + std::io::Seek>(
        &self,
        files: Vec<PathBuf>,
        identity: Header,
        out: W,
        path: &Path,
        progress: OnProgress<'_>,
    ) -> Result<W> {
        let mut records = Records::of_files(files, &self.read)?;
        let first = records.next().transpose()?.ok_or_else(|| empty(&self.paths))?;
        let form = self.form.clone().map_or_else(|| Form::detect(&first), Ok)?;
        let header = Header { has_loss: form.has_answers(), pairs: form == Form::Preference, ..identity };
        let io = |error| Error::Model(ounce_model::Error::io(path)(error));
        let mut writer = Writer::new(out, header).map_err(io)?;
        let mut waiting = Some(first);
        loop {
            let examples = batch(&mut waiting, &mut records, &form)?;
            if examples.is_empty() {
                break;
            }
            let encoded: Vec<Result<Vec<Sequence>>> =
                examples.par_iter().map(|(place, example)| self.encode(place, example)).collect();
            for sequences in encoded {
                push(&mut writer, &sequences?).map_err(io)?;
            }
            progress(records.bytes_read(), records.bytes_total())?;
        }
        let counts = writer.header();
        if counts.sequences == 0 {
            return Err(Error::Settings(format!(
                "none of the {} documents in {} has two tokens and something to learn; is the right column chosen?",
                counts.skipped,
                names(&self.paths)
            )));
        }
        if counts.truncated > 0 {
            tracing::warn!(
                "{} examples are longer than {} tokens and were cut; {} left out because nothing to learn remained",
                counts.truncated,
                self.encoder.limits().max_length,
                counts.skipped
            );
        }
        writer.finish().map_err(io)
    }

    fn encode(&self, place: &str, example: &Example) -> Result<Vec<Sequence>> {
        self.encoder.encode(example).map_err(|error| Error::data(place, error.to_string()))
    }

    /// The hashes that a cache made from this has.
    fn identity(&self, files: &[PathBuf]) -> Result<Header> {
        let tokenizer = self.encoder.tokenizer();
        let special = format!("{:?}", tokenizer.special());
        let mut source = Sha256::new();
        let settings = serde_json::json!({
            "read": self.read, "form": self.form, "limits": self.encoder.limits(),
            "template": self.encoder.template().map(|template| template.sources()),
        });
        source.update(settings.to_string());
        for file in files {
            let told = std::fs::metadata(file).map_err(ounce_model::Error::io(file))?;
            let changed = told.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            source.update(file.as_os_str().as_encoded_bytes());
            source.update(format!("\0{}\0{:?}\0", told.len(), changed));
        }
        Ok(Header {
            id_limit: tokenizer.id_limit(),
            tokenizer: Sha256::new()
                .chain_update(tokenizer.to_json()?)
                .chain_update(special)
                .finalize()
                .into(),
            source: source.finalize().into(),
            ..Header::default()
        })
    }
}

/// The next examples, with their places.
fn batch(waiting: &mut Option<Record>, records: &mut Records, form: &Form) -> Result<Vec<(String, Example)>> {
    let (mut examples, mut bytes) = (Vec::new(), 0);
    while examples.len() < EXAMPLES && bytes < BYTES {
        let Some(record) = waiting.take().map(Ok).or_else(|| records.next()).transpose()? else { break };
        let place = record.place.to_string();
        let example = form.example(record)?;
        bytes += size(&example);
        examples.push((place, example));
    }
    Ok(examples)
}

fn size(example: &Example) -> usize {
    match example {
        Example::Text(text) => text.len(),
        Example::Alpaca { instruction, input, output } => instruction.len() + input.len() + output.len(),
        Example::Chat { messages, .. } => messages.iter().map(|message| message.text().len()).sum(),
        Example::Completion { prompt, answer } => prompt.len() + answer.len(),
        Example::Preference(pair) => pair.iter().map(size).sum(),
    }
}

/// Writes the sequences of one example, or counts it as left out.
fn push<W: std::io::Write + std::io::Seek>(
    writer: &mut Writer<W>,
    sequences: &[Sequence],
) -> std::io::Result<()> {
    if sequences.iter().any(|sequence| sequence.truncated) {
        writer.truncated();
    }
    if !sequences.iter().all(Sequence::is_usable) {
        writer.skipped();
        return Ok(());
    }
    sequences.iter().try_for_each(|sequence| writer.push(&sequence.ids, &sequence.counts))
}

fn same(a: &Header, b: &Header) -> bool {
    (a.tokenizer, a.source, a.id_limit) == (b.tokenizer, b.source, b.id_limit)
}

fn empty(paths: &[PathBuf]) -> Error {
    Error::Settings(format!("there is no document in {}; the files are empty", names(paths)))
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
