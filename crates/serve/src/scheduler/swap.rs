//! Keys and values of answers that were put back, in a file, where reading them again is faster than computing them again. Both times
//! are measured. The file has no name: nothing is left of it when the server ends, in whatever way.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use ounce_engine::Session;

/// Where keys and values may go, and how many bytes of them.
#[derive(Debug, Clone)]
pub struct SwapSpace {
    /// The folder; on a disk, or what is saved here is spent there.
    pub folder: PathBuf,
    /// Bytes at most.
    pub bytes: u64,
}

/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

/// What a new measurement counts.
const NEW: f64 = 0.3;

/// The files of a scheduler.
#[derive(Debug)]
pub(super) struct Swap {
    space: SwapSpace,
    used: Rc<Cell<u64>>,
    /// Seconds a byte of writing and of reading; none before the first.
    writing: Option<f64>,
    reading: Option<f64>,
}

/// Keys and values in a file.
#[derive(Debug)]
pub(super) struct Aside {
    file: File,
    /// Tokens that the session held.
    tokens: usize,
    /// Bytes of memory that they will take.
    pub bytes: u64,
    used: Rc<Cell<u64>>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.used.set(self.used.get().saturating_sub(self.bytes));
    }
}

impl Swap {
    pub fn new(space: SwapSpace) -> Swap {
        Swap { space, used: Rc::default(), writing: None, reading: None }
    }

    /// Writes a session's keys and values, if there is room and computing them again would take longer than `again` seconds; none
    /// as `again` means that nobody knows yet.
    pub fn put(&mut self, session: &Session<'_>, again: Option<f64>) -> Option<Aside> {
        let (tokens, bytes) = (session.tokens().len(), session.cache_bytes() as u64);
        if tokens == 0 || self.used.get() + bytes > self.space.bytes || !self.pays(bytes, again) {
            return None;
        }
        let start = Instant::now();
        match write(&self.space, session) {
            Ok(file) => {
                note(&mut self.writing, start.elapsed().as_secs_f64() / bytes as f64);
                self.used.set(self.used.get() + bytes);
                Some(Aside { file, tokens, bytes, used: self.used.clone() })
            }
            Err(error) => {
                tracing::warn!(%error, folder = %self.space.folder.display(), "keys and values can't be written; they are computed again");
                None
            }
        }
    }

    /// Whether writing and reading is faster than computing.
    fn pays(&self, bytes: u64, again: Option<f64>) -> bool {
        match (self.writing, self.reading, again) {
            (Some(writing), reading, Some(again)) => {
                bytes as f64 * (writing + reading.unwrap_or(writing)) < again
            }
            _ => true,
        }
    }

    /// Reads a session's keys and values back; `text` is what it had read, and more. Whether that went well.
    pub fn take(&mut self, aside: Aside, session: &mut Session<'_>, text: &[u32]) -> bool {
        let start = Instant::now();
        let read = (|| {
            let mut file = &aside.file;
            file.seek(SeekFrom::Start(0))?;
            session.restore(&text[..aside.tokens.min(text.len())], &mut BufReader::with_capacity(PIECE, file))
        })();
        note(&mut self.reading, start.elapsed().as_secs_f64() / aside.bytes as f64);
        if let Err(error) = &read {
            tracing::warn!(%error, "keys and values can't be read back; they are computed again");
        }
        read.is_ok()
    }
}

fn write(space: &SwapSpace, session: &Session<'_>) -> io::Result<File> {
    let file = tempfile::tempfile_in(&space.folder)?;
    let mut out = BufWriter::with_capacity(PIECE, file);
    session.save(&mut out)?;
    out.flush()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

fn note(mean: &mut Option<f64>, new: f64) {
    *mean = Some(mean.map_or(new, |old| (1.0 - NEW) * old + NEW * new));
}

#[cfg(test)]
mod tests {
    use ounce_engine::{Engine, Mode};

    use super::*;

    #[test]
    fn what_is_put_aside_comes_back_the_same_and_gives_its_room_back() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets/tiny");
        let engine = Engine::load(&ounce_model::Model::open(folder).unwrap(), Mode::fast()).unwrap();
        let text: Vec<u32> = (0..300).map(|n| 5 + n % 90).collect();
        let mut session = engine.session();
        session.feed(&text, |_| {}).unwrap();
        let bytes = session.cache_bytes() as u64;
        let next = session.fork(text.len()).feed(&[7], |_| {}).unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut swap = Swap::new(SwapSpace { folder: place.path().to_path_buf(), bytes: bytes + 10 });
        let aside = swap.put(&session, None).expect("room");
        assert!(swap.put(&session, None).is_none(), "no room for two");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "the file has no name");
        session.truncate(0);
        assert!(swap.take(aside, &mut session, &text));
        assert_eq!((session.tokens(), session.cache_bytes() as u64), (&text[..], bytes));
        assert_eq!(session.feed(&[7], |_| {}).unwrap(), next);
        // Both speeds are known by now.
        assert!(swap.put(&session, Some(0.0)).is_none(), "computing is free");
        drop(swap.put(&session, Some(1e9)).expect("computing takes for ever, and there is room again"));
        swap.space.folder = place.path().join("gone");
        assert!(swap.put(&session, None).is_none());
    }
}
