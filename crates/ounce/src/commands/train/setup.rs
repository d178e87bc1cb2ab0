//! From a run's file to a network, batches and an optimizer.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use ounce_model::Model;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::config::Config;
use ounce_train::data::labelled::judge::Judge;
use ounce_train::data::{BatchSource, Cache, Documents, Encoder, Limits, Recipe};
use ounce_train::net::{Net, Options};
use ounce_train::optim::Optimizer;
use ounce_train::schedule::Schedule;
use ounce_train::schedule::step_law::{Advice, step_law};
use ounce_train::{Trainable, trainer};

use super::batches::{Batches, is_masked};
use super::labelled;
use crate::progress::{Progress, Unit};
use crate::source;

/// Everything that a run needs.
pub(in crate::commands) struct Run {
    pub net: Net,
    pub train: Box<dyn BatchSource>,
    pub validation: Option<Box<dyn BatchSource>>,
    /// What a classifier is judged on at each validation.
    pub judge: Option<Judge>,
    pub optimizer: Optimizer,
    pub schedule: Schedule,
    /// Targets of a step, about.
    pub tokens_per_step: u64,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// What Step Law says of rate and batch.
    pub advice: Advice,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A checkpoint that a run begins with, as far as its length depends on it.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Begun {
    /// Steps done.
    pub step: u64,
    /// Steps in all that the checkpoint's run was to have; none for a branch, which has a length of its own.
    pub total: Option<u64>,
}

/// Prepares a run.
pub(in crate::commands) fn prepare(config: &Config, begun: Option<Begun>) -> anyhow::Result<Run> {
    let mut notes = Vec::new();
    let model = base(config)?;
    let (mut net, fed) = match labelled::task(config, &model)? {
        Some(task) => {
            let (made, fed) = labelled::fed(config, &model, task, &mut notes)?;
            (network(config, &made)?, fed)
        }
        None => {
            let mut net = network(config, &model)?;
            let fed = texts(config, &mut net)?;
            (net, fed)
        }
    };
    let Fed { mut train, validation, judge, context, tokens_per_step, lengths, usual_rate } = fed;
    let total = match steps(config, tokens_per_step, lengths)? {
        Some(total) => total,
        // An interrupted run keeps the length it was given when it began.
        None => match begun.and_then(|begun| begun.total) {
            Some(total) => total,
            None => {
                let seconds = seconds_per_step(&mut net, train.as_mut(), config.train.accumulation)?;
                let steps = ((config.train.minutes * 60.0 / seconds) as u64).max(1);
                notes.push(format!(
                    "{steps} steps in {} minutes, at {seconds:.3} s a step",
                    config.train.minutes
                ));
                begun.map_or(0, |begun| begun.step) + steps
            }
        },
    };
    let spec = &net.skeleton().spec;
    let advice = step_law(net.inner_parameters() as f64, (total * tokens_per_step) as f64);
    let peak = match (config.optimizer.lr, usual_rate) {
        (0.0, Some(rate)) => {
            notes.push(format!("learning rate {rate:.2e}, as usual for labels; optimizer.lr sets another"));
            rate
        }
        (0.0, None) => {
            notes.extend(advice.warnings.iter().cloned());
            notes.push(format!("learning rate {:.2e} by Step Law; optimizer.lr sets another", advice.rate));
            advice.rate
        }
        (rate, _) => rate,
    };
    let mut options = config.optimizer.options();
    if let Some(base) = config.model.base_width() {
        options.scale_to_width(spec.hidden_size, base);
    }
    let optimizer = Optimizer::new(options, net.params())?;
    let schedule = config.schedule.schedule(peak, total)?;
    Ok(Run { net, train, validation, judge, optimizer, schedule, tokens_per_step, context, advice, notes })
}

/// What a run is fed with.
pub(in crate::commands) struct Fed {
    pub train: Box<dyn BatchSource>,
    pub validation: Option<Box<dyn BatchSource>>,
    pub judge: Option<Judge>,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// Tokens of a step, about.
    pub tokens_per_step: u64,
    /// What a step has and what an epoch has, in the same unit.
    pub lengths: (u64, u64),
    /// The highest learning rate that is usual, where it is not Step Law's.
    pub usual_rate: Option<f64>,
}

/// Text for a language model or an encoder; the network as it is says what it thinks of answers that are to be chosen between.
pub(in crate::commands) fn texts(config: &Config, net: &mut Net) -> anyhow::Result<Fed> {
    let tokenizer = source::tokenizer(net.skeleton())?.clone();
    let context = context(config, net.skeleton());
    let (train, validation) = documents(config, net.skeleton(), &tokenizer, context)?;
    let batches = Batches { config, tokenizer: &tokenizer, context };
    let (train, per_batch) = batches.of(train, net, None, config.data.shuffle)?;
    let validation = validation.map(|documents| batches.of(documents, net, Some(1), false));
    let validation = validation.transpose()?.map(|(source, _)| source);
    let tokens_per_step = (per_batch * config.train.accumulation) as u64;
    let lengths = (tokens_per_step, train.tokens_per_epoch());
    Ok(Fed { train, validation, judge: None, context, tokens_per_step, lengths, usual_rate: None })
}

/// Tokens of a sequence at most.
pub(super) fn context(config: &Config, model: &Model) -> usize {
    match config.data.context {
        0 => model.spec.context_length,
        context => context,
    }
}

/// The model that is trained: new, without weights, or one to go on from.
fn base(config: &Config) -> anyhow::Result<Model> {
    if config.model.from.is_empty() {
        if !config.model.trains.is_empty() {
            bail!("model.trains picks weights of a model to go on from; new weights are all trained");
        }
        let (tokenizer, chat) = match config.tokenizer.from.as_str() {
            "" => {
                let model = source::open(source::BUILT_IN)?;
                (source::tokenizer(&model)?.clone(), None)
            }
            from => tokenizer_of(from)?,
        };
        return Ok(config.model.skeleton(&tokenizer, chat)?);
    }
    let mut model = source::open(&config.model.from)?;
    if !config.tokenizer.from.is_empty() {
        let (tokenizer, chat) = tokenizer_of(&config.tokenizer.from)?;
        model.tokenizer = Some(tokenizer);
        model.chat = chat.or(model.chat);
    }
    Ok(model)
}

/// The network of a model from [`base`], new weights drawn.
pub(super) fn network(config: &Config, model: &Model) -> anyhow::Result<Net> {
    let options = Options {
        compute: config.train.precision.compute(),
        checkpointing: config.train.checkpointing,
        embedding_gradient: config.model.embedding_gradient(),
        beta: config.train.beta,
        balance: config.train.balance as f32,
    };
    if config.model.from.is_empty() {
        return Ok(Net::random(model, options, config.model.initial(), config.train.seed)?);
    }
    let patterns: Vec<glob::Pattern> = config
        .model
        .trains
        .iter()
        .map(|pattern| glob::Pattern::new(pattern))
        .collect::<Result<_, _>>()
        .context("model.trains should hold patterns such as \"layers.*.attention.*\"")?;
    let trains = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name));
    let net = Net::with_frozen(model, options, &trains)?;
    if !net.params().iter().any(ounce_train::Param::is_trainable) {
        bail!("model.trains matches none of the model's weights; ounce show --tensors lists their names");
    }
    Ok(net)
}

