//! All runs of a grid, and one of them.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use ounce_eval::stats::mean_and_error;
use ounce_kernels::meter::high_water;
use ounce_model::Model;
use ounce_train::net::Options;
use ounce_train::{Batch, Param, Trainable};

use super::cell::{Cell, Outcome};
use super::results::Results;
use super::size;
use super::task::{Shots, Task};
use super::way::{Own, Teach, Way, stored_in};
use crate::adapter::Clock;
use crate::study::fit_watched;
use crate::{Adapted, Error, Kind, Result, Settings, Targets};

/// What a grid is to do.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The ways that are compared.
    pub ways: Vec<Way>,
    /// Parts of the model's numbers that methods may train at most; none for the settings that suit the method.
    pub budgets: Vec<Option<f64>>,
    /// Learning rates that are tried, as multiples of each way's usual one.
    pub multiples: Vec<f64>,
    /// Steps of a run that chooses a rate.
    pub choosing: u64,
    /// Steps of a run that is judged.
    pub steps: u64,
    /// Runs that are judged, each with another seed.
    pub seeds: u64,
    /// The first of them.
    pub first_seed: u64,
    /// Whether forward passes are timed and merged models compared, in the first run of each way.
    pub looks: bool,
    /// Whether a rate that was chosen for a way on a model is taken for its other tasks and budgets.
    pub shared_rates: bool,
    /// The settings of methods where there is no budget.
    pub usual: fn(Kind) -> Settings,
}

impl Default for Grid {
    fn default() -> Grid {
        Grid {
            ways: Vec::new(),
            budgets: vec![None],
            multiples: vec![0.3, 1.0, 3.0, 10.0],
            choosing: 40,
            steps: 100,
            seeds: 3,
            first_seed: 1000,
            looks: true,
            shared_rates: false,
            usual: Settings::of,
        }
    }
}

/// What came of a way at a task.
#[derive(Debug, Clone)]
pub struct Found {
    /// The task.
    pub task: String,
    /// The model.
    pub model: String,
    /// The way.
    pub way: Way,
    /// The part of the numbers that it was to keep.
    pub budget: Option<f64>,
    /// Losses by learning rate.
    pub rates: Vec<(f64, Option<f64>)>,
    /// The rate that was taken.
    pub rate: f64,
    /// The runs that were judged.
    pub runs: Vec<Outcome>,
    /// Why nothing was run.
    pub left_out: Option<String>,
}

impl Found {
    /// The mean of the value that counts most, and its standard error; NaN without runs, and where one diverged.
    pub fn quality(&self) -> (f64, f64) {
        self.mean(Outcome::quality)
    }

    /// The mean of something over runs, and its standard error.
    pub fn mean(&self, of: impl Fn(&Outcome) -> Option<f64>) -> (f64, f64) {
        let all: Vec<f64> = self.runs.iter().map(|run| of(run).unwrap_or(f64::NAN)).collect();
        if all.is_empty() { (f64::NAN, f64::NAN) } else { mean_and_error(&all) }
    }
}

/// How far a grid is.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    /// What is being done.
    pub what: &'a str,
    /// Runs that are done, and the part of the one that is going on.
    pub done: f64,
    /// Runs in all.
    pub of: usize,
}

/// Told how far a grid is; an error of its ends the grid, and what is done stays in the results.
pub type Watch<'w> = dyn FnMut(At<'_>) -> Result<()> + 'w;

/// The seed that rates are chosen with, above the first of those that are judged.
const CHOOSING_SEED: u64 = 900;

