//! Asks a model a task's questions and scores the answers.

use std::collections::HashMap;
use std::time::Duration;

use ounce_engine::{Engine, Sampling};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::cache::{Cache, short};
use super::code::{Runner, Verdict};
use super::config::Output;
use super::encode::Encoder;
use super::measure::Measure;
use super::metric::{Judged, Kind, Metric, pass_at};
use super::score::{Pair, Scored, score};
use super::task::{Gold, Question, Request, Task};
use super::write::{Prompt, write};
use super::{Error, Result};
use crate::perplexity;
use crate::trust::Prompting;

/// Tokens of an answer where a task doesn't say.
const ANSWER_TOKENS: usize = 256;
/// Programs that run before the user is asked whether to go on.
const PROGRAMS: usize = 16;

/// How a task is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Only the first documents.
    pub limit: Option<usize>,
    /// What examples are drawn by, and answers where a task samples them.
    pub seed: u32,
    /// Whether programs that the model writes may be run.
    pub run_code: bool,
}

/// What a model said to one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Response {
    /// To a continuation or a whole text.
    Likelihood {
        /// Natural logarithm of its probability.
        log_likelihood: f64,
        /// Whether each of its tokens is the likeliest in its place; false for whole texts.
        greedy: bool,
    },
    /// To a prompt.
    Text {
        /// What it wrote.
        text: String,
    },
}

/// One document of a task with all that came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The document's place in its split.
    pub document: usize,
    /// What is right: the place of a choice, or a text; several of them as a list; null where no choice is right.
    pub target: Value,
    /// What the model was given: context and continuation, context, or text, one a request.
    pub arguments: Vec<Vec<String>>,
    /// What it said, one a request; of a multiple-choice task one a choice.
    pub responses: Vec<Response>,
    /// Its answers after each filter, by the filter's name; empty for tasks that compare likelihoods.
    pub filtered: Vec<(String, Vec<String>)>,
}

/// A task's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The task.
    pub task: String,
    /// One an item asked about, in order.
    pub items: Vec<Item>,
    /// All metrics, under every filter; each has one value an item, in the order of `items`.
    pub measures: Vec<Measure>,
    /// Requests that were answered from the cache.
    pub known: usize,
}

/// A request as the model gets it.
enum Asked {
    Score(Pair),
    Write(Prompt),
    Roll(Vec<u32>),
}

/// Runs a task. `progress` is told the requests answered and in all, and may stop the work; what is done by then is in the
/// cache.
///
/// # Errors
/// If a template can't be filled in, the model can't be asked what the task asks, programs may not be run or can't be, or
/// `progress` stops the work.
pub fn evaluate(
    engine: &Engine,
    prompting: &Prompting<'_>,
    task: &Task,
    options: &Options,
    cache: &mut Cache,
    mut progress: impl FnMut(usize, usize) -> ounce_engine::Result<()>,
) -> Result<Outcome> {
    let name = &task.config.task;
    let wrong = |what: String| Error::task(name, what);
    task.check_code(options.run_code)?;
    let runner = task.runs_code().then(Runner::find).transpose().map_err(wrong)?;
    let questions = task.questions(options.limit, options.seed, prompting)?;
    let asking = Asking::new(engine, prompting, task, options)?;
    let mut keys = Vec::new();
    // What is asked more than once is answered once.
    let mut waiting: HashMap<String, Asked> = HashMap::new();
    let mut order = Vec::new();
    let mut known = 0;
    for question in &questions {
        for (at, request) in question.requests.iter().enumerate() {
            let place = |what: String| wrong(format!("document {}: {what}", question.document + 1));
            let asked = asking.asked(request, question.document, at)?.map_err(place)?;
            let key = asked.key();
            if cache.get(&key).is_some() {
                known += 1;
            } else if !waiting.contains_key(&key) {
                waiting.insert(key.clone(), asked);
                order.push(key.clone());
            }
            keys.push(key);
        }
    }
    let answered = asking.answer(&order, &waiting, known, cache, &mut progress);
    // What was answered is kept, even if the rest was not.
    cache.save()?;
    answered?;
    let mut keys = keys.iter();
    let items = questions
        .iter()
        .map(|question| {
            let responses = keys.by_ref().take(question.requests.len());
            let responses = responses.filter_map(|key| cache.get(key).cloned()).collect();
            item(task, question, responses)
                .map_err(|what| wrong(format!("document {}: {what}", question.document + 1)))
        })
        .collect::<Result<Vec<Item>>>()?;
    let measures = measures(task, &questions, &items, runner.as_ref(), &mut progress)?;
    Ok(Outcome { task: name.clone(), items, measures, known })
}

