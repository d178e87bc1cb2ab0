//! How a command computes: the flags that choose an engine's mode.

use std::path::PathBuf;

use anyhow::bail;
use clap::ValueEnum;
use ounce_compress::quantize::l_mul::{self, Replace, energy};
use ounce_engine::{Engine, Mode};
use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_kernels::lmul::MantissaBits;
use ounce_model::account::Formats;
use ounce_model::{Model, Spec};
use ounce_peft::Folder;

/// Flags that choose how a model computes, and what adapts it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Computing")]
pub struct ComputeArgs {
    /// Compute with this adapter, a folder of ounce tune or of Python's peft: merged into the model, or beside its weights if it is no
    /// part of matrices
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    /// `fast` packs the weights at load for vector instructions and rounds activations to int8 or bf16 where the
    /// format's kernel wants it; `reference` computes in f32 on weights as they are stored, slowly
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<ModeName>,
    /// Quantize F32, F16, BF16 and F8 matrices at load: q8_0, q5_1, q5_0, q4_1, q4_0, q6_k, q4_k or bf16 (fast mode)
    #[arg(long, value_name = "TYPE", value_parser = quant)]
    quant: Option<DType>,
    /// How keys and values are cached: f32, f16, bf16, q8_0 (int8, a scale for each position and head) or q4_0 (4 bits, the same); f16 in the
    /// fast mode unless the weights are F32, f32 else
    #[arg(long, value_name = "TYPE", value_parser = kv_type)]
    kv: Option<KvType>,
    /// Replace multiplications by L-Mul's integer additions (method 20), emulated: slow, to see what it costs in
    /// quality
    #[arg(long, value_enum, value_name = "WHERE", conflicts_with_all = ["mode", "quant"])]
    l_mul: Option<LMulPart>,
    /// Mantissa bits that L-Mul keeps of each operand, 1 to 23
    #[arg(long, value_name = "K", default_value_t = 4, requires = "l_mul")]
    l_mul_bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    Fast,
    Reference,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LMulPart {
    /// Scores and the weighted sum of values
    Attention,
    /// Projections, feed-forward parts and the head
    Linear,
    /// Both
    All,
}

fn quant(name: &str) -> Result<DType, String> {
    const TYPES: [DType; 19] = [
        DType::Q8_0,
        DType::Q6K,
        DType::Q5K,
        DType::Q5_1,
        DType::Q5_0,
        DType::Q4K,
        DType::Q4_1,
        DType::Q4_0,
        DType::IQ4NL,
        DType::IQ4XS,
        DType::IQ2S,
        DType::IQ2XS,
        DType::IQ2XXS,
        DType::MXFP4,
        DType::Q3K,
        DType::Q2K,
        DType::BF16,
        DType::F16,
        DType::F32,
    ];
    let known = |dtype: &DType| TYPES.contains(dtype) || dtype.group_shape().is_some();
    DType::parse(name).filter(known).ok_or_else(|| {
        let names = TYPES.map(DType::name).join(", ");
        format!("{name} is not written by ounce; choose {names}, or bits and a group's values as in G4_64")
    })
}

/// The type of a KV cache, by its name.
///
/// # Errors
/// If there is none of that name, with those there are.
pub fn kv_type(name: &str) -> Result<KvType, String> {
    match name.to_ascii_lowercase().as_str() {
        "f32" => Ok(KvType::F32),
        "f16" => Ok(KvType::F16),
        "bf16" => Ok(KvType::Bf16),
        "q8_0" | "q8" => Ok(KvType::Q8_0),
        "q4_0" | "q4" => Ok(KvType::Q4_0),
        _ => Err(format!("{name} is no type of the KV cache; choose f32, f16, bf16, q8_0 or q4_0")),
    }
}

/// Half precision, as other engines do, where weights are rounded anyway.
pub fn usual_kv_type(formats: &Formats, mode: Mode) -> KvType {
    let exact = || formats.iter().all(|(_, dtype)| dtype == DType::F32);
    match mode {
        Mode::Fast { quantize: Some(_) } => KvType::F16,
        Mode::Fast { quantize: None } if !exact() => KvType::F16,
        _ => KvType::F32,
    }
}

/// The model with an adapter merged into it, in the formats in which its matrices are stored.
fn merged(model: &Model, folder: &Folder) -> anyhow::Result<Model> {
    let (merged, told) = ounce_peft::merge(model, folder, None, false)?;
    if told.lost > 0.05 {
        crate::output::note(&format!(
            "{:.0} % of what the adapter learned is lost in the formats of the model's matrices",
            100.0 * told.lost
        ));
    }
    Ok(merged)
}

impl ComputeArgs {
    /// The mode asked for; `default` where no flag says.
    ///
    /// # Errors
    /// If flags contradict each other or a number is out of its range.
    pub fn mode(&self, default: Mode) -> anyhow::Result<Mode> {
        if let Some(options) = self.l_mul()? {
            return Ok(Mode::Emulated(options.arithmetic()));
        }
        match (self.mode, self.quant) {
            (Some(ModeName::Reference), Some(_)) => {
                bail!("--quant needs the fast mode; leave out --mode reference")
            }
            (Some(ModeName::Reference), None) => Ok(Mode::Reference),
            (Some(ModeName::Fast), None) => Ok(Mode::fast()),
            (_, Some(target)) => Ok(Mode::Fast { quantize: Some(target) }),
            (None, None) => Ok(default),
        }
    }

