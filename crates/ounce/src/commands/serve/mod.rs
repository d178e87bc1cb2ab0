//! `ounce serve`: shares models over HTTP.

mod keys;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ounce_engine::{Adapter, Engine, Mode};
use ounce_model::Model;
use ounce_model::chat::ChatTemplate;
use ounce_model::machine::host::Memory;
use ounce_serve::http::App;
use ounce_serve::{
    Budget, Draft, Key, Limits, MakeAdapter, Open, ServeError, Server, Settings, Source, SwapSpace, Traces,
};

use crate::cli::Globals;
use crate::compute::ComputeArgs;
use crate::failure::Outcome;
use crate::interrupt::Watch;
use crate::{output, source, units};

/// Share models over HTTP, as OpenAI's, Ollama's and Anthropic's clients expect
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ounce serve builtin                                     http://127.0.0.1:8080/v1, nothing to download
  ounce serve ./SmolLM2-135M-Instruct --port 8000
  ounce serve chat=./qwen3-0.6b-q4.gguf embed=./all-MiniLM-L6-v2 --memory 2G
  ounce serve org/name:Q4_K_M --host 0.0.0.0 --api-key \"$KEY\"    others may ask, with a key
  ounce serve ./model.gguf --parallel 8 --context 4096 --queue 32
  ounce serve ./model.gguf --lora poet=./lora-a --lora clerk=./lora-b   one copy of the weights, three names
  ounce serve ./qwen3-4b-q4.gguf --draft-model ./qwen3-0.6b-q4.gguf     the small one guesses, the large one decides
  ounce serve ./model.gguf --check                        what it would take; starts nothing
Then:
  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 40}'
  OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_API_KEY=none python my_client.py