/// What turns requests into tokens and tokens into answers.
struct Asking<'a> {
    engine: &'a Engine,
    prompting: &'a Prompting<'a>,
    encoder: Encoder<'a>,
    task: &'a str,
    seed: u32,
    tokens: usize,
    stops: Vec<String>,
    sampling: Sampling,
}

impl<'a> Asking<'a> {
    fn new(
        engine: &'a Engine,
        prompting: &'a Prompting<'a>,
        task: &'a Task,
        options: &Options,
    ) -> Result<Asking<'a>> {
        let name = task.config.task.as_str();
        if !engine.spec().causal {
            return Err(Error::task(
                name,
                "the model is an encoder; only models that predict the next token can be asked",
            ));
        }
        let (tokens, stops, sampling) = generation(task).map_err(|what| Error::task(name, what))?;
        sampling.check()?;
        let encoder = Encoder::new(prompting)?;
        Ok(Asking { engine, prompting, encoder, task: name, seed: options.seed, tokens, stops, sampling })
    }

    /// A request in tokens; the inner error is about the document.
    fn asked(&self, request: &Request, document: usize, at: usize) -> Result<Result<Asked, String>> {
        let limit = self.engine.spec().context_length;
        Ok(match request {
            Request::Score { context, continuation } => {
                let (context, continuation) = self.encoder.pair(self.task, context, continuation)?;
                match continuation.len() {
                    0 => Err("a continuation has no tokens of its own; it is empty or part of the context's last token".into()),
                    tokens if tokens > limit => {
                        Err(format!("a continuation has {tokens} tokens and the model's context {limit}; shorten it"))
                    }
                    _ => Ok(Asked::Score(Pair { context, continuation })),
                }
            }
            Request::Roll { text } => Ok(Asked::Roll(self.encoder.text(text)?)),
            Request::Write { context } => {
                let Some(room) = limit.checked_sub(self.tokens).filter(|room| *room > 0) else {
                    return Ok(Err(format!(
                        "answers of {} tokens leave no room for a question in the model's context of {limit}; set \
                         max_gen_toks in generation_kwargs to less",
                        self.tokens
                    )));
                };
                let mut ids = self.encoder.text(context)?;
                if ids.is_empty() {
                    ids.push(self.encoder.start(self.task)?);
                }
                ids.drain(..ids.len().saturating_sub(room));
                let draws = self.sampling.temperature > 0.0;
                // Each answer is drawn by a seed of its own.
                let seed =
                    if draws { u64::from(self.seed) << 32 | (document as u64) << 10 | at as u64 } else { 0 };
                let sampling = Sampling { seed, ..self.sampling.clone() };
                Ok(Asked::Write(Prompt { ids, max_tokens: self.tokens, stops: self.stops.clone(), sampling }))
            }
        })
    }

    /// Answers what waits, and puts it into the cache.
    fn answer(
        &self,
        order: &[String],
        waiting: &HashMap<String, Asked>,
        known: usize,
        cache: &mut Cache,
        progress: &mut impl FnMut(usize, usize) -> ounce_engine::Result<()>,
    ) -> Result<()> {
        let (mut pairs, mut prompts, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_pairs, mut of_prompts) = (Vec::new(), Vec::new());
        for key in order {
            match &waiting[key] {
                Asked::Score(pair) => {
                    pairs.push(pair.clone());
                    of_pairs.push(key);
                }
                Asked::Write(prompt) => {
                    prompts.push(prompt.clone());
                    of_prompts.push(key);
                }
                Asked::Roll(ids) => texts.push((key, ids)),
            }
        }
        let total = known + order.len();
        let done = std::cell::Cell::new(known);
        let progress = std::cell::RefCell::new(progress);
        let tell = || (progress.borrow_mut())(done.get(), total);
        let mut keep = |key: &str, response: Response| -> ounce_engine::Result<()> {
            done.set(done.get() + 1);
            cache.put(key, response).map_err(|error| match error {
                Error::Model(error) => error.into(),
                other => ounce_engine::Error::Unsuitable(other.to_string()),
            })
        };
        tell()?;
        score(self.engine, &pairs, tell, |at, Scored { log_likelihood, greedy }| {
            keep(of_pairs[at], Response::Likelihood { log_likelihood, greedy })
        })?;
        write(self.engine, self.prompting.tokenizer, &prompts, tell, |at, text| {
            keep(of_prompts[at], Response::Text { text })
        })?;
        for (key, ids) in texts {
            let context = self.engine.spec().context_length;
            let options = perplexity::Options {
                context,
                stride: context,
                prefix: Some(self.encoder.start(self.task)?),
            };
            let scores = perplexity::score(self.engine, std::slice::from_ref(ids), &options, |_, _| tell())?;
            let log_likelihood = scores.iter().map(|it| it.log_likelihood).sum();
            keep(key, Response::Likelihood { log_likelihood, greedy: false })?;
        }
        Ok(tell()?)
    }
}

