//! A teacher's predictions in a file, so that it is asked once and need not be in memory while students learn.
//!
//! ```text
//!   0  magic
//!   8  hash of the teacher and of how rows are kept (32 bytes)
//!  40  entries of the vocabulary (4), tokens kept of a row (4)
//!  48  records, one a sequence:
//!      hash of its tokens and targets (16), rows (4), the rows, the first 8 bytes of the hash of the record
//! ```
//!
//! All numbers are little-endian; `rows` says what a row is. Records are found by what their sequence is, so any order and
//! any batch will do, and data may grow. A file that was cut off in the middle of a record, by a crash or Ctrl-C, goes on
//! behind the last whole one.

mod rows;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use rows::{KeptRows, Layout};

use super::{Lesson, Teacher};
use crate::loss::{Predictions, TeacherRows};
use crate::{Batch, Error, IGNORE, Result};

const MAGIC: [u8; 8] = *b"ounce\0tp";
const HEADER: usize = 48;
const HEAD: usize = 20;
const CHECKSUM: usize = 8;

type Key = [u8; 16];

/// What keeping predictions lost, as means over rows.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Losses {
    /// Rows that were kept.
    pub rows: u64,
    /// The teacher's probability of tokens that were not kept one by one.
    pub rest: f64,
    /// KL from the exact predictions to the kept ones in nats, tokens that were not kept taken as one.
    pub kl: f64,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Bytes of an exact row.
    pub exact_row_bytes: usize,
}

/// Predictions that are kept.
#[derive(Debug)]
pub struct KeptTeacher {
    file: File,
    path: PathBuf,
    layout: Layout,
    /// Where the rows of each sequence begin, and how many there are.
    index: HashMap<Key, (u64, usize)>,
    /// Where the next record begins.
    end: u64,
    losses: Losses,
}

