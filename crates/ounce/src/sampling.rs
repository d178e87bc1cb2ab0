//! The flags that choose how tokens are drawn, and the defaults that a model brings along.

use clap::Args;
use ounce_engine::Sampling;
use ounce_model::Config;

/// Flags of every command that generates text.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Divides the logits: 0 always takes the likeliest token, 1 draws from the model's own distribution
    #[arg(long, visible_alias = "temp", value_name = "T")]
    temperature: Option<f32>,
    /// Draw only from the K likeliest tokens; 0 from all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw only from the likeliest tokens whose probabilities add up to P; 1 from all
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest; 0 drops none
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divides the logits of tokens already in the text; 1 changes nothing, 1.1 repeats less
    #[arg(long, value_name = "R")]
    repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens already in the text
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtracted from the logits of tokens already in the text, once for each time they occur
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Makes the draw repeatable; a random seed is chosen and printed if none is given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Always take the likeliest token; the same as --temperature 0
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    greedy: bool,
    /// Ignore the sampling defaults that came with the model (generation_config.json)
    #[arg(long)]
    ignore_defaults: bool,
}

impl SamplingArgs {
    /// The options: flags first, then the model's defaults, then ounce's.
    ///
    /// # Errors
    /// If an option is out of its range or a default has the wrong type.
    pub fn resolve(&self, model_defaults: &Config) -> anyhow::Result<Sampling> {
        let mut sampling = Sampling {
            seed: self.seed.unwrap_or_else(|| rand::random::<u32>().into()),
            ..Sampling::default()
        };
        if !self.ignore_defaults {
            apply(model_defaults, &mut sampling)?;
        }
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_k, self.top_k);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.min_p, self.min_p);
        set(&mut sampling.repetition_penalty, self.repetition_penalty);
        set(&mut sampling.presence_penalty, self.presence_penalty);
        set(&mut sampling.frequency_penalty, self.frequency_penalty);
        if self.greedy {
            sampling.temperature = 0.0;
        }
        sampling.check()?;
        Ok(sampling)
    }
}

fn set<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

/// Each key replaces ounce's default; `do_sample: false` asks for the likeliest token.
fn apply(defaults: &Config, sampling: &mut Sampling) -> anyhow::Result<()> {
    set(&mut sampling.temperature, defaults.number_opt("temperature")?);
    set(&mut sampling.top_k, defaults.size_opt("top_k")?);
    set(&mut sampling.top_p, defaults.number_opt("top_p")?);
    set(&mut sampling.min_p, defaults.number_opt("min_p")?);
    set(&mut sampling.repetition_penalty, defaults.number_opt("repetition_penalty")?);
    if !defaults.flag_or("do_sample", true)? {
        sampling.temperature = 0.0;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SamplingArgs,
    }

    fn resolve(flags: &[&str], defaults: &str) -> anyhow::Result<Sampling> {
        let cli = Cli::parse_from([&["ounce"], flags].concat());
        cli.args.resolve(&Config::parse("generation_config.json", defaults.as_bytes())?)
    }

    #[test]
    fn flags_win_over_the_model_and_the_model_over_ounce() {
        let defaults = r#"{"temperature": 0.6, "top_k": 20}"#;
        let sampling = resolve(&["--top-k", "5", "--seed", "9"], defaults).unwrap();
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed), (0.6, 5, 0.95, 9));
        let sampling = resolve(&["--ignore-defaults"], defaults).unwrap();
        assert_eq!((sampling.temperature, sampling.top_k), (0.8, 40));
    }

    #[test]
    fn greedy_models_and_flags_take_the_likeliest() {
        assert_eq!(resolve(&[], r#"{"do_sample": false, "temperature": 0.6}"#).unwrap().temperature, 0.0);
        assert_eq!(resolve(&["--greedy"], r#"{"temperature": 0.6}"#).unwrap().temperature, 0.0);
        assert_eq!(resolve(&["--temp", "1"], r#"{"do_sample": false}"#).unwrap().temperature, 1.0);
        assert!(resolve(&["--top-p", "0"], "{}").is_err());
        assert!(resolve(&[], r#"{"top_k": "many"}"#).is_err());
    }
}
