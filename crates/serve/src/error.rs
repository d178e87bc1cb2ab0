//! What clients are told when something is wrong: a status, a sentence, the field at fault; and the body in each dialect.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::model::ServeError;
use crate::scheduler::{Failure, Refusal};

/// A result of a request.
pub type ApiResult<T> = Result<T, ApiError>;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The OpenAI interface's kind of error.
    pub kind: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// A word that programs can compare with.
    pub code: Option<&'static str>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// In whose words a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Ollama's.
    Ollama,
    /// Anthropic's.
    Anthropic,
}

impl Dialect {
    /// The dialect of a path.
    pub fn of(path: &str) -> Dialect {
        if path.starts_with("/api/") {
            Dialect::Ollama
        } else if path.starts_with("/v1/messages") {
            Dialect::Anthropic
        } else {
            Dialect::OpenAi
        }
    }
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A field of the request is wrong.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::invalid(message) }
    }

    /// The prompt does not fit.
    pub fn too_long(tokens: usize, context: usize) -> ApiError {
        let message = format!(
            "the prompt has {tokens} tokens and the model's context is {context}, which must hold the answer too; \
             shorten the prompt"
        );
        ApiError { code: Some("context_length_exceeded"), ..ApiError::field("messages", message) }
    }

    /// The same about a field that goes by another name here.
    #[must_use]
    pub fn about(mut self, field: &str, here: &str) -> ApiError {
        if self.param.as_deref() == Some(field) {
            self.param = Some(here.to_string());
        }
        self
    }

    /// There is no such model.
    pub fn no_model(name: &str, known: &[String]) -> ApiError {
        let message = format!("the model {name:?} is not served here; there is {}", known.join(", "));
        ApiError {
            param: Some("model".to_string()),
            code: Some("model_not_found"),
            ..ApiError::new(StatusCode::NOT_FOUND, "not_found_error", message)
        }
    }

    /// There is no such route.
    pub fn no_route(method: &str, path: &str) -> ApiError {
        let message = format!("there is no {method} {path}; /openapi.json lists what there is");
        ApiError::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    /// The route takes another method.
    pub fn method(method: &str, path: &str) -> ApiError {
        let message = format!("{path} is not asked by {method}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// The key is missing or wrong.
    pub fn unauthorized(message: impl Into<String>) -> ApiError {
        ApiError {
            code: Some("invalid_api_key"),
            ..ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
        }
    }

    /// The key may not do so.
    pub fn forbidden(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// The body is too large.
    pub fn too_large(limit: usize) -> ApiError {
        let message = format!("the request's body is larger than {limit} bytes; --max-body allows more");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// It took too long.
    pub fn timeout(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", message)
    }

    /// Too many requests.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> ApiError {
        ApiError {
            code: Some("rate_limit_exceeded"),
            retry_after: Some(retry_after),
            ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
        }
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError {
            retry_after: Some(Duration::from_secs(5)),
            ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message)
        }
    }

    /// The fault is ours.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// What the model can't do, however it is asked.
    pub fn unsuitable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request_error", message)
    }

    /// The body in a dialect.
    pub fn body(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => json!({"error": {
                "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
            }}),
            Dialect::Ollama => json!({"error": self.message}),
            Dialect::Anthropic => {
                let kind = match self.kind {
                    "server_error" => "api_error",
                    "unavailable_error" => "overloaded_error",
                    kind => kind,
                };
                json!({"type": "error", "error": {"type": kind, "message": self.message}})
            }
        }
    }

    /// The whole answer in a dialect.
    pub fn respond(&self, dialect: Dialect) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        (self.status, headers, self.body(dialect).to_string()).into_response()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond(Dialect::OpenAi)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Full { retry_after } => {
                ApiError::busy("the queue is full; try again later", retry_after)
            }
            Refusal::Stopping => ApiError::unavailable("the server is shutting down"),
        }
    }
}

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> ApiError {
        match error {
            ServeError::Memory { .. } => {
                ApiError::unavailable(format!("{error}; or wait until other models are idle"))
            }
            error => ApiError::internal(error.to_string()),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let message = failure.to_string();
        match failure {
            Failure::Deadline => ApiError::timeout(message),
            Failure::Stopping | Failure::Memory => ApiError::unavailable(message),
            Failure::Engine(_) => ApiError::internal(message),
        }
    }
}
