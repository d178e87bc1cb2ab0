//! Bytes read a second from a file, as far from memory's copies of it as the system allows.

use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use super::{DiskTarget, Effort};
use crate::machine::Disk;
use crate::{Error, Result};

/// What is written or read at once.
const PIECE: usize = 1 << 20;
/// Less than this says more about the delay of a disk than about its rate.
const LEAST: u64 = 1 << 20;
/// Places of a file at which to look whether memory holds it.
#[cfg(target_os = "linux")]
const SAMPLES: u64 = 32;

/// Steps that [`measure`] reports, at most.
pub(super) const STEPS: usize = 2;

/// Reads a file; none, with a note, where a temporary one can't be written.
pub(super) fn measure(
    target: &DiskTarget,
    effort: &Effort,
    step: &mut dyn FnMut(&str) -> Result<()>,
    notes: &mut Vec<String>,
) -> Result<Option<Disk>> {
    let folder = match target {
        DiskTarget::File(path) => {
            step("reading the file")?;
            return read_named(path, effort).map(Some);
        }
        DiskTarget::Folder(folder) => folder,
    };
    step("writing a file")?;
    let written = write_temporary(folder, effort);
    step("reading the file")?;
    let read = written.and_then(|(file, length)| read(file, length, effort));
    Ok(match read {
        Ok((bytes, bytes_per_second, cached_share)) => {
            Some(Disk { path: folder.clone(), temporary: true, bytes, bytes_per_second, cached_share })
        }
        Err(error) => {
            notes.push(format!("the disk was not measured: no file in {}: {error}", folder.display()));
            None
        }
    })
}

fn read_named(path: &Path, effort: &Effort) -> Result<Disk> {
    let file = File::open(path).map_err(Error::io(path))?;
    let facts = file.metadata().map_err(Error::io(path))?;
    if !facts.is_file() {
        return Err(Error::format(path, "is no regular file; name a file on the disk to measure"));
    }
    if facts.len() < LEAST {
        let what = format!("{} bytes are too few to measure a disk with; name a larger file", facts.len());
        return Err(Error::format(path, what));
    }
    let (bytes, bytes_per_second, cached_share) = read(file, facts.len(), effort).map_err(Error::io(path))?;
    Ok(Disk { path: path.to_path_buf(), temporary: false, bytes, bytes_per_second, cached_share })
}

/// A file that is on the disk, and its length.
fn write_temporary(folder: &Path, effort: &Effort) -> std::io::Result<(File, u64)> {
    // It has no name, so that nothing stays of it however the program ends.
    let mut file = tempfile::tempfile_in(folder)?;
    let start = Instant::now();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = vec![0u8; PIECE];
    let mut length = 0;
    while length < effort.disk_bytes.max(LEAST) && (length < LEAST || start.elapsed() < effort.disk_time) {
        // Some file systems compress, or keep equal blocks once.
        for word in piece.as_chunks_mut::<8>().0 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *word = random.to_le_bytes();
        }
        file.write_all(&piece)?;
        length += PIECE as u64;
        if length.is_multiple_of(16 << 20) {
            // Without this the clock would see how fast memory takes it.
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    Ok((file, length))
}

/// Reads a file in order: bytes, bytes a second, and the share that was in memory before.
fn read(mut file: File, length: u64, effort: &Effort) -> std::io::Result<(u64, f64, Option<f64>)> {
    let length = length.min(effort.disk_bytes.max(LEAST));
    forget(&file);
    let cached_share = cached_share(&file, length);
    // Looking may have brought in what lies around the places looked at.
    forget(&file);
    file.seek(SeekFrom::Start(0))?;
    let mut piece = vec![0u8; PIECE];
    let mut bytes = 0;
    let start = Instant::now();
    while bytes < length && (bytes < LEAST || start.elapsed() < effort.disk_time) {
        let wanted = (length - bytes).min(PIECE as u64) as usize;
        match file.read(&mut piece[..wanted])? {
            0 => break,
            read => bytes += read as u64,
        }
        std::hint::black_box(&piece);
    }
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    if bytes == 0 {
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file became empty"));
    }
    Ok((bytes, bytes as f64 / seconds, cached_share))
}

/// Asks the system to drop what it holds of a file in memory.
#[cfg(target_os = "linux")]
fn forget(file: &File) {
    // A system that doesn't listen is found out by `cached_share`.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn forget(_: &File) {}

/// The share of a file that can be had without going to the disk, by samples; none if the system won't say.
#[cfg(target_os = "linux")]
fn cached_share(file: &File, length: u64) -> Option<f64> {
    use rustix::fs::Advice;
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    // Otherwise a look at one place brings in its surroundings.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
    let mut cached = 0;
    for sample in 0..SAMPLES {
        let mut byte = [0u8];
        let mut into = [std::io::IoSliceMut::new(&mut byte)];
        match preadv2(file, &mut into, sample * length / SAMPLES, ReadWriteFlags::NOWAIT) {
            Ok(read) => cached += read,
            Err(Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
    Some(cached as f64 / SAMPLES as f64)
}

#[cfg(not(target_os = "linux"))]
fn cached_share(_: &File, _: u64) -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least() -> Effort {
        Effort { disk_bytes: 3 << 20, ..Effort::quick() }
    }

    fn measured(target: DiskTarget) -> (Result<Option<Disk>>, Vec<String>) {
        let mut notes = Vec::new();
        (measure(&target, &least(), &mut |_| Ok(()), &mut notes), notes)
    }

    #[test]
    fn a_named_file_is_read_up_to_the_limit_and_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("file");
        for (size, expected) in [(LEAST, LEAST), (LEAST + 7, LEAST + 7), (5 << 20, 3 << 20)] {
            std::fs::write(&path, vec![1u8; size as usize]).expect("writes");
            let (disk, notes) = measured(DiskTarget::File(path.clone()));
            let disk = disk.expect("reads").expect("a figure");
            assert_eq!((disk.bytes, disk.temporary, notes.len()), (expected, false, 0));
            assert!(disk.bytes_per_second > 0.0 && disk.bytes_per_second.is_finite());
            assert_eq!(std::fs::metadata(&path).expect("there").len(), size);
        }
    }

    #[test]
    fn what_is_no_large_file_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let small = folder.path().join("small");
        std::fs::write(&small, b"little").expect("writes");
        for (path, word) in
            [(small, "too few"), (folder.path().into(), "regular file"), (folder.path().join("no"), "no")]
        {
            let error = measured(DiskTarget::File(path.clone())).0.expect_err(word).to_string();
            assert!(error.contains(word) && error.contains(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn without_a_place_for_a_file_there_is_a_note_and_no_figure() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (disk, notes) = measured(DiskTarget::Folder(folder.path().join("nowhere")));
        assert_eq!(disk.expect("no failure"), None);
        assert!(notes.len() == 1 && notes[0].contains("nowhere"), "{notes:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_just_read_is_seen_in_memory() {
        let mut file = tempfile::tempfile().expect("temporary file");
        file.write_all(&vec![7u8; 1 << 20]).expect("writes");
        file.sync_all().expect("syncs");
        let mut all = Vec::new();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut all)).expect("reads");
        // A file system that can't be asked says nothing, never that the file is not there.
        assert!(cached_share(&file, 1 << 20).is_none_or(|share| share == 1.0));
    }
}
