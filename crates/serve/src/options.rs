//! What all ways of asking have in common: how long an answer is, how it is drawn, where it ends.

use std::time::{Duration, Instant};

use ounce_engine::Sampling;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::error::{ApiError, ApiResult};
use crate::fields::Fields;
use crate::grammar::Shape;
use crate::model::Served;
use crate::scheduler::{Event, Job};

/// Answers to one prompt at most.
const MOST_CHOICES: usize = 128;

/// Likeliest tokens that are reported at most.
const MOST_LOGPROBS: usize = 100;

/// Who asks, as the scheduler sees it.
#[derive(Debug, Clone, Default)]
pub struct Asker {
    /// Whose turn is used.
    pub owner: String,
    /// When the answer is of no use any more.
    pub deadline: Option<Instant>,
    /// Tokens of an answer at most.
    pub most_tokens: Option<usize>,
    /// The span that the client sent as `traceparent`.
    pub parent: Option<String>,
}

/// How an answer is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tokens at most; none for as many as fit.
    pub max_tokens: Option<usize>,
    /// Tokens before which the answer does not end.
    pub min_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What is added to logits.
    pub bias: Vec<(u32, f32)>,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Tokens that end the answer, besides the model's.
    pub stop_ids: Vec<u32>,
    /// Whether the model's own end is passed over.
    pub ignore_eos: bool,
    /// Answers that are wanted.
    pub choices: usize,
    /// Lower is sooner.
    pub priority: i32,
    /// What the answer has to be, with the field that says so.
    pub shape: Option<(Shape, &'static str)>,
    /// Likeliest tokens to report.
    pub top_logprobs: Option<usize>,
    /// Whether special tokens are part of the text.
    pub special_text: bool,
    /// Whether the answer is waited for as a whole, not streamed.
    pub whole: bool,
}

impl Options {
    /// A model's own way to answer.
    pub fn of(model: &Served) -> Options {
        Options {
            max_tokens: None,
            min_tokens: 0,
            sampling: Sampling { seed: rand::random(), ..model.defaults.clone() },
            bias: Vec::new(),
            stops: Vec::new(),
            stop_ids: Vec::new(),
            ignore_eos: false,
            choices: 1,
            priority: 0,
            shape: None,
            top_logprobs: None,
            special_text: false,
            whole: true,
        }
    }

    /// Reads the fields that OpenAI's interfaces share, and the usual extensions.
    ///
    /// # Errors
    /// Names the field that has a wrong type or is out of its range.
    pub fn read(fields: &Fields<'_>, model: &Served) -> ApiResult<Options> {
        let mut options = Options::of(model);
        let sampling = &mut options.sampling;
        set(&mut sampling.temperature, ranged(fields, "temperature", 0.0, 2.0)?);
        set(&mut sampling.top_p, ranged(fields, "top_p", 0.0, 1.0)?);
        set(&mut sampling.min_p, ranged(fields, "min_p", 0.0, 1.0)?);
        // 0 and -1 both mean all tokens.
        if let Some(top_k) = fields.integer("top_k")? {
            sampling.top_k = usize::try_from(top_k).unwrap_or(0);
        }
        set(&mut sampling.presence_penalty, ranged(fields, "presence_penalty", -2.0, 2.0)?);
        set(&mut sampling.frequency_penalty, ranged(fields, "frequency_penalty", -2.0, 2.0)?);
        set(&mut sampling.repetition_penalty, ranged(fields, "repetition_penalty", 0.0, 10.0)?);
        if let Some(seed) = fields.integer("seed")? {
            sampling.seed = seed as u64;
        }
        // The smallest share of the likeliest tokens is the likeliest one.
        if sampling.top_p == 0.0 {
            (sampling.top_p, sampling.top_k) = (1.0, 1);
        }
        sampling.check().map_err(|error| ApiError::invalid(error.to_string()))?;
        options.bias = bias(fields, model)?;
        options.stops = stops(fields.texts("stop")?)?;
        options.stop_ids = ids(fields, "stop_token_ids")?;
        options.ignore_eos = fields.flag("ignore_eos")?.unwrap_or(false);
        options.min_tokens = fields.count("min_tokens")?.unwrap_or(0);
        options.choices = fields.count("n")?.unwrap_or(1);
        if !(1..=MOST_CHOICES).contains(&options.choices) {
            return Err(ApiError::field("n", format!("n should be from 1 to {MOST_CHOICES}")));
        }
        options.priority = fields.integer("priority")?.unwrap_or(0).clamp(-1000, 1000) as i32;
        options.special_text = !fields.flag("skip_special_tokens")?.unwrap_or(true);
        options.shape = shape(fields)?;
        options.whole = !fields.flag("stream")?.unwrap_or(false);
        Ok(options)
    }

