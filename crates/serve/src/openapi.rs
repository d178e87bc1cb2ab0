//! What is served, as an OpenAPI document and as a page. One table holds every route; a test asks each of them.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// A route as it is described.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: &'static str,
    /// Whose interface it is.
    pub group: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Fields of the body: name, type, whether it has to be there, meaning.
    pub fields: &'static [Field],
}

/// A field of a body: name, JSON type, whether it has to be there, meaning.
pub type Field = (&'static str, &'static str, bool, &'static str);

const MODEL: Field = ("model", "string", false, "Name of a model; the first one served if left out");
const STREAM: Field = ("stream", "boolean", false, "Send the answer as it comes");
const TEMPERATURE: Field = ("temperature", "number", false, "0 always takes the likeliest token; up to 2");
const TOP_P: Field =
    ("top_p", "number", false, "Draw from the likeliest tokens that add up to this probability");
const STOP: Field = ("stop", "array", false, "Texts that end the answer; a single text too");
const SEED: Field = ("seed", "integer", false, "Makes the draw repeatable");
const MESSAGES: Field = ("messages", "array", true, "The conversation: objects with role and content");
const TOOLS: Field = ("tools", "array", false, "Functions that the model may call");
const SAMPLING: [Field; 10] = [
    ("top_k", "integer", false, "Draw from so many likeliest tokens; 0 from all"),
    ("min_p", "number", false, "Drop tokens less likely than this share of the likeliest"),
    ("n", "integer", false, "Answers that are wanted"),
    ("presence_penalty", "number", false, "Subtracted from logits of tokens that have occurred"),
    ("frequency_penalty", "number", false, "The same, once for each time"),
    ("repetition_penalty", "number", false, "Divides logits of tokens that have occurred"),
    ("logit_bias", "object", false, "Token id to what is added to its logit, -100 to 100"),
    ("stream_options", "object", false, "include_usage: counts at the end of a stream"),
    ("priority", "integer", false, "Lower values are served first"),
    (
        "response_format",
        "object",
        false,
        "json_object, or json_schema with a schema the answer has to follow",
    ),
];

const CHAT: [Field; 11] = [
    MODEL,
    MESSAGES,
    STREAM,
    ("max_completion_tokens", "integer", false, "Tokens of the answer at most; max_tokens too"),
    TEMPERATURE,
    TOP_P,
    STOP,
    SEED,
    ("logprobs", "boolean", false, "Report log-probabilities; top_logprobs says of how many tokens"),
    TOOLS,
    ("tool_choice", "string", false, "none, auto, required, or an object that names a function"),
];

const COMPLETION: [Field; 9] = [
    MODEL,
    ("prompt", "string", true, "A text, texts, token ids, or lists of token ids"),
    STREAM,
    ("max_tokens", "integer", false, "Tokens of the answer at most; 0 with echo only scores the prompt"),
    TEMPERATURE,
    TOP_P,
    STOP,
    SEED,
    ("echo", "boolean", false, "Put the prompt before the answer; with logprobs (a number) also its scores"),
];

/// All routes.
pub const ROUTES: [Route; 28] = [
    Route {
        method: "post",
        path: "/v1/chat/completions",
        group: "OpenAI",
        summary: "Answer a conversation",
        fields: &CHAT,
    },
    Route {
        method: "post",
        path: "/v1/completions",
        group: "OpenAI",
        summary: "Go on with a text",
        fields: &COMPLETION,
    },
    Route {
        method: "post",
        path: "/v1/responses",
        group: "OpenAI",
        summary: "Answer a conversation; nothing is stored",
        fields: &[
            MODEL,
            ("input", "string", true, "A text or a list of items"),
            ("instructions", "string", false, "What stands before the conversation"),
            ("max_output_tokens", "integer", false, "Tokens of the answer at most"),
            STREAM,
            TEMPERATURE,
            TOOLS,
        ],
    },
    Route {
        method: "post",
        path: "/v1/embeddings",
        group: "OpenAI",
        summary: "Turn texts into vectors",
        fields: &[
            MODEL,
            ("input", "string", true, "A text, texts, token ids, or lists of token ids"),
            ("encoding_format", "string", false, "float or base64"),
            ("dimensions", "integer", false, "Only so many of the first dims, scaled to length one"),
        ],
    },
    Route { method: "get", path: "/v1/models", group: "OpenAI", summary: "List the models", fields: &[] },
    Route {
        method: "get",
        path: "/v1/models/{id}",
        group: "OpenAI",
        summary: "Describe a model",
        fields: &[],
    },
    Route {
        method: "post",
        path: "/v1/models/load",
        group: "Models",
        summary: "Load a model that is known",
        fields: &[MODEL],
    },
    Route {
        method: "post",
        path: "/v1/models/unload",
        group: "Models",
        summary: "Unload a model; it is loaded again when it is asked",
        fields: &[MODEL],
    },
    Route {
        method: "post",
        path: "/v1/models/reload",
        group: "Models",
        summary: "Load a model's files again",
        fields: &[MODEL],
    },
    Route {
        method: "post",
        path: "/v1/messages",
        group: "Anthropic",
        summary: "Answer a conversation",
        fields: &[
            MODEL,
            MESSAGES,
            ("max_tokens", "integer", true, "Tokens of the answer at most"),
            ("system", "string", false, "What stands before the conversation"),
            ("stop_sequences", "array", false, "Texts that end the answer"),
            STREAM,
            TEMPERATURE,
            TOOLS,
        ],
    },
    Route {
        method: "post",
        path: "/v1/messages/count_tokens",
        group: "Anthropic",
        summary: "Count a conversation's tokens",
        fields: &[MODEL, MESSAGES],
    },
    Route {
        method: "post",
        path: "/api/chat",
        group: "Ollama",
        summary: "Answer a conversation, as lines of JSON",
        fields: &[
            MODEL,
            MESSAGES,
            TOOLS,
            ("options", "object", false, "num_predict, temperature, seed …"),
            ("format", "string", false, "json, or a schema"),
        ],
    },
    Route {
        method: "post",
        path: "/api/generate",
        group: "Ollama",
        summary: "Answer a prompt, as lines of JSON",
        fields: &[
            MODEL,
            ("prompt", "string", false, "The prompt"),
            ("raw", "boolean", false, "Go on with the text itself"),
            ("options", "object", false, "num_predict, temperature, seed …"),
        ],
    },
    Route {
        method: "post",
        path: "/api/embed",
        group: "Ollama",
        summary: "Turn texts into vectors",
        fields: &[MODEL, ("input", "string", true, "A text or texts")],
    },
    Route {
        method: "post",
        path: "/api/show",
        group: "Ollama",
        summary: "Describe a model",
        fields: &[MODEL],
    },
    Route { method: "get", path: "/api/tags", group: "Ollama", summary: "List the models", fields: &[] },
    Route {
        method: "get",
        path: "/api/ps",
        group: "Ollama",
        summary: "List the models that are loaded",
        fields: &[],
    },
    Route {
        method: "get",
        path: "/api/version",
        group: "Ollama",
        summary: "The version of this program",
        fields: &[],
    },
    Route {
        method: "post",
        path: "/tokenize",
        group: "Tokens",
        summary: "Turn a text or a conversation into tokens",
        fields: &[
            MODEL,
            ("prompt", "string", false, "The text; or messages"),
            ("return_token_strs", "boolean", false, "With the text of each"),
        ],
    },
    Route {
        method: "post",
        path: "/detokenize",
        group: "Tokens",
        summary: "Turn tokens into a text",
        fields: &[MODEL, ("tokens", "array", true, "Token ids")],
    },
    Route {
        method: "get",
        path: "/health",
        group: "Operation",
        summary: "200 if requests are taken, else 503",
        fields: &[],
    },
    Route { method: "get", path: "/v1/health", group: "Operation", summary: "The same", fields: &[] },
    Route {
        method: "get",
        path: "/metrics",
        group: "Operation",
        summary: "Metrics for Prometheus, by vLLM's names",
        fields: &[],
    },
    Route { method: "get", path: "/", group: "Page", summary: "A chat and a dashboard", fields: &[] },
    Route { method: "get", path: "/page.js", group: "Page", summary: "Its script", fields: &[] },
    Route { method: "get", path: "/page.css", group: "Page", summary: "Its style", fields: &[] },
    Route { method: "get", path: "/docs", group: "Page", summary: "This interface as a page", fields: &[] },
    Route {
        method: "get",
        path: "/openapi.json",
        group: "Page",
        summary: "This interface as an OpenAPI document",
        fields: &[],
    },
];

/// All fields of a route; those that write text share some.
fn fields(route: &Route) -> impl Iterator<Item = &'static Field> {
    let shared = matches!(route.path, "/v1/chat/completions" | "/v1/completions");
    route.fields.iter().chain(SAMPLING.iter().filter(move |_| shared))
}

