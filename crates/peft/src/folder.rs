//! An adapter's folder, as Python's peft has it: `adapter_config.json` and `adapter_model.safetensors`. Beside them `ounce.json` keeps what
//! peft has no place for: all settings, and of which base the adapter is.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ounce_model::formats::safetensors::SafetensorsFile;
use ounce_model::storage::AtomicFile;
use ounce_model::weights::TensorSource;
use ounce_train::checkpoint::tensors::{self, Piece};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::adapter::Array;
use crate::{Error, Result, Settings};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const OWN: &str = "ounce.json";

/// Larger settings are not read.
const MOST: u64 = 16 << 20;

/// The model that an adapter was made for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Base {
    /// Where it was.
    pub name: String,
    /// A hash of its shapes and of the beginnings of its weights.
    pub fingerprint: String,
}

/// A classifier's head that was added to the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// What has labels: `texts`, `tokens` or `spans`.
    pub of: String,
    /// Their names.
    pub names: Vec<String>,
}

/// What peft has no place for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// All settings.
    pub settings: Settings,
    /// The model that it was made for.
    pub base: Base,
    /// The head that was added to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// An adapter's folder, read.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// peft's settings.
    pub config: Map<String, Value>,
    /// ounce's; none if another tool made it.
    pub own: Option<Own>,
    /// The weights under the file's names.
    pub tensors: Vec<Array>,
}

impl Folder {
    /// Reads a folder.
    ///
    /// # Errors
    /// If it is none, or damaged.
    pub fn open(path: &Path) -> Result<Folder> {
        let config = path.join(CONFIG);
        if !config.is_file() {
            return Err(Error::folder(
                path,
                format!("is no adapter: it has no {CONFIG}; name the folder that ounce tune or peft wrote"),
            ));
        }
        let weights = path.join(WEIGHTS);
        if !weights.is_file() {
            let what = match path.join("adapter_model.bin").is_file() {
                true => {
                    "has its weights as a pickle, which may hold any program; save it with safe_serialization=True"
                }
                false => "has no adapter_model.safetensors; it was not written to its end",
            };
            return Err(Error::folder(path, what));
        }
        let Value::Object(config) = read_json(&config)? else {
            return Err(Error::folder(config, "should be an object of settings"));
        };
        let own = path.join(OWN);
        let own = match own.is_file() {
            true => Some(serde_json::from_value(read_json(&own)?).map_err(|error| {
                Error::folder(
                    &own,
                    format!("can't be understood ({error}); it is damaged or of a newer ounce"),
                )
            })?),
            false => None,
        };
        let file = SafetensorsFile::open(&weights)?;
        let mut tensors = Vec::new();
        for name in file.names() {
            let tensor = file.tensor(name)?;
            let values =
                tensor.to_f32().map_err(|error| Error::folder(&weights, format!("{name}: {error}")))?;
            tensors.push(Array { name: name.to_owned(), shape: tensor.shape.clone(), values });
        }
        Ok(Folder { path: path.to_path_buf(), config, own, tensors })
    }

