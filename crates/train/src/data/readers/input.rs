//! The bytes of one file, unpacked on the way, with limits on what a record may take.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use encoding_rs::Encoding;
use encoding_rs_io::DecodeReaderBytesBuilder;
use flate2::read::MultiGzDecoder;

use super::{MAX_RECORD, Place, Unit};
use crate::{Error, Result};

/// A file that is being read.
pub(super) struct Input {
    file: Arc<Path>,
    reader: Box<dyn BufRead + Send>,
    packed: bool,
    begun: bool,
}

/// Counts what is read.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Input {
    /// Opens a file; one that ends in `.gz` is unpacked. `read` counts its bytes on disk.
    pub(super) fn open(path: &Path, read: &Arc<AtomicU64>) -> Result<Input> {
        let file = File::open(path).map_err(ounce_model::Error::io(path))?;
        let counted = Counted { file, read: Arc::clone(read) };
        let packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        let reader: Box<dyn BufRead + Send> = if packed {
            let packed = BufReader::with_capacity(1 << 16, counted);
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(packed)))
        } else {
            Box::new(BufReader::with_capacity(1 << 18, counted))
        };
        Ok(Input { file: path.into(), reader, packed, begun: false })
    }

    /// The same text as UTF-8, where it is encoded in another way.
    ///
    /// # Errors
    /// If there is no such encoding.
    pub(super) fn decoded(mut self, encoding: Option<&str>) -> Result<Input> {
        let Some(label) = encoding else { return Ok(self) };
        // Python's names for what the web calls iso-8859-1.
        let known = Encoding::for_label(label.replace("latin-", "latin").as_bytes());
        let known = known.ok_or_else(|| {
            Error::file(
                &self.file,
                format!("{label:?} is no text encoding; latin-1, utf-16 and windows-1252 are some"),
            )
        })?;
        let decoder = DecodeReaderBytesBuilder::new().encoding(Some(known)).build(self.reader);
        self.reader = Box::new(BufReader::with_capacity(1 << 16, decoder));
        Ok(self)
    }

    /// The file's name.
    pub(super) fn file(&self) -> &Arc<Path> {
        &self.file
    }

    /// A place in this file.
    pub(super) fn place(&self, record: u64, unit: Unit) -> Place {
        Place { file: Arc::clone(&self.file), record, unit }
    }

    /// What a failed read tells the user.
    pub(super) fn failed(&self, error: io::Error) -> Error {
        failed(&self.file, self.packed, error)
    }

    /// The next bytes that lie ready, without taking them; empty at the end.
    pub(super) fn peek(&mut self) -> Result<&[u8]> {
        if !self.begun {
            self.begun = true;
            let (file, packed) = (&self.file, self.packed);
            let bytes = self.reader.fill_buf().map_err(|error| failed(file, packed, error))?;
            // The mark that some editors put in front of UTF-8.
            if bytes.starts_with(b"\xEF\xBB\xBF") {
                self.reader.consume(3);
            }
        }
        let (file, packed) = (&self.file, self.packed);
        self.reader.fill_buf().map_err(|error| failed(file, packed, error))
    }

    /// Takes bytes that [`Input::peek`] showed.
    pub(super) fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    /// Appends the next line with its end to `line`; false at the end of the file.
    pub(super) fn line(&mut self, line: &mut Vec<u8>, place: &Place) -> Result<bool> {
        self.peek()?;
        let before = line.len();
        let count = (&mut self.reader).take(MAX_RECORD).read_until(b'\n', line);
        let count = count.map_err(|error| self.failed(error))?;
        if count as u64 == MAX_RECORD && !line[before..].ends_with(b"\n") {
            return Err(Error::data(
                place,
                format!("the line has more than {MAX_RECORD} bytes; is it text at all?"),
            ));
        }
        Ok(count > 0)
    }

    /// The rest of the file, which may not have more than `most` bytes.
    pub(super) fn whole(mut self, most: u64) -> Result<Vec<u8>> {
        self.peek()?;
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(most + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.failed(error))?;
        if bytes.len() as u64 > most {
            return Err(Error::file(&self.file, format!("the file has more than {most} bytes")));
        }
        Ok(bytes)
    }

    /// The rest of the file for a reader of its own, and the allowance it has: set it to [`MAX_RECORD`] before each record.
    pub(super) fn limited(mut self) -> Result<(Limited, Arc<AtomicU64>)> {
        self.peek()?;
        let allowance = Arc::new(AtomicU64::new(MAX_RECORD));
        Ok((Limited { input: self, allowance: Arc::clone(&allowance) }, allowance))
    }
}

fn failed(file: &Path, packed: bool, error: io::Error) -> Error {
    let damaged = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    if packed && (damaged || error.kind() == io::ErrorKind::UnexpectedEof) {
        return Error::file(
            file,
            format!("the gzip file is damaged or cut off ({error}); download it again"),
        );
    }
    ounce_model::Error::io(file)(error).into()
}

/// Bytes of an [`Input`] that end with an error when a record takes too many.
pub(super) struct Limited {
    input: Input,
    allowance: Arc<AtomicU64>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other(format!("a record has more than {MAX_RECORD} bytes")));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.input.reader.read(&mut buffer[..most])?;
        self.allowance.store(left - count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The bytes as text, or an error that says where.
pub(super) fn text<'b>(bytes: &'b [u8], place: &Place) -> Result<&'b str> {
    std::str::from_utf8(bytes).map_err(|error| {
        Error::data(
            place,
            format!("the byte at {} is not UTF-8; convert the file to UTF-8", error.valid_up_to()),
        )
    })
}
