//! A teacher with another tokenizer.
//!
//! Both read the same text. Where the teacher's next token is exactly the student's (the same bytes at the same place), its
//! prediction is told in the student's tokens: the probability of each of its tokens goes to the student's token of the same bytes,
//! or, where there is none, to the one that the student would begin these bytes with. Where they cut the text
//! differently the teacher has no word for what comes, and the lesson is the text's own token.

use std::collections::HashMap;
use std::sync::Arc;

use ounce_model::tokenizer::Tokenizer;

use super::teacher::{Lesson, Teacher};
use crate::loss::{Predictions, TeacherRows};
use crate::net::Net;
use crate::{Batch, Error, IGNORE, Result};

/// Logarithm of the probability of what a lesson holds for impossible: small, and still a number.
const NEVER: f32 = -80.0;

/// For each of a student's targets the row of the teacher's answer, if it has one.
type Rows = Vec<Option<usize>>;

/// A network that is asked in its own tokens and answers in the student's.
#[derive(Debug)]
pub struct TranslatedTeacher {
    net: Net,
    own: Tokenizer,
    /// The token before every text of the teacher's.
    start: Option<u32>,
    /// The bytes of each of the student's tokens; empty for special ones.
    pieces: Vec<Vec<u8>>,
    /// The student's token for each of the teacher's; [`IGNORE`] where there is none.
    words: Arc<[u32]>,
    vocabulary: usize,
}

