//! What Prometheus reads at `/metrics`, under vLLM's names, so that dashboards made for it work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use ounce_engine::generate::Finish;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use ounce_model::machine::host::resident_bytes;

use crate::scheduler::job::Job;
use crate::scheduler::{Budget, Summary};
use crate::traces::{Answered, Traces};

/// Upper bounds for times: fine ones for small models, then the usual ones.
const SECONDS: [f64; 22] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0,
];

/// Upper bounds for counts of tokens: 1, 2, 5, 10, …
const COUNTS: [f64; 17] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5];

/// All metrics of a server.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    registry: Registry,
    models: Arc<Mutex<HashMap<String, ModelMetrics>>>,
    traces: Arc<OnceLock<Traces>>,
}

impl Metrics {
    /// Sends a span for each request from now on. Only the first call counts.
    pub fn trace(&self, traces: Traces) {
        // A second one has nothing to say.
        let _ = self.traces.set(traces);
    }

    /// Sends the spans that are left.
    pub fn end_traces(&self) {
        if let Some(traces) = self.traces.get() {
            traces.end();
        }
    }

    /// The text that Prometheus reads, with the process's memory and the budget's.
    pub fn text(&self, budget: &Budget) -> String {
        let mut text = String::new();
        let resident = resident_bytes().0;
        let bytes = [
            (
                "process_resident_memory_bytes",
                "Memory of the process that is in use, mapped files included",
                resident,
            ),
            ("ounce:memory_budget_bytes", "What weights, keys and values may take", Some(budget.limit())),
            ("ounce:memory_used_bytes", "What they take", Some(budget.used())),
        ];
        for (name, help, value) in bytes {
            if let Some(value) = value {
                text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
            }
        }
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics can't be written");
        }
        text
    }

    /// Metrics of a model; one that is loaded again goes on counting.
    ///
    /// # Errors
    /// If the name is none that Prometheus takes.
    pub fn model(&self, name: &str) -> prometheus::Result<ModelMetrics> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        match models.get(name) {
            Some(metrics) => Ok(metrics.clone()),
            None => {
                let metrics = ModelMetrics::new(&self.registry, name, self.traces.clone())?;
                models.insert(name.to_string(), metrics.clone());
                Ok(metrics)
            }
        }
    }
}

/// Metrics of one model.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // each has a help text
pub struct ModelMetrics {
    name: Arc<str>,
    traces: Arc<OnceLock<Traces>>,
    pub running: IntGauge,
    pub waiting: IntGauge,
    pub cache_usage: Gauge,
    pub prefix_queries: IntCounter,
    pub prefix_hits: IntCounter,
    pub preemptions: IntCounter,
    pub swapped: IntCounter,
    pub prompt_tokens: IntCounter,
    pub generation_tokens: IntCounter,
    pub drafted: IntCounter,
    pub accepted: IntCounter,
    success: IntCounterVec,
    pub step_tokens: Histogram,
    pub first_token: Histogram,
    pub inter_token: Histogram,
    pub queue_time: Histogram,
    end_to_end: Histogram,
    prefill_time: Histogram,
    decode_time: Histogram,
    inference_time: Histogram,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
}

