//! Teaching: who is asked, the run, what is written.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ounce_engine::{Engine, Mode};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_model::formats::WriteOptions;
use ounce_train::Batch;
use ounce_train::data::{BatchSource, Pieces};
use ounce_train::distil::{KeptTeacher, LiveTeacher, Teacher, TranslatedTeacher};
use ounce_train::loss::{DivergenceKind, Predictions};
use ounce_train::net::{Net, Options};
use ounce_train::optim::{self, Optimizer};
use ounce_train::schedule::{Schedule, Shape};
use ounce_train::trainer::{self, Ended, Observer, Start, Step, Trainer};

use super::super::convert;
use super::learner::Learner;
use super::report::{Report, stand};
use super::teaching::{TeachingArgs, parse_loss};
use super::texts::Texts;
use crate::failure::Interrupted;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source};

/// The usual learning rate of a student with weights.
const RATE: f64 = 5e-4;

/// Sequences that are predicted at once while what the teacher says is kept.
const ASKED: usize = 8;

/// Who learns.
pub struct Pupil {
    pub net: Net,
    /// The student as it is before.
    pub model: Model,
    /// The highest learning rate for a run of so many tokens.
    pub rate: Box<dyn Fn(u64) -> f64>,
    /// Weight decay.
    pub decay: f64,
    /// The width for which the rate holds, of shapes that carry it over.
    pub base_width: Option<usize>,
}

impl Pupil {
    /// A student that has weights.
    ///
    /// # Errors
    /// If it predicts no next token, or its weights can't be read.
    pub fn with_weights(model: Model) -> anyhow::Result<Pupil> {
        decoder(&model, "student")?;
        let net = Net::from_model(&model, Options::default())?;
        // What was learnt before is not to fade.
        Ok(Pupil { net, model, rate: Box::new(|_| RATE), decay: 0.0, base_width: None })
    }
}

fn decoder(model: &Model, who: &str) -> anyhow::Result<()> {
    if !model.spec.causal || model.spec.head.is_none() || model.spec.classifier.is_some() {
        bail!(
            "the {who} {} predicts no next token; distillation is for language models that continue texts",
            model.origin.path.display()
        );
    }
    Ok(())
}

/// Teaches and writes the student.
///
/// # Errors
/// If the models or texts don't fit, training diverges, the output can't be written or Ctrl-C ended it.
pub fn teach(teacher: &Model, pupil: Pupil, args: &TeachingArgs, usual: &str) -> anyhow::Result<Report> {
    decoder(teacher, "teacher")?;
    let kind = match args.loss {
        Some(kind) => kind,
        None => parse_loss(usual).map_err(anyhow::Error::msg)?,
    };
    let Pupil { net, model, rate, decay, base_width } = pupil;
    let texts = Texts::read(teacher, &model, args)?;
    let within = args.features > 0.0 || args.relations > 0.0;
    if !texts.same_tokens() && (args.cache.is_some() || within) {
        bail!(
            "teacher and student cut texts into different tokens, and so --cache, --features and --relations can't be had; leave them out, \
             or choose a student with the teacher's tokenizer"
        );
    }
    let mut pieces = Pieces::new(texts.learned.clone(), args.batch, args.seed, None)?;
    let per_step = (args.batch * texts.context) as u64;
    let tokens = args.tokens.unwrap_or_else(|| pieces.tokens_per_epoch());
    let steps = tokens.div_ceil(per_step).max(1);
    let peak = args.lr.unwrap_or_else(|| rate(tokens));
    let engines = (!args.no_test)
        .then(|| anyhow::Ok((Engine::load(teacher, Mode::fast())?, Engine::load(&model, Mode::fast())?)))
        .transpose()?;
    let before = engines
        .as_ref()
        .map(|(of_teacher, of_student)| stand(of_teacher, of_student, &model, &texts.test, texts.context))
        .transpose()?;
    let of_teacher = engines.map(|(of_teacher, _)| of_teacher);
    let written = matrices(&model);
    let mut teaching = Net::with_frozen(teacher, Options::default(), &|_| false)?;
    let identity = identity(args, kind, peak, &net, &mut teaching)?;
    let mut understood = None;
    let (asked, cache): (Box<dyn Teacher>, _) = match &args.cache {
        None if !texts.same_tokens() => {
            let asked = translated(teaching, teacher, &model)?;
            let sample = texts.learned.iter().take(ASKED).map(Vec::as_slice);
            understood = Some(asked.understood(&Batch::next_token(sample))?);
            (Box::new(asked), None)
        }
        None => (Box::new(LiveTeacher(teaching)), None),
        Some(path) => {
            let kept = ask(teaching, path, args, pieces.clone(), steps)?;
            let losses = kept.losses();
            (Box::new(kept), Some(losses))
        }
    };
    let mut learner = Learner::new(net, &model, teacher, asked, kind, steps, args)?;
    let mut settings = optim::Options { weight_decay: decay, ..optim::Options::default() };
    if let Some(base) = base_width {
        settings.scale_to_width(model.spec.hidden_size, base);
    }
    let optimizer = Optimizer::new(settings, learner.as_trainable().params())?;
    let warmup = (steps / 20).max(1).min(steps.saturating_sub(1));
    let schedule = Schedule { peak, warmup, total: steps, shape: Shape::Cosine { floor: 0.05 * peak } };
    let options = trainer::Options {
        checkpoint_every: args.checkpoint_every.unwrap_or((steps / 20).max(50)),
        ..trainer::Options::plain(schedule, identity)
    };
    let folder = work_folder(&args.output)?;
    if args.fresh && folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let run =
        Trainer::new(learner.as_trainable(), &mut pieces, None, optimizer, options, &folder, Start::Resume);
    let mut run =
        run.with_context(|| format!("{} holds an interrupted run; --fresh begins anew", folder.display()))?;
    if run.state().step > 0 {
        output::note(&format!("going on at step {}", run.state().step));
    }
    let mut watcher = Watcher::new(steps);
    let ended = run.run(&mut watcher)?;
    let (state, loss) = (run.state().clone(), watcher.loss);
    drop(run);
    drop(watcher);
    if ended == Ended::Stopped {
        output::note(&format!("stopped at step {} of {steps}; the same command goes on", state.step));
        return Err(Interrupted.into());
    }
    let target_share = learner.share();
    let taught = learner.into_model()?;
    let options =
        WriteOptions { dtype: args.dtype.or(written), overwrite: args.force, ..WriteOptions::default() };
    let bytes = convert::write(&taught, &args.output, &options)?;
    let after = match &of_teacher {
        Some(of_teacher) => {
            // As it was written: what is judged is what is used.
            let model = Model::open(&args.output)?;
            let engine = Engine::load(&model, Mode::fast())?;
            Some(stand(of_teacher, &engine, &model, &texts.test, texts.context)?)
        }
        None => None,
    };
    std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(Report {
        target: args.output.clone(),
        bytes,
        loss_kind: kind.name(),
        steps: state.step,
        tokens: state.tokens,
        seconds: state.seconds,
        learning_rate: peak,
        loss,
        target_share,
        understood,
        before,
        after,
        cache,
    })
}