impl TranslatedTeacher {
    /// From a teacher with its tokenizer and the token that it wants before a text, for a student with a vocabulary of so many entries.
    ///
    /// # Errors
    /// If no token of the teacher's has a word in the student's.
    pub fn new(
        net: Net,
        own: &Tokenizer,
        start: Option<u32>,
        student: &Tokenizer,
        vocabulary: usize,
    ) -> Result<TranslatedTeacher> {
        let limit = vocabulary.min(student.id_limit() as usize) as u32;
        let pieces: Vec<Vec<u8>> = (0..limit)
            .map(|id| if student.is_special(id) { Vec::new() } else { student.piece_bytes(id) })
            .collect();
        let mut by_bytes: HashMap<&[u8], u32> = HashMap::new();
        for (piece, id) in pieces.iter().zip(0..).filter(|(piece, _)| !piece.is_empty()) {
            by_bytes.entry(piece).or_insert(id);
        }
        let end = student.special().eos.first().copied().unwrap_or(IGNORE);
        let word = |id: u32| -> u32 {
            if own.is_special(id) {
                return if own.is_end(id) { end } else { IGNORE };
            }
            let bytes = own.piece_bytes(id);
            if let Some(id) = by_bytes.get(bytes.as_slice()) {
                return *id;
            }
            let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.is_empty());
            let begun = text.and_then(|text| student.encode(text, false).ok()?.first().copied());
            begun.filter(|id| *id < limit).unwrap_or(IGNORE)
        };
        let count = net.skeleton().spec.vocab_size;
        let known = own.id_limit().min(count as u32);
        let words: Arc<[u32]> =
            (0..known).map(word).chain(std::iter::repeat_n(IGNORE, count - known as usize)).collect();
        if words.iter().all(|word| *word == IGNORE) {
            return Err(Error::Unsupported(
                "no token of the teacher's can be said in the student's; choose a student with a tokenizer of text".into(),
            ));
        }
        Ok(TranslatedTeacher { net, own: own.clone(), start, pieces, words, vocabulary })
    }

    /// The student's token for each of the teacher's; [`IGNORE`] where there is none.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The share of a batch's targets for which the teacher has a prediction.
    ///
    /// # Errors
    /// If the text can't be cut.
    pub fn understood(&self, batch: &Batch) -> Result<f64> {
        let (_, rows) = self.questions(batch)?;
        let known = rows.iter().filter(|row| row.is_some()).count();
        Ok(known as f64 / rows.len().max(1) as f64)
    }

    /// What the teacher is asked for a student's batch, and the row of its answer for each target, if it has one.
    fn questions(&self, batch: &Batch) -> Result<(Vec<Vec<u32>>, Rows)> {
        let (mut asked, mut rows) = (Vec::new(), Vec::new());
        let (mut first, mut answers) = (0, 0);
        for &length in &batch.lengths {
            let tokens = &batch.tokens[first..first + length];
            let targets = &batch.targets[first..first + length];
            first += length;
            let ids: Vec<u32> =
                tokens.iter().chain(targets.last().filter(|id| **id != IGNORE)).copied().collect();
            let mut of_ids = vec![None; ids.len()];
            let is_text = |id: &u32| self.pieces.get(*id as usize).is_some_and(|piece| !piece.is_empty());
            let mut at = 0;
            // Texts between special tokens are read apart.
            for part in ids.chunk_by(|a, b| is_text(a) == is_text(b)) {
                if is_text(&part[0]) {
                    let question = self.question(part, answers, &mut of_ids[at..at + part.len()])?;
                    answers += question.len().saturating_sub(1);
                    asked.extend((question.len() > 1).then_some(question));
                }
                at += part.len();
            }
            let counted = targets.iter().enumerate().filter(|(_, id)| **id != IGNORE);
            rows.extend(counted.map(|(at, _)| of_ids.get(at + 1).copied().flatten()));
        }
        Ok((asked, rows))
    }

    /// The teacher's tokens of a text of the student's. `rows` gets, for each of the student's tokens that is one of the teacher's, the row
    /// of the teacher's prediction of it; `answers` rows are before these.
    fn question(&self, ids: &[u32], answers: usize, rows: &mut [Option<usize>]) -> Result<Vec<u32>> {
        let mut bytes = Vec::new();
        let mut spans: HashMap<(usize, usize), usize> = HashMap::new();
        for (place, id) in ids.iter().enumerate() {
            let begin = bytes.len();
            bytes.extend_from_slice(&self.pieces[*id as usize]);
            spans.insert((begin, bytes.len()), place);
        }
        // Pieces of texts may begin and end within a character.
        let begin = bytes.iter().take(3).take_while(|byte| (**byte & 0xC0) == 0x80).count();
        let text = match std::str::from_utf8(&bytes[begin..]) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[begin..begin + error.valid_up_to()]).unwrap_or_default(),
        };
        let mut question: Vec<u32> = self.start.into_iter().collect();
        let longest = self.net.skeleton().spec.context_length + 1;
        let mut before = begin;
        for (id, span) in self.own.encode_with_offsets(text)? {
            if question.len() == longest {
                break;
            }
            let end = begin + span.end;
            // Nothing predicts the first token of all.
            if let Some(place) = spans.get(&(before, end)).filter(|_| !question.is_empty() && end > before) {
                rows[*place] = Some(answers + question.len() - 1);
            }
            question.push(id);
            before = before.max(end);
        }
        Ok(question)
    }
}

impl Teacher for TranslatedTeacher {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn streams(&self) -> Option<(usize, usize)> {
        None
    }

    fn lesson(&mut self, batch: &Batch, _: &[usize]) -> Result<Lesson> {
        let (asked, rows) = self.questions(batch)?;
        let mut answers = Predictions::default();
        if !asked.is_empty() {
            let questions = Batch::next_token(asked.iter().map(Vec::as_slice));
            self.net.run(&questions, None, &mut answers)?;
        }
        let targets = batch.targets.iter().copied().filter(|id| *id != IGNORE);
        let rows = rows.into_iter().zip(targets).collect();
        let words = self.words.clone();
        Ok(Lesson { rows: Box::new(TranslatedRows { answers, rows, words }), streams: Vec::new() })
    }
}

/// A teacher's answers in the student's tokens.
#[derive(Debug)]
struct TranslatedRows {
    answers: Predictions,
    /// For each target the row of the teacher's answer, if it has one, and the text's own token.
    rows: Vec<(Option<usize>, u32)>,
    words: Arc<[u32]>,
}

