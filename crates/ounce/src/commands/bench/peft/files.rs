//! A user's files as a task: the same batches for every way, in an order that hangs on the seed.

use anyhow::{Context, ensure};
use ounce_model::Model;
use ounce_peft::grid::{Grid, Learner, Task, Value};
use ounce_peft::{Error, Result, Settings};
use ounce_train::config::{Config, Objective};
use ounce_train::data::labelled::judge::Judge;
use ounce_train::data::{BatchSource, Position};
use ounce_train::{Batch, Loss, Trainable};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Args, file_name};
use crate::commands::tune;
use crate::source;

/// Batches by which rates are chosen, at most; they are not learned from.
const CHOOSING: usize = 8;
/// Batches that ways are judged by, at most.
const JUDGING: usize = 64;

pub(super) struct Files {
    model: Model,
    name: String,
    heads: Vec<String>,
    identity: String,
    learn: Vec<Batch>,
    choose: Vec<Batch>,
    test: Vec<Batch>,
    judge: Option<Judge>,
}

impl Files {
    pub fn new(args: &Args, plan: &Grid, name: &str) -> anyhow::Result<Files> {
        let mut config = Config::default();
        config.model.from = name.to_owned();
        config.data.train.clone_from(&args.data);
        config.data.held_out = args.held_out;
        config.data.separator = String::new();
        config.data.objective = serde_json::from_value::<Objective>(args.objective.clone().into())
            .with_context(|| {
                format!("{:?} is no objective; ounce bench peft --help lists them", args.objective)
            })?;
        config.data.context = args.context.unwrap_or(0);
        config.data.cache = args.output.join(format!("tokens-{}.bin", file_name(name)));
        config.train.batch = args.batch;
        config.train.epochs = 1.0;
        config.train.seed = args.seed;
        config.output.folder.clone_from(&args.output);
        let model = source::open(name)?;
        let mut settings = Settings::default();
        let mut notes = Vec::new();
        let (model, mut fed) = tune::feed(&config, &model, &mut settings, &mut notes)?;
        notes.iter().for_each(|note| crate::output::note(note));
        // One pass at most, so that what rates are chosen by is never learned.
        let wanted = plan.steps as usize + CHOOSING;
        let mut learn = batches(fed.train.as_mut(), wanted)?;
        ensure!(learn.len() > 1, "the data has one batch only; give more of it, or a smaller --batch");
        let choose = learn.split_off(learn.len() - CHOOSING.min(learn.len().div_ceil(5)));
        let mut validation = fed
            .validation
            .context("ways are judged by data that was held out; --held-out should be above 0")?;
        let test = batches(validation.as_mut(), JUDGING)?;
        Ok(Files {
            identity: format!(
                "{} {:?} {}",
                config.identity(),
                args.data,
                ounce_peft::net::identify(&model, &|_| false)?.fingerprint
            ),
            model,
            name: name.to_owned(),
            heads: settings.trains,
            learn,
            choose,
            test,
            judge: fed.judge,
        })
    }
}

/// So many batches at most, of one pass over the data.
fn batches(source: &mut dyn BatchSource, most: usize) -> anyhow::Result<Vec<Batch>> {
    let mut all = Vec::new();
    while all.len() < most {
        let Some(batch) = source.next()? else { break };
        all.push(batch);
        if source.position().epoch > 0 {
            break;
        }
    }
    Ok(all)
}

impl Task for Files {
    fn name(&self) -> &str {
        "files"
    }

    fn model_name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn heads(&self) -> Vec<String> {
        self.heads.clone()
    }

    fn source(&self, seed: u64) -> Result<Box<dyn BatchSource>> {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Ok(Box::new(Shuffled { batches: self.learn.clone(), order: Vec::new(), random, step: 0 }))
    }

    fn loss(&self, learner: &mut Learner) -> Result<f64> {
        mean(learner, &self.choose)
    }

    fn judge(&self, learner: &mut Learner, _seed: u64) -> Result<Vec<Value>> {
        let loss = Value::new("loss", mean(learner, &self.test)?, "nats");
        let Some(judge) = &self.judge else { return Ok(vec![loss]) };
        let found = judge.judge(learner, 16)?;
        let parts = [("accuracy", found.accuracy), ("exact match", found.exact_match), ("F1", found.f1)];
        let mut values: Vec<Value> =
            parts.into_iter().filter_map(|(name, part)| Some(Value::new(name, 100.0 * part?, "%"))).collect();
        values.push(loss);
        Ok(values)
    }

    fn more_is_better(&self) -> bool {
        self.judge.is_some()
    }
}

fn mean(learner: &mut Learner, batches: &[Batch]) -> Result<f64> {
    let mut sum = Loss::default();
    for batch in batches {
        sum += learner.loss(batch).map_err(Error::from)?;
    }
    learner.take_choices();
    Ok(sum.mean())
}

/// Batches in an order by chance, a new one each time they are through.
struct Shuffled {
    batches: Vec<Batch>,
    order: Vec<usize>,
    random: ChaCha8Rng,
    step: u64,
}

impl BatchSource for Shuffled {
    fn next(&mut self) -> ounce_train::Result<Option<Batch>> {
        if self.order.is_empty() {
            self.order = (0..self.batches.len()).collect();
            self.order.shuffle(&mut self.random);
        }
        self.step += 1;
        Ok(self.order.pop().map(|at| self.batches[at].clone()))
    }

    fn position(&self) -> Position {
        Position { step: self.step, ..Position::default() }
    }

    fn seek(&mut self, _: &Position) -> ounce_train::Result<()> {
        Err(ounce_train::Error::Unsupported("these batches can't be gone back to".into()))
    }

    fn tokens_per_epoch(&self) -> u64 {
        self.batches.iter().map(|it| it.tokens.len() as u64).sum()
    }
}
