//! A server in this process on a free port, with the built-in models.

#![allow(dead_code)] // each test file uses a part of this

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use ounce_engine::{Engine, Generation, LowRank, Mode, Sampler, Sampling, Step};
use ounce_model::Model;
use ounce_serve::{Budget, Open, Server, Settings, Source};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server while it runs.
pub struct Host {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

/// The folder of a built-in model: `builtin`, `tiny` or `encoder`.
pub fn built_in(name: &str) -> Model {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/assets").join(name);
    Model::open(folder).expect("the built-in model")
}

/// A built-in model, to be served.
pub fn source(name: &str) -> Source {
    let model = built_in(name);
    Source {
        weight_bytes: model.weight_bytes(),
        template: None,
        adapters: Vec::new(),
        draft: None,
        load: Box::new(|model| {
            let mode = if model.spec.causal { Mode::fast() } else { Mode::Reference };
            Ok(Engine::load(model, mode)?)
        }),
        model,
    }
}

/// What the tiny model's engine writes by itself, greedily, with these changes beside its weights.
pub fn alone(prompt: &str, tokens: usize, changes: Vec<LowRank>) -> String {
    let model = built_in("tiny");
    let engine = Engine::load(&model, Mode::fast()).expect("an engine");
    let adapter = (!changes.is_empty()).then(|| engine.adapter(changes).expect("an adapter"));
    let mut session = engine.session().with_adapter(adapter).expect("a session");
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let ids = tokenizer.encode(prompt, true).expect("ids");
    let mut sampler = Sampler::new(Sampling::greedy(), tokenizer.id_limit() as usize).expect("a sampler");
    let mut stream = ounce_engine::text::TextStream::new(tokenizer, vec![], true).expect("a stream");
    let mut text = String::new();
    let generation = Generation { max_tokens: tokens, end_ids: model.end_ids(), top_logprobs: None };
    let step = |step: Step| {
        text.push_str(&stream.push(step.id)?.text);
        Ok(ControlFlow::Continue(()))
    };
    generation.run(&mut session, &mut sampler, &ids, |_| {}, step).expect("a text");
    text + &stream.finish().expect("the rest")
}

/// What opens a built-in model.
pub fn open(name: &'static str) -> Open {
    Arc::new(move || Ok(source(name)))
}

impl Host {
    /// Serves the tiny model as `tiny`.
    pub async fn start(settings: Settings) -> Host {
        Host::with(settings, 256 << 20, vec![("tiny", open("tiny"))]).await
    }

    pub async fn with(settings: Settings, memory: u64, models: Vec<(&str, Open)>) -> Host {
        let plain = models.into_iter().map(|(name, open)| (name, Vec::new(), open)).collect();
        Host::with_adapters(settings, memory, plain).await
    }

    /// The same with names of adapters.
    pub async fn with_adapters(
        settings: Settings,
        memory: u64,
        models: Vec<(&str, Vec<String>, Open)>,
    ) -> Host {
        // Tests run beside each other; threads that wait for each other would only slow all of them down.
        ounce_kernels::pool::set_threads(1);
        let server = Server::new(settings, Budget::new(memory));
        for (name, adapters, open) in models {
            server.add_with_adapters(name, vec![], adapters, open).expect("a new name");
        }
        let listener = ounce_serve::http::listen(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(listener, async {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        Host { address, client, stop: Some(stop), task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts and gives status and body.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.client.post(self.url(path)).json(body).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// Posts what should succeed.
    pub async fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(self.url(path)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("text"))
    }

    /// Posts a request for a stream and gives its data lines.
    pub async fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.client.post(self.url(path)).json(body).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let kind = response.headers()["content-type"].to_str().expect("text").to_string();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        let text = response.text().await.expect("text");
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let (done, data): (Vec<&str>, Vec<&str>) = lines.partition(|line| *line == "[DONE]");
        assert_eq!(done.len(), 1, "{text}");
        data.into_iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The value of a metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    }

    /// Ends the server and gives whether it ended well.
    pub async fn end(mut self) {
        self.stop.take().expect("once").send(()).expect("it runs");
        self.task.await.expect("no panic").expect("no error");
    }
}
