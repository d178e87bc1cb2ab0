//! An adapted model: the general network with an adapter in its slots, as the training loop knows it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use ounce_model::Model;
use ounce_model::spec::Scored;
use ounce_train::graph::{GraphNet, Pass};
use ounce_train::loss::{Choices, PreferenceLoss, Scores};
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Net, Options, Pair};
use ounce_train::{Batch, IGNORE, Loss, Param, Trainable};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::adapter::{Adapter, Array, Clock, adapter};
use crate::core::{Core, is_fast};
use crate::folder::{Base, Folder, Labels, Own};
use crate::names::Names;
use crate::settings::Targets;
use crate::{Error, Kind, Result, Settings, foreign, fused};

/// A model with an adapter.
pub struct Adapted {
    net: Core,
    adapter: Box<dyn Adapter>,
    settings: Settings,
    names: Names,
    base: Base,
    clock: Clock,
    /// Steps done.
    step: u64,
    /// Whether a step has begun.
    begun: bool,
    beta: f64,
    choices: Option<Choices>,
}

impl std::fmt::Debug for Adapted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Adapted({} by {})", self.base.name, self.settings.method)
    }
}

/// Bytes of a weight that its model is known by.
const KNOWN_BY: usize = 4096;

/// Of which model an adapter is; weights for which `other` holds are none of it.
///
/// # Errors
/// If a weight can't be read.
pub fn identify(model: &Model, other: &dyn Fn(&str) -> bool) -> Result<Base> {
    let mut hash = Sha256::new();
    for info in model.spec.tensors().into_iter().filter(|info| !other(&info.name)) {
        hash.update(format!("{}\0{:?}\0", info.name, info.shape));
        let tensor = model.weights.get(&info.name)?;
        hash.update(&tensor.data[..tensor.data.len().min(KNOWN_BY)]);
    }
    let name = model.origin.path.display().to_string();
    Ok(Base { name, fingerprint: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect() })
}

impl Adapted {
    /// A model with a new adapter.
    ///
    /// # Errors
    /// If the model or a setting does not suit the method.
    pub fn new(model: &Model, settings: &Settings, options: Options) -> Result<Adapted> {
        let clock = Clock::default();
        let made = adapter(settings, &clock)?;
        Adapted::with(model, settings, options, made, clock)
    }

    /// As [`Adapted::new`], on the fast network where the method allows it: it gives losses, scores, folders and merged models, no
    /// logits.
    ///
    /// # Errors
    /// As [`Adapted::new`].
    pub fn fast(model: &Model, settings: &Settings, options: Options) -> Result<Adapted> {
        if !is_fast(model, settings) {
            return Adapted::new(model, settings, options);
        }
        let clock = Clock::default();
        let made = adapter(settings, &clock)?;
        let trained = heads(model, settings);
        let pairs = |slot: &str, output: usize, input: usize| -> ounce_train::Result<Option<Pair>> {
            match settings.targets.chooses(slot) {
                true => Ok(Some(crate::methods::lora::beside(settings, slot, (output, input))?)),
                false => Ok(None),
            }
        };
        let net = Net::with_pairs(model, options, &|name| trained.contains(name), &pairs)?;
        Adapted::finished(model, settings, Core::Fast(Box::new(net)), made, clock, options)
    }

    /// A model with an adapter that was made before.
    ///
    /// # Errors
    /// As [`Adapted::new`].
    pub(crate) fn with(
        model: &Model,
        settings: &Settings,
        options: Options,
        mut adapter: Box<dyn Adapter>,
        clock: Clock,
    ) -> Result<Adapted> {
        adapter.begin(model)?;
        let heads = heads(model, settings);
        let tensors = model.spec.tensors();
        let trained: HashSet<String> = tensors
            .iter()
            .map(|info| info.name.clone())
            .filter(|name| adapter.trains(name) || heads.contains(name))
            .collect();
        let options = Options { checkpointing: false, ..options };
        let wrapped = std::cell::RefCell::new(&mut adapter);
        let mut net =
            GraphNet::with_frozen(model, options, &|name| trained.contains(name), &mut |name, linear| {
                Ok(wrapped.borrow_mut().slot(name, linear)?)
            })?;
        for weight in adapter.weights(model)? {
            net.add(weight)?;
        }
        Adapted::finished(model, settings, Core::Slots(Box::new(net)), adapter, clock, options)
    }

