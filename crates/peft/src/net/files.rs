//! Adapted models from folders and to folders.

use std::collections::HashSet;
use std::path::Path;

use ounce_model::Model;
use ounce_model::spec::Scored;
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Options};
use serde_json::{Value, json};

use super::Adapted;
use crate::adapter::{Adapter, Array, Clock, adapter};
use crate::folder::{Folder, Labels, Own};
use crate::names::Names;
use crate::{Error, Kind, Result, foreign, fused};

impl Adapted {
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
            let known = self.adapter.keeps(&name)
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