/// The tokenizer of a folder or file, with its chat template.
fn tokenizer_of(from: &str) -> anyhow::Result<(Tokenizer, Option<ounce_model::chat::ChatTemplate>)> {
    let path = Path::new(from);
    if path.is_file() && path.extension().is_some_and(|it| it == "json") {
        let bytes = std::fs::read(path).with_context(|| format!("{from} can't be read"))?;
        return Ok((Tokenizer::from_json_bytes(&bytes)?, None));
    }
    if path.join("tokenizer.json").is_file() && !path.join("config.json").is_file() {
        let nothing = serde_json::Value::Null;
        return Ok((Tokenizer::from_folder(path, &nothing, &nothing)?, None));
    }
    let model = source::open(from)?;
    let tokenizer = source::tokenizer(&model)?.clone();
    Ok((tokenizer, model.chat))
}

/// Training and validation documents, tokenized.
fn documents(
    config: &Config,
    model: &Model,
    tokenizer: &Tokenizer,
    context: usize,
) -> anyhow::Result<(Documents, Option<Documents>)> {
    if config.data.train.is_empty() {
        bail!("data.train names no files; add data.train = [\"text.txt\"]");
    }
    let masked = is_masked(config, model)?;
    let limits = Limits { max_length: context + 1, ends: !masked, ..Limits::default() };
    let recipe = |paths: &[std::path::PathBuf]| -> anyhow::Result<Recipe> {
        let encoder = Encoder::new(tokenizer.clone(), model.chat.clone(), limits.clone())?;
        Ok(Recipe { paths: paths.to_vec(), read: config.data.read(), form: None, encoder })
    };
    let cache = match config.data.cache.as_os_str().is_empty() {
        true => config.output.folder.join("tokens.bin"),
        false => config.data.cache.clone(),
    };
    let build = |paths: &[std::path::PathBuf], path: &Path| -> anyhow::Result<Arc<Cache>> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
        }
        let mut bar = Progress::new("tokenizing", Unit::Bytes);
        let watch = crate::interrupt::Watch::start();
        let built = recipe(paths)?.open_or_build(path, &mut |done, total| {
            bar.set(done, total);
            watch.check()
        })?;
        Ok(Arc::new(built.cache))
    };
    let train = build(&config.data.train, &cache)?;
    if !config.data.validation.is_empty() {
        let held = build(&config.data.validation, &cache.with_extension("validation.bin"))?;
        return Ok((Documents::all(train), Some(Documents::all(held))));
    }
    if config.data.held_out == 0.0 {
        return Ok((Documents::all(train), None));
    }
    let (train, held) = Documents::split(train, config.data.held_out, config.train.seed)?;
    Ok((train, Some(held)))
}