    fn finished(
        model: &Model,
        settings: &Settings,
        net: Core,
        adapter: Box<dyn Adapter>,
        clock: Clock,
        options: Options,
    ) -> Result<Adapted> {
        if !net.params().iter().any(Param::is_trainable) {
            return Err(Error::Option(format!(
                "none of this {} model's layers are among the targets, so {} has nothing to train; name others",
                model.spec.family, settings.method
            )));
        }
        let heads = heads(model, settings);
        Ok(Adapted {
            net,
            adapter,
            settings: settings.clone(),
            names: Names::of(model)?,
            base: identify(model, &|name| heads.contains(name))?,
            clock,
            step: 0,
            begun: false,
            beta: options.beta,
            choices: None,
        })
    }

    /// A model with the adapter of a folder; `below` are those of the language adapters that it lies on. A base that the adapter was
    /// not made for is refused unless `any_base`.
    ///
    /// # Errors
    /// If the adapter is of another model, or its file has weights that its method has not.
    pub fn open(
        model: &Model,
        folder: &Folder,
        options: Options,
        below: &[Folder],
        any_base: bool,
    ) -> Result<Adapted> {
        let labelled;
        let model = match folder.own.as_ref().and_then(|own| own.labels.as_ref()) {
            Some(labels) if model.spec.classifier.is_none() => {
                labelled = with_classifier(model, task_of(labels), &labels.names, Init::default(), 0)?;
                &labelled
            }
            _ => model,
        };
        let names = Names::of(model)?;
        let (settings, tensors) = match &folder.own {
            Some(own) => {
                let present = |slot: &str| own.settings.targets.chooses(slot);
                let tensors = folder.tensors.clone();
                (own.settings.clone(), fused::split(tensors, &names, &model.spec, Some(&present))?)
            }
            None => {
                let settings = foreign::settings(folder, &names)?;
                let tensors = match settings.method {
                    Kind::Lora | Kind::Dora => foreign::even_out(folder, &settings)?,
                    _ => folder.tensors.clone(),
                };
                (settings, fused::split(tensors, &names, &model.spec, None)?)
            }
        };
        let clock = Clock::default();
        // A prompt is what a file has of the network that made it.
        let made: Box<dyn Adapter> = match settings.method {
            Kind::PTuning => Box::new(crate::methods::prompt::Prompt::new(settings.clone())?),
            _ => adapter(&settings, &clock)?,
        };
        let mut adapted = Adapted::with(model, &settings, options, made, clock)?;
        if let Some(own) = folder.own.as_ref().filter(|_| !any_base)
            && own.base.fingerprint != adapted.base.fingerprint
        {
            return Err(Error::folder(
                &folder.path,
                format!(
                    "was made for another base ({}); name that one, or give --any-base if this one's weights may differ",
                    own.base.name
                ),
            ));
        }
        adapted.take(&folder.path, tensors)?;
        adapted.lay_on(below)?;
        Ok(adapted)
    }

    /// Takes a file's weights.
    fn take(&mut self, path: &Path, tensors: Vec<Array>) -> Result<()> {
        let parts = self.adapter.parts();
        let mut values = Vec::with_capacity(tensors.len());
        for mut array in tensors {
            let foreign = || {
                Error::folder(
                    path,
                    format!(
                        "has a weight {}, which is none of {} on this model; the adapter was made by another method or for \
                         another model",
                        array.name, self.settings.method
                    ),
                )
            };
            let name = self.names.weight(&array.name, parts).ok_or_else(foreign)?;
            let known = ["vera_A", "vera_B"].contains(&name.as_str())
                || self.net.params().iter().any(|param| param.is_trainable() && param.name == name);
            if !known {
                return Err(foreign());
            }
            array.name = name;
            values.push(array);
        }
        let in_folder = |error: Error| match error {
            Error::Option(what) => Error::folder(path, what),
            other => other,
        };
        self.adapter.take_values(&values, self.net.params_mut()).map_err(in_folder)
    }

    /// Takes the weights of lower adapters, from the bottom.
    ///
    /// # Errors
    /// If there are not as many as the settings say, or one is of another shape.
    pub fn lay_on(&mut self, below: &[Folder]) -> Result<()> {
        let depth = self.settings.below.len();
        if below.len() != depth {
            return Err(Error::Option(format!(
                "the adapter lies on {depth} others and {} were named; name each with --below FOLDER, from the bottom",
                below.len()
            )));
        }
        for (index, folder) in below.iter().enumerate() {
            let level = crate::methods::bottleneck::under(depth - index);
            for array in &folder.tensors {
                let parts = self.adapter.parts();
                let name = self.names.weight(&array.name, parts).unwrap_or_default();
                let name = name.replace(crate::methods::bottleneck::TOP, &level);
                let param = self.net.params_mut().iter_mut().find(|param| param.name == name);
                let param =
                    param.filter(|param| param.value.len() == array.values.len()).ok_or_else(|| {
                        Error::folder(&folder.path, format!("{} does not fit this model", array.name))
                    })?;
                param.value.clone_from(&array.values);
            }
        }
        Ok(())
    }

