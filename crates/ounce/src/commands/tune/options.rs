//! The flags of a method, and what they make of its usual settings.

use std::path::PathBuf;

use ounce_peft::{Folder, Kind, Settings, Targets};

/// Flags of methods; each concerns those that its help names.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Method")]
pub(super) struct MethodArgs {
    /// lora, lora-fa, dora, dylora, adalora, vera, svfit, flora, krona, ia3, ssf, bitfit, bottleneck, parallel, mam, compacter,
    /// language, prompt, p-tuning, prefix, gated-prefix, sherl, aside, cloze or crosstune [default: lora; cloze with a template]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Width of what is added [default: 8; dylora 16, vera 256, svfit all]. Smaller trains fewer numbers
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
    /// What is added is scaled by alpha/rank [default: 16; adalora 32, flora 8]
    #[arg(long, value_name = "ALPHA")]
    alpha: Option<f64>,
    /// Share of inputs that adapters don't see in a step
    #[arg(long, value_name = "SHARE")]
    dropout: Option<f64>,
    /// Parts of layers: query, key, value, output, gate, up, down, experts, attention, mlp or all [default: what suits the method]
    #[arg(long, value_name = "PARTS")]
    targets: Option<String>,
    /// Scale by alpha/√rank (lora, dora)
    #[arg(long)]
    rslora: bool,
    /// Begin with the largest singular vectors (lora)
    #[arg(long)]
    pissa: bool,
    /// LoRA+: how many times faster B learns than A; 16 is usual
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    plus: f64,
    /// Rank at the beginning (adalora) [default: 12]
    #[arg(long, value_name = "R")]
    initial_rank: Option<usize>,
    /// Vectors in front of texts (prompt, p-tuning: 16; prefix: 20; gated-prefix: 10)
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// What the width of narrow networks is divided by (bottleneck, parallel, language: 16; compacter: 32)
    #[arg(long, value_name = "N")]
    reduction: Option<usize>,
    /// Kronecker products (compacter) [default: 4]
    #[arg(long, value_name = "N")]
    blocks: Option<usize>,
    /// The last layers that take part (gated-prefix: all but two; sherl: 2)
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// A language adapter to lie on, frozen (bottleneck); may be repeated, from the bottom
    #[arg(long, value_name = "FOLDER")]
    below: Vec<PathBuf>,
}

impl MethodArgs {
    /// The width that is asked for.
    pub fn rank(&self) -> Option<usize> {
        self.rank
    }

    /// The method that is asked for.
    pub fn name(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// The settings, of the `usual` method where none is named, and the adapters below.
    ///
    /// # Errors
    /// If a name is unknown or a folder can't be read.
    pub fn settings(&self, usual: Kind, seed: u64) -> anyhow::Result<(Settings, Vec<Folder>)> {
        let mut settings = Settings::of(self.method.as_deref().map_or(Ok(usual), Kind::parse)?);
        let set = |place: &mut usize, given: Option<usize>| *place = given.unwrap_or(*place);
        set(&mut settings.rank, self.rank);
        set(&mut settings.initial_rank, self.initial_rank);
        set(&mut settings.tokens, self.tokens);
        set(&mut settings.reduction, self.reduction);
        set(&mut settings.blocks, self.blocks);
        set(&mut settings.layers, self.layers);
        settings.alpha = self.alpha.unwrap_or(settings.alpha);
        settings.dropout = self.dropout.unwrap_or(settings.dropout);
        if let Some(targets) = &self.targets {
            settings.targets = Targets::parse(targets)?;
        }
        (settings.rslora, settings.pissa, settings.plus, settings.seed) =
            (self.rslora, self.pissa, self.plus, seed);
        if settings.method == Kind::Adalora && self.initial_rank.is_none() {
            settings.initial_rank = settings.initial_rank.max(settings.rank * 3 / 2);
        }
        let below: Vec<Folder> =
            self.below.iter().map(|path| Folder::open(path)).collect::<Result<_, _>>()?;
        for folder in &below {
            match &folder.own {
                Some(own) if matches!(own.settings.method, Kind::Language | Kind::Bottleneck) => {
                    settings.below.push(own.settings.clone());
                }
                _ => anyhow::bail!(
                    "{} is no language or bottleneck adapter, so nothing can lie on it",
                    folder.path.display()
                ),
            }
        }
        // What a template trains is known with the model's tokenizer only.
        if settings.method != Kind::Cloze {
            settings.check()?;
        }
        Ok((settings, below))
    }
}
