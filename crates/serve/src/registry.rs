//! The models that a server knows by name: loaded when they are asked for, unloaded when another one needs their memory and
//! nobody asks them.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use crate::error::{ApiError, ApiResult};
use crate::metrics::Metrics;
use crate::model::{ServeError, Served, Source};
use crate::scheduler::{Budget, Limits};

/// Opens a model's files, as often as it is asked to.
pub type Open = Arc<dyn Fn() -> Result<Source, ServeError> + Send + Sync>;

/// A model that is known, loaded or not.
#[derive(Clone)]
pub struct Known {
    /// The name that clients use.
    pub id: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Names of its adapters.
    pub adapters: Vec<String>,
    /// The adapter that is meant; none for the model itself.
    pub adapter: Option<String>,
    open: Open,
    loaded: Arc<RwLock<Option<Arc<Served>>>>,
    used: Arc<Mutex<Instant>>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Known {
    /// Whether it goes by this name.
    fn is_called(&self, name: &str) -> bool {
        // Ollama's clients add a tag.
        let name = name.strip_suffix(":latest").unwrap_or(name);
        match &self.adapter {
            Some(adapter) => adapter == name,
            None => self.id == name || self.aliases.iter().any(|alias| alias == name),
        }
    }

    /// What clients call it.
    pub fn name(&self) -> &str {
        self.adapter.as_ref().unwrap_or(&self.id)
    }

    /// It, and it with each of its adapters.
    fn with_adapters(&self) -> impl Iterator<Item = Known> + use<'_> {
        let adapted = self.adapters.iter().map(|name| Known { adapter: Some(name.clone()), ..self.clone() });
        std::iter::once(self.clone()).chain(adapted)
    }

    /// It, if it is loaded.
    pub fn loaded(&self) -> Option<Arc<Served>> {
        let served = self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(self.meant(served))
    }

    /// With the adapter that is meant.
    fn meant(&self, served: Arc<Served>) -> Arc<Served> {
        let adapted = self.adapter.as_ref().and_then(|name| served.adapted.iter().find(|it| it.id == *name));
        adapted.cloned().unwrap_or(served)
    }

    fn set(&self, served: Option<Arc<Served>>) -> Option<Arc<Served>> {
        std::mem::replace(&mut *self.loaded.write().unwrap_or_else(PoisonError::into_inner), served)
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All models of a server.
#[derive(Debug)]
pub struct Registry {
    known: RwLock<Vec<Known>>,
    limits: Limits,
    budget: Budget,
    metrics: Metrics,
    /// One model is loaded at a time.
    loading: Mutex<()>,
}

impl Registry {
    /// A registry without models.
    pub fn new(limits: Limits, budget: Budget, metrics: Metrics) -> Registry {
        Registry { known: RwLock::default(), limits, budget, metrics, loading: Mutex::new(()) }
    }

    /// Makes a model known; nothing is read yet.
    ///
    /// # Errors
    /// If its name is taken.
    pub fn add(
        &self,
        id: String,
        aliases: Vec<String>,
        adapters: Vec<String>,
        open: Open,
    ) -> Result<(), ServeError> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<Known> = known.iter().flat_map(Known::with_adapters).collect();
        for (at, name) in std::iter::once(&id).chain(&adapters).enumerate() {
            let again = at > 0 && (*name == id || adapters[..at - 1].contains(name));
            if again || all.iter().any(|model| model.is_called(name)) {
                return Err(ServeError::SameName(name.clone()));
            }
        }
        let (loaded, used) = (Arc::default(), Arc::new(Mutex::new(Instant::now())));
        known.push(Known { id, aliases, adapters, adapter: None, open, loaded, used });
        Ok(())
    }

    /// All models that are known, in the order they came, each followed by itself with its adapters.
    pub fn all(&self) -> Vec<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().flat_map(Known::with_adapters).collect()
    }

    /// Those that are loaded.
    pub fn loaded(&self) -> Vec<Arc<Served>> {
        self.all().iter().filter_map(Known::loaded).collect()
    }

    /// The model of this name; without a name, the first one.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(&self, name: Option<&str>) -> ApiResult<Known> {
        let known = self.all();
        let found = match name {
            Some(name) => known.iter().find(|model| model.is_called(name)),
            None => known.first(),
        };
        found.cloned().ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|model| model.name().to_owned()).collect();
            ApiError::no_model(name.unwrap_or_default(), &names)
        })
    }

    /// The model of this name, loaded if it is not; this may take long. Idle models that were not asked for longest make
    /// room.
    ///
    /// # Errors
    /// If there is none, or there is no room for it.
    pub fn get(&self, known: &Known) -> Result<Arc<Served>, ServeError> {
        known.touch();
        if let Some(served) = known.loaded() {
            return Ok(served);
        }
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have loaded it meanwhile.
        match known.loaded() {
            Some(served) => Ok(served),
            None => Ok(known.meant(self.load(known)?)),
        }
    }

    fn load(&self, known: &Known) -> Result<Arc<Served>, ServeError> {
        loop {
            let start = Instant::now();
            match Served::start((known.open)()?, known, &self.limits, &self.budget, &self.metrics) {
                Ok(served) => {
                    tracing::info!(model = known.id, seconds = start.elapsed().as_secs_f64(), "loaded");
                    let served = Arc::new(served);
                    known.set(Some(served.clone()));
                    return Ok(served);
                }
                Err(ServeError::Memory { .. }) if self.unload_one_but(&known.id) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Unloads the idle model that was not asked for longest; whether there was one.
    fn unload_one_but(&self, id: &str) -> bool {
        let known = self.all();
        let idle = known.iter().filter(|model| {
            let idle = |served: Arc<Served>| {
                // One here, one in the list: nobody is being answered.
                Arc::strong_count(&served) <= 2
                    && served.scheduler.as_ref().is_none_or(|it| it.load().is_idle())
            };
            model.adapter.is_none() && model.id != id && model.loaded().is_some_and(idle)
        });
        let oldest = idle.min_by_key(|model| model.used());
        oldest.is_some_and(|model| self.unload(model))
    }

    /// Unloads a model; answers in progress end first where they hold it. Whether it was loaded.
    pub fn unload(&self, known: &Known) -> bool {
        let served = known.set(None);
        if served.is_some() {
            tracing::info!(model = known.id, "unloaded");
        }
        served.is_some()
    }

    /// Loads a model's files again. Answers in progress end with the old ones.
    ///
    /// # Errors
    /// As [`Registry::get`]; the old ones stay then, if there is memory for both.
    pub fn reload(&self, known: &Known) -> Result<Arc<Served>, ServeError> {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        match Served::start((known.open)()?, known, &self.limits, &self.budget, &self.metrics) {
            Ok(served) => {
                let served = Arc::new(served);
                drop(known.set(Some(served.clone())));
                Ok(known.meant(served))
            }
            Err(ServeError::Memory { .. }) => {
                self.unload(known);
                Ok(known.meant(self.load(known)?))
            }
            Err(error) => Err(error),
        }
    }
}
