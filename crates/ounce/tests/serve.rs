//! `ounce serve` as a user starts and ends it; what it answers is tested in `ounce-serve`.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use common::Desk;
use serde_json::{Value, json};

/// A server as a process of its own.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(desk: &Desk, args: &[&str]) -> Server {
        let mut command = desk.command(&[&["serve", "--port", "0"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit_once(" at ").unwrap_or_else(|| panic!("no address in {line:?}")).1;
        Server { address: address.to_string(), child }
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let sent = ureq::post(format!("{}{path}", self.address)).send(body.to_string()).expect("an answer");
        serde_json::from_reader(sent.into_body().into_reader()).expect("JSON")
    }

    /// Asks it to end, and gives the exit code and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").arg(&id).status().expect("kill runs").success());
        let status = self.child.wait().expect("it ends");
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        (status.code(), said)
    }
}

#[test]
fn a_server_answers_and_ends_when_told() {
    let desk = Desk::new();
    let server = Server::start(&desk, &["builtin-tiny", "more=builtin-tiny"]);
    let answer = server
        .post("/v1/completions", &json!({"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}));
    let told = desk.ok(&["run", "builtin-tiny", "Once upon a time", "-n", "5", "--greedy"]);
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().trim_end(), told.trim_end());
    let answer = server.post("/v1/completions", &json!({"model": "more", "prompt": "The", "max_tokens": 2}));
    assert_eq!(answer["model"], "more");
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no chat template") && said.contains("ending"), "{said}");
}

#[test]
fn what_would_be_served_is_told_without_serving() {
    let desk = Desk::new();
    let facts = desk.json(&["serve", "builtin-tiny", "--memory", "64M", "--check"]);
    assert_eq!(facts["memory_limit_bytes"], 64 << 20);
    assert_eq!(facts["models"][0]["model"], "builtin-tiny");
    assert!(facts["models"][0]["answers_at_full_context"].as_u64().unwrap() > 10, "{facts}");
}

#[test]
fn what_can_not_be_served_is_told() {
    let desk = Desk::new();
    let open = desk.fails(&["serve", "builtin-tiny", "--host", "0.0.0.0", "--port", "0"]);
    assert!(open.contains("--api-key"), "{open}");
    let large = desk.fails(&["serve", "builtin-tiny", "--memory", "100K", "--port", "0"]);
    assert!(large.contains("--memory"), "{large}");
    let twice = desk.fails(&["serve", "builtin-tiny", "builtin-tiny", "--port", "0"]);
    assert!(twice.contains("NAME=MODEL"), "{twice}");
    let missing = desk.fails(&["serve", "./nothing.gguf"]);
    assert!(missing.contains("nothing.gguf"), "{missing}");
}
