//! What a model can become.

use std::collections::HashMap;
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
use super::super::quantize::allocation::Table;
use super::super::quantize::closing::bits_per_weight;
use super::super::quantize::formats::FormatArgs;
use super::super::quantize::texts::CalibrationArgs;
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

/// What formats are chosen for: the model as it came, or what a cut or factorising made of it.
pub struct Base {
    pub model: Model,
    pub units: Vec<Unit>,
    /// What makes it of the model as it came, and how people call that; none for that itself.
    pub cut: Option<(Step, String)>,
    /// What the cut alone loses: mean KL in nats a token.
    pub kl: f64,
    /// Mean squares of its matrices' inputs; empty until trials begin.
    pub importance: HashMap<String, Vec<f32>>,
    /// Its matrices' sensitivities, where they are others than those of the model as it came.
    pub table: Option<Table>,
}

impl Base {
    /// A model with what makes it, of which nothing was measured yet.
    ///
    /// # Errors
    /// If GGUF, whose names are used, has no place for it.
    pub fn new(model: Model, cut: Option<(Step, String)>) -> anyhow::Result<Base> {
        let units = units(&model)?;
        Ok(Base { units, model, cut, kl: 0.0, importance: HashMap::new(), table: None })
    }

    fn named(&self, name: &str) -> String {
        self.cut.as_ref().map_or(name.to_owned(), |(_, cut)| format!("{cut}, {name}"))
    }
}

