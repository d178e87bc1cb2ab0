//! Writes a cache of tokens as sequences come; only buffers of fixed size are held in memory.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ounce_model::storage::Bytes;
use tempfile::SpooledTempFile;

use super::{Cache, Checksum, FLAG_LOSS, FLAG_PAIRS, Fingerprint, HEADER, Header, MAGIC, VERSION};
use crate::{Error, Result};

/// What is kept in memory of each table before it goes to a temporary file.
const KEPT: usize = 8 << 20;

/// Takes sequences and writes them behind each other.
pub struct Writer<W: Write> {
    out: io::BufWriter<W>,
    header: Header,
    offsets: SpooledTempFile,
    fingerprints: SpooledTempFile,
    loss: SpooledTempFile,
    /// Bits of the last, unfinished byte of `loss`.
    bits: u8,
    buffer: Vec<u8>,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file. `header` gives hashes, flags and the limit of ids; the width of ids follows from the limit and all
    /// counts are made while writing.
    ///
    /// # Errors
    /// If the system refuses to write.
    pub fn new(out: W, header: Header) -> io::Result<Writer<W>> {
        let width = if header.id_limit <= 1 << 16 { 2 } else { 4 };
        let header = Header { width, sequences: 0, tokens: 0, truncated: 0, skipped: 0, ..header };
        let mut out = io::BufWriter::with_capacity(1 << 18, out);
        out.write_all(&[0; HEADER])?;
        let mut offsets = SpooledTempFile::new(KEPT);
        offsets.write_all(&0u64.to_le_bytes())?;
        let (fingerprints, loss) = (SpooledTempFile::new(KEPT), SpooledTempFile::new(KEPT));
        Ok(Writer { out, header, offsets, fingerprints, loss, bits: 0, buffer: Vec::new() })
    }

    /// Appends a sequence. `counts` says which tokens are to be learned; it is read only if the header has that flag, and
    /// then one as long as `ids`.
    ///
    /// # Errors
    /// If an id is not below the limit, or the system refuses to write.
    pub fn push(&mut self, ids: &[u32], counts: &[bool]) -> io::Result<()> {
        if let Some(id) = ids.iter().find(|id| **id >= self.header.id_limit) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the id {id} is outside the vocabulary of {}", self.header.id_limit),
            ));
        }
        self.buffer.clear();
        if self.header.width == 2 {
            self.buffer.extend(ids.iter().flat_map(|id| (*id as u16).to_le_bytes()));
        } else {
            self.buffer.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
        }
        self.out.write_all(&self.buffer)?;
        if self.header.has_loss {
            assert_eq!(ids.len(), counts.len(), "each id counts or does not");
            self.buffer.clear();
            for (token, &counts) in (self.header.tokens..).zip(counts) {
                self.bits |= u8::from(counts) << (token % 8);
                if token % 8 == 7 {
                    self.buffer.push(std::mem::take(&mut self.bits));
                }
            }
            self.loss.write_all(&self.buffer)?;
        }
        self.header.sequences += 1;
        self.header.tokens += ids.len() as u64;
        self.offsets.write_all(&self.header.tokens.to_le_bytes())?;
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(ids);
        self.fingerprints.write_all(&fingerprint.finish().to_le_bytes())
    }

    /// Counts an example that was cut.
    pub fn truncated(&mut self) {
        self.header.truncated += 1;
    }

    /// Counts an example that was left out.
    pub fn skipped(&mut self) {
        self.header.skipped += 1;
    }

    /// What was written so far.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Writes the tables and the head, and gives back what was written to.
    ///
    /// # Errors
    /// If the system refuses to write.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.header.tokens.is_multiple_of(8) && self.header.has_loss {
            self.loss.write_all(&[self.bits])?;
        }
        let written = self.header.tokens * self.header.width as u64;
        self.out.write_all(&[0; 8][..(written.next_multiple_of(8) - written) as usize])?;
        let bits = if self.header.has_loss { self.header.tokens.div_ceil(8) } else { 0 };
        self.loss.write_all(&[0; 8][..(bits.next_multiple_of(8) - bits) as usize])?;

        let head = head(&self.header);
        let mut sum = Checksum::default();
        sum.add(&head);
        for mut table in [self.loss, self.offsets, self.fingerprints] {
            table.seek(SeekFrom::Start(0))?;
            let mut block = Vec::with_capacity(1 << 16);
            while (&mut table).take(1 << 16).read_to_end(&mut block)? > 0 {
                sum.add(&block);
                self.out.write_all(&block)?;
                block.clear();
            }
        }
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&head)?;
        self.out.write_all(&sum.finish().to_le_bytes())?;
        self.out.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

/// The head without its checksum.
fn head(header: &Header) -> Vec<u8> {
    let flags = if header.has_loss { FLAG_LOSS } else { 0 } | if header.pairs { FLAG_PAIRS } else { 0 };
    let mut head = MAGIC.to_vec();
    for number in [VERSION, header.width as u32, flags, header.id_limit] {
        head.extend(number.to_le_bytes());
    }
    head.extend(header.tokenizer);
    head.extend(header.source);
    for number in [header.sequences, header.tokens, header.truncated, header.skipped] {
        head.extend(number.to_le_bytes());
    }
    head
}

impl Cache {
    /// A cache in memory, for data that is made and not read. All ids are below `id_limit`.
    ///
    /// # Errors
    /// If an id is not.
    pub fn in_memory<'s>(sequences: impl IntoIterator<Item = &'s [u32]>, id_limit: u32) -> Result<Cache> {
        let header = Header { id_limit, ..Header::default() };
        fill(header, sequences.into_iter().map(|ids| (ids, [].as_slice())))
    }

    /// [`Cache::in_memory`] for sequences of which only some tokens are to be learned; with `pairs`, two belong together.
    ///
    /// # Errors
    /// As [`Cache::in_memory`].
    pub fn in_memory_masked<'s>(
        sequences: impl IntoIterator<Item = (&'s [u32], &'s [bool])>,
        id_limit: u32,
        pairs: bool,
    ) -> Result<Cache> {
        fill(Header { id_limit, has_loss: true, pairs, ..Header::default() }, sequences.into_iter())
    }
}

fn fill<'s>(header: Header, sequences: impl Iterator<Item = (&'s [u32], &'s [bool])>) -> Result<Cache> {
    let failed = |error: io::Error| Error::Settings(error.to_string());
    let mut writer = Writer::new(io::Cursor::new(Vec::new()), header).map_err(failed)?;
    for (ids, counts) in sequences {
        writer.push(ids, counts).map_err(failed)?;
    }
    let bytes = writer.finish().map_err(failed)?.into_inner();
    Cache::from_bytes(Bytes::from(bytes), Path::new("(in memory)"))
}
