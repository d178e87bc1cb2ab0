//! A config with its documents: from records to what a model is asked.

use ounce_model::chat::{Message, RenderOptions};
use serde_json::Value;

use super::config::{Config, Output, Source};
use super::filter::{Filter, filters};
use super::metric::{Kind, Metric, metrics};
use super::python::Random;
use super::template::{Field, Templates};
use super::{Document, Error, Result};
use crate::trust::Prompting;

/// A task that can be run.
#[derive(Debug)]
pub struct Task {
    /// What its file says.
    pub config: Config,
    documents: Vec<Document>,
    /// Documents that may be examples.
    pool: Vec<Document>,
    templates: Templates,
    question: Fields,
    example: Fields,
    description: Option<Field>,
    pub(super) metrics: Vec<Metric>,
    pub(super) filters: Vec<Filter>,
}

#[derive(Debug)]
struct Fields {
    text: Field,
    target: Field,
    choice: Option<Field>,
}

/// What is asked of a model about one document.
#[derive(Debug)]
pub(super) struct Question {
    /// The document's place.
    pub document: usize,
    pub requests: Vec<Request>,
    /// Choices as they are measured; empty where there are none.
    pub choices: Vec<String>,
    pub gold: Gold,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// How likely a continuation is.
    Score { context: String, continuation: String },
    /// What stands behind a context.
    Write { context: String },
    /// How likely a whole text is.
    Roll { text: String },
}

/// What is right.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Gold {
    /// Places of right choices; `None` for what is no choice.
    Places(Vec<Option<usize>>),
    /// Texts of which any is right.
    Texts(Vec<String>),
}

impl Gold {
    /// Whether the choice at a place is right.
    pub fn is_place(&self, place: usize) -> bool {
        matches!(self, Gold::Places(places) if places.contains(&Some(place)))
    }

    pub fn first_place(&self) -> Option<usize> {
        match self {
            Gold::Places(places) => places.first().copied().flatten(),
            Gold::Texts(_) => None,
        }
    }

    /// As it is told in samples.
    pub fn told(&self) -> Value {
        match self {
            Gold::Places(places) if places.len() == 1 => places[0].map_or(Value::Null, Value::from),
            Gold::Places(places) => places.iter().map(|it| it.map_or(Value::Null, Value::from)).collect(),
            Gold::Texts(texts) if texts.len() == 1 => Value::from(texts[0].as_str()),
            Gold::Texts(texts) => Value::from(texts.clone()),
        }
    }
}

/// What a field says, as the harness understands it.
enum Said {
    Text(String),
    Place(usize),
    Several(Vec<Value>),
}

impl Task {
    /// Reads a task's documents with `read`, which is told where a split's files are.
    ///
    /// # Errors
    /// If documents can't be read or there are none, or a template, metric or filter is at fault.
    pub fn load(
        config: Config,
        read: &mut dyn FnMut(&Source) -> Result<Vec<Document>, String>,
    ) -> Result<Task> {
        let name = config.task.clone();
        let mut split = |split: &str| -> Result<Vec<Document>> {
            let source = config.source(split).map_err(|what| Error::task(&name, what))?;
            read(&source).map_err(|what| Error::task(&name, what))
        };
        let Some(asked) = config.asked_split() else {
            return Err(Error::task(
                &name,
                "neither \"test_split\" nor \"validation_split\" says what is asked about",
            ));
        };
        let documents = split(asked)?;
        let pool = match (config.num_fewshot.unwrap_or(0), config.example_split()) {
            (0, _) => Vec::new(),
            (_, Some(examples)) if examples == asked => documents.clone(),
            (_, Some(examples)) => split(examples)?,
            (_, None) => config.fewshot_config.samples.clone().unwrap_or_default(),
        };
        Task::new(config, documents, pool)
    }