A model is asked by the last part of its name, or by NAME of NAME=MODEL. Ctrl-C or SIGTERM lets requests in progress end,
a second one ends at once. Only this machine can ask unless --host says otherwise.")]
pub struct Args {
    #[arg(
        required = true,
        value_name = "MODEL",
        help = "Models to serve: each a folder, .gguf file, llama2.c .bin, org/name[@revision][:QUANT] pulled before, or `builtin`; NAME=MODEL \
                gives it a name"
    )]
    models: Vec<String>,
    /// Serve a model with this LoRA beside its weights, too, under a name of its own; NAME@MODEL=FOLDER for another than the first model. May
    /// be repeated: answers with different adapters are made in one step
    #[arg(long = "lora", value_name = "NAME=FOLDER")]
    loras: Vec<String>,
    /// Address to listen at; 0.0.0.0 is all of this machine's, which needs a key or --open
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", env = "OUNCE_HOST")]
    host: IpAddr,
    /// Port to listen at; 0 for any free one
    #[arg(long, short, value_name = "PORT", default_value_t = 8080, env = "OUNCE_PORT")]
    port: u16,
    /// Memory for weights, keys and values of all models together [default: nine tenths of what is free]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, env = "OUNCE_MEMORY")]
    memory: Option<u64>,
    /// Tokens of prompt and answer together [default: the model's own, as far as memory allows]
    #[arg(long, short = 'c', value_name = "TOKENS", env = "OUNCE_CONTEXT")]
    context: Option<usize>,
    /// Answers made at the same time; each step then reads the weights once for all of them
    #[arg(long, value_name = "N", default_value_t = 16, env = "OUNCE_PARALLEL")]
    parallel: usize,
    /// Requests that may wait; more are told to come back later
    #[arg(long, value_name = "N", default_value_t = 128, env = "OUNCE_QUEUE")]
    queue: usize,
    /// Tokens of prompts read in one step; smaller ones let answers flow more evenly, larger ones read prompts faster
    #[arg(long, value_name = "TOKENS", default_value_t = 256, env = "OUNCE_STEP_TOKENS")]
    step_tokens: usize,
    /// Keep nothing of earlier prompts for those that begin alike
    #[arg(long)]
    no_prefix_cache: bool,
    /// Guess no tokens ahead. Guesses are checked, so that answers are the same with them, and only made where they save time
    #[arg(long)]
    no_speculation: bool,
    /// Folder for keys and values of answers that are put back for want of memory, where reading them again is faster than computing them again,
    /// as measured; without it they are computed again
    #[arg(long, value_name = "FOLDER", env = "OUNCE_SWAP")]
    swap: Option<PathBuf>,
    /// Bytes of --swap for each model at most
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "4G", env = "OUNCE_SWAP_SIZE")]
    swap_size: u64,
    /// A smaller model with the same tokenizer that guesses for the first model, or for NAME, where that is faster by what is measured; its
    /// weights, keys and values are part of --memory. May be repeated for other models
    #[arg(long = "draft-model", value_name = "[NAME=]MODEL", env = "OUNCE_DRAFT_MODEL")]
    draft_models: Vec<String>,
    /// A key that clients have to send; may be repeated
    #[arg(long = "api-key", value_name = "KEY", env = "OUNCE_API_KEY", hide_env_values = true)]
    api_keys: Vec<String>,
    /// Keys with names and limits, in TOML: tables `[[key]]` of name, secret, requests_per_minute, concurrent, max_tokens, models, admin.
    /// Changes of the file count from the next request on
    #[arg(long, value_name = "FILE", env = "OUNCE_API_KEYS")]
    api_keys_file: Option<PathBuf>,
    /// Let everybody who reaches --host ask, without a key
    #[arg(long)]
    open: bool,
    /// Let pages of this origin ask from a browser; `*` for all. May be repeated
    #[arg(long, value_name = "ORIGIN", env = "OUNCE_CORS", value_delimiter = ',')]
    cors: Vec<String>,
    /// Bytes of a request at most
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, default_value = "8M", env = "OUNCE_MAX_BODY")]
    max_body: u64,
    /// Connections at most
    #[arg(long, value_name = "N", default_value_t = 1024, env = "OUNCE_CONNECTIONS")]
    connections: usize,
    /// Seconds for an answer; without it as long as it takes
    #[arg(long, value_name = "SECONDS", env = "OUNCE_TIMEOUT")]
    timeout: Option<f64>,
    /// Seconds that requests in progress have when the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, env = "OUNCE_DRAIN")]
    drain: f64,
    /// Path before all routes, for a proxy, such as /llm
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true, env = "OUNCE_PREFIX")]
    prefix: String,
    /// Load a model when it is asked for first, and unload idle ones where another needs their memory
    #[arg(long, env = "OUNCE_LAZY")]
    lazy: bool,
    /// Write conversations by this Jinja file in place of the model's own template
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Send a span for each request to this OpenTelemetry collector, by OTLP over HTTP, such as http://127.0.0.1:4318; a client's
    /// `traceparent` is taken up
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp: Option<String>,
    /// Tell what would be served and what it takes, and end
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Runs the command.
///
/// # Errors
/// If a model can't be served, or the address is taken.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Outcome> {
    let settings = args.settings()?;
    let budget = Budget::new(args.memory()?);
    let watch = Watch::start();
    let server = Server::new(settings, budget);
    if let Some(endpoint) = &args.otlp {
        server.app().metrics.trace(Traces::to(endpoint)?);
    }
    let mut adapters = args.adapters()?;
    let mut drafts = args.drafts()?;
    for reference in &args.models {
        if watch.requested() {
            return Err(crate::failure::Interrupted.into());
        }
        let (id, reference) = args.named(reference);
        // A model that isn't there is told at once, also if it is to be loaded later.
        source::locate(reference)?;
        let aliases = if id == reference { Vec::new() } else { vec![reference.to_string()] };
        let own: Vec<Named> =
            adapters.extract_if(.., |it| it.model.as_ref().is_none_or(|name| *name == id)).collect();
        let draft = drafts.extract_if(.., |(model, _)| model.as_ref().is_none_or(|name| *name == id)).last();
        let draft = draft.map(|(_, reference)| reference);
        let names = own.iter().map(|it| it.name.clone()).collect();
        server.add_with_adapters(id.clone(), aliases, names, args.opener(reference, own, draft)?)?;
        if args.lazy {
            continue;
        }
        let served = server.load(&id)?;
        if served.context < served.engine.spec().context_length {
            tracing::info!(
                model = served.id,
                context = served.context,
                "the context is shorter than the model's"
            );
        }
        if served.template.is_none() && served.scheduler.is_some() {
            output::note(&format!(
                "{}: no chat template; messages are joined as plain text (--chat-template gives one)",
                served.id
            ));
        }
    }
    if let Some(left) = adapters.first() {
        bail!("--lora {}: no model is called {:?}", left.name, left.model.as_deref().unwrap_or_default());
    }
    if let Some((model, draft)) = drafts.first() {
        bail!("--draft-model {draft}: no model is called {:?}", model.as_deref().unwrap_or_default());
    }
    if args.check {
        return report(&server, globals);
    }
    // The engine's threads do the work; on few cores, more would only take turns with them.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if cores > 2 { 2 } else { 1 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(async {
        let listener = ounce_serve::http::listen(SocketAddr::new(args.host, args.port)).await?;
        let address = listener.local_addr()?;
        let names: Vec<String> = server.app().registry.all().into_iter().map(|model| model.id).collect();
        // One line that scripts can wait for.
        output::line(format!("serving {} at http://{address}", names.join(", ")))?;
        let mut keys = args.api_keys_file.clone().map(keys::Watched::new);
        let app = server.app().clone();
        let metrics = app.metrics.clone();
        let stop = async {
            while !watch.requested() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if let Some(changed) = keys.as_mut().and_then(keys::Watched::changed) {
                    args.renew_keys(&app, changed);
                }
            }
            output::note("ending: requests in progress may finish; Ctrl-C again ends at once");
        };
        server.run(listener, stop).await.context("the server can't go on")?;
        // The last spans are sent by a thread that waits for an answer.
        tokio::task::spawn_blocking(move || metrics.end_traces()).await.context("the traces can't be sent")
    })?;
    Ok(Outcome::Done)
}

