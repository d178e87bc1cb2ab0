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

#[test]
fn a_small_model_guesses_for_a_large_one_and_nothing_else_changes() {
    let desk = Desk::new();
    let prompt = "Once upon a time";
    for how in [&["--greedy"][..], &["--seed", "5", "--temperature", "1"]] {
        let args = [&["run", "builtin", prompt, "-n", "60"], how].concat();
        let plain = desk.json(&args);
        let drafted = desk.json(&[&args[..], &["--draft-model", "builtin-tiny"]].concat());
        assert_eq!(plain["tokens"], drafted["tokens"]);
        assert!(drafted["timings"]["drafted_tokens"].as_u64().unwrap() > 0, "{drafted}");
    }
    let other = desk.fails(&["run", "builtin", prompt, "--draft-model", "builtin-encoder"]);
    assert!(other.contains("same tokenizer"), "{other}");
    let forbidden =
        desk.fails(&["serve", "builtin", "--port", "0", "--draft-model", "builtin-tiny", "--no-speculation"]);
    assert!(forbidden.contains("--no-speculation"), "{forbidden}");
    let whose = desk.fails(&["serve", "builtin", "--port", "0", "--draft-model", "x=builtin-tiny"]);
    assert!(whose.contains("\"x\""), "{whose}");
    let server = Server::start(&desk, &["builtin", "--draft-model", "builtin-tiny"]);
    let body = json!({"prompt": prompt, "max_tokens": 60, "temperature": 0});
    let answer = server.post("/v1/completions", &body);
    let told = desk.ok(&["run", "builtin", prompt, "-n", "60", "--greedy"]);
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().trim_end(), told.trim_end());
    server.end();
}

#[test]
fn a_soak_tells_that_nothing_is_left_behind() {
    let desk = Desk::new();
    let server = Server::start(&desk, &["builtin-tiny", "--swap", "."]);
    // So short a run is no test of memory, which is still growing; of all else it is.
    let bench =
        ["bench", "serve", &server.address, "--soak", "200", "--clients", "4", "--prompt", "40", "--json"];
    let out = desk.command(&bench).output().expect("it runs");
    let told: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(told["wrong"], json!([]), "{told}");
    assert_eq!(
        (&told["aborted"], &told["malformed_refused"], &told["killed"]),
        (&json!(40), &json!(40), &json!(20))
    );
    assert_eq!(told["answered"].as_u64().unwrap() + told["turned_away"].as_u64().unwrap(), 100);
    assert_eq!((&told["left_running"], &told["left_waiting"]), (&json!(0.0), &json!(0.0)));
    assert!(told["most_used_bytes"].as_f64().unwrap() <= told["budget_bytes"].as_f64().unwrap());
    server.end();
}

/// A key that is taken out of the file may not ask any more, a new one may; a damaged file changes nothing.
#[test]
fn the_keys_of_a_file_change_while_the_server_runs() {
    let desk = Desk::new();
    let key = |name: &str| format!("[[key]]\nname = \"{name}\"\nsecret = \"secret-of-{name}\"\n");
    desk.write("keys.toml", key("old"));
    let server = Server::start(&desk, &["builtin-tiny", "--api-keys-file", "keys.toml"]);
    let status = |name: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let asked = agent.get(format!("{}/v1/models", server.address));
        asked.header("authorization", format!("Bearer secret-of-{name}")).call().expect("an answer").status()
    };
    let becomes = |name: &str, wanted: u16| {
        let start = std::time::Instant::now();
        while status(name) != wanted {
            assert!(start.elapsed().as_secs() < 20, "{name} is not answered with {wanted}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    assert_eq!((status("old").as_u16(), status("new").as_u16()), (200, 401));
    desk.write("keys.toml", "[[key]]\nname = 1");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(status("old").as_u16(), 200, "a damaged file changes nothing");
    desk.write("keys.toml", key("new"));
    becomes("new", 200);
    assert_eq!(status("old").as_u16(), 401);
    desk.write("keys.toml", "# none");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(status("anybody").as_u16(), 401, "it does not become open");
    let (_, said) = server.end();
    assert_eq!(said.matches("the keys stay as they were").count(), 2, "{said}");
}

/// The collector's side of OTLP over HTTP: takes one request and gives its body.
fn collector() -> (String, std::thread::JoinHandle<Vec<u8>>) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let body = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
        let (mut line, mut length) = (String::new(), 0);
        assert!(reader.read_line(&mut line).expect("a line") > 0 && line.contains("/v1/traces"), "{line}");
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line).expect("a head");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).expect("written");
        body
    });
    (address, body)
}

#[test]
fn a_collector_gets_a_span_and_the_log_can_be_json() {
    let desk = Desk::new();
    let (address, body) = collector();
    let server = Server::start(&desk, &["-v", "--log-format", "json", "builtin-tiny", "--otlp", &address]);
    let asked = ureq::post(format!("{}/v1/completions", server.address))
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    asked.send(json!({"prompt": "Once", "max_tokens": 3}).to_string()).expect("an answer");
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said}");
    let body = body.join().expect("a body");
    let has = |bytes: &[u8]| body.windows(bytes.len()).any(|it| it == bytes);
    assert!(has(b"llm_request") && has(b"gen_ai.usage.output_tokens") && has(b"builtin-tiny"));
    // The trace that the client began.
    assert!(has(&[
        0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c
    ]));
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let answered = lines.filter(|line| line["message"] == "answered").count();
    assert_eq!(answered, 1, "{said}");
}