    /// Loads a model to compute as the flags say; `default` is the mode where no flag does.
    ///
    /// # Errors
    /// As [`ComputeArgs::mode`] and [`Engine::load`].
    pub fn load(&self, model: &Model, default: Mode) -> anyhow::Result<Engine> {
        let mode = self.mode(default)?;
        let (merged, beside) = match &self.adapter {
            None => (None, None),
            Some(path) => {
                let folder = Folder::open(path)?;
                match folder.merges() {
                    true => (Some(merged(model, &folder)?), None),
                    false => {
                        let (base, changes) = ounce_peft::beside::alone(model, &folder, false)?;
                        (Some(base), Some(changes))
                    }
                }
            }
        };
        let model = merged.as_ref().unwrap_or(model);
        let mut engine = self.load_bare(model, mode)?;
        if let Some(changes) = beside {
            let adapter = engine.adapter(changes)?;
            engine.set_adapter(Some(adapter))?;
        }
        Ok(engine)
    }

    /// Loads a draft model: as the flags say, but for the adapter, which is not made for it.
    ///
    /// # Errors
    /// As [`ComputeArgs::load`].
    pub fn load_draft(&self, model: &Model) -> anyhow::Result<Engine> {
        self.load_bare(model, self.mode(Mode::fast())?)
    }

    fn load_bare(&self, model: &Model, mode: Mode) -> anyhow::Result<Engine> {
        let mut engine = Engine::load(model, mode)?;
        engine.set_kv_type(self.kv.unwrap_or_else(|| usual_kv_type(&Formats::of(&model.weights), mode)));
        Ok(engine)
    }

    /// Bytes that a model's weights take when they are loaded as the flags say.
    ///
    /// # Errors
    /// As [`ComputeArgs::mode`].
    pub fn weight_bytes(&self, model: &Model) -> anyhow::Result<u64> {
        let packed = match self.mode(Mode::fast())? {
            Mode::Fast { quantize } => Engine::packed_size(model, quantize)? as u64,
            _ => 0,
        };
        Ok(if packed > 0 { packed } else { model.weight_bytes() })
    }

    /// Loads the model that another one, loaded by [`ComputeArgs::load`], is compared with: its weights as they are
    /// stored, in the reference mode where the other computes by the reference's rules, in the fast mode else.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_original(&self, model: &Model) -> anyhow::Result<Engine> {
        let reference = self.mode == Some(ModeName::Reference) || self.l_mul.is_some();
        let mode = if reference { Mode::Reference } else { Mode::fast() };
        let mut engine = Engine::load(model, mode)?;
        engine.set_kv_type(usual_kv_type(&Formats::of(&model.weights), mode));
        Ok(engine)
    }

    fn l_mul(&self) -> anyhow::Result<Option<l_mul::Options>> {
        let Some(part) = self.l_mul else { return Ok(None) };
        let Some(bits) = MantissaBits::new(self.l_mul_bits) else {
            bail!("--l-mul-bits should be from 1 to 23, found {}", self.l_mul_bits);
        };
        let replace = match part {
            LMulPart::Attention => Replace::Attention,
            LMulPart::Linear => Replace::Linear,
            LMulPart::All => Replace::Everything,
        };
        Ok(Some(l_mul::Options { bits, replace }))
    }

    /// With `--l-mul`: a sentence on the energy of one token's inner products, for hardware that would have it.
    pub fn energy_note(&self, spec: &Spec, context: usize) -> Option<String> {
        let part = self.l_mul?;
        let products = energy::token_products(spec, context);
        let replaced = match part {
            LMulPart::Attention => products.attention,
            LMulPart::Linear => products.linear,
            LMulPart::All => products.attention + products.linear,
        };
        let all = products.attention + products.linear;
        let plain = energy::Unit::F32.dot(all).joules;
        let cheap = energy::Unit::F32.dot(all - replaced).joules + energy::Unit::LMul32.dot(replaced).joules;
        Some(format!(
            "energy of the inner products of a token that sees {context} positions: {:.3} uJ in f32, {:.3} uJ with \
             L-Mul ({:.0} % less), on hardware that would have it (45 nm figures); here it is emulated",
            plain * 1e6,
            cheap * 1e6,
            100.0 * (1.0 - cheap / plain)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        compute: ComputeArgs,
    }

    fn mode(arguments: &[&str]) -> Result<Mode, String> {
        let line =
            Line::try_parse_from(std::iter::once(&"ounce").chain(arguments)).map_err(|it| it.to_string())?;
        line.compute.mode(Mode::fast()).map_err(|it| it.to_string())
    }

    #[test]
    fn flags_choose_the_mode_and_contradictions_are_refused() {
        assert!(matches!(mode(&[]), Ok(Mode::Fast { quantize: None })));
        assert!(matches!(mode(&["--mode", "reference"]), Ok(Mode::Reference)));
        assert!(matches!(mode(&["--quant", "q4_0"]), Ok(Mode::Fast { quantize: Some(DType::Q4_0) })));
        assert!(matches!(mode(&["--l-mul", "attention"]), Ok(Mode::Emulated(_))));
        for wrong in [
            &["--mode", "reference", "--quant", "q8_0"][..],
            &["--l-mul", "all", "--l-mul-bits", "0"],
            &["--l-mul-bits", "3"],
            &["--quant", "f8_e4m3"],
            &["--l-mul", "all", "--mode", "fast"],
        ] {
            assert!(mode(wrong).is_err(), "{wrong:?}");
        }
    }
}