    /// The job for a prompt.
    ///
    /// # Errors
    /// If the prompt does not fit, or the shape can't be followed.
    pub fn job(
        &self,
        model: &Served,
        prompt: Vec<u32>,
        asker: &Asker,
    ) -> ApiResult<(Job, UnboundedReceiver<Event>)> {
        if prompt.is_empty() {
            return Err(ApiError::invalid("the prompt is empty; give at least one token"));
        }
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= model.engine.spec().vocab_size) {
            return Err(ApiError::invalid(format!("{id} is no token of {}", model.id)));
        }
        let left = model.context.saturating_sub(prompt.len());
        if prompt.len() > model.context || (left == 0 && self.max_tokens != Some(0)) {
            return Err(ApiError::too_long(prompt.len(), model.context));
        }
        let most = asker.most_tokens.unwrap_or(usize::MAX);
        let max_tokens = self.max_tokens.unwrap_or(usize::MAX).min(left).min(most);
        let (mut job, events) = Job::new(prompt, max_tokens);
        job.owner.clone_from(&asker.owner);
        job.deadline = asker.deadline;
        job.parent.clone_from(&asker.parent);
        job.whole = self.whole;
        job.priority = self.priority;
        job.choices = self.choices;
        job.min_tokens = self.min_tokens;
        if !self.ignore_eos {
            job.end_ids.clone_from(&model.end_ids);
        }
        job.end_ids.extend(&self.stop_ids);
        job.stops.clone_from(&self.stops);
        job.sampling = self.sampling.clone();
        job.bias.clone_from(&self.bias);
        job.top_logprobs = self.top_logprobs;
        job.special_text = self.special_text;
        if let Some((shape, param)) = &self.shape {
            job.constraint = Some(model.constrain(shape, param)?);
        }
        Ok((job, events))
    }

    /// How long a client that names no deadline waits at most.
    pub fn deadline(limit: Option<Duration>, asked: Option<f64>) -> Option<Instant> {
        let asked = asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let shorter = match (limit, asked) {
            (Some(limit), Some(asked)) => Some(limit.min(asked)),
            (limit, asked) => limit.or(asked),
        };
        shorter.and_then(|time| Instant::now().checked_add(time))
    }
}

/// Checks the number of likeliest tokens asked for.
///
/// # Errors
/// If it is too large.
pub fn likeliest(name: &str, count: usize) -> ApiResult<usize> {
    if count > MOST_LOGPROBS {
        return Err(ApiError::field(
            name,
            format!("{name} should be at most {MOST_LOGPROBS}, found {count}"),
        ));
    }
    Ok(count)
}

fn set(value: &mut f32, given: Option<f32>) {
    if let Some(given) = given {
        *value = given;
    }
}

fn ranged(fields: &Fields<'_>, name: &str, least: f32, most: f32) -> ApiResult<Option<f32>> {
    match fields.number(name)? {
        Some(number) if !(least..=most).contains(&number) => {
            Err(ApiError::field(name, format!("{name} should be from {least} to {most}, found {number}")))
        }
        number => Ok(number),
    }
}

fn stops(stops: Vec<String>) -> ApiResult<Vec<String>> {
    if stops.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "a stop text is empty; every text contains it at once"));
    }
    if stops.len() > 64 {
        return Err(ApiError::field("stop", "there are more than 64 stop texts"));
    }
    Ok(stops)
}

fn bias(fields: &Fields<'_>, model: &Served) -> ApiResult<Vec<(u32, f32)>> {
    let wrong = |what: String| ApiError::field("logit_bias", what);
    let entries = fields.object("logit_bias")?.into_iter().flatten();
    let limit = model.engine.spec().vocab_size;
    entries
        .map(|(id, bias)| {
            let id = id.parse::<u32>().ok().filter(|&id| (id as usize) < limit).ok_or_else(|| {
                wrong(format!("logit_bias: {id:?} is no token id of this model; ids are below {limit}"))
            })?;
            let bias = bias.as_f64().filter(|bias| bias.abs() <= 100.0);
            let bias =
                bias.ok_or_else(|| wrong(format!("logit_bias: token {id} should have -100 to 100")))?;
            // 100 is meant as "only this", and logits of small models may lie further apart.
            let bias = if bias.abs() == 100.0 { bias * 1e4 } else { bias };
            Ok((id, bias as f32))
        })
        .collect()
}

/// A list of token ids.
///
/// # Errors
/// If it holds something else.
pub fn ids(fields: &Fields<'_>, name: &str) -> ApiResult<Vec<u32>> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| {
            ApiError::field(name, format!("{name} should be a list of token ids, found {value}"))
        })
    };
    fields.list(name)?.unwrap_or_default().iter().map(id).collect()
}

/// What the answer has to be: `response_format`, or one of the names that other servers use.
fn shape(fields: &Fields<'_>) -> ApiResult<Option<(Shape, &'static str)>> {
    if let Some(format) = fields.inner("response_format", "response_format.")? {
        match format.required_text("type")? {
            "text" => {}
            "json_object" => return Ok(Some((Shape::JsonObject, "response_format"))),
            "json_schema" => {
                let holder = format
                    .inner("json_schema", "response_format.json_schema.")?
                    .ok_or_else(|| format.missing("json_schema"))?;
                let schema = holder.value("schema").ok_or_else(|| holder.missing("schema"))?;
                return Ok(Some((Shape::Schema(schema.clone()), "response_format")));
            }
            other => {
                let what =
                    format!("response_format.type is text, json_object or json_schema, found {other:?}");
                return Err(ApiError::field("response_format.type", what));
            }
        }
    }
    for name in ["json_schema", "guided_json"] {
        match fields.value(name) {
            Some(Value::String(schema)) => {
                let schema = serde_json::from_str(schema)
                    .map_err(|error| ApiError::field(name, format!("{name} is no JSON: {error}")))?;
                return Ok(Some((Shape::Schema(schema), "json_schema")));
            }
            Some(schema) => return Ok(Some((Shape::Schema(schema.clone()), "json_schema"))),
            None => {}
        }
    }
    for name in ["grammar", "guided_grammar"] {
        if let Some(grammar) = fields.text(name)? {
            return Ok(Some((Shape::Lark(grammar.to_string()), "grammar")));
        }
    }
    if let Some(expression) = fields.text("guided_regex")? {
        return Ok(Some((Shape::Regex(expression.to_string()), "guided_regex")));
    }
    Ok(None)
}
