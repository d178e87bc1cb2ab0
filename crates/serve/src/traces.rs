//! A span for each answered request, sent to an OpenTelemetry collector: names and attributes are those of OpenTelemetry's conventions for
//! generative models and of vLLM.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Tracer, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::model::ServeError;
use crate::scheduler::job::Summary;

/// Sends spans, in batches, from a thread of its own. Who can't be reached costs spans, not answers.
#[derive(Debug)]
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

/// A request that was answered.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Who asked.
    pub owner: &'a str,
    /// What the client sent as `traceparent`.
    pub parent: Option<&'a str>,
    /// When it came.
    pub arrived: Instant,
    /// `stop` or `length`.
    pub finish: &'static str,
    /// What it took.
    pub summary: &'a Summary,
}

impl Traces {
    /// Spans go to `{endpoint}/v1/traces`, by OTLP over HTTP.
    ///
    /// # Errors
    /// If the address is none.
    pub fn to(endpoint: &str) -> Result<Traces, ServeError> {
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/').trim_end_matches("/v1/traces"));
        let exporter = SpanExporter::builder().with_http().with_endpoint(&url).build();
        let exporter = exporter.map_err(|error| ServeError::Option(format!("{endpoint}: {error}")))?;
        let resource = Resource::builder().with_service_name("ounce").build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Traces { tracer: provider.tracer("ounce-serve"), provider })
    }

    /// Notes a request.
    pub fn answered(&self, it: &Answered<'_>) {
        let Answered { summary, .. } = it;
        let (now, took) = (SystemTime::now(), it.arrived.elapsed());
        let seconds = |name: &'static str, time: Duration| KeyValue::new(name, time.as_secs_f64());
        let count = |name: &'static str, count: usize| KeyValue::new(name, count as i64);
        let attributes = vec![
            KeyValue::new("gen_ai.operation.name", "text_completion"),
            KeyValue::new("gen_ai.request.model", it.model.to_owned()),
            KeyValue::new("gen_ai.response.finish_reasons", it.finish),
            KeyValue::new("enduser.id", it.owner.to_owned()),
            count("gen_ai.usage.input_tokens", summary.prompt_tokens),
            count("gen_ai.usage.cache_read.input_tokens", summary.cached_tokens),
            count("gen_ai.usage.output_tokens", summary.completion_tokens),
            seconds("gen_ai.latency.time_in_queue", summary.queue_time),
            seconds("gen_ai.latency.time_to_first_token", summary.queue_time + summary.prompt_time),
            seconds("gen_ai.latency.time_in_model_prefill", summary.prompt_time),
            seconds("gen_ai.latency.time_in_model_decode", summary.decode_time),
            seconds("gen_ai.latency.e2e", took),
        ];
        let sent: HashMap<String, String> =
            it.parent.map(|parent| ("traceparent".to_owned(), parent.to_owned())).into_iter().collect();
        let parent = TraceContextPropagator::new().extract(&sent);
        let span = self.tracer.span_builder("llm_request").with_kind(SpanKind::Server);
        let span = span.with_start_time(now.checked_sub(took).unwrap_or(now)).with_attributes(attributes);
        self.tracer.build_with_context(span, &parent).end_with_timestamp(now);
    }

    /// Sends what is left.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}
