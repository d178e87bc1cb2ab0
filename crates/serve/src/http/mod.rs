//! The server: what it is set to, what requests share, and its life from the first connection to the last.

pub mod access;
mod connections;
mod generate;
mod routes;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;

pub use access::Key;

use crate::error::{ApiError, ApiResult};
use crate::metrics::Metrics;
use crate::model::{ServeError, Served};
use crate::registry::{Known, Open, Registry};
use crate::scheduler::{Budget, Limits};

/// How a server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may ask at first; everybody if empty.
    pub keys: Vec<Key>,
    /// Pages that may ask from a browser, besides those of this machine; `*` for all.
    pub origins: Vec<String>,
    /// Bytes of a body at most.
    pub most_body: usize,
    /// Connections at most.
    pub connections: usize,
    /// Time for a request's head, and for its body.
    pub read_time: Duration,
    /// Time after which a client that takes nothing of what is sent is cut off.
    pub write_time: Duration,
    /// Time for an answer.
    pub answer_time: Option<Duration>,
    /// Time that requests in progress have to end when the server ends.
    pub drain_time: Duration,
    /// What comes before all paths, such as `/llm`.
    pub prefix: String,
    /// What the schedulers may do.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            keys: Vec::new(),
            origins: Vec::new(),
            most_body: 8 << 20,
            connections: 1024,
            read_time: Duration::from_secs(10),
            write_time: Duration::from_secs(60),
            answer_time: None,
            drain_time: Duration::from_secs(30),
            prefix: String::new(),
            limits: Limits {
                sequences: 16,
                step_tokens: 256,
                queue: 128,
                context: usize::MAX,
                prefix_cache: true,
                speculation: true,
                swap: None,
            },
        }
    }
}

/// What requests share.
#[derive(Debug)]
pub struct App {
    /// How the server behaves.
    pub settings: Settings,
    /// The memory that models and sequences share.
    pub budget: Budget,
    /// What Prometheus reads.
    pub metrics: Metrics,
    /// The models by name.
    pub registry: Registry,
    /// Who may ask now; at first those of the settings.
    keys: RwLock<Arc<[Key]>>,
    draining: AtomicBool,
    allowances: access::Allowances,
    /// Texts are embedded one request after the other, or they would take all threads from those that write.
    embedding: tokio::sync::Semaphore,
}

impl App {
    /// The models that are loaded, in the order they were named.
    pub fn models(&self) -> Vec<Arc<Served>> {
        self.registry.loaded()
    }

    /// A model, loaded if it is not.
    ///
    /// # Errors
    /// If there is no room for it, or its files are damaged.
    pub async fn load(self: &Arc<App>, known: Known) -> ApiResult<Arc<Served>> {
        if let Some(served) = known.loaded() {
            return self.registry.get(&known).or(Ok(served));
        }
        let app = self.clone();
        generate::aside(move || app.registry.get(&known).map_err(ApiError::from)).await
    }

    /// Waits until it is one's turn to embed texts.
    pub async fn embedding_turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.embedding.acquire().await.ok()
    }

    /// Who may ask; everybody if empty.
    pub fn keys(&self) -> Arc<[Key]> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets others ask from now on. What a key of the same name has used stays used; requests in progress go on.
    ///
    /// # Errors
    /// If there were keys and are to be none: then everybody could ask.
    pub fn set_keys(&self, keys: Vec<Key>) -> Result<(), ServeError> {
        let mut now = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() && !now.is_empty() {
            return Err(ServeError::Option(
                "no key is left, and without one everybody could ask".to_string(),
            ));
        }
        *now = keys.into();
        Ok(())
    }

    /// Whether no new requests are taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// A server that is ready to run.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// A server without models.
    pub fn new(settings: Settings, budget: Budget) -> Server {
        let metrics = Metrics::default();
        let registry = Registry::new(settings.limits.clone(), budget.clone(), metrics.clone());
        let settings_keys = settings.keys.clone().into();
        let app = App {
            settings,
            budget,
            metrics,
            registry,
            keys: RwLock::new(settings_keys),
            draining: AtomicBool::new(false),
            allowances: access::Allowances::default(),
            embedding: tokio::sync::Semaphore::new(1),
        };
        Server { app: Arc::new(app) }
    }

    /// Makes a model known under a name; it is loaded when it is asked for.
    ///
    /// # Errors
    /// If the name is taken.
    pub fn add(&self, id: impl Into<String>, aliases: Vec<String>, open: Open) -> Result<(), ServeError> {
        self.app.registry.add(id.into(), aliases, Vec::new(), open)
    }

    /// The same with names of adapters that it is served with, too; [`Source::adapters`](crate::Source::adapters) makes them.
    ///
    /// # Errors
    /// As [`Server::add`].
    pub fn add_with_adapters(
        &self,
        id: impl Into<String>,
        aliases: Vec<String>,
        adapters: Vec<String>,
        open: Open,
    ) -> Result<(), ServeError> {
        self.app.registry.add(id.into(), aliases, adapters, open)
    }

    /// Loads a model that is known.
    ///
    /// # Errors
    /// If it can't be served.
    pub fn load(&self, id: &str) -> Result<Arc<Served>, ServeError> {
        let known = self.app.registry.find(Some(id)).map_err(|error| ServeError::Option(error.message))?;
        self.app.registry.get(&known)
    }

    /// What requests share.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Answers until `stop` is ready; then takes no more requests, lets those there are end, and returns.
    ///
    /// # Errors
    /// If connections can't be accepted.
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) -> std::io::Result<()> {
        let router = routes::router(self.app.clone());
        connections::accept(listener, router, &self.app, stop).await
    }
}

/// Opens the port.
///
/// # Errors
/// If the address is taken or not this machine's.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::System { what: address.to_string(), source })
}