    /// The adapter's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The model without the adapter.
    pub fn skeleton(&self) -> &Model {
        self.net.skeleton()
    }

    /// How many numbers are trained, new heads included.
    pub fn trained(&self) -> u64 {
        self.net.params().iter().filter(|param| param.is_trainable()).map(|it| it.value.len() as u64).sum()
    }

    /// How many numbers the method trains by its formula.
    pub fn parameters(&self) -> u64 {
        self.adapter.parameters(&self.skeleton().spec)
    }

    /// A hash of all that is not trained.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn frozen(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        for param in self.net.params().iter().filter(|param| !param.is_trainable()) {
            hash.update(param.name.as_bytes());
            hash.update(bytemuck::cast_slice::<f32, u8>(&param.value));
        }
        for info in self.skeleton().spec.tensors() {
            if !self.net.params().iter().any(|param| param.name == info.name) {
                hash.update(info.name.as_bytes());
                hash.update(&*self.skeleton().weights.get(&info.name)?.data);
            }
        }
        Ok(hash.finalize().into())
    }

    /// The adapter as a folder, not yet written.
    ///
    /// # Errors
    /// If its values can't be made.
    pub fn folder(&self, path: &Path) -> Result<Folder> {
        let parts = self.adapter.parts();
        let mut tensors = self.adapter.file_values(self.net.params())?;
        tensors.iter_mut().for_each(|array| array.name = self.names.key(&array.name, parts));
        let settings = self.adapter.file_settings(&self.settings);
        let (tensors, times) = fused::join(tensors, &self.names, &self.skeleton().spec);
        let mut config = self.config();
        if !times.is_empty() {
            // What is scaled by α/r, or α/√r, is to stay so scaled.
            let alpha = |times: usize| {
                settings.alpha * if settings.rslora { (times as f64).sqrt() } else { times as f64 }
            };
            let pattern = |of: &dyn Fn(usize) -> Value| -> Value {
                Value::Object(times.iter().map(|(module, times)| (module.clone(), of(*times))).collect())
            };
            config.insert("rank_pattern".into(), pattern(&|times| json!(times * settings.rank)));
            config.insert("alpha_pattern".into(), pattern(&|times| json!(alpha(times))));
        }
        let own = Own { settings, base: self.base.clone(), labels: labels(self.skeleton()) };
        Ok(Folder { path: path.to_path_buf(), config, own: Some(own), tensors })
    }

    /// peft's settings.
    fn config(&self) -> serde_json::Map<String, Value> {
        let (model, spec) = (self.skeleton(), &self.skeleton().spec);
        let kind = self.settings.method;
        let peft = kind.facts().peft;
        let own = format!("OUNCE_{}", kind.name().to_uppercase().replace('-', "_"));
        let task = match spec.classifier.map(|it| it.of) {
            Some(Scored::Text { .. }) => Some("SEQ_CLS"),
            Some(Scored::Tokens) => Some("TOKEN_CLS"),
            Some(Scored::Spans) => Some("QUESTION_ANS"),
            None if spec.causal => Some("CAUSAL_LM"),
            None => None,
        };
        let mut map = self.adapter.config(spec);
        map.insert("peft_type".into(), json!(peft.unwrap_or(&own)));
        map.insert("task_type".into(), json!(task));
        map.insert("base_model_name_or_path".into(), json!(model.origin.path.display().to_string()));
        map.insert("inference_mode".into(), json!(true));
        map.insert("revision".into(), Value::Null);
        let prompts = matches!(kind, Kind::Prompt | Kind::PTuning | Kind::Prefix);
        if !prompts {
            let slots: Vec<String> = self.settings.targets.of(spec).into_iter().map(|it| it.0).collect();
            map.insert("target_modules".into(), json!(self.names.targets(&slots)));
            let heads: HashSet<&str> = self
                .net
                .params()
                .iter()
                .filter(|param| param.is_trainable())
                .filter(|param| self.settings.trains.iter().any(|stem| param.name.starts_with(stem.as_str())))
                .filter_map(|param| self.names.module(param.name.rsplit_once('.')?.0))
                .collect();
            map.insert("modules_to_save".into(), if heads.is_empty() { Value::Null } else { json!(heads) });
            if kind == Kind::Ia3 {
                let downs: Vec<String> =
                    slots.iter().filter(|slot| crate::methods::ia3::scales_input(slot)).cloned().collect();
                map.insert("feedforward_modules".into(), json!(self.names.targets(&downs)));
            }
        }
        map
    }

    /// The model with what was learned in its matrices, f32 where they changed.
    ///
    /// # Errors
    /// If the method's parts can't become part of matrices.
    pub fn merged(&self) -> Result<Model> {
        if !self.settings.method.facts().merges {
            let kinds: Vec<&str> =
                Kind::ALL.iter().filter(|kind| kind.facts().merges).map(|kind| kind.name()).collect();
            return Err(Error::Option(format!(
                "what {} learned is no change of matrices and can't be merged; {} can",
                self.settings.method,
                kinds.join(", ")
            )));
        }
        self.net.model(self.settings.scale(self.settings.rank))
    }

    /// Whether a weight of the base may have become another.
    pub(crate) fn changes(&self, weight: &str) -> bool {
        let own = self.net.params().iter().any(|param| param.name == weight && param.is_trainable());
        own || weight.strip_suffix(".weight").is_some_and(|slot| {
            !matches!(self.settings.targets, Targets::Parts(ref parts) if parts.is_empty())
                && self.settings.targets.chooses(slot)
        })
    }

    /// The logits of all tokens of a batch, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        let mut found = Vec::new();
        let tokens = self.adapter.virtual_tokens();
        self.pass(batch, None, &mut |pass, hidden| {
            let logits = pass.logits(hidden)?;
            let width = logits.dims2()?.1;
            let all = logits.flatten_all()?.to_vec1::<f32>()?;
            let mut start = 0;
            for &length in &pass.batch().lengths {
                found.extend_from_slice(&all[(start + tokens) * width..(start + length) * width]);
                start += length;
            }
            Ok((logits.sum_all()?, Loss::default()))
        })?;
        Ok(found)
    }

    /// Sends a batch through network and adapter and hands what the head is given to `objective`.
    fn pass(
        &mut self,
        batch: &Batch,
        scale: Option<f32>,
        objective: &mut dyn FnMut(
            &Pass<'_>,
            &candle_core::Tensor,
        ) -> ounce_train::Result<(candle_core::Tensor, Loss)>,
    ) -> ounce_train::Result<Loss> {
        let longer;
        let batch = match self.adapter.virtual_tokens() {
            0 => batch,
            tokens => {
                longer = with_virtual(batch, tokens);
                &longer
            }
        };
        let adapter = &*self.adapter;
        let count = batch.counted() as f64;
        self.net.slots()?.run(batch, scale, &mut |pass| {
            let hidden = {
                let mut hook = adapter.hook(&batch.lengths);
                pass.hidden(&mut *hook)?
            };
            let hidden = adapter.finish(hidden)?;
            let (mut value, loss) = objective(pass, &hidden)?;
            if scale.is_some()
                && let Some(penalty) = adapter.penalty()?
            {
                value = (value + (penalty * count)?)?;
            }
            Ok((value, loss))
        })
    }

    /// The loss that goes with the batch and the head.
    fn run(&mut self, batch: &Batch, scale: Option<f32>) -> ounce_train::Result<Loss> {
        if let Core::Fast(net) = &mut self.net {
            return match scale {
                Some(scale) => net.accumulate(batch, scale),
                None => net.loss(batch),
            };
        }
        let (beta, mut found) = (self.beta, None);
        let loss = self.pass(batch, scale, &mut |pass, hidden| {
            let batch = pass.batch();
            if batch.reference.is_empty() {
                return pass.usual_loss(hidden);
            }
            let mut loss = PreferenceLoss::new(&batch.lengths, &batch.reference, beta);
            let (value, _) = pass.loss(hidden, &mut loss)?;
            found = Some(loss.choices());
            Ok((value, Loss { sum: loss.sum(), count: batch.counted() }))
        })?;
        if let Some(found) = found {
            *self.choices.get_or_insert_default() += found;
        }
        Ok(loss)
    }
}

