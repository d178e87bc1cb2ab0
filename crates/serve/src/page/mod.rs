//! The page at `/`: a chat and a dashboard in three small files, which ask nothing but this server.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

/// What a browser may do with the page: run its own script, ask its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// The page.
pub async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

/// The interface, described for people: the OpenAPI document as a plain page.
pub async fn reference() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, crate::openapi::page()).into_response()
}

/// Its script.
pub async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// Its style.
pub async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("page.css"))
}
