//! Answers as they come: events of jobs, in the words of a dialect, as server-sent events or as lines of JSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SelectAll, Stream, StreamExt, select_all, unfold};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::error::{ApiError, ApiResult};
use crate::scheduler::Event;

/// How long a stream may be silent; proxies cut silent connections.
const SILENCE: Duration = Duration::from_secs(10);

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events.
    Sse,
    /// A JSON object a line.
    Lines,
}

/// What is sent to the client.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// An object.
    Data(Value),
    /// An object with the name of its event.
    Named(&'static str, Value),
    /// The end, as OpenAI marks it.
    Done,
}

impl Frame {
    fn bytes(&self, form: Form) -> Bytes {
        let text = match (form, self) {
            (Form::Lines, Frame::Data(value) | Frame::Named(_, value)) => format!("{value}\n"),
            (Form::Lines, Frame::Done) => String::new(),
            (Form::Sse, Frame::Data(value)) => format!("data: {value}\n\n"),
            (Form::Sse, Frame::Named(name, value)) => format!("event: {name}\ndata: {value}\n\n"),
            (Form::Sse, Frame::Done) => "data: [DONE]\n\n".to_string(),
        };
        Bytes::from(text)
    }
}

/// A dialect's way to tell what happens. `prompt` counts the jobs of a request.
pub trait Translate: Send + 'static {
    /// What comes before the first event.
    fn begin(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    /// An event; never a failure.
    fn event(&mut self, prompt: usize, event: Event) -> Vec<Frame>;

    /// What comes after the last event.
    fn end(&mut self) -> Vec<Frame>;

    /// A failure; nothing follows it.
    fn fail(&mut self, error: &ApiError) -> Vec<Frame>;
}

/// A request for text, in a dialect: what is asked of the scheduler, and how the answer is told.
pub trait Written: Send + Sized + 'static {
    /// Tells the answer while it comes.
    type Stream: Translate;
    /// How that is written.
    const FORM: Form = Form::Sse;

    /// Whether the answer is sent as it comes.
    fn is_streamed(&self) -> bool;

    /// Hands the jobs to the scheduler.
    ///
    /// # Errors
    /// If the queue is full.
    fn submit(&mut self) -> ApiResult<()>;

    /// The whole answer.
    ///
    /// # Errors
    /// If a job fails.
    fn answer(self) -> impl Future<Output = ApiResult<Value>> + Send;

    /// What is needed to tell the answer while it comes.
    fn stream(self) -> (Vec<UnboundedReceiver<Event>>, Self::Stream);
}

type Events = SelectAll<std::pin::Pin<Box<dyn Stream<Item = (usize, Event)> + Send>>>;

struct State<T> {
    events: Events,
    translate: T,
    ready: VecDeque<Frame>,
    unfinished: usize,
    over: bool,
}

/// An answer that is written while events come. When the client leaves, its end of the events is dropped, and with it the
/// jobs.
pub fn respond(form: Form, jobs: Vec<UnboundedReceiver<Event>>, mut translate: impl Translate) -> Response {
    let unfinished = jobs.len();
    let events = select_all(jobs.into_iter().enumerate().map(|(prompt, events)| {
        UnboundedReceiverStream::new(events).map(move |event| (prompt, event)).boxed()
    }));
    let ready = translate.begin().into();
    let state = State { events, translate, ready, unfinished, over: false };
    let stream = unfold(state, move |mut state| async move {
        let bytes = state.next(form).await?;
        Some((Ok::<Bytes, Infallible>(bytes), state))
    });
    let kind = match form {
        Form::Sse => "text/event-stream; charset=utf-8",
        Form::Lines => "application/x-ndjson",
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

impl<T: Translate> State<T> {
    async fn next(&mut self, form: Form) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                let bytes = self.ready.drain(..).map(|frame| frame.bytes(form));
                return Some(Bytes::from(bytes.collect::<Vec<_>>().concat()));
            }
            if self.over {
                return None;
            }
            match tokio::time::timeout(SILENCE, self.events.next()).await {
                Err(_) if form == Form::Sse => return Some(Bytes::from_static(b": ping\n\n")),
                Err(_) => {}
                Ok(Some((_, Event::Failed(failure)))) => self.fail(&failure.into()),
                Ok(Some((prompt, event))) => {
                    let done = matches!(event, Event::Done(_));
                    self.ready.extend(self.translate.event(prompt, event));
                    if done {
                        self.unfinished -= 1;
                    }
                    if self.unfinished == 0 {
                        self.ready.extend(self.translate.end());
                        self.over = true;
                    }
                }
                Ok(None) => self.fail(&ApiError::internal("the engine's thread has ended")),
            }
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.extend(self.translate.fail(error));
        self.over = true;
    }
}