/// The model's own weights that settings train besides the adapter.
fn heads(model: &Model, settings: &Settings) -> HashSet<String> {
    let tensors = model.spec.tensors().into_iter().map(|info| info.name);
    tensors.filter(|name| settings.trains.iter().any(|stem| name.starts_with(stem.as_str()))).collect()
}

/// The batch with places in front of every sequence that nothing is learned of.
fn with_virtual(batch: &Batch, tokens: usize) -> Batch {
    let mut longer = Batch {
        labels: batch.labels.clone(),
        reference: batch.reference.clone(),
        spans: batch.spans.clone(),
        ..Batch::default()
    };
    for span in longer.spans.iter_mut().filter(|span| span[0] != IGNORE) {
        span.iter_mut().for_each(|at| *at += tokens as u32);
    }
    let mut start = 0;
    for &length in &batch.lengths {
        let own = start..start + length;
        longer.tokens.extend(std::iter::repeat_n(0, tokens).chain(batch.tokens[own.clone()].iter().copied()));
        if !batch.targets.is_empty() {
            let targets = batch.targets[own.clone()].iter().copied();
            longer.targets.extend(std::iter::repeat_n(IGNORE, tokens).chain(targets));
        }
        if !batch.types.is_empty() {
            longer.types.extend(std::iter::repeat_n(0, tokens).chain(batch.types[own].iter().copied()));
        }
        longer.lengths.push(length + tokens);
        start += length;
    }
    longer
}

