//! Which path leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;

use super::App;
use super::access::guard;
use super::generate::{Asked, aside, json as respond_json, write};
use crate::error::{ApiError, ApiResult, Dialect};
use crate::openai::{chat, completions, models, responses};
use crate::{anthropic, embeddings, ollama, openapi, page, tokens};

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    let openai = Router::new()
        .route("/chat/completions", post(chat_completions))
        .route("/completions", post(text_completions))
        .route("/responses", post(responses))
        .route("/embeddings", post(embeddings))
        .route("/models", get(list_models))
        .route("/models/{*id}", get(show_model))
        .route("/models/load", post(load))
        .route("/models/unload", post(unload))
        .route("/models/reload", post(reload))
        .route("/health", get(health));
    let routes = Router::new()
        .nest("/v1", openai.clone())
        // Some clients leave the version out.
        .merge(openai)
        .route("/v1/messages", post(anthropic_messages))
        .route("/v1/messages/count_tokens", post(anthropic_count))
        .route("/api/chat", post(ollama_chat))
        .route("/api/generate", post(ollama_generate))
        .route("/api/embed", post(ollama_embed))
        .route("/api/show", post(ollama_show))
        .route("/api/tags", get(ollama_tags))
        .route("/api/ps", get(ollama_running))
        .route("/api/version", get(ollama_version))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/metrics", get(metrics))
        .route("/", get(page::page))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .route("/docs", get(page::reference))
        .route("/openapi.json", get(document))
        .method_not_allowed_fallback(wrong_method);
    let routes = match app.settings.prefix.trim_end_matches('/') {
        "" => routes,
        prefix => Router::new().nest(prefix, routes.clone()).merge(routes),
    };
    routes
        .fallback(no_route)
        .layer(from_fn_with_state(app.clone(), guard))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

type Shared = State<Arc<App>>;

async fn responses(State(app): Shared, request: Request) -> ApiResult<Response> {
    write(&app, request, responses::Request::read).await
}

async fn embeddings(State(app): Shared, request: Request) -> ApiResult<Response> {
    let asked = Asked::read(&app, request).await?;
    let model = asked.model(&app).await?;
    let _turn = app.embedding_turn().await;
    Ok(respond_json(&aside(move || embeddings::openai(&asked.body, &model)).await?))
}

async fn tokenize(State(app): Shared, request: Request) -> ApiResult<Response> {
    let asked = Asked::read(&app, request).await?;
    let model = asked.model(&app).await?;
    Ok(respond_json(&aside(move || tokens::tokenize(&asked.body, &model)).await?))
}

async fn detokenize(State(app): Shared, request: Request) -> ApiResult<Response> {
    let asked = Asked::read(&app, request).await?;
    let model = asked.model(&app).await?;
    Ok(respond_json(&aside(move || tokens::detokenize(&asked.body, &model)).await?))
}

/// An answer, or what went wrong in the words of a dialect.
fn in_dialect(dialect: Dialect, answer: ApiResult<Response>) -> Response {
    answer.unwrap_or_else(|error| error.respond(dialect))
}

async fn anthropic_messages(State(app): Shared, request: Request) -> Response {
    in_dialect(Dialect::Anthropic, write(&app, request, anthropic::Request::read).await)
}

async fn anthropic_count(State(app): Shared, request: Request) -> Response {
    let answer = async {
        let asked = Asked::read(&app, request).await?;
        let model = asked.model(&app).await?;
        Ok(respond_json(&aside(move || anthropic::count(&asked.body, model, &asked.asker)).await?))
    };
    in_dialect(Dialect::Anthropic, answer.await)
}

async fn ollama_chat(State(app): Shared, request: Request) -> Response {
    in_dialect(Dialect::Ollama, write(&app, request, ollama::Request::chat).await)
}

async fn ollama_generate(State(app): Shared, request: Request) -> Response {
    in_dialect(Dialect::Ollama, write(&app, request, ollama::Request::generate).await)
}

async fn ollama_embed(State(app): Shared, request: Request) -> Response {
    let answer = async {
        let asked = Asked::read(&app, request).await?;
        let model = asked.model(&app).await?;
        let _turn = app.embedding_turn().await;
        Ok(respond_json(&aside(move || embeddings::ollama(&asked.body, &model)).await?))
    };
    in_dialect(Dialect::Ollama, answer.await)
}

async fn ollama_show(State(app): Shared, request: Request) -> Response {
    let answer = async {
        let asked = Asked::read(&app, request).await?;
        Ok(respond_json(&ollama::show(&*asked.model(&app).await?)))
    };
    in_dialect(Dialect::Ollama, answer.await)
}

async fn chat_completions(State(app): Shared, request: Request) -> ApiResult<Response> {
    write(&app, request, chat::Request::read).await
}

async fn text_completions(State(app): Shared, request: Request) -> ApiResult<Response> {
    write(&app, request, completions::Request::read).await
}

async fn ollama_tags(State(app): Shared) -> Response {
    respond_json(&ollama::tags(&app.registry.all()))
}

async fn ollama_running(State(app): Shared) -> Response {
    respond_json(&ollama::running(app.models().iter().map(AsRef::as_ref)))
}

async fn ollama_version() -> Response {
    respond_json(&json!({"version": env!("CARGO_PKG_VERSION")}))
}

async fn document(State(app): Shared) -> Response {
    let names: Vec<String> = app.registry.all().into_iter().map(|model| model.id).collect();
    respond_json(&openapi::document(&names))
}

async fn load(State(app): Shared, request: Request) -> ApiResult<Response> {
    let asked = Asked::read(&app, request).await?;
    asked.check_admin()?;
    let served = asked.model(&app).await?;
    Ok(respond_json(&json!({"success": true, "model": served.id})))
}

async fn unload(State(app): Shared, request: Request) -> ApiResult<Response> {
    let asked = Asked::read(&app, request).await?;
    asked.check_admin()?;
    let known = app.registry.find(asked.name()?)?;
    let id = known.id.clone();
    let was_loaded = aside(move || Ok(app.registry.unload(&known))).await?;
    Ok(respond_json(&json!({"success": true, "model": id, "was_loaded": was_loaded})))
}

async fn reload(State(app): Shared, request: Request) -> ApiResult<Response> {
    let asked = Asked::read(&app, request).await?;
    asked.check_admin()?;
    let known = app.registry.find(asked.name()?)?;
    let served = aside(move || app.registry.reload(&known).map_err(ApiError::from)).await?;
    Ok(respond_json(&json!({"success": true, "model": served.id})))
}

async fn list_models(State(app): State<Arc<App>>) -> Response {
    respond_json(&models::list(&app.registry.all()))
}

async fn show_model(State(app): State<Arc<App>>, Path(id): Path<String>) -> ApiResult<Response> {
    Ok(respond_json(&models::describe(&app.registry.find(Some(&id))?)))
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let (models, known) = (app.models(), app.registry.all());
    let dead = models.iter().filter_map(|model| model.scheduler.as_ref()).any(|it| it.load().is_dead());
    let (status, word) = match (app.is_draining(), known.is_empty(), dead) {
        (true, ..) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (_, true, _) => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        (_, _, true) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        _ => (StatusCode::OK, "ok"),
    };
    (status, respond_json(&json!({"status": word}))).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text(&app.budget))
        .into_response()
}

async fn no_route(method: Method, uri: Uri) -> Response {
    ApiError::no_route(method.as_str(), uri.path()).respond(Dialect::of(uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    ApiError::method(method.as_str(), uri.path()).respond(Dialect::of(uri.path()))
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    ApiError::internal("the server itself is at fault; please report this").into_response()
}
