//! Conversations rendered byte for byte as transformers renders them. `tests/golden/chat/make.py` makes the golden
//! file.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ounce_model::chat::{ChatTemplate, Message, RenderOptions};
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat")
}

fn template(name: &str, tokens: &Value) -> ChatTemplate {
    let source = std::fs::read_to_string(golden().join("templates").join(format!("{name}.jinja"))).unwrap();
    ChatTemplate::new(source, serde_json::from_value(tokens.clone()).unwrap()).unwrap()
}

fn options(case: &Value, now: i64) -> RenderOptions {
    let flag = |key: &str| case.get(key).and_then(Value::as_bool).unwrap_or(false);
    RenderOptions {
        tools: case.get("tools").and_then(Value::as_array).cloned().unwrap_or_default(),
        add_generation_prompt: flag("add_generation_prompt"),
        continue_final: flag("continue_final_message"),
        kwargs: case.get("kwargs").and_then(Value::as_object).cloned().unwrap_or_default(),
        now_unix_seconds: Some(now),
        ..RenderOptions::default()
    }
}

fn refuses_alike(error: &serde_json::Map<String, Value>, rendered: &str) -> bool {
    let reason = error["error"].as_str().unwrap().strip_prefix("TemplateError: ");
    reason.is_none_or(|reason| rendered.contains(reason))
}

#[test]
fn texts_equal_transformers() {
    let file: Value =
        serde_json::from_slice(&std::fs::read(golden().join("expected.json")).unwrap()).unwrap();
    let now = file["now"].as_i64().unwrap();
    let (mut equal, mut refused, mut wrong) = (0, 0, Vec::new());
    for (name, expected) in file["expected"].as_object().unwrap() {
        let template = template(name, &file["tokens"]);
        for case in file["cases"].as_array().unwrap() {
            let case_name = case["name"].as_str().unwrap();
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let rendered = template.render(&messages, &options(case, now));
            match (&expected[case_name], rendered) {
                (Value::String(text), Ok(rendered)) if *text == rendered => equal += 1,
                // A refusal by the template itself reaches the user in its own words.
                (Value::Object(error), Err(rendered)) if refuses_alike(error, &rendered.to_string()) => {
                    refused += 1
                }
                (expected, rendered) => wrong.push(format!(
                    "{name}, {case_name}:\n{}\nexpected\n{}\n",
                    rendered.unwrap_or_else(|e| format!("error: {e}")),
                    expected.as_str().map_or(expected.to_string(), String::from)
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "{} texts differ:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((equal, refused), (161, 19));
}

fn plain(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, BTreeMap::new()).unwrap()
}

fn render(source: &str) -> Result<String, String> {
    plain(source).render(&[Message::new("user", "hi")], &RenderOptions::default()).map_err(|e| e.to_string())
}

#[test]
fn templates_without_end_are_stopped() {
    for source in [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(200) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'x' * 100000000000 }}",
    ] {
        let error = render(source).unwrap_err();
        assert!(error.contains("chat template"), "{error}");
    }
}

#[test]
fn templates_reach_nothing_outside() {
    for source in
        ["{% include '/etc/passwd' %}", "{{ messages.__class__.__mro__ }}", "{{ open('/etc/passwd') }}"]
    {
        let rendered = render(source);
        assert!(rendered.as_ref().is_err() || rendered.as_deref() == Ok(""), "{rendered:?}");
    }
}

#[test]
fn broken_templates_name_the_line() {
    let error = ChatTemplate::new("a\n{% if %}", BTreeMap::new()).unwrap_err().to_string();
    assert!(error.contains("\"default\"") && error.contains("line 2"), "{error}");
    let error = render("\n\n{{ messages[0].content + 1 }}").unwrap_err();
    assert!(error.contains("line 3"), "{error}");
}

#[test]
fn arguments_as_text_become_objects() {
    let template = plain("{{ messages[0].tool_calls[0].function.arguments | tojson }}");
    for (arguments, expected) in [("{\"a\": [1]}", "{\"a\": [1]}"), ("not json", "\"not json\"")] {
        let message: Message = serde_json::from_value(json!({
            "role": "assistant", "content": null,
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}],
        }))
        .unwrap();
        assert_eq!(template.render(&[message], &RenderOptions::default()).unwrap(), expected);
    }
}

#[test]
fn a_folder_gives_its_template_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let read = || ChatTemplate::from_folder(folder.path());
    assert!(read().unwrap().is_none());
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<s>"}, "chat_template": [
            {"name": "default", "template": "{{ bos_token }}plain"},
            {"name": "tool_use", "template": "{{ bos_token }}with {{ tools | length }}"}]}"#,
    );
    let with_tools = RenderOptions { tools: vec![json!({}), json!({})], ..RenderOptions::default() };
    let template = read().unwrap().unwrap();
    assert_eq!(template.render(&[], &RenderOptions::default()).unwrap(), "<s>plain");
    assert_eq!(template.render(&[], &with_tools).unwrap(), "<s>with 2");
    assert_eq!(template.source(), "{{ bos_token }}plain");
    let named = RenderOptions { template: Some("rag".into()), ..RenderOptions::default() };
    assert!(template.render(&[], &named).unwrap_err().to_string().contains("default, tool_use"));

    write("chat_template.jinja", "from the file");
    write("additional_chat_templates/rag.jinja", "with documents");
    let template = read().unwrap().unwrap();
    assert_eq!(template.render(&[], &RenderOptions::default()).unwrap(), "from the file");
    assert_eq!(template.render(&[], &named).unwrap(), "with documents");

    std::fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
    std::fs::remove_dir_all(folder.path().join("additional_chat_templates")).unwrap();
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    assert!(read().unwrap_err().to_string().contains("tokenizer_config.json"));
}

#[test]
fn continuing_needs_something_to_continue() {
    let template = plain("{{ messages[0].content | upper }}");
    let options = RenderOptions { continue_final: true, ..RenderOptions::default() };
    assert!(template.render(&[], &options).unwrap_err().to_string().contains("no text"));
    let changed = template.render(&[Message::new("assistant", "abc")], &options).unwrap_err().to_string();
    assert!(changed.contains("changes or drops"), "{changed}");
    let both = RenderOptions { add_generation_prompt: true, ..options };
    assert!(template.render(&[], &both).is_err());
}
