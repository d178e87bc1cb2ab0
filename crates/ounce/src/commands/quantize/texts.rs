//! The texts on which a model is calibrated and compared.

use std::path::PathBuf;

use anyhow::bail;
use ounce_eval::similarity::Ids;
use ounce_lab::stories;
use ounce_model::Model;

use super::super::embed::{Encoded, encode, longest};
use crate::{source, text_input};

/// Seeds of the built-in texts; the built-in models were trained on others.
const CALIBRATION_SEED: u64 = 501;
const TEST_SEED: u64 = 777;

/// Bytes of the built-in texts.
const CALIBRATION_BYTES: usize = 400_000;
const TEST_BYTES: usize = 60_000;

/// Lines of the test text on which sentence vectors are compared.
const SENTENCES: usize = 500;

/// Flags that choose the text of calibration.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Texts")]
pub struct CalibrationArgs {
    /// Text like what the model will read, some 100 kB of it; `-` is stdin [default: generated English tales, which suit
    /// the built-in models; a real model deserves a text of its own]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Tokens of it that are used, spread evenly
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    calibration_tokens: usize,
}

/// Flags that choose the text of comparison.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Texts")]
pub struct TestArgs {
    /// Text on which the new model is compared with the original, encoders line by line [default: generated English tales]
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Compare nothing at the end
    #[arg(long, conflicts_with = "test")]
    no_test: bool,
}

/// Flags that choose both texts.
#[derive(Debug, Clone, clap::Args)]
pub struct TextArgs {
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    #[command(flatten)]
    pub test: TestArgs,
}

impl CalibrationArgs {
    /// Calibration sequences: pieces of the text, each behind the token that begins texts.
    ///
    /// # Errors
    /// If the text can't be read or is too short, or the model has no tokenizer.
    pub fn sequences(&self, model: &Model) -> anyhow::Result<Vec<Vec<u32>>> {
        let text = match &self.calibration {
            Some(path) => text_input::file(path)?,
            None => stories::corpus(CALIBRATION_SEED, CALIBRATION_BYTES),
        };
        let ids = source::tokenizer(model)?.encode(&text, false)?;
        let prefix = source::text_start(model);
        let length = sequence_length(model) - usize::from(prefix.is_some());
        let sequences = pieces(&ids, length, self.calibration_tokens);
        let least = 4 * length.min(64);
        let tokens = sequences.iter().map(Vec::len).sum::<usize>();
        if tokens < least {
            let name = self
                .calibration
                .as_ref()
                .map_or("the calibration text".into(), |it| it.display().to_string());
            bail!(
                "{name} gives {tokens} tokens for calibration, which is too few to say anything; give {least} at least, some thousand better"
            );
        }
        Ok(sequences.into_iter().map(|ids| prefix.into_iter().chain(ids).collect()).collect())
    }

    /// Where the text comes from, in a few words.
    pub fn name(&self) -> &str {
        self.path().and_then(|path| path.to_str()).unwrap_or("generated tales")
    }

    /// The text's file, if one was named.
    pub fn path(&self) -> Option<&std::path::Path> {
        self.calibration.as_deref()
    }
}

impl TestArgs {
    /// Whether anything is compared.
    pub fn compares(&self) -> bool {
        !self.no_test
    }

    /// Documents to compare on.
    ///
    /// # Errors
    /// If the text can't be read, or the model has no tokenizer.
    pub fn documents(&self, model: &Model) -> anyhow::Result<Vec<Vec<u32>>> {
        Ok(vec![source::tokenizer(model)?.encode(&self.test_text()?, false)?])
    }

    /// Texts on which sentence vectors are compared: the lines of the test text, spread evenly.
    ///
    /// # Errors
    /// If there are fewer than two, or the model has no tokenizer.
    pub fn sentences(&self, model: &Model) -> anyhow::Result<Vec<Ids>> {
        let text = self.test_text()?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.len() < 2 {
            bail!("sentence vectors are compared line by line; give a --test text with two lines at least");
        }
        let (tokenizer, limit) = (source::tokenizer(model)?, longest(model));
        let count = lines.len().min(SENTENCES);
        (0..count)
            .map(|index| {
                let line = lines[index * lines.len() / count];
                let Encoded { ids, types, .. } = encode(model, tokenizer, line, None, limit)?;
                Ok(Ids { ids, types })
            })
            .collect()
    }

    fn test_text(&self) -> anyhow::Result<String> {
        match &self.test {
            Some(path) => text_input::file(path),
            None => Ok(stories::corpus(TEST_SEED, TEST_BYTES)),
        }
    }
}

/// Tokens of a sequence.
pub fn sequence_length(model: &Model) -> usize {
    model.spec.context_length.clamp(2, 512)
}

/// Whole pieces of `length` tokens, `tokens` in all at most, spread evenly; a text shorter than a piece is one.
fn pieces(ids: &[u32], length: usize, tokens: usize) -> Vec<Vec<u32>> {
    let whole: Vec<&[u32]> = ids.chunks(length).filter(|it| it.len() == length).collect();
    if whole.is_empty() {
        return if ids.is_empty() { Vec::new() } else { vec![ids.to_vec()] };
    }
    let wanted = (tokens / length).clamp(1, whole.len());
    (0..wanted).map(|index| whole[index * whole.len() / wanted].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_and_spread() {
        let ids: Vec<u32> = (0..105).collect();
        let found = pieces(&ids, 10, 50);
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|it| it.len() == 10));
        assert_eq!((found[0][0], found[4][0]), (0, 80));
        assert_eq!(pieces(&ids[..7], 10, 50), [ids[..7].to_vec()]);
        assert!(pieces(&[], 10, 50).is_empty());
    }
}