impl Args {
    /// Keys of the command line.
    fn own_keys(&self) -> Vec<Key> {
        let own = (1..).zip(&self.api_keys);
        own.map(|(n, key)| Key { admin: true, ..Key::new(format!("key-{n}"), key) }).collect()
    }

    /// Takes the keys of a file that changed; if it is damaged those from before stay.
    fn renew_keys(&self, app: &App, changed: anyhow::Result<Vec<Key>>) {
        let renewed = changed.and_then(|keys| {
            let keys: Vec<Key> = self.own_keys().into_iter().chain(keys).collect();
            if keys.iter().any(|key| key.secret.is_empty()) {
                bail!("an API key is empty; everybody would know it");
            }
            let count = keys.len();
            app.set_keys(keys)?;
            Ok(count)
        });
        match renewed {
            Ok(count) => tracing::info!(count, "the keys' file changed and was read"),
            Err(error) => {
                output::note(&format!("{error:#}; the keys stay as they were"));
            }
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let mut keys = self.own_keys();
        if let Some(file) = &self.api_keys_file {
            keys.extend(keys::read(file)?);
        }
        if keys.iter().any(|key| key.secret.is_empty()) {
            bail!("an API key is empty; everybody would know it");
        }
        if !self.host.is_loopback() && keys.is_empty() && !self.open {
            bail!(
                "everybody who reaches {} could use this machine; give --api-key, or --open if that is meant",
                self.host
            );
        }
        if self.parallel == 0 || self.step_tokens == 0 {
            bail!("--parallel and --step-tokens should be at least 1");
        }
        let seconds = |name: &str, value: f64| {
            Duration::try_from_secs_f64(value)
                .with_context(|| format!("{name} should be seconds, found {value}"))
        };
        let prefix = self.prefix.trim_matches('/');
        Ok(Settings {
            keys,
            origins: self.cors.clone(),
            most_body: usize::try_from(self.max_body).unwrap_or(usize::MAX),
            connections: self.connections.max(1),
            answer_time: self.timeout.map(|value| seconds("--timeout", value)).transpose()?,
            drain_time: seconds("--drain", self.drain)?,
            prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
            limits: Limits {
                sequences: self.parallel,
                step_tokens: self.step_tokens,
                queue: self.queue,
                context: self.context.unwrap_or(usize::MAX),
                prefix_cache: !self.no_prefix_cache,
                speculation: !self.no_speculation,
                swap: self.swap_space()?,
            },
            ..Settings::default()
        })
    }

    fn swap_space(&self) -> anyhow::Result<Option<SwapSpace>> {
        let Some(folder) = &self.swap else { return Ok(None) };
        // What can't be written to is told now, not when memory is short.
        tempfile::tempfile_in(folder)
            .with_context(|| format!("--swap {}: no file can be made there", folder.display()))?;
        Ok(Some(SwapSpace { folder: folder.clone(), bytes: self.swap_size }))
    }

    fn memory(&self) -> anyhow::Result<u64> {
        match (self.memory, Memory::now()) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(memory)) => Ok(memory.available_bytes / 10 * 9),
            (None, None) => bail!("the system does not tell how much memory is free; --memory sets a limit"),
        }
    }

    /// The name of a model, and where it is.
    fn named<'r>(&self, reference: &'r str) -> (String, &'r str) {
        let (name, reference) = with_name(reference);
        (name.map_or_else(|| short_name(reference), str::to_owned), reference)
    }

    /// Adapters by name, for the first model where none is said.
    fn adapters(&self) -> anyhow::Result<Vec<Named>> {
        let named = self.loras.iter().map(|text| {
            let (name, folder) = text
                .split_once('=')
                .filter(|(name, folder)| !name.is_empty() && !folder.is_empty())
                .with_context(|| format!("--lora should be NAME=FOLDER, found {text:?}"))?;
            let (name, model) = match name.split_once('@') {
                Some((name, model)) => (name, Some(model.to_owned())),
                None => (name, None),
            };
            let folder = PathBuf::from(folder);
            // What isn't there is told at once, also if it is to be loaded later.
            ounce_peft::Folder::open(&folder)?;
            Ok(Named { name: name.to_owned(), model, folder })
        });
        named.collect()
    }

    /// Draft models with the model that each is for; the first one where none is said.
    fn drafts(&self) -> anyhow::Result<Vec<(Option<String>, String)>> {
        if self.no_speculation && !self.draft_models.is_empty() {
            bail!("--draft-model guesses, and --no-speculation forbids it; leave one of them out");
        }
        let drafts = self.draft_models.iter().map(|text| {
            let (name, reference) = with_name(text);
            source::locate(reference)?;
            Ok((name.map(str::to_owned), reference.to_owned()))
        });
        drafts.collect()
    }

    /// What opens a model with its adapters, now and whenever it is loaded again.
    fn opener(&self, reference: &str, adapters: Vec<Named>, draft: Option<String>) -> anyhow::Result<Open> {
        self.compute.mode(Mode::fast())?;
        let (reference, compute, file) =
            (reference.to_string(), self.compute.clone(), self.chat_template.clone());
        let open = move || -> anyhow::Result<Source> {
            let model = source::open(&reference)?;
            source::tokenizer(&model)?;
            let template = match &file {
                Some(file) => {
                    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
                    let names =
                        model.tokenizer.as_ref().map(|it| it.special().names.clone()).unwrap_or_default();
                    Some(ChatTemplate::new(text, names)?)
                }
                None => None,
            };
            let draft = draft.as_deref().map(|it| open_draft(it, &compute)).transpose()?;
            let weight_bytes = compute.weight_bytes(&model)?;
            let compute = compute.clone();
            let adapters = adapters.iter().map(|it| (it.name.clone(), it.make())).collect();
            Ok(Source {
                adapters,
                draft,
                weight_bytes,
                template,
                load: Box::new(move |model| {
                    compute
                        .load(model, Mode::fast())
                        .map_err(|error| ServeError::Option(format!("{error:#}")))
                }),
                model,
            })
        };
        Ok(Arc::new(move || open().map_err(|error| ServeError::Option(format!("{error:#}")))))
    }
}