    /// A task over these documents, with others as examples.
    ///
    /// # Errors
    /// If there are no documents, or a template, metric or filter is at fault.
    pub fn new(config: Config, mut documents: Vec<Document>, mut pool: Vec<Document>) -> Result<Task> {
        let name = config.task.clone();
        let wrong = |what: String| Error::task(&name, what);
        if documents.is_empty() {
            return Err(wrong("there are no documents; its data is empty".into()));
        }
        if let Some(places) = &config.fewshot_config.fewshot_indices {
            let taken = places.iter().map(|&at| pool.get(at).cloned());
            pool = match config.num_fewshot.unwrap_or(0) {
                0 => Vec::new(),
                _ => taken.collect::<Option<_>>().ok_or_else(|| {
                    wrong(format!("fewshot_indices names a document beyond the {} examples", pool.len()))
                })?,
            };
        }
        complete(&mut documents);
        complete(&mut pool);
        let columns: Vec<String> = documents[0].keys().cloned().collect();
        let mut templates = Templates::new();
        let mut fields = |prefix: &str,
                          text: &Value,
                          target: &Value,
                          choice: &Value|
         -> Result<Fields, String> {
            let mut field =
                |name: &str, value: &Value| templates.field(&format!("{prefix}{name}"), value, &columns);
            let choice = (!choice.is_null()).then(|| field("doc_to_choice", choice)).transpose()?;
            Ok(Fields { text: field("doc_to_text", text)?, target: field("doc_to_target", target)?, choice })
        };
        let (own, other) = (&config, &config.fewshot_config);
        let question = fields("", &own.doc_to_text, &own.doc_to_target, &own.doc_to_choice).map_err(wrong)?;
        let example = fields(
            "fewshot_config.",
            other.doc_to_text.as_ref().unwrap_or(&own.doc_to_text),
            other.doc_to_target.as_ref().unwrap_or(&own.doc_to_target),
            other.doc_to_choice.as_ref().unwrap_or(&own.doc_to_choice),
        )
        .map_err(wrong)?;
        let description = Value::from(config.description.as_str());
        let description = (!config.description.is_empty())
            .then(|| templates.field("description", &description, &columns))
            .transpose()
            .map_err(wrong)?;
        let metrics = metrics(config.metric_list.as_deref(), config.output).map_err(wrong)?;
        if config.filter_list.is_some() && config.output != Output::GenerateUntil {
            return Err(wrong("filter_list is for what a model writes, output_type generate_until".into()));
        }
        let filters = filters(config.filter_list.as_deref()).map_err(wrong)?;
        for metric in &metrics {
            if let Kind::Pass { k, .. } = metric.kind
                && k > config.repeats
            {
                return Err(wrong(format!(
                    "{} needs {k} answers a question; set \"repeats\" to {k} or more",
                    metric.name
                )));
            }
        }
        Ok(Task { config, documents, pool, templates, question, example, description, metrics, filters })
    }

    /// Documents that can be asked about.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there are none; a task has one at least.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The document at a place.
    pub fn document(&self, at: usize) -> &Document {
        &self.documents[at]
    }

    /// Whether programs that a model writes must be run to score it.
    pub fn runs_code(&self) -> bool {
        self.metrics.iter().any(|metric| matches!(metric.kind, Kind::Pass { .. }))
    }

    /// Refuses a task whose score needs programs to be run, unless they may be.
    ///
    /// # Errors
    /// If programs would have to be run and may not be.
    pub fn check_code(&self, may_run: bool) -> Result<()> {
        if may_run || !self.runs_code() {
            return Ok(());
        }
        Err(Error::task(
            &self.config.task,
            "its score needs programs that the model writes to be run on this machine; allow it with --run-code",
        ))
    }

    /// What is asked about the first `limit` documents.
    pub(super) fn questions(
        &self,
        limit: Option<usize>,
        seed: u32,
        prompting: &Prompting<'_>,
    ) -> Result<Vec<Question>> {
        let mut random = Random::new(seed);
        let count = limit.unwrap_or(usize::MAX).min(self.documents.len());
        let place = |at: usize| move |what: String| format!("document {}: {what}", at + 1);
        (0..count)
            .map(|at| {
                let question = self.ask(at, &mut random, prompting).map_err(place(at));
                question.map_err(|what| Error::task(&self.config.task, what))
            })
            .collect()
    }

