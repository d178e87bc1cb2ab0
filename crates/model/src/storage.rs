//! Bytes on disk and in memory: shared ranges to read from, and files that appear whole or not at all.
//!
//! [`Bytes`] is a byte range that is cheap to clone and keeps its source alive: a memory-mapped file, an
//! owned buffer or static data. [`AtomicFile`] is written under a temporary name and renamed when complete.
//! [`FolderLock`] keeps other writers out of a folder. Nothing here knows a file format.

mod lock;

pub use lock::FolderLock;

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Where the bytes of a [`Bytes`] live.
#[derive(Clone)]
enum Backing {
    Mapped(Arc<Mapped>),
    Static(&'static [u8]),
    Owned(Arc<Vec<u8>>),
}

/// A mapped file, still open to be read without the mapping.
struct Mapped {
    map: Mmap,
    file: File,
}

impl Backing {
    fn whole(&self) -> &[u8] {
        match self {
            Backing::Mapped(mapped) => &mapped.map,
            Backing::Static(bytes) => bytes,
            Backing::Owned(bytes) => bytes,
        }
    }
}

/// A range of bytes that is cheap to clone and keeps its source alive; read it as a `&[u8]`.
#[derive(Clone)]
pub struct Bytes {
    backing: Backing,
    // Always inside the backing: checked whenever a `Bytes` is made.
    range: Range<usize>,
}

impl Bytes {
    /// Maps a file read-only. Nothing is read until the bytes are looked at.
    ///
    /// The file must not be changed while it is mapped: a shortened file ends the process with a bus error.
    ///
    /// # Errors
    /// [`Error::Io`] if the file can't be opened or mapped, or is no regular file.
    pub fn map(path: impl AsRef<Path>) -> Result<Bytes> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path))?;
        if !file.metadata().map_err(Error::io(path))?.is_file() {
            let not_a_file = io::Error::new(io::ErrorKind::InvalidInput, "is no regular file; name a file");
            return Err(Error::io(path)(not_a_file));
        }
        // SAFETY: the map is only ever read, as bytes for which every value is valid. Another process could
        // still change the file; like every program that maps its weights, this one asks that nobody does.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        let range = 0..map.len();
        Ok(Bytes { backing: Backing::Mapped(Arc::new(Mapped { map, file })), range })
    }

    /// Bytes that are part of the program.
    pub const fn from_static(bytes: &'static [u8]) -> Bytes {
        Bytes { backing: Backing::Static(bytes), range: 0..bytes.len() }
    }

    /// Tells the system that these bytes are not needed for now. Mapped ones leave the process's memory and are read
    /// from their file again when someone looks; for others nothing changes.
    pub fn release(&self) {
        self.release_range(self.range.clone());
    }

    /// As [`Bytes::release`], for all of the file that these bytes are a part of: a look at their ends brought in what lies
    /// around them, which may belong to bytes that were released before.
    pub fn release_file(&self) {
        self.release_range(0..self.backing.whole().len());
    }

    fn release_range(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Backing::Mapped(mapped) = &self.backing {
            let what = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is a read-only view of a file: pages that are dropped come back with the same bytes.
            let dropped = unsafe { mapped.map.unchecked_advise_range(what, range.start, range.len()) };
            if let Err(error) = dropped {
                tracing::debug!("mapped weights stay in memory: {error}");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Copies the bytes from `start` on into `out`. Of a mapped file they are read through the file and not through the mapping:
    /// a look at the mapping brings what lies around it into the process's memory, up to 2 MiB a time, and leaves it there.
    ///
    /// # Errors
    /// If the file can't be read, or `out` is longer than what there is from `start` on.
    pub fn read_at(&self, start: usize, out: &mut [u8]) -> io::Result<()> {
        let end = start.checked_add(out.len()).filter(|&end| end <= self.len());
        let end =
            end.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "ends before these bytes"))?;
        #[cfg(unix)]
        if let Backing::Mapped(mapped) = &self.backing {
            let offset = (self.range.start + start) as u64;
            return std::os::unix::fs::FileExt::read_exact_at(&mapped.file, out, offset);
        }
        out.copy_from_slice(&self[start..end]);
        Ok(())
    }

    /// A part of these bytes that shares their source. `range` counts from the start of `self`.
    ///
    /// # Panics
    /// If the range is not inside `self`; for ranges that come from a file use [`Bytes::try_slice`].
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        self.try_slice(range).expect("the range lies inside the bytes")
    }

    /// Like [`Bytes::slice`], or `None` if the range is not inside `self`.
    pub fn try_slice(&self, range: Range<usize>) -> Option<Bytes> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start;
        Some(Bytes { backing: self.backing.clone(), range: start + range.start..start + range.end })
    }

    /// Whether the bytes are a mapped file, so that the system reads them on demand and may drop them again.
    pub fn is_mapped(&self) -> bool {
        matches!(self.backing, Backing::Mapped(_))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.backing.whole()[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        let range = 0..bytes.len();
        Bytes { backing: Backing::Owned(Arc::new(bytes)), range }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.backing {
            Backing::Mapped(_) => "mapped",
            Backing::Static(_) => "static",
            Backing::Owned(_) => "owned",
        };
        write!(f, "Bytes({source}, {}..{})", self.range.start, self.range.end)
    }
}

