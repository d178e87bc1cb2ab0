//! A calibration in a file beside the machine's profile: JSON, checked before it is written and after it is read.

use std::io::{ErrorKind, Write};
use std::path::Path;

use ounce_kernels::isa::Isa;
use ounce_model::machine::Cpu;
use ounce_model::storage::AtomicFile;

use super::{Calibration, FORMAT};
use crate::Result;

/// The largest file that is read.
const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// What a calibration's file gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// The calibration of this machine and version.
    Found(Box<Calibration>),
    /// There is no such file.
    Absent,
    /// A file that can't be used here, and why, as a sentence that names the file.
    Unfit(String),
}

impl Calibration {
    /// Reads the calibration in a file. It is of use if it was measured on this processor with these threads, instructions
    /// and format of the file.
    ///
    /// # Errors
    /// If the file is there and can't be read.
    pub fn load_cached(path: &Path, cpu: &Cpu, threads: usize) -> Result<Lookup> {
        let unfit = |what: String| Ok(Lookup::Unfit(format!("{}: {what}", path.display())));
        match std::fs::metadata(path) {
            Ok(it) if it.len() > LARGEST_FILE_BYTES => {
                return unfit(format!("{} bytes is too large for a calibration", it.len()));
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Lookup::Absent);
            }
            Err(error) => return Err(ounce_model::Error::io(path)(error).into()),
        }
        let bytes = std::fs::read(path).map_err(ounce_model::Error::io(path))?;
        match parse(&bytes).and_then(|it| it.fits(cpu, threads).map(|()| it)) {
            Ok(calibration) => Ok(Lookup::Found(Box::new(calibration))),
            Err(what) => unfit(what),
        }
    }

    /// Writes the calibration to a file, in a folder that exists. A reader sees the old file or the new one, never a part.
    ///
    /// # Errors
    /// If a figure is not possible, or the file can't be written.
    pub fn store(&self, path: &Path) -> Result<()> {
        let refused = |what: String| ounce_model::Error::format(path, format!("is not written: {what}"));
        self.check().map_err(refused)?;
        let mut file = AtomicFile::create(path)?;
        serde_json::to_writer_pretty(&mut file, self).map_err(|error| refused(error.to_string()))?;
        file.write_all(b"\n").map_err(ounce_model::Error::io(path))?;
        file.commit()?;
        Ok(())
    }

    fn fits(&self, cpu: &Cpu, threads: usize) -> Result<(), String> {
        if self.cpu != *cpu {
            return Err(format!("is of another processor ({}; here: {})", self.cpu.model, cpu.model));
        }
        if self.instruction_set != Isa::current().name() {
            return Err(format!("is of kernels for {}", self.instruction_set));
        }
        if self.threads != threads {
            return Err(format!("is of {} threads, not {threads}", self.threads));
        }
        Ok(())
    }

    /// Checks that all figures are there, positive and finite.
    ///
    /// # Errors
    /// The first flaw, as a clause.
    pub fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is {}, this version of ounce reads {FORMAT}", self.format));
        }
        let products = self.products.iter().map(|it| it.operations_per_second);
        let attention = self.attention.iter().map(|it| it.operations_per_second);
        let streams = self.streams.iter().map(|it| it.bytes_per_second);
        for (name, count) in [
            ("products", self.products.len()),
            ("attention", self.attention.len()),
            ("streams", self.streams.len()),
            ("elements", self.elements.len()),
        ] {
            if count == 0 {
                return Err(format!("{name} is empty"));
            }
        }
        if products.chain(attention).chain(streams).any(|rate| !(rate > 0.0 && rate < 1e18)) {
            return Err("a rate is not possible".to_string());
        }
        let preparations = self.preparations.iter().map(|it| it.seconds_per_value);
        let elements = self.elements.iter().map(|it| it.seconds_per_value);
        let single = [self.call_seconds, self.step_seconds];
        let whole = self.whole.iter().map(|it| it.seconds);
        if whole.clone().any(|it| !(it > 0.0 && it < 1e4)) {
            return Err("a time of a whole model is not possible".to_string());
        }
        if preparations.chain(elements).chain(single).any(|it| !(0.0..1.0).contains(&it)) {
            return Err("a time is not possible".to_string());
        }
        if self.threads == 0 || self.cpu_share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err("threads or cpu_share are not possible".to_string());
        }
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Calibration, String> {
    let calibration: Calibration =
        serde_json::from_slice(bytes).map_err(|error| format!("is no calibration: {error}"))?;
    calibration.check().map_err(|what| format!("is damaged: {what}"))?;
    Ok(calibration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::{Elements, Level, Product, Stream};
    use ounce_model::account::Operator;

    fn example() -> Calibration {
        let cpu = Cpu::detect();
        Calibration {
            format: FORMAT,
            tool_version: "0".into(),
            measured_at_unix_seconds: 1,
            measured: true,
            cpu,
            instruction_set: Isa::current().name().to_string(),
            threads: 2,
            base_bytes: 1 << 20,
            call_seconds: 1e-6,
            step_seconds: 1e-5,
            streams: vec![Stream { bytes: 1 << 20, bytes_per_second: 1e10 }],
            products: vec![Product {
                dtype: "F32".into(),
                packed: true,
                vectors: 1,
                level: Level::Memory,
                operations_per_second: 1e9,
            }],
            preparations: Vec::new(),
            attention: vec![crate::calibrate::Attention {
                kv: "f16".into(),
                sharing: 1,
                queries: 1,
                positions: 32,
                operations_per_second: 1e9,
            }],
            elements: vec![Elements {
                operator: Operator::Norm,
                kv: None,
                vectors: 1,
                seconds_per_value: 1e-9,
            }],
            whole: vec![crate::calibrate::Whole { dtype: "F32".into(), vectors: 1, seconds: 0.01 }],
            cpu_share: Some(1.0),
        }
    }

    #[test]
    fn what_was_written_is_read_back_and_the_unfit_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let calibration = example();
        let cpu = calibration.cpu.clone();
        assert_eq!(Calibration::load_cached(&path, &cpu, 2).unwrap(), Lookup::Absent);
        calibration.store(&path).unwrap();
        let found = Calibration::load_cached(&path, &cpu, 2).unwrap();
        assert_eq!(found, Lookup::Found(Box::new(calibration.clone())));
        let why = |cpu: &Cpu, threads: usize| match Calibration::load_cached(&path, cpu, threads).unwrap() {
            Lookup::Unfit(why) => why,
            other => panic!("should be refused: {other:?}"),
        };
        assert!(why(&Cpu { model: "Another".into(), ..cpu.clone() }, 2).contains("another processor"));
        assert!(why(&cpu, 3).contains("2 threads"));
        for (from, to, word) in [
            ("\"format\": 2", "\"format\": 9", "format"),
            ("\"call_seconds\": 1e-6", "\"call_seconds\": -1.0", "time"),
            ("\"products\": [", "\"product\": [", "product"),
        ] {
            let text = serde_json::to_string_pretty(&calibration).unwrap();
            let spoilt = text.replacen(from, to, 1);
            assert_ne!(text, spoilt, "{from}");
            std::fs::write(&path, spoilt).unwrap();
            assert!(why(&cpu, 2).contains(word), "{word}: {}", why(&cpu, 2));
        }
        let impossible = Calibration { step_seconds: f64::NAN, ..example() };
        assert!(impossible.store(&path).is_err());
    }
}