/// Runs a grid on tasks; what is in the results is not done again.
///
/// # Errors
/// If a task's data can't be read, the results can't be written, or the watch says so.
pub fn grid(
    tasks: &[&dyn Task],
    grid: &Grid,
    results: &mut Results,
    watch: &mut Watch<'_>,
) -> Result<Vec<Found>> {
    let (mut all, mut rates, mut plan) = (Vec::new(), HashMap::new(), Vec::new());
    for &task in tasks {
        for &way in &grid.ways {
            let sized = matches!(way.teach, Teach::Adapter(_));
            for &budget in if sized { &grid.budgets[..] } else { &[None] } {
                plan.push((task, way, budget));
            }
        }
    }
    let each = |way: Way| if way.trains() { grid.multiples.len() } else { 0 } + grid.seeds as usize;
    let of = plan.iter().map(|(_, way, _)| each(*way)).sum();
    let mut done = 0;
    for (task, way, budget) in plan {
        let what = format!("{}, {}, {way}", task.model_name(), task.name());
        let runs = each(way);
        let mut one = One { task, way, budget, grid, results: &mut *results };
        let mut inner =
            |run: usize, part: f64| watch(At { what: &what, done: (done + run.min(runs)) as f64 + part, of });
        all.push(one.all(&mut rates, &mut inner)?);
        done += runs;
    }
    Ok(all)
}

/// Rates that were chosen, by model and way.
type Rates = HashMap<(String, String), f64>;

/// A way at a task.
struct One<'a> {
    task: &'a dyn Task,
    way: Way,
    budget: Option<f64>,
    grid: &'a Grid,
    results: &'a mut Results,
}

