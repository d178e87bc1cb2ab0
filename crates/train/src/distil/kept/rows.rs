//! A row: the likeliest tokens with their probabilities in 8 bits, and what all others have together.
//!
//! ```text
//! tokens    their ids, 2 bytes each, or 4 where the vocabulary has more than 65,536; not there if all are kept
//! codes     one byte each
//! greatest  ln of the greatest probability (f32)
//! range     its distance to the least that is kept (f32)
//! rest      ln of the probability of all others (f32)
//! ```
//!
//! A code `c` stands for `ln p = greatest − range (c / 255)²`: fine where probabilities are large, coarse where they hardly
//! count. What is read is scaled so that it adds up to one again.
//!
//! Tokens of the rest have no probabilities of their own. They are given the student's, scaled to what the teacher gives all
//! of them together: by that each divergence, and its gradient, is the one that takes them as a single token, and the student
//! learns nothing of how to share it out.

use crate::loss::TeacherRows;
use crate::{Error, Result};

/// Less than this is nothing.
const LEAST: f64 = 1e-12;

/// What rows are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of a row that are kept one by one.
    pub top: usize,
}

/// What keeping a row lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lost {
    /// Probability of the tokens that were not kept.
    pub rest: f64,
    /// KL to what is read.
    pub kl: f64,
}

impl Layout {
    /// Rows of a vocabulary with so many tokens kept; more than there are means all.
    ///
    /// # Errors
    /// If nothing is to be kept.
    pub fn new(vocabulary: usize, top: usize) -> Result<Layout> {
        if top == 0 {
            return Err(Error::Settings("one token of a prediction at least should be kept".into()));
        }
        Ok(Layout { vocabulary, top: top.min(vocabulary) })
    }

    fn is_whole(self) -> bool {
        self.top == self.vocabulary
    }

    fn id_bytes(self) -> usize {
        match self.vocabulary {
            _ if self.is_whole() => 0,
            0..=0x1_0000 => 2,
            _ => 4,
        }
    }

    /// Bytes of a row.
    pub fn row_bytes(self) -> usize {
        self.top * (self.id_bytes() + 1) + 12
    }

    /// Appends a row of logarithms of probabilities.
    pub(super) fn encode(self, row: &[f32], into: &mut Vec<u8>) -> Lost {
        let mut ids: Vec<u32> = (0..row.len() as u32).collect();
        if !self.is_whole() {
            // Of equal ones the first, so that a row has one form.
            let order = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
            ids.select_nth_unstable_by(self.top - 1, order);
            ids.truncate(self.top);
            ids.sort_unstable();
        }
        let of = |id: &u32| f64::from(row[*id as usize]);
        let greatest = ids.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
        let range = greatest - ids.iter().map(of).fold(f64::INFINITY, f64::min);
        let kept: f64 = ids.iter().map(|id| of(id).exp()).sum();
        let rest = if self.is_whole() { 0.0 } else { (1.0 - kept).max(LEAST) };
        let begins = into.len();
        for id in &ids {
            match self.id_bytes() {
                0 => {}
                2 => into.extend((*id as u16).to_le_bytes()),
                _ => into.extend(id.to_le_bytes()),
            }
        }
        into.extend(ids.iter().map(|id| {
            let share = if range > 0.0 { ((greatest - of(id)) / range).max(0.0).sqrt() } else { 0.0 };
            (255.0 * share).round() as u8
        }));
        for number in [greatest, range, rest.max(LEAST).ln()] {
            into.extend((number as f32).to_le_bytes());
        }
        let (read, of_rest) = self.decode(&into[begins..]);
        let terms = ids.iter().zip(&read).map(|(id, (_, read))| of(id).exp() * (of(id) - f64::from(*read)));
        let of_rest = if rest > 0.0 { rest * (rest.ln() - of_rest) } else { 0.0 };
        Lost { rest, kl: terms.sum::<f64>() + of_rest }
    }

    /// Ids with logarithms of their probabilities, and that of the rest.
    fn decode(self, row: &[u8]) -> (Vec<(usize, f32)>, f64) {
        let (ids, row) = row.split_at(self.top * self.id_bytes());
        let (codes, numbers) = row.split_at(self.top);
        let number =
            |at: usize| f64::from(f32::from_le_bytes(std::array::from_fn(|byte| numbers[4 * at + byte])));
        let [greatest, range, rest] = [0, 1, 2].map(number);
        let id = |place: usize| match self.id_bytes() {
            0 => place,
            2 => usize::from(u16::from_le_bytes([ids[2 * place], ids[2 * place + 1]])),
            _ => u32::from_le_bytes(std::array::from_fn(|byte| ids[4 * place + byte])) as usize,
        };
        let value = |code: u8| greatest - range * (f64::from(code) / 255.0).powi(2);
        let sum: f64 = codes.iter().map(|code| value(*code).exp()).sum();
        let wanted = if self.is_whole() { 1.0 } else { (1.0 - rest.exp()).max(LEAST) };
        let shift = (wanted / sum).ln();
        let read = codes.iter().enumerate().map(|(place, code)| (id(place), (value(*code) + shift) as f32));
        (read.collect(), rest)
    }
}

/// Rows of the targets of a batch.
#[derive(Debug, Clone)]
pub struct KeptRows {
    layout: Layout,
    bytes: Vec<u8>,
}

impl KeptRows {
    /// From their bytes, one row behind the other.
    pub(super) fn new(layout: Layout, bytes: Vec<u8>) -> KeptRows {
        KeptRows { layout, bytes }
    }
}

impl TeacherRows for KeptRows {
    fn rows(&self) -> usize {
        self.bytes.len() / self.layout.row_bytes()
    }

    fn fill(&self, row: usize, student: &[f32], into: &mut [f32]) {
        let size = self.layout.row_bytes();
        let (read, rest) = self.layout.decode(&self.bytes[row * size..][..size]);
        if !self.layout.is_whole() {
            into.copy_from_slice(student);
            for (id, _) in read.iter().filter(|(id, _)| *id < student.len()) {
                into[*id] = f32::NEG_INFINITY;
            }
            let own: f64 = into.iter().map(|q| f64::from(*q).exp()).sum();
            let shift = (rest - own.max(LEAST).ln()) as f32;
            into.iter_mut().for_each(|q| *q += shift);
        }
        // An id outside comes of a damaged file, which the checksum has ruled out.
        read.iter().filter(|(id, _)| *id < student.len()).for_each(|(id, p)| into[*id] = *p);
    }
}