impl TeacherRows for TranslatedRows {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn fill(&self, row: usize, _: &[f32], into: &mut [f32]) {
        let (answer, target) = self.rows[row];
        into.fill(0.0);
        if let Some(answer) = answer {
            let width = self.answers.width();
            let values = &self.answers.values[answer * width..][..width];
            for (value, word) in values.iter().zip(&*self.words) {
                if let Some(sum) = into.get_mut(*word as usize) {
                    *sum += value.exp();
                }
            }
        } else if let Some(own) = into.get_mut(target as usize) {
            *own = 1.0;
        }
        let all: f32 = into.iter().sum();
        into.iter_mut().for_each(|p| *p = (*p / all.max(f32::MIN_POSITIVE)).ln().max(NEVER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Preset};
    use crate::tokenizer::{TokenizerSettings, train};

    const TEXT: &str = "the theory of the thing is that other things are there, and a café is not a cafeteria; the theorem holds";

    fn tokenizer(vocab_size: usize) -> Tokenizer {
        let settings = TokenizerSettings { vocab_size, min_frequency: 1, ..TokenizerSettings::default() };
        train([Ok(TEXT.repeat(3))].into_iter(), &settings).expect("a tokenizer")
    }

    fn net(vocabulary: usize) -> Net {
        let shape = config::Model {
            preset: Preset::Llama,
            hidden: 16,
            layers: 1,
            heads: 2,
            context: 64,
            ..config::Model::default()
        };
        let model = shape.architecture(vocabulary, []).expect("a shape");
        Net::random(&model, Default::default(), shape.initial(), 3).expect("a network")
    }

    fn translated(of_teacher: &Tokenizer, of_student: &Tokenizer) -> TranslatedTeacher {
        let count = of_student.vocab_size();
        TranslatedTeacher::new(net(of_teacher.vocab_size()), of_teacher, None, of_student, count)
            .expect("a teacher")
    }

    #[test]
    fn in_the_same_tokens_nothing_is_lost() {
        let tokenizer = tokenizer(300);
        let mut teacher = translated(&tokenizer, &tokenizer);
        let ids = tokenizer.encode(TEXT, false).expect("ids");
        let batch = Batch::next_token([&ids[..20], &ids[..12]]);
        assert_eq!(teacher.understood(&batch).expect("a share"), 1.0);
        let mut plain = Predictions::default();
        teacher.net.run(&batch, None, &mut plain).expect("predictions");
        let lesson = teacher.lesson(&batch, &[]).expect("a lesson");
        assert_eq!(lesson.rows.rows(), plain.rows());
        let (mut a, mut b) = (vec![0.0; plain.width()], vec![0.0; plain.width()]);
        for row in 0..plain.rows() {
            lesson.rows.fill(row, &[], &mut a);
            plain.fill(row, &[], &mut b);
            // Special tokens that end nothing have no word.
            let gone: f32 =
                (0..b.len()).filter(|id| teacher.words[*id] == IGNORE).map(|id| b[id].exp()).sum();
            for (id, (a, b)) in a.iter().zip(&b).enumerate().filter(|(id, _)| teacher.words[*id] != IGNORE) {
                assert!((a - (b - (1.0 - gone).ln())).abs() < 1e-4, "{row} {id}: {a} {b}");
            }
        }
    }

    #[test]
    fn in_other_tokens_it_says_what_it_can() {
        let (coarse, fine) = (tokenizer(330), tokenizer(270));
        for (of_teacher, of_student) in [(&coarse, &fine), (&fine, &coarse)] {
            let mut teacher = translated(of_teacher, of_student);
            let ids = of_student.encode(TEXT, false).expect("ids");
            let batch = Batch::next_token([ids.as_slice()]);
            let share = teacher.understood(&batch).expect("a share");
            assert!(share > 0.1 && share < 1.0, "{share}");
            let (_, rows) = teacher.questions(&batch).expect("questions");
            let lesson = teacher.lesson(&batch, &[]).expect("a lesson");
            let mut row = vec![0.0; of_student.vocab_size()];
            for (place, known) in rows.iter().enumerate() {
                lesson.rows.fill(place, &[], &mut row);
                let sum: f32 = row.iter().map(|p| p.exp()).sum();
                assert!((sum - 1.0).abs() < 1e-4, "{place}: {sum}");
                let own = row[batch.targets[place] as usize];
                assert_eq!(known.is_none(), own == 0.0, "{place}: the text's own token alone, or more");
            }
        }
    }
}