/// What a field may hold. Models are those of `names`.
fn schema_of(&(name, kind, _, meaning): &Field, names: &[String]) -> Value {
    let text = json!({"type": "string"});
    let several = |of: Value| json!({"type": "array", "minItems": 1, "items": of});
    let ids = json!({"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}});
    let mut schema = match name {
        "model" if !names.is_empty() => json!({"type": "string", "examples": names}),
        "prompt" | "input" => json!({"anyOf": [text.clone(), several(text), ids.clone(), several(ids)]}),
        "stop" => json!({"anyOf": [text.clone(), {"type": "array", "items": text}]}),
        "tool_choice" | "system" | "format" => json!({}),
        "messages" => several(json!({
            "type": "object", "required": ["role", "content"],
            "properties": {
                "role": {"enum": ["system", "user", "assistant", "tool"]},
                "content": {"anyOf": [text, {"type": "array", "items": {"type": "object"}}]},
            },
        })),
        "temperature" => json!({"type": "number", "minimum": 0, "maximum": 2}),
        "top_p" | "min_p" => json!({"type": "number", "minimum": 0, "maximum": 1}),
        "presence_penalty" | "frequency_penalty" => json!({"type": "number", "minimum": -2, "maximum": 2}),
        "priority" | "seed" => json!({"type": "integer"}),
        "n" | "dimensions" => json!({"type": "integer", "minimum": 1}),
        "tokens" => ids,
        _ if kind == "integer" => json!({"type": kind, "minimum": 0}),
        _ => json!({"type": kind}),
    };
    schema["description"] = json!(meaning);
    schema
}

/// The OpenAPI document of a server with models of these names.
pub fn document(names: &[String]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in &ROUTES {
        let error = if route.group == "Ollama" { "OllamaError" } else { "Error" };
        let error = format!("#/components/schemas/{error}");
        let mut operation = json!({
            "summary": route.summary, "tags": [route.group],
            "responses": {
                "200": {"description": "Done"},
                "default": {"description": "An error, in the words of the interface",
                    "content": {"application/json": {"schema": {"$ref": error}}}},
            },
        });
        if route.path.contains("{id}") {
            operation["parameters"] =
                json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        if !route.fields.is_empty() {
            let properties: Map<String, Value> =
                fields(route).map(|field| (field.0.to_string(), schema_of(field, names))).collect();
            let required: Vec<&str> = fields(route).filter(|field| field.2).map(|field| field.0).collect();
            let mut schema = json!({"type": "object", "properties": properties});
            if !required.is_empty() {
                schema["required"] = json!(required);
            }
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        let path = paths.entry(route.path.to_string()).or_insert_with(|| json!({}));
        path[route.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ounce serve", "version": env!("CARGO_PKG_VERSION"),
            "description": "Language models over HTTP, by the interfaces of OpenAI, Anthropic and Ollama. Fields that are not listed are ignored.",
        },
        "paths": paths,
        "security": [{"key": []}, {}],
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"OllamaError": {
                "type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"],
            }, "Error": {
                "type": "object",
                "properties": {"error": {
                    "type": "object",
                    "properties": {
                        "message": {"type": "string"}, "type": {"type": "string"},
                        "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
                    },
                }},
            }},
        },
    })
}

/// The same as a page without scripts.
pub fn page() -> String {
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>ounce serve: interface</title>\
         <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"page.css\"><body><header><h1>ounce serve</h1>\
         <a href=\"./\">Chat and dashboard</a> <a href=\"openapi.json\">openapi.json</a></header><main>",
    );
    let mut group = "";
    for route in &ROUTES {
        if route.group != group {
            group = route.group;
            let _ = write!(html, "<h2>{group}</h2>");
        }
        let method = route.method.to_uppercase();
        let _ =
            write!(html, "<section><h3><code>{method} {}</code></h3><p>{}</p>", route.path, route.summary);
        if !route.fields.is_empty() {
            html.push_str("<dl>");
            for (name, kind, required, meaning) in fields(route) {
                let required = if *required { ", required" } else { "" };
                let _ = write!(
                    html,
                    "<dt><code>{name}</code> <small>{kind}{required}</small></dt><dd>{meaning}</dd>"
                );
            }
            html.push_str("</dl>");
        }
        html.push_str("</section>");
    }
    html.push_str("</main></body></html>");
    html
}
