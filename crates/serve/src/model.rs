//! A model that is served: what runs it, what turns text into its tokens, and the names it is asked by.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ounce_engine::draft::model::same_vocabulary;
use ounce_engine::{Adapter, Engine, Sampling};
use ounce_model::chat::{ChatTemplate, Content, Message, RenderOptions};
use ounce_model::tokenizer::Tokenizer;
use ounce_model::{Config, Model};

use crate::error::{ApiError, ApiResult};
use crate::grammar::{Constraint, Grammars, Shape};
use crate::metrics::Metrics;
use crate::registry::Known;
use crate::scheduler::memory::Held;
use crate::scheduler::{Budget, Limits, Scheduler};

/// Loads an opened model's weights.
pub type Load = Box<dyn FnOnce(&Model) -> Result<Engine, ServeError> + Send>;

/// Makes an adapter for a loaded model.
pub type MakeAdapter = Box<dyn FnOnce(&Model, &Engine) -> Result<Arc<Adapter>, ServeError> + Send>;

/// A smaller model that guesses what a larger one will write.
pub struct Draft {
    /// The model, its weights not read yet.
    pub model: Model,
    /// Bytes that its weights will take.
    pub weight_bytes: u64,
    /// Loads it.
    pub load: Load,
}

/// A model that was opened, to be served.
pub struct Source {
    /// The model, its weights not read yet.
    pub model: Model,
    /// A chat template in place of the model's own.
    pub template: Option<ChatTemplate>,
    /// Bytes that the weights will take.
    pub weight_bytes: u64,
    /// Loads it.
    pub load: Load,
    /// Adapters that it is served with besides, under names of their own.
    pub adapters: Vec<(String, MakeAdapter)>,
    /// What guesses for it.
    pub draft: Option<Draft>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("origin", &self.model.origin).finish_non_exhaustive()
    }
}

/// A model that is served.
#[derive(Debug)]
pub struct Served {
    /// The name that clients use.
    pub id: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Where it came from.
    pub origin: String,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// What runs it.
    pub engine: Arc<Engine>,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template.
    pub template: Option<ChatTemplate>,
    /// Tokens that end an answer.
    pub end_ids: Vec<u32>,
    /// How tokens are drawn where a request does not say.
    pub defaults: Sampling,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Parameters.
    pub parameters: u64,
    /// Bytes that the weights take.
    pub weight_bytes: u64,
    /// A text that is the same for the same program, weights and options.
    pub fingerprint: String,
    /// The format of its files.
    pub format: &'static str,
    /// The number format of most of its weights.
    pub quantization: String,
    /// The thread that runs it; none for encoders.
    pub scheduler: Option<Scheduler>,
    /// Settings files that came with it.
    pub extras: Vec<ounce_model::model::Extra>,
    /// The model that this is an adapter of.
    pub parent: Option<String>,
    /// The same model with each of its adapters.
    pub adapted: Vec<Arc<Served>>,
    grammars: OnceLock<Result<Grammars, String>>,
    _weights: Arc<Held>,
}

/// Why a model can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Without a tokenizer there is no text.
    #[error("{0} has no tokenizer; put its tokenizer.json beside the weights")]
    NoTokenizer(String),
    /// The model does not fit.
    #[error(
        "{id} needs {} MiB for its weights and some for a text, and {} of the budget of {} MiB are free; raise --memory",
        mib(.needed), mib(.free), mib(.limit)
    )]
    Memory {
        /// The model.
        id: String,
        /// Bytes of its weights.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes there are.
        limit: u64,
    },
    /// Two models have one name.
    #[error("two models are called {0}; name one with NAME=MODEL")]
    SameName(String),
    /// A model's files are damaged or missing.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
    /// A model can't be run.
    #[error(transparent)]
    Engine(#[from] ounce_engine::Error),
    /// The system refuses.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// An option is out of its range.
    #[error("{0}")]
    Option(String),
}

fn mib(bytes: &u64) -> String {
    format!("{:.1}", *bytes as f64 / f64::from(1 << 20))
}