/// A model's name, if one is said, and where it is: `NAME=MODEL`, unless the `=` is part of a path.
fn with_name(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() && !name.contains(['/', '.']) => (Some(name), rest),
        _ => (None, text),
    }
}

/// Opens a model that guesses for another one.
fn open_draft(reference: &str, compute: &ComputeArgs) -> anyhow::Result<Draft> {
    let model = source::open(reference)?;
    let weight_bytes = compute.weight_bytes(&model)?;
    let compute = compute.clone();
    let load = move |model: &Model| {
        compute.load_draft(model).map_err(|error| ServeError::Option(format!("{error:#}")))
    };
    Ok(Draft { model, weight_bytes, load: Box::new(load) })
}

/// An adapter's name, the model that it is for, and where it is.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    model: Option<String>,
    folder: PathBuf,
}

impl Named {
    /// What makes it for a loaded model.
    fn make(&self) -> MakeAdapter {
        let path = self.folder.clone();
        let read = move |model: &Model, engine: &Engine| -> anyhow::Result<Arc<Adapter>> {
            let folder = ounce_peft::Folder::open(&path)?;
            let changes = ounce_peft::beside::changes(model, &folder, false)?;
            engine.adapter(changes).with_context(|| path.display().to_string())
        };
        Box::new(move |model, engine| {
            read(model, engine).map_err(|error| ServeError::Option(format!("{error:#}")))
        })
    }
}