impl ModelMetrics {
    fn new(
        registry: &Registry,
        model: &str,
        traces: Arc<OnceLock<Traces>>,
    ) -> prometheus::Result<ModelMetrics> {
        let opts = |name: &str, help: &str| {
            Opts::new(format!("vllm:{name}"), help)
                .const_label("model_name", model)
                .const_label("engine", "0")
        };
        let gauge = |name: &str, help: &str| add(registry, IntGauge::with_opts(opts(name, help))?);
        let counter = |name: &str, help: &str| add(registry, IntCounter::with_opts(opts(name, help))?);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
            add(registry, Histogram::with_opts(options)?)
        };
        let time = |name: &str, help: &str| histogram(name, help, &SECONDS);
        let count = |name: &str, help: &str| histogram(name, help, &COUNTS);
        Ok(ModelMetrics {
            name: model.into(),
            traces,
            running: gauge("num_requests_running", "Answers that are being made")?,
            waiting: gauge("num_requests_waiting", "Requests that wait for their turn or for memory")?,
            cache_usage: add(
                registry,
                Gauge::with_opts(opts(
                    "kv_cache_usage_perc",
                    "Share of the memory for keys and values in use, 0 to 1",
                ))?,
            )?,
            prefix_queries: counter(
                "prefix_cache_queries_total",
                "Tokens of prompts looked for in the prefix cache",
            )?,
            prefix_hits: counter("prefix_cache_hits_total", "Tokens of prompts found in the prefix cache")?,
            preemptions: counter("num_preemptions_total", "Answers put back for want of memory")?,
            swapped: add(
                registry,
                IntCounter::with_opts(
                    Opts::new(
                        "ounce:preemptions_swapped_total",
                        "Answers put back whose keys and values were kept in a file",
                    )
                    .const_label("model_name", model),
                )?,
            )?,
            prompt_tokens: counter("prompt_tokens_total", "Tokens of prompts")?,
            generation_tokens: counter("generation_tokens_total", "Tokens generated")?,
            drafted: counter("spec_decode_num_draft_tokens_total", "Tokens guessed ahead")?,
            accepted: counter("spec_decode_num_accepted_tokens_total", "Guessed tokens that were right")?,
            success: add(
                registry,
                IntCounterVec::new(
                    opts("request_success_total", "Requests that ended, by reason"),
                    &["finished_reason"],
                )?,
            )?,
            step_tokens: count("iteration_tokens_total", "Tokens of an engine's step")?,
            first_token: time("time_to_first_token_seconds", "From a request's arrival to its first token")?,
            inter_token: time("inter_token_latency_seconds", "Between two tokens of an answer")?,
            queue_time: time("request_queue_time_seconds", "In the queue")?,
            end_to_end: time("e2e_request_latency_seconds", "From a request's arrival to its end")?,
            prefill_time: time("request_prefill_time_seconds", "From leaving the queue to the first token")?,
            decode_time: time("request_decode_time_seconds", "From the first token to the end")?,
            inference_time: time("request_inference_time_seconds", "From leaving the queue to the end")?,
            request_prompt_tokens: count("request_prompt_tokens", "Tokens of a request's prompt")?,
            request_generation_tokens: count("request_generation_tokens", "Tokens of a request's answers")?,
        })
    }

    /// Counts a request that ended for this reason.
    pub fn finished(&self, reason: &str) {
        self.success.with_label_values(&[reason]).inc();
    }

    /// Counts a request that was answered.
    pub fn done(&self, summary: &Summary, finish: Finish, arrived: Instant, job: &Job) {
        let finish = match finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        };
        self.finished(finish);
        if let Some(traces) = self.traces.get() {
            let (owner, parent) = (job.owner.as_str(), job.parent.as_deref());
            traces.answered(&Answered { model: &self.name, owner, parent, arrived, finish, summary });
        }
        self.prompt_tokens.inc_by(summary.prompt_tokens as u64);
        self.generation_tokens.inc_by(summary.completion_tokens as u64);
        self.drafted.inc_by(summary.drafted_tokens as u64);
        self.accepted.inc_by(summary.accepted_tokens as u64);
        self.end_to_end.observe(arrived.elapsed().as_secs_f64());
        self.prefill_time.observe(summary.prompt_time.as_secs_f64());
        self.decode_time.observe(summary.decode_time.as_secs_f64());
        self.inference_time.observe((summary.prompt_time + summary.decode_time).as_secs_f64());
        self.request_prompt_tokens.observe(summary.prompt_tokens as f64);
        self.request_generation_tokens.observe(summary.completion_tokens as f64);
    }
}

fn add<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