/// Steps of the run; none if they follow from its minutes.
pub(in crate::commands) fn steps(
    config: &Config,
    tokens_per_step: u64,
    lengths: (u64, u64),
) -> anyhow::Result<Option<u64>> {
    let (per_step, per_epoch) = lengths;
    let train = &config.train;
    if tokens_per_step == 0 {
        bail!("train.batch and train.accumulation should be 1 or more");
    }
    let given = [train.steps > 0, train.tokens > 0, train.epochs > 0.0, train.minutes > 0.0];
    Ok(match given {
        [true, false, false, false] => Some(train.steps),
        [false, true, false, false] => Some(train.tokens.div_ceil(tokens_per_step)),
        [false, false, true, false] => {
            Some(((train.epochs * per_epoch as f64) / per_step as f64).ceil() as u64)
        }
        [false, false, false, true] => None,
        [false, false, false, false] => Some(per_epoch.div_ceil(per_step)),
        _ => bail!("give one of train.steps, train.tokens, train.epochs and train.minutes, not several"),
    })
}

/// How long a step takes: the better of two micro-batches, from which nothing is learned.
pub(in crate::commands) fn seconds_per_step(
    net: &mut dyn Trainable,
    source: &mut dyn BatchSource,
    accumulation: usize,
) -> anyhow::Result<f64> {
    let beginning = source.position();
    let batch = source.next()?.context("there is no batch in the data")?;
    source.seek(&beginning)?;
    let counted = batch.counted();
    anyhow::ensure!(counted > 0, "the first batch has nothing to learn");
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        net.accumulate(&batch, 1.0 / counted as f32)?;
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(seconds * accumulation as f64)
}

/// The loop's settings.
pub(in crate::commands) fn trainer_options(config: &Config, schedule: Schedule) -> trainer::Options {
    let guard = trainer::guard::Options {
        deviations: config.guard.deviations,
        cap: config.guard.cap,
        ..trainer::guard::Options::default()
    };
    let guarded = config.guard.on
        || (config.model.from.is_empty() && config.model.preset == ounce_train::config::Preset::CpuLm);
    trainer::Options {
        schedule,
        accumulation: config.train.accumulation,
        clip: Some(config.optimizer.clip).filter(|&clip| clip > 0.0),
        guard: guarded.then_some(guard),
        validate_every: config.validation.every,
        validation_batches: config.validation.batches,
        sample_every: config.validation.sample_every,
        log_every: config.output.log_every,
        checkpoint_every: config.output.checkpoint_every,
        permanent_every: 0,
        keep: ounce_train::checkpoint::Keep { last: config.output.keep.max(1), best: true },
        identity: config.identity(),
    }
}