/// A file that appears under its name only when [`AtomicFile::commit`] is called.
///
/// Until then the data goes to a temporary file in the same folder; dropping the value removes it and leaves
/// whatever stood under the name untouched. Writes are buffered.
pub struct AtomicFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// Starts writing the file that will be called `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file can't be made in the folder of `path`.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile> {
        let path = path.as_ref().to_path_buf();
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".tmp");
        // The default of a temporary file, readable by its owner only, would survive the renaming.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).map_err(Error::io(&path))?;
        Ok(AtomicFile { path, writer: BufWriter::with_capacity(1 << 20, file) })
    }

    /// The name the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes the data to disk and gives the file its name, replacing an older file of that name.
    ///
    /// # Errors
    /// [`Error::Io`] if flushing or renaming fails; the temporary file is removed.
    pub fn commit(self) -> Result<()> {
        let AtomicFile { path, writer } = self;
        let file = writer.into_inner().map_err(|failed| Error::io(&path)(failed.into_error()))?;
        file.as_file().sync_all().map_err(Error::io(&path))?;
        file.persist(&path).map_err(|failed| Error::io(&path)(failed.error))?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.writer.seek(to)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn slices_count_from_their_parent_and_stay_inside() {
        for bytes in [Bytes::from_static(b"0123456789"), Bytes::from(b"0123456789".to_vec())] {
            let middle = bytes.slice(2..8);
            assert_eq!(&*middle, b"234567");
            assert_eq!(&*middle.slice(1..3), b"34");
            assert_eq!(&*middle.slice(6..6), b"");
            for range in [0..7, 7..7, 0..usize::MAX] {
                assert!(middle.try_slice(range.clone()).is_none(), "{range:?}");
            }
            #[allow(clippy::reversed_empty_ranges)]
            let reversed = 3..2;
            assert!(middle.try_slice(reversed).is_none());
        }
    }

    #[test]
    fn a_mapped_range_outlives_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, b"abcdef").unwrap();
        let part = Bytes::map(&path).unwrap().slice(2..5);
        assert!(part.is_mapped());
        assert_eq!(&*part, b"cde");
        let mut two = [0; 2];
        for bytes in [part, Bytes::from(b"cde".to_vec())] {
            bytes.read_at(1, &mut two).unwrap();
            assert_eq!(&two, b"de");
            for start in [2, usize::MAX] {
                let error = bytes.read_at(start, &mut two).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }

    #[test]
    fn empty_files_can_be_mapped_and_folders_can_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(&*Bytes::map(&path).unwrap(), b"");
        let error = Bytes::map(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, b"old").unwrap();
        let mut unfinished = AtomicFile::create(&path).unwrap();
        unfinished.write_all(b"new").unwrap();
        drop(unfinished);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let mut finished = AtomicFile::create(&path).unwrap();
        finished.write_all(b"new").unwrap();
        finished.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_finished_file_has_the_usual_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode =
            |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        std::fs::write(folder.path().join("plain"), b"").unwrap();
        AtomicFile::create(folder.path().join("atomic")).unwrap().commit().unwrap();
        assert_eq!(mode("atomic"), mode("plain"));
    }
}