fn labels(model: &Model) -> Option<Labels> {
    let classifier = model.spec.classifier?;
    let of = match Task::of(classifier.of) {
        Task::Texts => "texts",
        Task::Tokens => "tokens",
        Task::Spans => "spans",
    };
    let names = ounce_model::families::classifier::label_names(&model.config, classifier.labels);
    Some(Labels { of: of.to_owned(), names })
}

fn task_of(labels: &Labels) -> Task {
    match labels.of.as_str() {
        "tokens" => Task::Tokens,
        "spans" => Task::Spans,
        _ => Task::Texts,
    }
}

impl Trainable for Adapted {
    fn params(&self) -> &[Param] {
        self.net.params()
    }

    fn params_mut(&mut self) -> &mut [Param] {
        self.net.params_mut()
    }

    fn loss(&mut self, batch: &Batch) -> ounce_train::Result<Loss> {
        self.run(batch, None)
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> ounce_train::Result<Loss> {
        if !self.begun {
            self.adapter.before_step(self.step, self.net.params());
            self.begun = true;
        }
        let loss = self.run(batch, Some(scale));
        self.clock.fetch_add(1, Ordering::Relaxed);
        loss
    }

    fn take_choices(&mut self) -> Option<Choices> {
        match &mut self.net {
            Core::Fast(net) => net.take_choices(),
            Core::Slots(_) => self.choices.take(),
        }
    }

    fn stepped(&mut self, _loss: f64) {
        self.adapter.after_step(self.step, self.net.params_mut());
        self.step += 1;
        self.begun = false;
    }

    fn memory(&self) -> Value {
        json!({
            "step": self.step, "clock": self.clock.load(Ordering::Relaxed), "adapter": self.adapter.memory(),
        })
    }

    fn remember(&mut self, memory: &Value) -> ounce_train::Result<()> {
        let number = |key: &str| memory.get(key).and_then(Value::as_u64).unwrap_or_default();
        self.step = number("step");
        self.clock.store(number("clock"), Ordering::Relaxed);
        self.begun = false;
        self.adapter.remember(memory.get("adapter").unwrap_or(&Value::Null));
        Ok(())
    }

    fn scores(&mut self, batch: &Batch) -> ounce_train::Result<Vec<f32>> {
        if let Core::Fast(net) = &mut self.net {
            return net.scores(batch);
        }
        let mut scores = Scores::default();
        self.pass(batch, None, &mut |pass, hidden| pass.loss(hidden, &mut scores))?;
        let tokens = self.adapter.virtual_tokens();
        let spans = self.skeleton().spec.classifier.is_some_and(|it| it.of == Scored::Spans);
        if tokens == 0 || !spans {
            return Ok(scores.0);
        }
        // Every token has scores there, the ones without text too.
        let width = scores.0.len() / batch.lengths.iter().map(|length| length + tokens).sum::<usize>().max(1);
        let (mut kept, mut start) = (Vec::new(), 0);
        for &length in &batch.lengths {
            kept.extend_from_slice(&scores.0[(start + tokens) * width..(start + tokens + length) * width]);
            start += length + tokens;
        }
        Ok(kept)
    }

    fn workspace_bytes(&self, tokens: usize) -> usize {
        self.net.workspace_bytes(tokens)
    }

    /// Writes the adapter's folder.
    fn save(&self, folder: &Path) -> ounce_train::Result<()> {
        Ok(self.folder(folder)?.write()?)
    }
}
