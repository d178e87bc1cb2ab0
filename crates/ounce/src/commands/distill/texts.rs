//! The text that is learnt and the text that is judged on, as sequences.

use std::sync::Arc;

use anyhow::bail;
use ounce_lab::stories;
use ounce_model::Model;

use super::teaching::TeachingArgs;
use crate::{source, text_input};

/// The part of the text that is held out where no other text is named.
const HELD_OUT: usize = 20;

/// The seed and the bytes of the built-in text; calibration and tests have other seeds.
const SEED: u64 = 503;
const BYTES: usize = 2_000_000;

/// The most bytes on which two tokenizers are compared.
const COMPARED: usize = 200_000;

/// Texts as token ids.
pub struct Texts {
    /// Sequences to learn, each with one more token than is predicted.
    pub learned: Arc<[Vec<u32>]>,
    /// What is judged on.
    pub test: Test,
    /// Tokens of a sequence that are predicted.
    pub context: usize,
}

/// One document to be judged on.
pub struct Test {
    /// In the student's tokens.
    pub ids: Vec<u32>,
    /// In the teacher's, where those are others, and the token before them.
    pub others: Option<(Vec<u32>, Option<u32>)>,
    /// Bytes of its text.
    pub bytes: usize,
}

impl Texts {
    /// Whether teacher and student cut texts into the same tokens.
    pub fn same_tokens(&self) -> bool {
        self.test.others.is_none()
    }

    /// Reads and cuts them.
    ///
    /// # Errors
    /// If a text can't be read or is too short.
    pub fn read(teacher: &Model, student: &Model, args: &TeachingArgs) -> anyhow::Result<Texts> {
        let (text, name) = match &args.text {
            Some(path) => (text_input::file(path)?, path.display().to_string()),
            None => (stories::corpus(SEED, BYTES), "the generated text".to_owned()),
        };
        let same = same_tokenizer(teacher, student, &text)?;
        let longest = teacher.spec.context_length.min(student.spec.context_length);
        let context = match args.context {
            Some(context) if context > longest => {
                bail!("--context {context} is more than the models can read; {longest} is the most")
            }
            Some(context) => context,
            None => longest.min(256),
        };
        let tokenizer = source::tokenizer(student)?;
        let mut ids = tokenizer.encode(&text, false)?;
        let mut test = match &args.test {
            Some(path) => tokenizer.encode(&text_input::file(path)?, false)?,
            None if args.no_test => Vec::new(),
            None => ids.split_off(ids.len() - ids.len() / HELD_OUT),
        };
        test.truncate(args.test_tokens.max(2));
        let prefix = source::text_start(student);
        let size = context + usize::from(prefix.is_none());
        let mut learned: Vec<Vec<u32>> =
            ids.chunks(size).map(|ids| prefix.into_iter().chain(ids.iter().copied()).collect()).collect();
        learned.retain(|ids| ids.len() > 1);
        if learned.len() < 2 || (!args.no_test && test.len() < 2) {
            bail!("{name} gives {} tokens, which is too few to learn from; give a longer text", ids.len());
        }
        let text = tokenizer.decode(&test, false)?;
        let others = match same {
            true => None,
            false => Some((source::tokenizer(teacher)?.encode(&text, false)?, source::text_start(teacher))),
        };
        let test = Test { ids: test, others, bytes: text.len() };
        Ok(Texts { learned: learned.into(), test, context })
    }
}

/// Whether both models cut the text into the same tokens of one vocabulary.
fn same_tokenizer(teacher: &Model, student: &Model, text: &str) -> anyhow::Result<bool> {
    let end = (0..=COMPARED.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let [of_teacher, of_student] =
        [teacher, student].map(|model| anyhow::Ok(source::tokenizer(model)?.encode(&text[..end], false)?));
    Ok(of_teacher? == of_student? && teacher.spec.vocab_size == student.spec.vocab_size)
}
