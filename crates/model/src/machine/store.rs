//! A profile in a file: JSON, checked before it is written and after it is read.

use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Deserialize;

use super::{Cpu, FORMAT, Machine};
use crate::storage::AtomicFile;
use crate::{Error, Result};

/// The largest profile that is read; one of a hundred cores has some ten kilobytes.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// What a profile's file gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The profile of this machine.
    Found(Box<Machine>),
    /// There is no such file.
    Absent,
    /// A file that is no profile of this machine, and why, as a sentence that names the file.
    Unfit(String),
}

impl Machine {
    /// Reads the profile in a file. It is this machine's if the processor is `cpu`, and covers what is asked if it was
    /// measured with at least so many threads. A damaged file is [`Lookup::Unfit`]: a profile can be made again.
    ///
    /// # Errors
    /// [`Error::Io`] if the file is there and can't be read.
    pub fn load_cached(path: &Path, cpu: &Cpu, threads: usize) -> Result<Lookup> {
        let length = match std::fs::metadata(path) {
            Ok(metadata) => metadata.len(),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Lookup::Absent);
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        let unfit = |what: String| Ok(Lookup::Unfit(format!("{}: {what}", path.display())));
        if length > LARGEST_FILE_BYTES {
            return unfit(format!("{length} bytes is too large for a profile"));
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        match parse(&bytes).and_then(|machine| machine.fits(cpu, threads).map(|()| machine)) {
            Ok(machine) => Ok(Lookup::Found(Box::new(machine))),
            Err(what) => unfit(what),
        }
    }

    /// Writes the profile to a file, in a folder that exists. A reader sees the old file or the new one, never a part.
    ///
    /// # Errors
    /// [`Error::Format`] if a figure is not possible, [`Error::Io`] if the file can't be written.
    pub fn store(&self, path: &Path) -> Result<()> {
        self.check().map_err(|what| Error::format(path, format!("the profile is not written: {what}")))?;
        let mut file = AtomicFile::create(path)?;
        serde_json::to_writer_pretty(&mut file, self)
            .map_err(|error| Error::format(path, format!("the profile is not written: {error}")))?;
        file.write_all(b"\n").map_err(Error::io(path))?;
        file.commit()
    }

    /// Whether it is a profile of a machine with this processor, for so many threads.
    fn fits(&self, cpu: &Cpu, threads: usize) -> Result<(), String> {
        let of = &self.cpu;
        if (&of.model, &of.architecture) != (&cpu.model, &cpu.architecture) {
            let (found, here) = (&of.model, &cpu.model);
            return Err(format!("is of another processor ({found}, {}; here: {here})", of.architecture));
        }
        if of.cores != cpu.cores {
            return Err(format!("is of a machine with {} cores, this one has {}", of.cores, cpu.cores));
        }
        if of.features != cpu.features {
            return Err("is of a processor with other instructions".to_string());
        }
        if self.threads() < threads {
            return Err(format!("covers {} of {threads} threads", self.threads()));
        }
        Ok(())
    }
}

/// The version alone, which every version has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

fn parse(bytes: &[u8]) -> Result<Machine, String> {
    let damaged = |error: serde_json::Error| format!("is no profile: {error}");
    let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(format!("is a profile of format {format}, this version of ounce reads {FORMAT}"));
    }
    let machine: Machine = serde_json::from_slice(bytes).map_err(damaged)?;
    machine.check().map_err(|what| format!("is damaged: {what}"))?;
    Ok(machine)
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    /// What a file with this content gives on a machine like the example's.
    fn look(content: &[u8]) -> Lookup {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("machine.json");
        std::fs::write(&path, content).expect("writes");
        Machine::load_cached(&path, &example().cpu, 2).expect("readable")
    }

    fn unfit(lookup: Lookup) -> String {
        match lookup {
            Lookup::Unfit(why) => why,
            other => panic!("should be refused: {other:?}"),
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("machine.json");
        let machine = example();
        assert_eq!(Machine::load_cached(&path, &machine.cpu, 2).expect("absent is fine"), Lookup::Absent);
        machine.store(&path).expect("writes");
        let found = Machine::load_cached(&path, &machine.cpu, 2).expect("reads");
        assert_eq!(found, Lookup::Found(Box::new(machine)));
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_profile_of_another_machine_is_refused() {
        let json = serde_json::to_vec(&example()).expect("serialises");
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("machine.json");
        std::fs::write(&path, json).expect("writes");
        let here = example().cpu;
        for (cpu, threads, word) in [
            (Cpu { model: "Another 9000".into(), ..here.clone() }, 2, "Another 9000"),
            (Cpu { architecture: "riscv64".into(), ..here.clone() }, 2, "processor"),
            (Cpu { cores: 64, ..here.clone() }, 2, "64"),
            (Cpu { features: vec!["avx512f".into()], ..here.clone() }, 2, "instructions"),
            (here.clone(), 3, "2 of 3 threads"),
        ] {
            let why = unfit(Machine::load_cached(&path, &cpu, threads).expect("readable"));
            assert!(why.contains(word) && why.contains("machine.json"), "{why}");
        }
        let fewer = Machine::load_cached(&path, &here, 1).expect("readable");
        assert!(matches!(fewer, Lookup::Found(_)), "two threads' figures cover one");
    }

    #[test]
    fn damaged_files_are_refused_with_a_reason() {
        let json = serde_json::to_string(&example()).expect("serialises");
        for (content, word) in [
            (String::new(), "no profile"),
            ("{".to_string(), "no profile"),
            ("[]".to_string(), "no profile"),
            ("\0\0".to_string(), "no profile"),
            ("{\"format\": 1}".to_string(), "tool_version"),
            (json[..json.len() - 9].to_string(), "no profile"),
            (json.replacen("\"format\":1", "\"format\":7", 1), "format 7"),
            (json.replacen("\"cores\":2", "\"cores\":0", 1), "cores"),
            (json.replacen("\"quick\":", "\"quicker\":", 1), "quicker"),
            (" ".repeat(LARGEST_FILE_BYTES as usize + 1), "too large"),
        ] {
            let why = unfit(look(content.as_bytes()));
            assert!(why.contains(word), "{word}: {why}");
        }
    }

    #[test]
    fn an_impossible_profile_is_not_written() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("machine.json");
        let mut machine = example();
        machine.memory_reads[0].bytes_per_second.best = f64::NAN;
        let error = machine.store(&path).expect_err("NaN").to_string();
        assert!(error.contains("machine.json") && error.contains("memory_reads"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
    }

    #[test]
    fn a_file_that_cant_be_read_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = Machine::load_cached(folder.path(), &example().cpu, 1).expect_err("a folder");
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }
}