    /// Writes it; the settings last, so that what is there is whole.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(ounce_model::Error::io(&self.path))?;
        let pieces: Vec<Piece<'_>> = self
            .tensors
            .iter()
            .map(|array| Piece {
                name: array.name.clone(),
                dtype: "F32",
                shape: array.shape.clone(),
                bytes: bytemuck::cast_slice(&array.values),
            })
            .collect();
        tensors::write(&self.path.join(WEIGHTS), &pieces)?;
        if let Some(own) = &self.own {
            write_json(&self.path.join(OWN), own)?;
        }
        write_json(&self.path.join(CONFIG), &self.config)
    }

    /// Its `peft_type`.
    pub fn peft_type(&self) -> &str {
        self.config.get("peft_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether what it learned can become part of a base's matrices.
    pub fn merges(&self) -> bool {
        match &self.own {
            Some(own) => own.settings.method.facts().merges,
            None => !["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING"].contains(&self.peft_type()),
        }
    }

    /// How many numbers it has.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|array| array.values.len() as u64).sum()
    }

    /// The same with LoRA's products cut to a rank: the first rows and columns of a DyLoRA, which serve alone, and the largest singular
    /// values of another's product.
    ///
    /// # Errors
    /// If it is no LoRA, or the rank is not below its own.
    pub fn sliced(&self, rank: usize, path: &Path) -> Result<Folder> {
        let number = |key: &str| self.config.get(key).and_then(Value::as_f64);
        let flag = |key: &str| self.config.get(key).and_then(Value::as_bool).unwrap_or(false);
        let (Some(own_rank), Some(alpha)) = (number("r"), number("lora_alpha")) else {
            return Err(self.unsliceable());
        };
        if self.peft_type() != "LORA" || flag("use_dora") {
            return Err(self.unsliceable());
        }
        let own_rank = own_rank as usize;
        if rank == 0 || rank > own_rank {
            return Err(Error::Option(format!(
                "an adapter of rank {own_rank} can be cut to a rank of 1 to {own_rank}, not to {rank}"
            )));
        }
        let nested = self.own.as_ref().is_some_and(|own| own.settings.method == crate::Kind::Dylora);
        let scale = |rank: usize| alpha / if flag("use_rslora") { (rank as f64).sqrt() } else { rank as f64 };
        // DyLoRA is scaled by its own rank; of others the product is to stay as it is.
        let factor = if nested { 1.0 } else { (scale(own_rank) / scale(rank)) as f32 };
        let mut cut = self.clone();
        cut.path = path.to_path_buf();
        for array in &self.tensors {
            let Some(module) = array.name.strip_suffix(".lora_A.weight") else { continue };
            let of_b = format!("{module}.lora_B.weight");
            let b = self.tensors.iter().find(|it| it.name == of_b);
            let b = b.ok_or_else(|| Error::folder(&self.path, format!("{of_b} is missing")))?;
            let [a, b] = match nested {
                true => first(array, b, rank),
                false => largest(array, b, rank, factor)?,
            };
            for array in [a, b] {
                if let Some(place) = cut.tensors.iter_mut().find(|it| it.name == array.name) {
                    *place = array;
                }
            }
        }
        cut.config.insert("r".into(), rank.into());
        if let Some(own) = &mut cut.own {
            own.settings.rank = rank;
        }
        Ok(cut)
    }

    fn unsliceable(&self) -> Error {
        Error::folder(
            &self.path,
            format!("is a {} adapter, which has no ranks to cut; lora and dylora have", self.peft_type()),
        )
    }
}

/// The first rows of `A` and columns of `B`.
fn first(a: &Array, b: &Array, rank: usize) -> [Array; 2] {
    let (input, own) = (a.shape[1], a.shape[0]);
    let columns = b.values.chunks_exact(own).flat_map(|row| row[..rank].iter().copied());
    [
        Array { name: a.name.clone(), shape: vec![rank, input], values: a.values[..rank * input].to_vec() },
        Array { name: b.name.clone(), shape: vec![b.shape[0], rank], values: columns.collect() },
    ]
}

/// The best pair of a rank for `factor · B A`.
fn largest(a: &Array, b: &Array, rank: usize, factor: f32) -> Result<[Array; 2]> {
    let (own, input, output) = (a.shape[0], a.shape[1], b.shape[0]);
    let mut product = vec![0.0f32; output * input];
    for (row, b) in product.chunks_exact_mut(input).zip(b.values.chunks_exact(own)) {
        for (factor, a) in b.iter().zip(a.values.chunks_exact(input)) {
            row.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * a);
        }
    }
    let parts = crate::svd::svd(&a.name, &product, output, input)?;
    let (mut of_a, mut of_b) = (vec![0.0; rank * input], vec![0.0; output * rank]);
    for i in 0..rank.min(parts.values.len()) {
        let root = (parts.values[i] * f64::from(factor)).sqrt();
        for (out, v) in of_a[i * input..(i + 1) * input].iter_mut().zip(&parts.right[i * input..]) {
            *out = (root * v) as f32;
        }
        for (row, u) in parts.left[i * output..(i + 1) * output].iter().enumerate() {
            of_b[row * rank + i] = (root * u) as f32;
        }
    }
    Ok([
        Array { name: a.name.clone(), shape: vec![rank, input], values: of_a },
        Array { name: b.name.clone(), shape: vec![output, rank], values: of_b },
    ])
}

fn read_json(path: &Path) -> Result<Value> {
    let size = fs::metadata(path).map_err(ounce_model::Error::io(path))?.len();
    if size > MOST {
        return Err(Error::folder(path, "is too large to be an adapter's settings"));
    }
    let text = fs::read(path).map_err(ounce_model::Error::io(path))?;
    serde_json::from_slice(&text).map_err(|error| Error::folder(path, format!("is no JSON ({error})")))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::folder(path, error.to_string()))?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&text).map_err(ounce_model::Error::io(path))?;
    Ok(file.commit()?)
}
