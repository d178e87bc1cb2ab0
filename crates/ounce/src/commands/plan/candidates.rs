//! What a model can become.

use std::path::{Path, PathBuf};

use ounce_compress::quantize::{Plan, Unit, units};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_model::Model;
use ounce_model::account::Formats;
use ounce_model::formats::WriteOptions;
use ounce_model::machine::Machine;
use ounce_plan::budget::{Costs, Quality};
use ounce_plan::calibrate::{Calibration, kv_name};
use ounce_plan::forecast::{Forecast, forecast};
use ounce_plan::recipe::{Recipe, Run, Step};
use ounce_plan::search::{Basis, Candidate, Expected};
use serde::Serialize;
use toml::Value;

use super::super::bench::costs::{self, Measured};
use super::super::convert::{self, is_gguf};
use super::super::quantize::closing::bits_per_weight;
use super::super::quantize::formats::FormatArgs;
use super::super::quantize::texts::TextArgs;
use super::budget::Asked;
use crate::{calibration, source};

/// Formats for all matrices of a file, the finest first.
const GGUF: [DType; 7] =
    [DType::Q8_0, DType::Q6K, DType::Q5K, DType::Q4K, DType::IQ4XS, DType::Q3K, DType::Q2K];
/// The same for rows that are no whole blocks of 256.
const NARROW: [DType; 6] = [DType::Q8_0, DType::Q5_1, DType::Q5_0, DType::Q4_1, DType::IQ4NL, DType::Q4_0];
/// Formats for all matrices of a folder.
const FOLDER: [DType; 6] =
    [DType::G8x128, DType::G4x32, DType::G4x128, DType::G3x64, DType::G2x32, DType::G2x64];

/// Bytes of weights below which a megabyte of memory matters.
const SMALL: u64 = 256 << 20;

/// A candidate, and what its weights become; none keeps all as it is.
#[derive(Debug)]
pub struct Way {
    pub candidate: Candidate,
    pub plan: Option<Plan>,
    pub kv: KvType,
}

/// How a run of the original went beside its forecast: forecasts of candidates are corrected by it.
#[derive(Debug, Clone, Serialize)]
pub struct OriginalRun {
    /// What was measured; none if the original was too large to be run.
    pub measured: Option<Measured>,
    /// Resident bytes more than were forecast.
    pub more_bytes: i64,
    /// The time to its first token as a share of what was forecast.
    pub first_token: f64,
    /// The time for a token as a share of what was forecast.
    pub per_token: f64,
}

impl Default for OriginalRun {
    fn default() -> OriginalRun {
        OriginalRun { measured: None, more_bytes: 0, first_token: 1.0, per_token: 1.0 }
    }
}

/// A model that is planned for.
pub struct Subject<'m> {
    pub model: &'m Model,
    pub units: Vec<Unit>,
    pub target: PathBuf,
    asked: &'m Asked,
    machine: Machine,
    calibration: Calibration,
    /// What a run of the original showed.
    pub run: OriginalRun,
    /// The calibration text, if one was named.
    text: Option<String>,
}