impl Served {
    /// Starts serving a model.
    ///
    /// # Errors
    /// If it has no tokenizer, or does not fit the budget.
    pub fn start(
        source: Source,
        known: &Known,
        limits: &Limits,
        budget: &Budget,
        metrics: &Metrics,
    ) -> Result<Served, ServeError> {
        let Source { model, template, weight_bytes, load, adapters, draft } = source;
        let (id, aliases) = (known.id.clone(), known.aliases.clone());
        let origin = model.origin.path.display().to_string();
        let tokenizer = model.tokenizer.clone().ok_or_else(|| ServeError::NoTokenizer(origin.clone()))?;
        if let Some(draft) = &draft {
            let origin = draft.model.origin.path.display().to_string();
            let own =
                draft.model.tokenizer.as_ref().ok_or_else(|| ServeError::NoTokenizer(origin.clone()))?;
            same_vocabulary((&id, &tokenizer), (&origin, own))?;
        }
        let weight_bytes = weight_bytes + draft.as_ref().map_or(0, |it| it.weight_bytes);
        let mut weights = budget.holder();
        let free = weights.free();
        if !weights.grow(weight_bytes) {
            return Err(ServeError::Memory { id, needed: weight_bytes, free, limit: budget.limit() });
        }
        let engine = Arc::new(load(&model)?);
        let draft = match draft {
            Some(draft) => {
                let engine = (draft.load)(&draft.model)?;
                ounce_engine::draft::model::check(&engine)?;
                Some(Arc::new(engine))
            }
            None => None,
        };
        let adapters: Vec<(String, Arc<Adapter>)> = adapters
            .into_iter()
            .map(|(name, make)| Ok((name, make(&model, &engine)?)))
            .collect::<Result<_, ServeError>>()?;
        let beside: u64 = adapters.iter().map(|it| it.1.bytes() as u64).sum();
        if !weights.grow(beside) {
            let free = weights.free();
            return Err(ServeError::Memory {
                id,
                needed: weight_bytes + beside,
                free,
                limit: budget.limit(),
            });
        }
        // Where memory allows fewer tokens than the model, no request can have more.
        let context = limits.context.min(model.spec.context_length).min(affordable(&engine, weights.free()));
        if context < 16 && model.spec.causal {
            let free = weights.free();
            return Err(ServeError::Memory { id, needed: weight_bytes, free, limit: budget.limit() });
        }
        let scheduler = if model.spec.causal {
            let limits = Limits { context, ..limits.clone() };
            let metrics = metrics
                .model(&id)
                .map_err(|error| ServeError::Option(format!("metrics of {id}: {error}")))?;
            let started = Scheduler::start(engine.clone(), draft, tokenizer.clone(), budget, limits, metrics);
            Some(
                started
                    .map_err(|source| ServeError::System { what: format!("the thread of {id}"), source })?,
            )
        } else {
            None
        };
        let parameters = model.spec.parameters();
        let served = Served {
            fingerprint: fingerprint(&id, &origin, weight_bytes, &engine),
            format: model.origin.format.name(),
            quantization: quantization(&model),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            defaults: defaults(&model.generation)?,
            end_ids: model.end_ids(),
            template: template.or(model.chat),
            extras: model.extras,
            grammars: OnceLock::new(),
            _weights: Arc::new(weights),
            parent: None,
            adapted: Vec::new(),
            id,
            aliases,
            origin,
            engine,
            tokenizer,
            context,
            parameters,
            weight_bytes,
            scheduler,
        };
        let adapted =
            adapters.into_iter().map(|(name, adapter)| Arc::new(served.with_adapter(name, adapter)));
        Ok(Served { adapted: adapted.collect(), ..served })
    }

    /// The same with an adapter beside the weights, under its own name. Both share engine, thread and memory.
    fn with_adapter(&self, name: String, adapter: Arc<Adapter>) -> Served {
        Served {
            fingerprint: format!("{}-{name}", self.fingerprint),
            weight_bytes: adapter.bytes() as u64,
            scheduler: self.scheduler.as_ref().map(|it| it.with_adapter(adapter)),
            id: name,
            parent: Some(self.id.clone()),
            adapted: Vec::new(),
            aliases: Vec::new(),
            origin: self.origin.clone(),
            created: self.created,
            engine: self.engine.clone(),
            tokenizer: self.tokenizer.clone(),
            template: self.template.clone(),
            end_ids: self.end_ids.clone(),
            defaults: self.defaults.clone(),
            context: self.context,
            parameters: self.parameters,
            format: self.format,
            quantization: self.quantization.clone(),
            extras: self.extras.clone(),
            grammars: OnceLock::new(),
            _weights: self._weights.clone(),
        }
    }