/// A candidate, and what its weights become; none keeps all as it is.
#[derive(Debug)]
pub struct Way {
    pub candidate: Candidate,
    /// The place of what the formats are for, among the subject's.
    pub base: usize,
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
    /// The model, and what cuts leave of it.
    pub bases: Vec<Base>,
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
        texts: &CalibrationArgs,
    ) -> anyhow::Result<Subject<'m>> {
        let (machine, calibration) = calibration::known_or_measured(asked.threads)?;
        let mut subject = Subject {
            bases: vec![Base::new(model.clone(), None)?],
            run: OriginalRun::default(),
            text: texts.path().map(|it| it.display().to_string()),
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
        let told = self.told(self.model, &formats, kv)?;
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
            run.more_bytes = more(found.memory, &self.told(self.model, &formats, kv)?);
        }
        Ok(run)
    }

    fn told(&self, model: &Model, formats: &Formats, kv: KvType) -> anyhow::Result<Forecast> {
        let workload = self.asked.workload(kv);
        Ok(forecast(&model.spec, formats, &self.machine, &self.calibration, &workload)?)
    }

    /// Bytes of memory of this machine.
    pub fn memory(&self) -> u64 {
        self.machine.memory.total_bytes
    }

    /// Whether a GGUF file is planned.
    pub fn is_gguf(&self) -> bool {
        is_gguf(&self.target)
    }

    /// A base as it is, and in every format for all matrices, with the usual cache and a smaller one; the smallest that exists of it is
    /// among them.
    ///
    /// # Errors
    /// If a forecast fails.
    pub fn uniform(&self, base: usize) -> anyhow::Result<Vec<Way>> {
        let mut ways = Vec::new();
        let of = &self.bases[base];
        // A cut writes its result itself.
        let alone = of.cut.is_none().then(|| Step::new("convert", []));
        self.push(&mut ways, base, "as it is".to_owned(), None, alone)?;
        let wide =
            of.units.iter().filter(|unit| !unit.is_outer()).all(|unit| unit.columns.is_multiple_of(256));
        let types: &[DType] = match (self.is_gguf(), wide) {
            (true, true) => &GGUF,
            (true, false) => &NARROW,
            (false, _) => &FOLDER,
        };
        let mut seen: Vec<Plan> = Vec::new();
        for &dtype in types {
            // Formats that don't fit this model's rows, or are what it has, are no candidates.
            let Ok(plan) = FormatArgs::of(dtype).plan(&of.model, &of.units, &self.target) else {
                continue;
            };
            if plan.formats.is_empty() || seen.contains(&plan) {
                continue;
            }
            let step = self.quantize("type", Value::String(dtype.name().to_lowercase()));
            self.push(&mut ways, base, dtype.name().to_lowercase(), Some(plan.clone()), Some(step))?;
            seen.push(plan);
        }
        if let Some((name, plan, step)) = self.smallest(of)
            && !seen.contains(&plan)
        {
            self.push(&mut ways, base, name, Some(plan), Some(step))?;
        }
        Ok(ways)
    }

    /// A base in the smallest format that there is, the outer matrices too: its name, and how it is made.
    pub fn smallest(&self, of: &Base) -> Option<(String, Plan, Step)> {
        let smallest = DType::Q2K;
        if !self.is_gguf() {
            return None;
        }
        let plan = FormatArgs::everywhere(smallest).plan(&of.model, &of.units, &self.target).ok()?;
        let name = smallest.name().to_lowercase();
        let mut step = self.quantize("type", Value::String(name.clone()));
        step.flags.insert("keep".to_owned(), Value::Array(vec![Value::String(format!("*={name}"))]));
        (!plan.formats.is_empty()).then(|| (format!("{name} everywhere"), plan, step))
    }

    /// The step that quantizes, with one flag about formats.
    pub fn quantize(&self, flag: &'static str, value: Value) -> Step {
        self.step("quantize", [(flag, value)])
    }

    /// A step that looks at the calibration text.
    pub fn step(&self, command: &str, flags: impl IntoIterator<Item = (&'static str, Value)>) -> Step {
        let text = self.text.clone().map(|it| ("calibration", Value::String(it)));
        Step::new(command, flags.into_iter().chain(text))
    }

    /// Adds a candidate with the usual cache, and where none was asked for, with q8_0.
    ///
    /// # Errors
    /// If a forecast fails.
    pub fn push(
        &self,
        ways: &mut Vec<Way>,
        base: usize,
        name: String,
        plan: Option<Plan>,
        step: Option<Step>,
    ) -> anyhow::Result<()> {
        let of = &self.bases[base];
        let name = of.named(&name);
        let mut add = |name: String, kv: Option<KvType>| -> anyhow::Result<KvType> {
            let (candidate, kv) = self.candidate(of, name, plan.as_ref(), kv, step.clone())?;
            ways.push(Way { candidate, base, plan: plan.clone(), kv });
            Ok(kv)
        };
        let usual = add(name.clone(), None)?;
        if self.asked.kv.is_none() && usual != KvType::Q8_0 {
            add(format!("{name}, cache q8_0"), Some(KvType::Q8_0))?;
        }
        Ok(())
    }

    /// Forecasts a candidate; gives the type of its cache too.
    ///
    /// # Errors
    /// If the forecast fails.
    pub fn candidate(
        &self,
        of: &Base,
        name: String,
        plan: Option<&Plan>,
        kv: Option<KvType>,
        step: Option<Step>,
    ) -> anyhow::Result<(Candidate, KvType)> {
        let none = Plan::default();
        let shaped = plan.unwrap_or(&none).placeholder(&of.model)?;
        let formats = Formats::of(&shaped.weights);
        let usual = self.asked.kv_for(&formats);
        let kv_type = kv.unwrap_or(usual);
        let file = self.file(&shaped, &self.target)?;
        let told = self.told(&of.model, &formats, kv_type)?;
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
        let unchanged = of.cut.is_none() && plan.is_none() && kv.is_none();
        let expected = unchanged.then_some(Expected {
            kl: 0.0,
            quality: Some(Quality::ORIGINAL),
            basis: Basis::Unchanged,
        });
        let candidate = Candidate {
            name,
            recipe: Recipe { run, steps: of.cut.iter().map(|it| it.0.clone()).chain(step).collect() },
            bits_per_weight: bits_per_weight(&file),
            costs,
            expected,
            misses: Vec::new(),
            on_front: false,
        };
        Ok((candidate, kv_type))
    }

    fn file(&self, model: &Model, target: &Path) -> anyhow::Result<ounce_model::formats::Forecast> {
        convert::forecast(model, target, &WriteOptions { overwrite: true, ..WriteOptions::default() })
    }
}
