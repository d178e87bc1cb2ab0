//! From a request's body to its answer, for all routes that write text.

use std::sync::Arc;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::App;
use super::access::Client;
use crate::error::{ApiError, ApiResult};
use crate::model::Served;
use crate::options::{Asker, Options};
use crate::streaming::{Written, respond};

/// A request whose body was read.
#[derive(Debug)]
pub struct Asked {
    /// The body.
    pub body: Value,
    /// The client.
    pub asker: Asker,
    client: Client,
}

impl Asked {
    /// Reads a request's body as JSON, within the limits of size and time.
    ///
    /// # Errors
    /// If it is too large, too slow, or no JSON.
    pub async fn read(app: &App, request: Request) -> ApiResult<Asked> {
        if app.is_draining() {
            return Err(ApiError::unavailable("the server is shutting down"));
        }
        let (parts, body) = request.into_parts();
        let limit = app.settings.most_body;
        let length =
            parts.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(ApiError::too_large(limit));
        }
        let read = tokio::time::timeout(app.settings.read_time, to_bytes(body, limit)).await;
        let bytes = read
            .map_err(|_| ApiError::timeout("the request's body did not come in time"))?
            .map_err(|_| ApiError::too_large(limit))?;
        let client = parts.extensions.get::<Client>().cloned();
        let client = client.ok_or_else(|| ApiError::internal("the request has no client"))?;
        let body = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::invalid(format!("the body is no JSON that can be read: {error}")))?;
        let asker = Asker {
            owner: client.owner.clone(),
            deadline: Options::deadline(app.settings.answer_time, asked_time(&parts.headers)),
            most_tokens: client.key.as_ref().and_then(|key| key.max_tokens),
            parent: parts.headers.get("traceparent").and_then(|it| it.to_str().ok()).map(str::to_owned),
        };
        Ok(Asked { body, asker, client })
    }

    /// The model that is asked.
    ///
    /// # Errors
    /// If there is none of that name, or the key may not ask it.
    pub async fn model(&self, app: &Arc<App>) -> ApiResult<Arc<Served>> {
        let model = app.registry.find(self.name()?)?;
        if let Some(key) = &self.client.key
            && !key.models.is_empty()
            && !key.models.iter().any(|it| it == model.name())
        {
            return Err(ApiError::forbidden(format!("the key {:?} may not ask {}", key.name, model.name())));
        }
        app.load(model).await
    }

    /// The name of the model that is asked.
    ///
    /// # Errors
    /// If it is no text.
    pub fn name(&self) -> ApiResult<Option<&str>> {
        match self.body.get("model").or_else(|| self.body.get("name")) {
            // Ollama's older clients call it a name.
            Some(Value::String(name)) => Ok(Some(name)),
            None | Some(Value::Null) => Ok(None),
            Some(other) => Err(ApiError::field("model", format!("model should be a text, found {other}"))),
        }
    }

    /// Whether the client may load and unload models: with a key, if that says so; without keys, from this machine.
    ///
    /// # Errors
    /// If it may not.
    pub fn check_admin(&self) -> ApiResult<()> {
        let may = match &self.client.key {
            Some(key) => key.admin,
            None => self.client.local,
        };
        if may {
            Ok(())
        } else {
            Err(ApiError::forbidden("models may be loaded and unloaded with an admin's key"))
        }
    }
}

/// Seconds that the client waits, if it says so.
fn asked_time(headers: &HeaderMap) -> Option<f64> {
    headers.get("x-request-timeout")?.to_str().ok()?.parse().ok()
}

/// Runs work that takes longer than a moment, such as tokenizing a book, beside the connections.
///
/// # Errors
/// What the work says.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> ApiResult<T> + Send + 'static) -> ApiResult<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the server itself is at fault; please report this")))
}

/// Writes what is asked for: reads it, hands it to the scheduler, and answers at once or as it comes.
///
/// # Errors
/// If the request can't be read or taken, or a job fails before anything was sent.
pub async fn write<W: Written>(
    app: &Arc<App>,
    request: Request,
    read: fn(&Value, Arc<Served>, &Asker) -> ApiResult<W>,
) -> ApiResult<Response> {
    let asked = Asked::read(app, request).await?;
    let (model, client) = (asked.model(app).await?, asked.client.clone());
    let mut request = aside(move || read(&asked.body, model, &asked.asker)).await?;
    request.submit()?;
    let response = if request.is_streamed() {
        let (events, stream) = request.stream();
        respond(W::FORM, events, stream)
    } else {
        json(&request.answer().await?)
    };
    Ok(hold(response, client))
}

/// Keeps a client's place until its answer was written.
fn hold(response: Response, client: Client) -> Response {
    use http_body_util::BodyExt;
    let (parts, body) = response.into_parts();
    let body = body.map_frame(move |frame| {
        let _ = &client;
        frame
    });
    Response::from_parts(parts, axum::body::Body::new(body))
}

/// An answer in JSON.
pub fn json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
