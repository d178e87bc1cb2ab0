//! Tasks for language models, as lm-evaluation-harness describes, asks and scores them.
//!
//! [`Config`] is a task's file: YAML with the harness's keys, templates in Jinja, without its Python. A [`Task`] is a
//! config with its documents. [`evaluate`] asks a model and gives an [`Outcome`]: every item with what the model said, and
//! of every metric one value an item ([`Measure`]), from which scores, standard errors and paired differences are taken.
//!
//! Nothing here reads a data file: whoever loads a task says how, see [`Task::load`].

mod cache;
mod code;
mod config;
mod encode;
mod evaluate;
mod filter;
mod measure;
mod metric;
mod python;
mod score;
mod task;
mod template;
mod write;

pub use cache::{Cache, model_key};
pub use config::{Config, Output, Source};
pub use evaluate::{Item, Options, Outcome, Response, evaluate};
pub use measure::Measure;
pub use metric::pass_at;
pub use task::Task;

/// One record of a task's data: keys with their values.
pub type Document = serde_json::Map<String, serde_json::Value>;

/// Why a task can't be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task's file, its data or its use is at fault.
    #[error("{task}: {what}")]
    Task {
        /// The task, or its file.
        task: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// The model can't be asked.
    #[error(transparent)]
    Engine(#[from] ounce_engine::Error),
    /// A file can't be read or written.
    #[error(transparent)]
    Model(#[from] ounce_model::Error),
}

/// A result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Something wrong with a task.
    pub(crate) fn task(task: impl Into<String>, what: impl Into<String>) -> Error {
        Error::Task { task: task.into(), what: what.into() }
    }
}