    fn ask(&self, at: usize, random: &mut Random, prompting: &Prompting<'_>) -> Result<Question, String> {
        let document = &self.documents[at];
        let choices = self.choices(&self.question, document)?;
        let target = self.said(&self.question.target, document)?;
        if self.config.output == Output::LoglikelihoodRolling {
            let text = self.text_of(target);
            return Ok(Question {
                document: at,
                gold: Gold::Texts(vec![text.clone()]),
                requests: vec![Request::Roll { text }],
                choices,
            });
        }
        let text = self.said(&self.question.text, document)?;
        let before = self.before(at, random)?;
        let chat = prompting.chat.is_some();
        let context = |question: &str| self.context(&before, question, prompting);
        let delimiter = if chat { "" } else { self.config.target_delimiter.as_str() };
        match self.config.output {
            Output::GenerateUntil => {
                let gold = match (target, choices.as_slice()) {
                    (Said::Place(place), [_, ..]) => vec![choices.get(place).cloned().unwrap_or_default()],
                    (Said::Several(several), _) => several.iter().map(text_of).collect(),
                    (target, _) => vec![self.text_of(target)],
                };
                let context = context(&self.text_of(text))?;
                let requests = vec![Request::Write { context }; self.config.repeats];
                Ok(Question { document: at, requests, choices, gold: Gold::Texts(gold) })
            }
            Output::MultipleChoice => {
                if let Some(empty) = choices.iter().position(String::is_empty) {
                    return Err(format!("choice {} is empty", empty + 1));
                }
                if choices.len() < 2 {
                    return Err(format!("a question needs two choices or more, found {}", choices.len()));
                }
                let (mut requests, gold) = match text {
                    // The question's choices are what stands in front; what follows is the same.
                    Said::Place(_) => {
                        let continuation = format!("{delimiter}{}", self.text_of(target));
                        let request = |choice: &String| -> Result<Request, String> {
                            Ok(Request::Score {
                                context: context(choice)?,
                                continuation: continuation.clone(),
                            })
                        };
                        (choices.iter().map(request).collect::<Result<Vec<_>, _>>()?, text)
                    }
                    text => {
                        let context = context(&self.text_of(text))?;
                        let request = |choice: &String| Request::Score {
                            context: context.clone(),
                            continuation: format!("{delimiter}{choice}"),
                        };
                        (choices.iter().map(request).collect(), target)
                    }
                };
                if self.metrics.iter().any(Metric::needs_unconditional) {
                    requests.extend(choices.iter().map(|choice| Request::Score {
                        context: String::new(),
                        continuation: format!("{delimiter}{choice}"),
                    }));
                }
                let gold = self.places(gold, &choices, at);
                Ok(Question { document: at, requests, choices, gold })
            }
            _ => {
                let (context, continuation) = (context(&self.text_of(text))?, self.text_of(target));
                let gold = Gold::Texts(vec![continuation.clone()]);
                Ok(Question {
                    document: at,
                    requests: vec![Request::Score { context, continuation }],
                    choices,
                    gold,
                })
            }
        }
    }

    /// The question about a document, alone.
    pub(super) fn prompt(&self, at: usize) -> Result<String, String> {
        Ok(self.text_of(self.said(&self.question.text, &self.documents[at])?))
    }

    fn places(&self, gold: Said, choices: &[String], at: usize) -> Gold {
        let place = |place: usize| Some(place).filter(|it| *it < choices.len());
        let found = |text: &str| choices.iter().position(|choice| choice == text);
        let places = match gold {
            Said::Place(it) => vec![place(it)],
            Said::Text(text) => vec![found(&text)],
            Said::Several(several) => several
                .iter()
                .map(|it| match it.as_u64() {
                    Some(it) => place(it as usize),
                    None => found(&text_of(it)),
                })
                .collect(),
        };
        if places.contains(&None) {
            tracing::warn!(
                task = self.config.task,
                document = at + 1,
                "the right answer is none of the choices"
            );
        }
        Gold::Places(places)
    }

    /// What a field says. A template that writes a number, or a list, says that where the harness would read it so.
    fn said(&self, field: &Field, document: &Document) -> Result<Said, String> {
        let value = self.templates.value(field, document)?;
        let plain = matches!(field, Field::Column(_) | Field::Constant(_));
        Ok(match value {
            Value::Array(several) => Said::Several(several),
            Value::Bool(yes) if plain => Said::Place(usize::from(yes)),
            Value::Number(number) if plain && number.is_u64() => {
                Said::Place(number.as_u64().unwrap_or_default() as usize)
            }
            value if plain => Said::Text(text_of(&value)),
            value => {
                let text = text_of(&value);
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let list = || self.templates.literal(&text).and_then(|it| it.as_array().cloned());
                match text.parse() {
                    Ok(place) if digits && self.question.choice.is_some() => Said::Place(place),
                    _ if text.len() > 1 && text.starts_with('[') && text.ends_with(']') => {
                        list().map_or(Said::Text(text), Said::Several)
                    }
                    _ => Said::Text(text),
                }
            }
        })
    }

    fn text_of(&self, said: Said) -> String {
        match said {
            Said::Text(text) => text,
            Said::Place(place) => place.to_string(),
            Said::Several(several) => several.first().map(text_of).unwrap_or_default(),
        }
    }