/// The last part of a path or name, without the ending of a file.
fn short_name(reference: &str) -> String {
    let last = reference.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or(reference);
    let last = last.strip_suffix(".gguf").or_else(|| last.strip_suffix(".bin")).unwrap_or(last);
    if last.is_empty() || last == "." { "model".to_string() } else { last.to_string() }
}

/// What `--check` tells.
fn report(server: &Server, globals: &Globals) -> anyhow::Result<Outcome> {
    let app = server.app();
    let models = app.models();
    let tokens = 256;
    let facts = models.iter().map(|model| {
        let per_token = model.engine.session().cache_growth(tokens) as u64 / tokens as u64;
        serde_json::json!({
            "model": model.id, "origin": model.origin, "parameters": model.parameters,
            "weight_bytes": model.weight_bytes, "context": model.context, "writes": model.scheduler.is_some(),
            "chat_template": model.template.is_some(), "cache_bytes_per_token": per_token,
            "answers_at_full_context":
                (app.budget.limit() - app.budget.used()) / (per_token * model.context as u64).max(1),
        })
    });
    let facts: Vec<serde_json::Value> = facts.collect();
    let text = |value: &serde_json::Value| value.to_string().trim_matches('"').to_string();
    let (limit, used) = (app.budget.limit(), app.budget.used());
    if globals.json {
        output::json(
            &serde_json::json!({"models": facts, "memory_limit_bytes": limit, "memory_weights_bytes": used}),
        )?;
        return Ok(Outcome::Done);
    }
    let mut table = output::table(&["model", "weights", "context", "a token", "full answers"]);
    for fact in &facts {
        table.add_row([
            text(&fact["model"]),
            units::bytes(fact["weight_bytes"].as_u64().unwrap_or(0)),
            text(&fact["context"]),
            units::bytes(fact["cache_bytes_per_token"].as_u64().unwrap_or(0)),
            if fact["writes"] == true {
                text(&fact["answers_at_full_context"])
            } else {
                "encoder".to_string()
            },
        ]);
    }
    output::print_table(&table)?;
    output::line(format!(
        "memory: {} in all, {} for weights, {} for keys and values",
        units::bytes(limit),
        units::bytes(used),
        units::bytes(limit - used)
    ))?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_called_by_the_last_part_of_their_name() {
        for (reference, name) in [
            ("./models/a-b.gguf", "a-b"),
            ("org/name:Q4_K_M", "name:Q4_K_M"),
            ("builtin", "builtin"),
            ("/m/folder/", "folder"),
            (".", "model"),
        ] {
            assert_eq!(short_name(reference), name, "{reference}");
        }
    }
}