impl KeptTeacher {
    /// Opens a file, or makes one, that keeps the `top` likeliest tokens of each row. `teacher` is a hash of the model that is
    /// asked. A file of another teacher, or with rows of another kind, is an error.
    ///
    /// # Errors
    /// If the file is none of this teacher's, someone else writes to it, or the system refuses.
    pub fn open(path: &Path, teacher: [u8; 32], vocabulary: usize, top: usize) -> Result<KeptTeacher> {
        let layout = Layout::new(vocabulary, top)?;
        let header = header(teacher, layout);
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(path).map_err(Error::io(path))?;
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::file(
                path,
                "is being written by another run; wait for it, or name another file",
            ));
        }
        let length = file.metadata().map_err(Error::io(path))?.len();
        let mut kept = KeptTeacher {
            file,
            path: path.to_path_buf(),
            layout,
            index: HashMap::new(),
            end: HEADER as u64,
            losses: Losses {
                row_bytes: layout.row_bytes(),
                exact_row_bytes: 4 * vocabulary,
                ..Losses::default()
            },
        };
        let mut found = [0u8; HEADER];
        // A header that was cut off has nothing behind it.
        if length >= HEADER as u64 {
            file = kept.file.try_clone().map_err(Error::io(path))?;
            file.seek(SeekFrom::Start(0))
                .and_then(|_| file.read_exact(&mut found))
                .map_err(Error::io(path))?;
            if found != header {
                return Err(Error::file(
                    path,
                    "holds predictions of another teacher, or with another number of tokens a row; name another file, or remove it",
                ));
            }
            kept.scan(length)?;
        } else {
            kept.write_at(0, &header)?;
        }
        kept.file.set_len(kept.end).map_err(Error::io(path))?;
        Ok(kept)
    }

    /// Finds the whole records; `end` is behind the last of them then.
    fn scan(&mut self, length: u64) -> Result<()> {
        let mut head = [0u8; HEAD];
        while self.end + ((HEAD + CHECKSUM) as u64) <= length {
            self.read_at(self.end, &mut head)?;
            let rows = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
            let size = HEAD as u64 + (rows * self.layout.row_bytes()) as u64 + CHECKSUM as u64;
            if self.end + size > length {
                break;
            }
            let key: Key = std::array::from_fn(|at| head[at]);
            self.index.insert(key, (self.end + HEAD as u64, rows));
            self.end += size;
        }
        Ok(())
    }

    /// How many sequences it knows.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether it knows all sequences of a batch.
    pub fn knows(&self, batch: &Batch) -> bool {
        sequences(batch).all(|(tokens, targets)| self.index.contains_key(&key(tokens, targets)))
    }

    /// What keeping lost, of the rows that were added since the file was opened.
    pub fn losses(&self) -> Losses {
        let rows = self.losses.rows.max(1) as f64;
        Losses { rest: self.losses.rest / rows, kl: self.losses.kl / rows, ..self.losses }
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Keeps a teacher's predictions for a batch.
    ///
    /// # Errors
    /// If they can't be written; what was there stays.
    ///
    /// # Panics
    /// If the predictions are not of the batch.
    pub fn keep(&mut self, batch: &Batch, predictions: &Predictions) -> Result<()> {
        let width = self.layout.vocabulary;
        assert_eq!(predictions.rows(), batch.counted(), "predictions of this batch");
        let mut values = predictions.values.chunks_exact(width);
        let (mut bytes, mut new) = (Vec::new(), Vec::new());
        for (tokens, targets) in sequences(batch) {
            let (key, begins) = (key(tokens, targets), bytes.len());
            let rows = targets.iter().filter(|&&target| target != IGNORE).count();
            bytes.extend(key);
            bytes.extend((rows as u32).to_le_bytes());
            for row in values.by_ref().take(rows) {
                let lost = self.layout.encode(row, &mut bytes);
                self.losses.rest += lost.rest;
                self.losses.kl += lost.kl;
                self.losses.rows += 1;
            }
            let sum = Sha256::digest(&bytes[begins..]);
            bytes.extend(&sum[..CHECKSUM]);
            new.push((key, self.end + (begins + HEAD) as u64, rows));
        }
        self.write_at(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        self.index.extend(new.into_iter().map(|(key, at, rows)| (key, (at, rows))));
        Ok(())
    }

    /// Brings what was written to the disk.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(into)).map_err(Error::io(&self.path))
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes)).map_err(Error::io(&self.path))
    }

    /// Appends the rows of a sequence.
    fn read(&self, key: Key, into: &mut Vec<u8>) -> Result<()> {
        let Some(&(at, rows)) = self.index.get(&key) else {
            return Err(Error::file(
                &self.path,
                "does not know a sequence that is to be learned; the teacher has to be asked first",
            ));
        };
        let mut record = vec![0; HEAD + rows * self.layout.row_bytes() + CHECKSUM];
        self.read_at(at - HEAD as u64, &mut record)?;
        let (content, sum) = record.split_at(record.len() - CHECKSUM);
        if Sha256::digest(content)[..CHECKSUM] != *sum {
            return Err(Error::file(&self.path, "is damaged; remove it, and the teacher is asked again"));
        }
        into.extend_from_slice(&content[HEAD..]);
        Ok(())
    }
}

impl Teacher for KeptTeacher {
    fn vocabulary(&self) -> usize {
        self.layout.vocabulary
    }

    fn streams(&self) -> Option<(usize, usize)> {
        None
    }

    fn lesson(&mut self, batch: &Batch, _layers: &[usize]) -> Result<Lesson> {
        let mut bytes = Vec::new();
        for (tokens, targets) in sequences(batch) {
            self.read(key(tokens, targets), &mut bytes)?;
        }
        Ok(Lesson { rows: Box::new(KeptRows::new(self.layout, bytes)), streams: Vec::new() })
    }
}

fn header(teacher: [u8; 32], layout: Layout) -> [u8; HEADER] {
    let mut hash = Sha256::new();
    hash.update(teacher);
    hash.update(b"int8 by the root of the distance from the greatest");
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..40].copy_from_slice(&hash.finalize());
    header[40..44].copy_from_slice(&(layout.vocabulary as u32).to_le_bytes());
    header[44..].copy_from_slice(&(layout.top as u32).to_le_bytes());
    header
}

/// Tokens and targets of each sequence.
fn sequences(batch: &Batch) -> impl Iterator<Item = (&[u32], &[u32])> {
    let mut at = 0;
    batch.lengths.iter().map(move |&length| {
        at += length;
        (&batch.tokens[at - length..at], &batch.targets[at - length..at])
    })
}

fn key(tokens: &[u32], targets: &[u32]) -> Key {
    let mut hash = Sha256::new();
    hash.update(bytemuck::cast_slice::<u32, u8>(tokens));
    hash.update(bytemuck::cast_slice::<u32, u8>(targets));
    let digest = hash.finalize();
    std::array::from_fn(|at| digest[at])
}

#[cfg(test)]
mod tests;