    fn choices(&self, fields: &Fields, document: &Document) -> Result<Vec<String>, String> {
        let Some(field) = &fields.choice else { return Ok(Vec::new()) };
        let value = self.templates.value(field, document)?;
        let list = match &value {
            Value::String(text) => self.templates.literal(text).unwrap_or_default(),
            Value::Object(map) => map.values().cloned().collect(),
            _ => value.clone(),
        };
        match list {
            Value::Array(items) => Ok(items.iter().map(text_of).collect()),
            _ => Err(format!("doc_to_choice should give a list, found {value}")),
        }
    }

    /// Description and solved examples: the system's message, and what stands before the question.
    fn before(&self, at: usize, random: &mut Random) -> Result<(String, String), String> {
        let document = &self.documents[at];
        let description =
            self.description.as_ref().map(|field| self.templates.text(field, document)).transpose()?;
        let mut examples = String::new();
        for example in self.examples(at, random)? {
            examples.push_str(&self.solved(example)?);
        }
        Ok((description.unwrap_or_default(), examples))
    }

    /// The documents that are examples for a question.
    fn examples(&self, at: usize, random: &mut Random) -> Result<Vec<&Document>, String> {
        let count = self.config.num_fewshot.unwrap_or(0);
        if count == 0 {
            return Ok(Vec::new());
        }
        let own = self.config.examples_are_questions().then(|| &self.documents[at]);
        let others = |it: &&Document| own.is_none_or(|own| own != *it);
        let few =
            || format!("{count} examples are more than its {} documents for them allow", self.pool.len());
        if self.config.takes_first() {
            let first: Vec<&Document> = self.pool.iter().filter(others).take(count).collect();
            return if first.len() == count { Ok(first) } else { Err(few()) };
        }
        let drawn = random.sample(self.pool.len(), count + usize::from(own.is_some())).ok_or_else(few)?;
        let drawn: Vec<&Document> =
            drawn.into_iter().map(|at| &self.pool[at]).filter(others).take(count).collect();
        if drawn.len() == count {
            return Ok(drawn);
        }
        let pool: Vec<&Document> = self.pool.iter().filter(others).collect();
        Ok(random.sample(pool.len(), count).ok_or_else(few)?.into_iter().map(|at| pool[at]).collect())
    }

    /// An example with its answer.
    fn solved(&self, document: &Document) -> Result<String, String> {
        let other = &self.config.fewshot_config;
        let target_delimiter = other.target_delimiter.as_deref().unwrap_or(&self.config.target_delimiter);
        let delimiter = other.fewshot_delimiter.as_deref().unwrap_or(&self.config.fewshot_delimiter);
        let mut choices = self.choices(&self.example, document)?;
        let question = match self.said(&self.example.text, document)? {
            Said::Place(place) if !choices.is_empty() => {
                let question = choices.get(place).cloned().unwrap_or_default();
                choices.clear();
                question
            }
            said => self.text_of(said),
        };
        let choice = |place: usize| choices.get(place).cloned();
        let answer = match self.said(&self.example.target, document)? {
            Said::Place(place) if !choices.is_empty() => choice(place).ok_or_else(|| {
                format!("an example's right answer {place} is none of its {} choices", choices.len())
            })?,
            Said::Several(several) if !choices.is_empty() => {
                let place = several.first().and_then(Value::as_u64).and_then(|place| choice(place as usize));
                place.unwrap_or_else(|| several.first().map(text_of).unwrap_or_default())
            }
            said => self.text_of(said),
        };
        Ok(match answer.as_str() {
            "" => question,
            answer => format!("{question}{target_delimiter}{answer}{delimiter}"),
        })
    }

    /// What the model is given in front of its answer.
    fn context(
        &self,
        (description, examples): &(String, String),
        question: &str,
        prompting: &Prompting<'_>,
    ) -> Result<String, String> {
        let Some(chat) = prompting.chat else { return Ok(format!("{description}{examples}{question}")) };
        let mut messages = Vec::new();
        if !description.is_empty() {
            messages.push(Message::new("system", description.as_str()));
        }
        messages.push(Message::new("user", format!("{examples}{question}")));
        let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
        chat.render(&messages, &options).map_err(|error| error.to_string())
    }
}

/// A value as text, as Python writes it.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".to_string(),
        Value::Bool(yes) => if *yes { "True" } else { "False" }.to_string(),
        other => other.to_string(),
    }
}

/// Gives all documents the same keys; what one hasn't is nothing.
fn complete(documents: &mut [Document]) {
    let mut keys: Vec<String> = Vec::new();
    for document in documents.iter() {
        keys.extend(document.keys().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
    }
    for document in documents {
        for key in &keys {
            if !document.contains_key(key) {
                document.insert(key.clone(), Value::Null);
            }
        }
    }
}