impl<'m> Subject<'m> {
    /// Gets ready; measures the machine in a hurry if nobody did before.
    ///
    /// # Errors
    /// If the machine can't be measured, or GGUF, whose names are used, has no place for the model.
    pub fn new(
        reference: &str,
        model: &'m Model,
        asked: &'m Asked,
        target: PathBuf,
        texts: &TextArgs,
    ) -> anyhow::Result<Subject<'m>> {
        let (machine, calibration) = calibration::known_or_measured(asked.threads)?;
        let mut subject = Subject {
            units: units(model)?,
            run: OriginalRun::default(),
            text: texts.calibration_path().map(|it| it.display().to_string()),
            model,
            target,
            asked,
            machine,
            calibration,
        };
        subject.run = subject.run_original(reference)?;
        Ok(subject)
    }

    /// Runs the original once: what a program takes besides what the accountant counts (code, tokenizer, stacks) and how far
    /// the rates of kernels are off today are the same for what is made of it. One that is too large for this is only opened.
    fn run_original(&self, reference: &str) -> anyhow::Result<OriginalRun> {
        let formats = Formats::of(&self.model.weights);
        let kv = self.asked.kv_for(&formats);
        let told = self.told(&formats, kv)?;
        let base = self.calibration.base_bytes;
        if told.resident_bytes > self.machine.memory.total_bytes / 2 {
            let opened = costs::opened(reference)?;
            return Ok(OriginalRun { more_bytes: opened as i64 - base as i64, ..OriginalRun::default() });
        }
        let folder = tempfile::tempdir()?;
        let write = |name: &str, dtype: Option<DType>| -> anyhow::Result<String> {
            let path = folder.path().join(name);
            convert::write(self.model, &path, &WriteOptions { dtype, ..WriteOptions::default() })?;
            Ok(path.display().to_string())
        };
        // Built-in models are part of the program's own pages; as files they are as others.
        let path = match source::locate(reference)? {
            source::Place::Path(_) => reference.to_owned(),
            source::Place::BuiltIn(_) => write("model.gguf", None)?,
        };
        let Asked { prompt, context, threads, .. } = *self.asked;
        let found = costs::apart(&path, (prompt, context), Some(kv), threads)?;
        let more = |memory: u64, told: &Forecast| memory as i64 - told.resident_bytes as i64;
        let mut run = OriginalRun {
            more_bytes: more(found.memory, &told),
            first_token: found.first_token / told.first_token_seconds,
            per_token: found.per_token / told.per_token_seconds,
            measured: Some(found),
        };
        if self.model.weight_bytes() < SMALL {
            // Whole pages of packed weights count here; what is quantized has other ones.
            let path = write("rounded.gguf", Some(DType::Q8_0))?;
            let formats = Formats::of(&Model::open(&path)?.weights);
            let kv = self.asked.kv_for(&formats);
            let found = costs::apart(&path, (prompt, context), Some(kv), threads)?;
            run.more_bytes = more(found.memory, &self.told(&formats, kv)?);
        }
        Ok(run)
    }

    fn told(&self, formats: &Formats, kv: KvType) -> anyhow::Result<Forecast> {
        let workload = self.asked.workload(kv);
        Ok(forecast(&self.model.spec, formats, &self.machine, &self.calibration, &workload)?)
    }

    /// Whether a GGUF file is planned.
    pub fn is_gguf(&self) -> bool {
        is_gguf(&self.target)
    }

    /// The model as it is, and in every format for all matrices, with the usual cache and a smaller one.
    ///
    /// # Errors
    /// If a forecast fails.
    pub fn uniform(&self) -> anyhow::Result<Vec<Way>> {
        let mut ways = Vec::new();
        let convert = Step::new("convert", []);
        self.push(&mut ways, "as it is".to_owned(), None, convert)?;
        let wide =
            self.units.iter().filter(|unit| !unit.is_outer()).all(|unit| unit.columns.is_multiple_of(256));
        let types: &[DType] = match (self.is_gguf(), wide) {
            (true, true) => &GGUF,
            (true, false) => &NARROW,
            (false, _) => &FOLDER,
        };
        let mut seen: Vec<Plan> = Vec::new();
        for &dtype in types {
            // Formats that don't fit this model's rows, or are what it has, are no candidates.
            let Ok(plan) = FormatArgs::of(dtype).plan(self.model, &self.units, &self.target) else {
                continue;
            };
            if plan.formats.is_empty() || seen.contains(&plan) {
                continue;
            }
            let step = self.quantize("type", Value::String(dtype.name().to_lowercase()));
            self.push(&mut ways, dtype.name().to_lowercase(), Some(plan.clone()), step)?;
            seen.push(plan);
        }
        // Nothing smaller exists.
        let smallest = DType::Q2K;
        if self.is_gguf()
            && let Ok(plan) = FormatArgs::everywhere(smallest).plan(self.model, &self.units, &self.target)
            && !plan.formats.is_empty()
            && !seen.contains(&plan)
        {
            let name = smallest.name().to_lowercase();
            let mut step = self.quantize("type", Value::String(name.clone()));
            step.flags.insert("keep".to_owned(), Value::Array(vec![Value::String(format!("*={name}"))]));
            self.push(&mut ways, format!("{name} everywhere"), Some(plan), step)?;
        }
        Ok(ways)
    }

    /// The step that quantizes, with one flag about formats.
    pub fn quantize(&self, flag: &'static str, value: Value) -> Step {
        let text = self.text.clone().map(|it| ("calibration", Value::String(it)));
        Step::new("quantize", [(flag, value)].into_iter().chain(text))
    }

    /// Adds a candidate with the usual cache, and where none was asked for, with q8_0.
    ///
    /// # Errors
    /// If a forecast fails.
    pub fn push(
        &self,
        ways: &mut Vec<Way>,
        name: String,
        plan: Option<Plan>,
        step: Step,
    ) -> anyhow::Result<()> {
        let usual = self.way(name.clone(), plan.clone(), None, step.clone())?;
        let smaller = self.asked.kv.is_none() && usual.kv != KvType::Q8_0;
        ways.push(usual);
        if smaller {
            let name = format!("{name}, cache q8_0");
            ways.push(self.way(name, plan, Some(KvType::Q8_0), step)?);
        }
        Ok(())
    }

    /// Forecasts a candidate.
    fn way(&self, name: String, plan: Option<Plan>, kv: Option<KvType>, step: Step) -> anyhow::Result<Way> {
        let none = Plan::default();
        let shaped = plan.as_ref().unwrap_or(&none).placeholder(self.model)?;
        let formats = Formats::of(&shaped.weights);
        let usual = self.asked.kv_for(&formats);
        let kv_type = kv.unwrap_or(usual);
        let file = self.file(&shaped, &self.target)?;
        let told = self.told(&formats, kv_type)?;
        let run = &self.run;
        let costs = Costs {
            memory: told.resident_bytes.saturating_add_signed(run.more_bytes),
            disk: file.bytes,
            first_token: told.first_token_seconds * run.first_token,
            per_token: told.per_token_seconds * run.per_token,
            energy_per_token: told.energy_per_token_joules.map(|it| it * run.per_token),
        };
        let said = kv.or(self.asked.kv).map(|it| kv_name(it).to_owned());
        let run = Run { context: Some(self.asked.context), kv: said, threads: None };
        let unchanged = plan.is_none() && kv.is_none();
        let expected = unchanged.then_some(Expected {
            kl: 0.0,
            quality: Some(Quality::ORIGINAL),
            basis: Basis::Unchanged,
        });
        let candidate = Candidate {
            name,
            recipe: Recipe { run, steps: vec![step] },
            bits_per_weight: bits_per_weight(&file),
            costs,
            expected,
            misses: Vec::new(),
            on_front: false,
        };
        Ok(Way { candidate, plan, kv: kv_type })
    }

    fn file(&self, model: &Model, target: &Path) -> anyhow::Result<ounce_model::formats::Forecast> {
        convert::forecast(model, target, &WriteOptions { overwrite: true, ..WriteOptions::default() })
    }
}
