//! What the weights of adapters are called in files: by the modules of Hugging Face's models, as Python's peft names them.

use std::collections::BTreeMap;

use ounce_model::{Model, families, names};

use crate::{Error, Result};

/// What stands in front of every module.
pub(crate) const STEM: &str = "base_model.model.";
/// What stands in front of a layer that is no module of its own, because its matrix is part of a larger one.
pub(crate) const OWN: &str = "base_model.model.ounce.";

/// The modules of a model.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// From ounce's names of weights to Hugging Face's, where a weight is one of a file's.
    files: BTreeMap<String, String>,
    ours: BTreeMap<String, String>,
    /// The layers that a module is made of, where it is more than one.
    fused: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// Those of a model.
    ///
    /// # Errors
    /// If its family is unknown, or its weights have no place in a file.
    pub fn of(model: &Model) -> Result<Names> {
        let family = families::by_name(&model.spec.family)
            .ok_or_else(|| Error::Option(format!("{} is no family that ounce knows", model.spec.family)))?;
        let plan = names::plan(&model.spec, &family.names)?;
        let mut names = Names::default();
        let stem = |name: &str| name.strip_suffix(".weight").map(str::to_owned);
        for tensor in &plan {
            if tensor.is_stack()
                && let Some(module) = stem(&tensor.name)
                && let Some(parts) = tensor.parts.iter().map(|part| stem(part)).collect::<Option<Vec<_>>>()
            {
                names.fused.insert(module, parts);
            }
            if !tensor.is_whole() {
                continue;
            }
            names.files.insert(tensor.parts[0].clone(), tensor.name.clone());
            names.ours.insert(tensor.name.clone(), tensor.parts[0].clone());
        }
        Ok(names)
    }

    /// The module that a linear layer is (`model.layers.0.self_attn.q_proj`).
    pub fn module(&self, slot: &str) -> Option<&str> {
        self.files.get(&format!("{slot}.weight"))?.strip_suffix(".weight")
    }

    /// The linear layer that a module is.
    pub fn slot(&self, module: &str) -> Option<&str> {
        self.ours.get(&format!("{module}.weight"))?.strip_suffix(".weight")
    }

    /// The layers that a module is made of, if they are several.
    pub fn parts_of(&self, module: &str) -> Option<&[String]> {
        self.fused.get(module).map(Vec::as_slice)
    }

    /// All modules that are made of several layers.
    pub fn modules_of_parts(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.fused.iter()
    }

    /// The module that a layer is part of.
    fn whole(&self, slot: &str) -> Option<&str> {
        self.fused
            .iter()
            .find(|(_, parts)| parts.iter().any(|it| it == slot))
            .map(|(module, _)| module.as_str())
    }

    /// All modules that are linear layers.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.ours.keys().filter_map(|name| name.strip_suffix(".weight"))
    }

    /// The name in a file of one of an adapter's weights; `parts` are those of the method.
    pub fn key(&self, weight: &str, parts: &[(&str, &str)]) -> String {
        if let Some(file) = self.files.get(weight) {
            return format!("{STEM}{file}");
        }
        let Some((slot, part)) = weight.rsplit_once('.') else { return alone(weight) };
        let Some((_, theirs)) = parts.iter().find(|(ours, _)| *ours == part) else { return alone(weight) };
        match self.module(slot) {
            Some(module) => format!("{STEM}{module}.{theirs}"),
            None => format!("{OWN}{slot}.{theirs}"),
        }
    }

    /// The weight of a file's name; none if it is none of this model and method.
    pub fn weight(&self, key: &str, parts: &[(&str, &str)]) -> Option<String> {
        if let Some(file) = key.strip_prefix(STEM)
            && let Some(ours) = self.ours.get(file)
        {
            return Some(ours.clone());
        }
        for (ours, theirs) in parts {
            let Some(module) = key.strip_suffix(theirs).and_then(|it| it.strip_suffix('.')) else { continue };
            if let Some(slot) = module.strip_prefix(OWN) {
                return Some(format!("{slot}.{ours}"));
            }
            if let Some(slot) = module.strip_prefix(STEM).and_then(|module| self.slot(module)) {
                return Some(format!("{slot}.{ours}"));
            }
        }
        let name = key.strip_prefix("base_model.").unwrap_or(key);
        (!key.starts_with(STEM) && !name.is_empty()).then(|| name.to_owned())
    }

    /// The shortest names that mean exactly these layers: the ends of modules, or modules in full.
    pub fn targets(&self, slots: &[String]) -> Vec<String> {
        let modules: Vec<String> = slots
            .iter()
            .map(|slot| {
                let module = self.module(slot).or_else(|| self.whole(slot));
                module.map_or_else(|| format!("ounce.{slot}"), str::to_owned)
            })
            .collect();
        let mut modules = modules;
        modules.dedup();
        let end = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
        let mut ends: Vec<String> = modules.iter().map(|module| end(module)).collect();
        ends.sort();
        ends.dedup();
        let meant = |module: &str| ends.contains(&end(module));
        let exact = self
            .modules()
            .chain(self.fused.keys().map(String::as_str))
            .filter(|module| meant(module))
            .all(|module| modules.iter().any(|it| it == module));
        if exact { ends } else { modules }
    }
}

/// A weight that belongs to no layer.
fn alone(weight: &str) -> String {
    match weight {
        "vera_A" | "vera_B" => format!("base_model.{weight}"),
        _ => weight.to_owned(),
    }
}