impl Asked {
    /// Stands for the request with all that its answer depends on, beside the model.
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |ids: &[u32]| {
            hash.update((ids.len() as u64).to_le_bytes());
            ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        };
        match self {
            Asked::Score(pair) => {
                add(&pair.context);
                add(&pair.continuation);
                hash.update("score");
            }
            Asked::Roll(ids) => {
                add(ids);
                hash.update("roll");
            }
            Asked::Write(Prompt { ids, max_tokens, stops, sampling }) => {
                add(ids);
                hash.update(format!("write\0{max_tokens}\0{stops:?}\0{sampling:?}"));
            }
        }
        short(hash)
    }
}

/// Tokens of an answer, texts before which it ends, and how tokens are chosen.
fn generation(task: &Task) -> Result<(usize, Vec<String>, Sampling), String> {
    let arguments = &task.config.generation_kwargs;
    let mut tokens = ANSWER_TOKENS;
    let mut stops = vec![task.config.fewshot_delimiter.clone()];
    let mut sampling =
        Sampling { temperature: 0.0, ..Sampling { top_k: 0, top_p: 1.0, ..Sampling::default() } };
    let mut draws = None;
    // The harness takes the first of these that is there.
    let limits = ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"];
    let limit = limits.into_iter().find(|name| arguments.contains_key(*name));
    for (key, value) in arguments {
        let wrong = || format!("\"{key}\" in generation_kwargs can't be {value}");
        let number = || value.as_f64().map(|it| it as f32).ok_or_else(wrong);
        match key.as_str() {
            "until" => {
                stops = match value {
                    Value::String(text) => vec![text.clone()],
                    Value::Array(texts) => {
                        texts.iter().filter_map(Value::as_str).map(str::to_string).collect()
                    }
                    _ => return Err(wrong()),
                }
            }
            key if limits.contains(&key) => {
                if limit == Some(key) {
                    tokens = value.as_u64().filter(|it| *it > 0).ok_or_else(wrong)? as usize;
                }
            }
            "do_sample" => draws = Some(value.as_bool().ok_or_else(wrong)?),
            "temperature" => sampling.temperature = number()?,
            "top_p" => sampling.top_p = number()?,
            "min_p" => sampling.min_p = number()?,
            "top_k" => sampling.top_k = value.as_u64().ok_or_else(wrong)? as usize,
            "repetition_penalty" => sampling.repetition_penalty = number()?,
            _ => {
                return Err(format!(
                    "\"{key}\" in generation_kwargs is not supported; until, max_gen_toks, do_sample, temperature, top_k, \
                     top_p, min_p and repetition_penalty are"
                ));
            }
        }
    }
    stops.retain(|stop| !stop.is_empty());
    match draws {
        Some(false) => sampling.temperature = 0.0,
        Some(true) if sampling.temperature == 0.0 => sampling.temperature = 1.0,
        _ => {}
    }
    Ok((tokens, stops, sampling))
}

fn item(task: &Task, question: &Question, responses: Vec<Response>) -> Result<Item, String> {
    let arguments = question.requests.iter().map(|request| match request {
        Request::Score { context, continuation } => vec![context.clone(), continuation.clone()],
        Request::Write { context } => vec![context.clone()],
        Request::Roll { text } => vec![text.clone()],
    });
    let mut filtered = Vec::new();
    if task.config.output == Output::GenerateUntil {
        let texts: Vec<String> = responses
            .iter()
            .map(|response| match response {
                Response::Text { text } => text.clone(),
                Response::Likelihood { .. } => String::new(),
            })
            .collect();
        for filter in &task.filters {
            // Answers of which any may pass are all kept; the usual filter takes one.
            let all = task.runs_code() && task.config.filter_list.is_none();
            filtered.push((filter.name.clone(), if all { texts.clone() } else { filter.apply(&texts)? }));
        }
    }
    let (document, target) = (question.document, question.gold.told());
    Ok(Item { document, target, arguments: arguments.collect(), responses, filtered })
}

