//! Who may ask: keys, what each may use, and which pages of a browser.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::App;
use super::connections::Peer;
use crate::error::{ApiError, Dialect};

/// A key and what it may use.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// A name for logs and queues.
    pub name: String,
    /// What clients send.
    pub secret: String,
    /// Requests a minute at most.
    pub requests_per_minute: Option<u32>,
    /// Requests at the same time at most.
    pub concurrent: Option<u32>,
    /// Tokens of an answer at most.
    pub max_tokens: Option<usize>,
    /// The models it may ask; all if empty.
    pub models: Vec<String>,
    /// Whether it may load and unload models.
    pub admin: bool,
}

impl Key {
    /// A key without limits.
    pub fn new(name: impl Into<String>, secret: impl Into<String>) -> Key {
        Key {
            name: name.into(),
            secret: secret.into(),
            requests_per_minute: None,
            concurrent: None,
            max_tokens: None,
            models: Vec::new(),
            admin: false,
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets do not belong into logs.
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The client of a request.
#[derive(Debug, Clone)]
pub struct Client {
    /// Whose turn in the queue it uses.
    pub owner: String,
    /// Its key.
    pub key: Option<Key>,
    /// Whether it is on this machine.
    pub local: bool,
    /// Its place among the key's requests at the same time.
    _place: Option<Arc<Place>>,
}

/// What each key has used.
#[derive(Debug, Default)]
pub struct Allowances {
    used: Arc<Mutex<HashMap<String, Used>>>,
}

#[derive(Debug)]
struct Used {
    /// Requests that may be made at once, refilled by and by.
    tokens: f64,
    filled: Instant,
    running: u32,
}

/// A request in progress; dropping it ends it.
#[derive(Debug)]
struct Place {
    used: Arc<Mutex<HashMap<String, Used>>>,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Ok(mut used) = self.used.lock()
            && let Some(used) = used.get_mut(&self.name)
        {
            used.running = used.running.saturating_sub(1);
        }
    }
}

impl Allowances {
    /// Takes a place for a request, if the key has one left.
    fn take(&self, key: &Key) -> Result<Arc<Place>, ApiError> {
        let full = f64::from(key.requests_per_minute.unwrap_or(u32::MAX));
        let now = Instant::now();
        let mut all = self.used.lock().map_err(|_| ApiError::internal("the keys' limits are broken"))?;
        let used = all.entry(key.name.clone()).or_insert(Used { tokens: full, filled: now, running: 0 });
        used.tokens = (used.tokens + (now - used.filled).as_secs_f64() * full / 60.0).min(full);
        used.filled = now;
        if used.tokens < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - used.tokens) * 60.0 / full.max(1.0));
            let message = format!("the key {:?} may make {full} requests a minute", key.name);
            return Err(ApiError::busy(message, wait));
        }
        if let Some(most) = key.concurrent
            && used.running >= most
        {
            let message = format!("the key {:?} may make {most} requests at the same time", key.name);
            return Err(ApiError::busy(message, Duration::from_secs(1)));
        }
        used.tokens -= 1.0;
        used.running += 1;
        Ok(Arc::new(Place { used: self.used.clone(), name: key.name.clone() }))
    }
}

/// Lets in who may ask, and says who it is.
pub async fn guard(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = match check_origin(&app, request.headers()) {
        Ok(allowed) => allowed,
        Err(error) => return error.respond(dialect),
    };
    if request.method() == Method::OPTIONS && origin.is_some() {
        return with_cors(StatusCode::NO_CONTENT.into_response(), allowed, true);
    }
    let client = match client(&app, &request) {
        Ok(client) => client,
        Err(error) => return with_cors(error.respond(dialect), allowed, false),
    };
    request.extensions_mut().insert(client);
    with_cors(next.run(request).await, allowed, false)
}

fn client(app: &App, request: &Request) -> Result<Client, ApiError> {
    let address = request.extensions().get::<Peer>().map(|peer| peer.0.ip());
    let peer = address.map_or_else(|| "unknown".into(), |address| address.to_string());
    let local = address.is_some_and(|address| address.is_loopback());
    let keys = app.keys();
    if keys.is_empty() || is_open(app, request.uri()) {
        return Ok(Client { owner: peer, key: None, local, _place: None });
    }
    let given = given_key(request.headers())
        .ok_or_else(|| ApiError::unauthorized("a key is needed: Authorization: Bearer KEY"))?;
    let mut found = None;
    // All keys are compared, each in constant time: how long it takes tells nothing about them.
    for key in keys.iter() {
        if bool::from(key.secret.as_bytes().ct_eq(given.as_bytes())) {
            found = Some(key);
        }
    }
    let key = found.ok_or_else(|| ApiError::unauthorized("the key is not known here"))?;
    let place = match request.method() == Method::POST {
        true => Some(app.allowances.take(key)?),
        false => None,
    };
    Ok(Client { owner: key.name.clone(), key: Some(key.clone()), local, _place: place })
}

/// What everybody may ask: whether the server is well, and the page, which asks for a key by itself.
fn is_open(app: &App, uri: &Uri) -> bool {
    let path = uri.path();
    let path = path.strip_prefix(app.settings.prefix.as_str()).unwrap_or(path);
    matches!(path, "" | "/" | "/page.js" | "/page.css" | "/openapi.json" | "/docs" | "/health" | "/v1/health")
}

fn given_key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}

/// A page of this machine, of the server itself, or of those that were named, may ask; others may not, or any page that a
/// user happens to visit could.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<Option<HeaderValue>, ApiError> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
    let text = origin.to_str().unwrap_or_default();
    let listed = app.settings.origins.iter().any(|known| known == "*" || known == text);
    let host = text.split_once("://").map_or("", |(_, host)| host);
    let own = headers.get(header::HOST).is_some_and(|own| own.as_bytes() == host.as_bytes());
    // A name that leads here by a trick of the name service is not this machine's.
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let local = matches!(name, "localhost" | "127.0.0.1" | "[::1]") || name.ends_with(".localhost");
    let trusted = listed || local || (own && !app.keys().is_empty());
    if trusted || own && is_address(name) {
        return Ok(Some(origin.clone()));
    }
    Err(ApiError::forbidden(format!("pages of {text} may not ask here; --cors {text} lets them")))
}

fn is_address(name: &str) -> bool {
    name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>().is_ok()
}

fn with_cors(mut response: Response, origin: Option<HeaderValue>, preflight: bool) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let Some(origin) = origin else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if preflight {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, DELETE, HEAD"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(
                "authorization, content-type, x-api-key, x-request-timeout, anthropic-version, anthropic-beta, \
                 openai-organization, openai-project, openai-beta, x-stainless-arch, x-stainless-async, \
                 x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, \
                 x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout, x-stainless-helper-method",
            ),
        );
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_so_many_requests_a_minute_and_at_once() {
        let allowances = Allowances::default();
        let key = Key { requests_per_minute: Some(2), ..Key::new("a", "s") };
        let _one = allowances.take(&key).unwrap();
        drop(allowances.take(&key).unwrap());
        let error = allowances.take(&key).unwrap_err();
        let wait = error.retry_after.unwrap();
        assert!((29.0..=30.0).contains(&wait.as_secs_f64()), "{wait:?}");
        let key = Key { concurrent: Some(1), ..Key::new("b", "s") };
        let place = allowances.take(&key).unwrap();
        assert!(allowances.take(&key).is_err());
        drop(place);
        assert!(allowances.take(&key).is_ok());
    }
}