impl One<'_> {
    fn all(&mut self, rates: &mut Rates, watch: &mut dyn FnMut(usize, f64) -> Result<()>) -> Result<Found> {
        let mut found = Found {
            task: self.task.name().to_owned(),
            model: self.task.model_name().to_owned(),
            way: self.way,
            budget: self.budget,
            rates: Vec::new(),
            rate: 0.0,
            runs: Vec::new(),
            left_out: None,
        };
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(Error::Option(why)) => {
                found.left_out = Some(why);
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        // A model that the method does not suit is found out before anything is run.
        match self.network(&stored(self.task.model(), self.way)?, settings.as_ref(), 0) {
            Err(error) if !is_stop(&error) => {
                found.left_out = Some(error.to_string());
                return Ok(found);
            }
            other => drop(other?),
        }
        let mut run = 0;
        if self.way.trains() {
            let key = (found.model.clone(), self.way.to_string());
            let known = rates.get(&key).copied().filter(|_| self.grid.shared_rates);
            found.rate = match known {
                Some(rate) => rate,
                None => {
                    let usual = self.way.usual_rate(&self.task.model().spec);
                    for multiple in &self.grid.multiples {
                        let rate = usual * multiple;
                        let cell = self.cell(settings.clone(), rate, CHOOSING_SEED, true);
                        let outcome = self.outcome(cell, &mut |part| watch(run, part))?;
                        found.rates.push((rate, outcome.loss));
                        run += 1;
                    }
                    let of = |it: &&(f64, Option<f64>)| it.1.unwrap_or(f64::INFINITY);
                    let best = found.rates.iter().min_by(|a, b| of(a).total_cmp(&of(b)));
                    best.map_or(usual, |it| it.0)
                }
            };
            rates.insert(key, found.rate);
            run = self.grid.multiples.len();
        }
        for seed in 0..self.grid.seeds {
            let cell = self.cell(settings.clone(), found.rate, seed, false);
            found.runs.push(self.outcome(cell, &mut |part| watch(run, part))?);
            run += 1;
        }
        Ok(found)
    }

    /// The method's settings, of a size that keeps the budget.
    fn settings(&self) -> Result<Option<Settings>> {
        let Teach::Adapter(kind) = self.way.teach else { return Ok(None) };
        let spec = &self.task.model().spec;
        let Some(share) = self.budget else { return Ok(Some((self.grid.usual)(kind))) };
        let most = (share * self.numbers() as f64) as u64;
        let within = size::within(kind, spec, most)?;
        within.map(Some).ok_or_else(|| {
            Error::Option(format!(
                "no size of {kind} trains {:.3} % of this model's numbers or fewer",
                100.0 * share
            ))
        })
    }

    /// Numbers of the model without a new head.
    fn numbers(&self) -> u64 {
        let heads = self.task.heads();
        let own = self.task.model().spec.tensors().into_iter();
        let own = own.filter(|it| !heads.iter().any(|head| it.name.starts_with(head.as_str())));
        own.map(|it| it.shape.iter().product::<usize>() as u64).sum()
    }

    fn cell(&self, settings: Option<Settings>, rate: f64, seed: u64, choosing: bool) -> Cell {
        let steps = if choosing { self.grid.choosing } else { self.grid.steps };
        let seed = self.grid.first_seed + seed;
        Cell {
            task: self.task.name().to_owned(),
            model: self.task.model_name().to_owned(),
            identity: self.task.identity(),
            way: self.way.to_string(),
            settings: settings.map(|settings| Settings { seed, steps, ..settings }),
            rate,
            steps: if self.way.trains() { steps } else { 0 },
            seed,
            choosing,
        }
    }

    fn network(&self, model: &Model, settings: Option<&Settings>, seed: u64) -> Result<Adapted> {
        let trains = self.task.heads();
        if let Some(settings) = settings {
            let settings = Settings { trains, ..settings.clone() };
            return Adapted::new(model, &settings, Options::default());
        }
        let all = self.way.teach != Teach::Head;
        let settings = Settings { trains, targets: Targets::Parts(Vec::new()), seed, ..Settings::default() };
        Adapted::with(model, &settings, Options::default(), Box::new(Own { all }), Clock::default())
    }

    /// Does a run, if it was not done before.
    fn outcome(&mut self, cell: Cell, watch: &mut dyn FnMut(f64) -> Result<()>) -> Result<Outcome> {
        watch(0.0)?;
        if let Some(known) = self.results.of(&cell) {
            return Ok(known.clone());
        }
        let outcome = self.run(cell, watch)?;
        self.results.add(outcome.clone())?;
        Ok(outcome)
    }

    fn run(&self, cell: Cell, watch: &mut dyn FnMut(f64) -> Result<()>) -> Result<Outcome> {
        let model = stored(self.task.model(), self.way)?;
        let mut source = self.task.source(cell.seed)?;
        let mut times = vec![Instant::now()];
        let steps = cell.steps;
        let (taught, held) = high_water(|| -> Result<(Adapted, Vec<f64>, usize)> {
            let mut learner = self.network(&model, cell.settings.as_ref(), cell.seed)?;
            if steps == 0 {
                return Ok((learner, Vec::new(), 0));
            }
            let mut each = |step: u64| {
                times.push(Instant::now());
                watch(step as f64 / steps as f64)
            };
            let (losses, optimizer) =
                fit_watched(&mut learner, source.as_mut(), cell.rate, steps, &mut each)?;
            Ok((learner, losses, optimizer))
        });
        let (mut learner, losses, optimizer_bytes) = taught?;
        let mut seconds: Vec<f64> =
            times.windows(2).skip(1).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        let diverged = losses.iter().any(|loss| !loss.is_finite());
        let loss = if diverged || self.way.teach == Teach::Copied {
            None
        } else {
            Some(self.task.loss(&mut learner)?).filter(|loss| loss.is_finite())
        };
        let mut values = Vec::new();
        if !cell.choosing && !diverged {
            values = match self.way.teach {
                Teach::Examples { count, nearest } => {
                    let shots = Shots { count, nearest, copied: false, seed: cell.seed };
                    self.task.shown(&mut learner, shots)?
                }
                Teach::Copied => {
                    let shots = Shots { count: 1, nearest: true, copied: true, seed: cell.seed };
                    self.task.shown(&mut learner, shots)?
                }
                _ => self.task.judge(&mut learner, cell.seed)?,
            };
        }
        let looked = self.grid.looks && self.way.trains() && !cell.choosing && !diverged;
        let looked = looked && cell.seed == self.grid.first_seed;
        let (delay, merged_error) = if looked { self.look(&mut learner, &model)? } else { (None, None) };
        let batch = self.task.source(cell.seed)?.next()?.unwrap_or_default();
        let heads = self.task.heads();
        let is_head = |param: &&Param| heads.iter().any(|head| param.name.starts_with(head.as_str()));
        let head: u64 = learner.params().iter().filter(is_head).map(|it| it.value.len() as u64).sum();
        let (trained, of) =
            if self.way.trains() { (learner.trained(), self.numbers()) } else { (0, self.numbers()) };
        let head = if self.way.trains() { head } else { 0 };
        let frozen = learner.params().iter().filter(|param| !param.is_trainable());
        let decoded: u64 = frozen.map(|param| 4 * param.value.len() as u64).sum();
        let tokens = batch.tokens.len() + batch.lengths.len() * learner.virtual_tokens();
        let base_bytes = model.weight_bytes();
        let adapter_bytes = match self.way.teach {
            Teach::Adapter(_) | Teach::Head => 4 * learner.folder(Path::new("adapter"))?.parameters(),
            Teach::Full => 4 * trained,
            _ => 0,
        };
        Ok(Outcome {
            loss,
            values,
            trained: trained - head.min(trained),
            head,
            formula: match &cell.settings {
                Some(_) => learner.parameters(),
                None if self.way.teach == Teach::Full => of,
                None => 0,
            },
            of,
            step_seconds: seconds.get(seconds.len() / 2).copied().unwrap_or(0.0),
            base_bytes,
            predicted_bytes: base_bytes
                + decoded
                + 8 * trained
                + optimizer_bytes as u64
                + if self.way.trains() { learner.workspace_bytes(tokens) as u64 } else { 0 },
            measured_bytes: held.map(|held| held + base_bytes).filter(|_| self.way.trains()),
            optimizer_bytes: optimizer_bytes as u64,
            adapter_bytes,
            delay,
            merged_error,
            cell,
        })
    }

    /// The time of a forward pass with what was learned, by that without it; how far merged logits are off.
    fn look(&self, learner: &mut Adapted, model: &Model) -> Result<(Option<f64>, Option<f64>)> {
        let Some(batch) = self.task.source(CHOOSING_SEED)?.next()? else { return Ok((None, None)) };
        let plain = |model: &Model| {
            let own = One { way: Way::of(Teach::Nothing), results: &mut Results::default(), ..*self };
            own.network(model, None, 0)
        };
        let mut base = plain(model)?;
        let merges = match self.way.teach {
            Teach::Adapter(kind) => kind.facts().merges,
            _ => true,
        };
        // (IA)³ beside a bias, and heads that share the embedding, don't merge though the method does.
        let merged = merges.then(|| learner.merged()).and_then(Result::ok);
        let Some(merged) = merged else { return Ok((Some(times(learner, &mut base, &batch)?), None)) };
        let mut merged = plain(&merged)?;
        let delay = times(&mut merged, &mut base, &batch)?;
        let error = match self.way.teach {
            Teach::Adapter(_) => {
                let (beside, inside) = (logits(learner, &batch)?, logits(&mut merged, &batch)?);
                let largest = beside.iter().fold(1e-9f32, |most, it| most.max(it.abs()));
                let apart = beside.iter().zip(&inside).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                Some(f64::from(apart / largest))
            }
            _ => None,
        };
        Ok((Some(delay), error))
    }
}

fn logits(net: &mut Adapted, batch: &Batch) -> Result<Vec<f32>> {
    match net.skeleton().spec.classifier {
        Some(_) => Ok(net.scores(batch)?),
        None => net.logits(batch),
    }
}

/// Passes that are timed, in turns; the shortest of each counts.
const TURNS: usize = 15;

fn times(net: &mut Adapted, base: &mut Adapted, batch: &Batch) -> Result<f64> {
    let (mut own, mut plain) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TURNS {
        let start = Instant::now();
        net.loss(batch)?;
        own = own.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        base.loss(batch)?;
        plain = plain.min(start.elapsed().as_secs_f64());
    }
    Ok(own / plain.max(1e-9))
}

fn stored(model: &Model, way: Way) -> Result<Model> {
    match way.base {
        Some(format) => stored_in(model, format),
        None => Ok(model.clone()),
    }
}

/// Whether the user, not the work, is the reason.
fn is_stop(error: &Error) -> bool {
    let stopped = |error: &ounce_model::Error| matches!(error, ounce_model::Error::Interrupted);
    match error {
        Error::Model(error) => stopped(error),
        Error::Train(ounce_train::Error::Model(error)) => stopped(error),
        _ => false,
    }
}