    /// The scheduler, or a sentence that this is an encoder.
    ///
    /// # Errors
    /// If the model writes no text.
    pub fn writer(&self) -> ApiResult<&Scheduler> {
        self.scheduler.as_ref().ok_or_else(|| {
            ApiError::unsuitable(format!("{} is an encoder and writes no text; use /v1/embeddings", self.id))
        })
    }

    /// What keeps an answer to a shape.
    ///
    /// # Errors
    /// If the schema or grammar is none that can be followed.
    pub fn constrain(&self, shape: &Shape, param: &str) -> ApiResult<Constraint> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.tokenizer, &self.end_ids));
        let grammars = grammars.as_ref().map_err(|what| ApiError::unsuitable(what.clone()))?;
        grammars.constrain(shape).map_err(|what| ApiError::field(param, format!("{param}: {what}")))
    }

    /// The text of a conversation that ends where the answer begins. Without a template, the messages' texts stand one
    /// behind the other, and the model goes on with them.
    ///
    /// # Errors
    /// If the template refuses the messages.
    pub fn conversation(&self, messages: Vec<Message>, options: &RenderOptions) -> ApiResult<String> {
        let flat = |message: Message| {
            message.flattened().map_err(|message| {
                let kind = other_kind(&message).unwrap_or("another medium").to_string();
                ApiError::field("messages", format!("a message holds {kind}, and this model takes only text"))
            })
        };
        let messages: Vec<Message> = messages.into_iter().map(flat).collect::<ApiResult<_>>()?;
        match &self.template {
            Some(template) => template
                .render(&messages, options)
                .map_err(|error| ApiError::field("messages", error.to_string())),
            None => Ok(messages.iter().map(Message::text).collect::<Vec<_>>().join("\n")),
        }
    }

    /// The tokens of a conversation's text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn conversation_ids(&self, text: &str) -> ApiResult<Vec<u32>> {
        // A template has put in the tokens that begin a text.
        self.encode(text, self.template.is_none())
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, special: bool) -> ApiResult<Vec<u32>> {
        self.tokenizer.encode(text, special).map_err(|error| ApiError::internal(error.to_string()))
    }
}

fn other_kind(message: &Message) -> Option<&str> {
    let Some(Content::Parts(parts)) = &message.content else { return None };
    parts.iter().find(|part| part.get("text").is_none())?.get("type")?.as_str()
}

/// How many tokens' keys and values fit so many bytes.
fn affordable(engine: &Engine, bytes: u64) -> usize {
    let session = engine.session();
    let mut context = engine.spec().context_length;
    // Blocks make it a staircase; halving finds a step that fits, and a finer search the highest.
    let fits = |tokens: usize| session.cache_growth(tokens) as u64 <= bytes;
    if fits(context) {
        return context;
    }
    let mut low = 0;
    while context - low > 1 {
        let middle = low.midpoint(context);
        if fits(middle) { low = middle } else { context = middle }
    }
    low
}

/// The model's own settings, else its plain distribution.
fn defaults(generation: &Config) -> Result<Sampling, ServeError> {
    let mut sampling = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, ..Sampling::default() };
    let set = |value: &mut f32, key: &str| -> Result<(), ServeError> {
        if let Some(given) = generation.number_opt(key)? {
            *value = given;
        }
        Ok(())
    };
    set(&mut sampling.temperature, "temperature")?;
    set(&mut sampling.top_p, "top_p")?;
    set(&mut sampling.min_p, "min_p")?;
    set(&mut sampling.repetition_penalty, "repetition_penalty")?;
    if let Some(top_k) = generation.size_opt("top_k")? {
        sampling.top_k = top_k;
    }
    Ok(sampling)
}

/// The number format that most weights are stored in.
fn quantization(model: &Model) -> String {
    let mut sizes: HashMap<String, usize> = HashMap::new();
    for (dtype, shape) in model.weights.names().filter_map(|name| model.weights.info(name)) {
        *sizes.entry(dtype.name().to_string()).or_default() += shape.iter().product::<usize>();
    }
    sizes.into_iter().max_by_key(|(_, size)| *size).map_or_else(String::new, |(name, _)| name)
}

fn fingerprint(id: &str, origin: &str, bytes: u64, engine: &Engine) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (env!("CARGO_PKG_VERSION"), id, origin, bytes, format!("{:?}", engine.kv_type())).hash(&mut hasher);
    format!("fp_{:016x}", hasher.finish())
}