/// A teacher that answers in the student's tokens.
fn translated(net: Net, teacher: &Model, student: &Model) -> anyhow::Result<TranslatedTeacher> {
    let start = source::text_start(teacher);
    let [own, other] = [source::tokenizer(teacher)?, source::tokenizer(student)?];
    Ok(TranslatedTeacher::new(net, own, start, other, student.spec.vocab_size)?)
}

/// Where an interrupted run waits: beside the target.
fn work_folder(target: &Path) -> anyhow::Result<PathBuf> {
    let name = target.file_name().with_context(|| format!("{} names no file", target.display()))?;
    Ok(target.with_file_name(format!(".{}.distill", name.to_string_lossy())))
}

/// The format in which matrices are written: the student's own where that is a plain float, else F32.
fn matrices(model: &Model) -> Option<DType> {
    let sizes = model.weights.names().filter_map(|name| model.weights.info(name));
    let (dtype, _) = sizes.max_by_key(|(_, shape)| shape.iter().product::<usize>())?;
    match dtype {
        DType::F16 | DType::BF16 => Some(dtype),
        _ => Some(DType::F32),
    }
}

/// What must be the same for an interrupted run to go on.
fn identity(
    args: &TeachingArgs,
    kind: DivergenceKind,
    peak: f64,
    student: &Net,
    teacher: &mut Net,
) -> anyhow::Result<String> {
    let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (student, teacher) = (hex(student.fingerprint()?), hex(teacher.fingerprint()?));
    let TeachingArgs { batch, seed, context, top, .. } = args;
    let kept = args.cache.is_some().then_some(top);
    let (options, taid) = (args.options(), args.taid());
    let TeachingArgs { relations, relation_layer, relation_heads, .. } = args;
    let related = (*relations > 0.0).then(|| format!(" {relations:?} {relation_layer:?} {relation_heads:?}"));
    let related = related.unwrap_or_default();
    Ok(format!(
        "{kind:?} {peak:?} {batch} {seed} {context:?} {kept:?} {options:?} {taid:?} {student} {teacher}{related}"
    ))
}

/// Keeps what the teacher says of all batches of a run that is not known yet, with a bar.
fn ask(
    mut teacher: Net,
    path: &Path,
    args: &TeachingArgs,
    mut pieces: Pieces,
    steps: u64,
) -> anyhow::Result<KeptTeacher> {
    let vocabulary = teacher.skeleton().spec.vocab_size;
    let mut kept = KeptTeacher::open(path, teacher.fingerprint()?, vocabulary, args.top)?;
    // A second epoch brings nothing new.
    let sequences = (steps * args.batch as u64).min(pieces.sequences().len() as u64);
    let watch = Watch::start();
    let mut bar = Progress::new("asking the teacher", Unit::Items);
    let beginning = pieces.position();
    let mut asked = 0u64;
    pieces = Pieces::new(pieces.sequences().into(), ASKED.min(args.batch), args.seed, None)?;
    pieces.seek(&beginning)?;
    while asked < sequences {
        watch.check()?;
        let Some(batch) = pieces.next()? else { break };
        asked += batch.lengths.len() as u64;
        if !kept.knows(&batch) {
            let mut predictions = Predictions::default();
            teacher.run(&batch, None, &mut predictions)?;
            kept.keep(&batch, &predictions)?;
        }
        bar.set(asked.min(sequences), sequences);
    }
    kept.sync()?;
    Ok(kept)
}

/// Shows a bar, and stops when the user wants to.
struct Watcher {
    bar: Progress,
    watch: Watch,
    total: u64,
    /// Smoothed.
    loss: Option<f64>,
}

impl Watcher {
    fn new(total: u64) -> Watcher {
        Watcher { bar: Progress::new("teaching", Unit::Items), watch: Watch::start(), total, loss: None }
    }
}

impl Observer for Watcher {
    fn wants_to_stop(&mut self) -> bool {
        self.watch.requested()
    }

    fn step(&mut self, step: &Step) -> ounce_train::Result<()> {
        let loss = self.loss.map_or(step.loss, |loss| 0.95 * loss + 0.05 * step.loss);
        self.loss = Some(loss);
        self.bar.say(&format!("loss {loss:.4} · {:.0} tokens/s", step.tokens_per_second));
        self.bar.set(step.step, self.total);
        Ok(())
    }
}