fn measures(
    task: &Task,
    questions: &[Question],
    items: &[Item],
    runner: Option<&Runner>,
    progress: &mut impl FnMut(usize, usize) -> ounce_engine::Result<()>,
) -> Result<Vec<Measure>> {
    let mut measures = Vec::new();
    for (at, filter) in task.filters.iter().enumerate() {
        // How many programs of each item pass; the same for every k.
        let mut passed: Option<Vec<usize>> = None;
        for metric in &task.metrics {
            let values = if let Kind::Pass { k, seconds, with_prompt } = metric.kind {
                let runner =
                    runner.ok_or_else(|| Error::task(&task.config.task, "nothing runs its programs"))?;
                if passed.is_none() {
                    let time = Duration::from_secs_f64(seconds);
                    passed = Some(run_programs(task, items, at, runner, time, with_prompt, progress)?);
                }
                let count = |item: &Item| item.filtered[at].1.len();
                let passed = passed.iter().flatten();
                items.iter().zip(passed).map(|(item, &right)| [pass_at(k, count(item), right), 0.0]).collect()
            } else {
                let each = questions.iter().zip(items).map(|(question, item)| {
                    value(task.config.output, metric, question, item, at).map_err(|what| {
                        Error::task(&task.config.task, format!("document {}: {what}", item.document + 1))
                    })
                });
                each.collect::<Result<Vec<_>>>()?
            };
            measures.push(Measure {
                metric: metric.name.clone(),
                filter: filter.name.clone(),
                higher_is_better: metric.higher_is_better,
                aggregation: metric.aggregation(),
                items: values,
            });
        }
    }
    Ok(measures)
}

/// What one item gives for a metric.
fn value(
    output: Output,
    metric: &Metric,
    question: &Question,
    item: &Item,
    filter: usize,
) -> Result<[f64; 2], String> {
    let said = || {
        item.responses.iter().map(|response| match response {
            Response::Likelihood { log_likelihood, greedy } => (*log_likelihood, *greedy),
            Response::Text { .. } => (f64::NAN, false),
        })
    };
    let first = || said().next().unwrap_or((f64::NAN, false));
    match output {
        Output::MultipleChoice => {
            if matches!(metric.kind, Kind::ChoiceF1) && question.choices.len() != 2 {
                return Err(format!(
                    "f1 is for questions with two choices, found {}",
                    question.choices.len()
                ));
            }
            let (likelihoods, greedy): (Vec<f64>, Vec<bool>) = said().unzip();
            let count = question.choices.len();
            let judged = Judged {
                choices: &question.choices,
                likelihoods: &likelihoods[..count],
                greedy: &greedy[..count],
                unconditional: &likelihoods[count..],
            };
            Ok(metric.kind.of_choices(&judged, &question.gold))
        }
        Output::Loglikelihood => {
            let (log_likelihood, greedy) = first();
            Ok(metric.kind.of_likelihood(log_likelihood, greedy))
        }
        Output::LoglikelihoodRolling => {
            let text = item.arguments[0].first().map(String::as_str).unwrap_or_default();
            Ok(metric.kind.of_text(first().0, text))
        }
        Output::GenerateUntil => {
            let expected = match &question.gold {
                Gold::Texts(texts) => texts.as_slice(),
                Gold::Places(_) => &[],
            };
            let answer = item.filtered[filter].1.first().map(String::as_str).unwrap_or_default();
            metric.kind.of_answer(answer, expected)
        }
    }
}

/// How many of each item's programs pass.
fn run_programs(
    task: &Task,
    items: &[Item],
    filter: usize,
    runner: &Runner,
    time: Duration,
    with_prompt: bool,
    progress: &mut impl FnMut(usize, usize) -> ounce_engine::Result<()>,
) -> Result<Vec<usize>> {
    let mut programs = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let tests = item.target.as_str().unwrap_or_default();
        let prompt = task.prompt(item.document).map_err(|what| Error::task(&task.config.task, what))?;
        let prompt = if with_prompt { prompt } else { String::new() };
        programs.extend(
            item.filtered[filter].1.iter().map(|answer| (place, format!("{prompt}{answer}\n{tests}"))),
        );
    }
    let mut passed = vec![0; items.len()];
    for (at, some) in programs.chunks(PROGRAMS).enumerate() {
        progress(at * PROGRAMS, programs.len())?;
        let verdicts: Vec<(usize, Result<Verdict, String>)> =
            some.par_iter().map(|(place, program)| (*place, runner.run(program, time))).collect();
        for (place, verdict) in verdicts {
            let verdict = verdict.map_err(|what| Error::task(&task.config.task, what))?;
            passed[place] += usize::from(verdict == Verdict::Passed);
        }
    }
    progress(programs.len(), programs.len())?;
    Ok(passed)
}
