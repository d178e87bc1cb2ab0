//! `ounce pull` against a hub on this machine: what is asked, what lies in the cache afterwards, what is said.

#[path = "common/hub.rs"]
mod hub;

mod common;

use common::Desk;
use hub::{COMMIT, FakeHub, Faults, HubFile, TOKEN};

/// The built-in model as a repository, with files that are not needed.
fn files() -> Vec<HubFile> {
    let file = |name: &str, content: &[u8]| HubFile {
        name: name.to_string(),
        large: name.ends_with("safetensors") || name.ends_with("gguf"),
        content: content.to_vec(),
    };
    let builtin = ounce_lab::builtin::LANGUAGE.files.iter().filter(|(name, _)| *name != "README.md");
    let mut files: Vec<HubFile> = builtin.map(|(name, content)| file(name, content)).collect();
    files.push(file("1_Pooling/config.json", b"{}"));
    files.push(file("pytorch_model.bin", b"not needed"));
    files.push(file("onnx/model.onnx", b"not needed"));
    files.push(file("consolidated.safetensors", b"the same again"));
    files
}

fn start(faults: Faults) -> (FakeHub, Desk) {
    let hub = FakeHub::start(files(), faults);
    let desk = Desk::new().with_env("HF_ENDPOINT", hub.endpoint());
    (hub, desk)
}

/// Every file below a folder but locks, as path and what a link leads to.
fn tree(desk: &Desk, folder: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let mut todo = vec![desk.path(folder)];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let link = std::fs::read_link(&path).ok().map(|it| it.to_string_lossy().into_owned());
            if link.is_none() && path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(desk.path("")).expect("below").to_string_lossy().into_owned();
                found.push((name, link));
            }
        }
    }
    found.sort();
    found
}

fn needed() -> Vec<HubFile> {
    let left_out = ["pytorch_model.bin", "onnx/model.onnx", "consolidated.safetensors"];
    files().into_iter().filter(|file| !left_out.contains(&file.name.as_str())).collect()
}

#[test]
fn the_cache_is_laid_out_as_other_tools_expect() {
    let (_hub, desk) = start(Faults::default());
    let out = desk.ok(&["pull", "org/name"]);
    let repo = "hf-home/hub/models--org--name";
    assert_eq!(out.trim(), desk.path(&format!("{repo}/snapshots/{COMMIT}")).to_str().expect("UTF-8"));
    let mut expected = vec![(format!("{repo}/refs/main"), None)];
    for file in needed() {
        let content = file.content_name();
        let up = "../".repeat(2 + file.name.matches('/').count());
        expected.push((format!("{repo}/blobs/{content}"), None));
        expected
            .push((format!("{repo}/snapshots/{COMMIT}/{}", file.name), Some(format!("{up}blobs/{content}"))));
        let read =
            std::fs::read(desk.path(&format!("{repo}/snapshots/{COMMIT}/{}", file.name))).expect("linked");
        assert!(read == file.content, "{}", file.name);
    }
    expected.sort();
    expected.dedup();
    assert_eq!(tree(&desk, repo), expected);
    assert_eq!(std::fs::read_to_string(desk.path(&format!("{repo}/refs/main"))).expect("a commit"), COMMIT);
    let tag = std::fs::read_to_string(desk.path("hf-home/hub/CACHEDIR.TAG")).expect("a tag");
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    let locks = tree(&desk, "hf-home/hub/.locks/models--org--name");
    assert!(!locks.is_empty() && locks.iter().all(|(name, _)| name.ends_with(".lock")), "{locks:?}");
}

#[test]
fn pulled_models_are_used_by_their_name() {
    let (hub, desk) = start(Faults::default());
    desk.ok(&["pull", "org/name"]);
    hub.take_requests();
    let pulled = desk.ok(&["run", "org/name", "Once upon a time", "-n", "8", "--greedy"]);
    assert_eq!(pulled, desk.ok(&["run", "builtin", "Once upon a time", "-n", "8", "--greedy"]));
    desk.ok(&["show", &format!("org/name@{COMMIT}")]);
    let error = desk.fails(&["show", "org/nmae"]);
    assert!(error.contains("ounce pull org/nmae"), "{error}");
    assert_eq!(hub.take_requests(), [], "no command but pull asks the hub");
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let (hub, desk) = start(Faults::default());
    let first = desk.json(&["pull", "org/name"]);
    assert_eq!(
        first["fetched_bytes"].as_u64(),
        Some(needed().iter().map(|it| it.content.len() as u64).sum())
    );
    hub.take_requests();
    let second = desk.json(&["pull", "org/name"]);
    assert_eq!((second["fetched_bytes"].as_u64(), second["commit"].as_str()), (Some(0), Some(COMMIT)));
    assert!(hub.take_requests().iter().all(|it| it.path.starts_with("/api/")), "only the interface is asked");
}

#[test]
fn a_broken_transfer_goes_on_where_it_ended() {
    let (hub, desk) = start(Faults { drops: 2, ..Faults::default() });
    desk.ok(&["pull", "org/name"]);
    let size = needed().iter().find(|it| it.large).expect("weights").content.len();
    let ranges: Vec<Option<String>> = hub
        .take_requests()
        .into_iter()
        .filter(|it| it.path.starts_with("/cdn/"))
        .map(|it| it.range)
        .collect();
    let half = size / 2;
    let three_quarters = half + (size - half) / 2;
    assert_eq!(ranges, [None, Some(format!("bytes={half}-")), Some(format!("bytes={three_quarters}-"))]);
}

#[test]
fn an_unfinished_file_of_an_earlier_call_is_resumed() {
    let (hub, desk) = start(Faults::default());
    let weights = needed().into_iter().find(|it| it.large).expect("weights");
    let name = format!("hf-home/hub/models--org--name/blobs/{}.incomplete", weights.content_name());
    desk.write(&name, &weights.content[..1000]);
    desk.ok(&["pull", "org/name"]);
    let requests = hub.take_requests();
    let request = requests.iter().find(|it| it.path.starts_with("/cdn/")).expect("weights");
    assert_eq!(request.range.as_deref(), Some("bytes=1000-"));
    assert!(!desk.path(&name).exists());
}

#[test]
fn servers_that_do_not_resume_start_over() {
    let (_hub, desk) = start(Faults { drops: 1, no_ranges: true, ..Faults::default() });
    desk.ok(&["pull", "org/name"]);
    desk.ok(&["show", "org/name", "--check"]);
}

#[test]
fn busy_servers_are_asked_again_and_wrong_bytes_refused() {
    let (hub, desk) = start(Faults { corrupt: true, ..Faults::default() });
    let error = desk.fails(&["pull", "org/name"]);
    assert!(error.contains("sha256"), "{error}");
    assert!(
        !tree(&desk, "hf-home").iter().any(|(name, _)| name.ends_with("refs/main")),
        "nothing points to a part"
    );
    assert!(desk.fails(&["show", "org/name"]).contains("ounce pull org/name"));
    drop(hub);
    let (_hub, desk) = start(Faults { busy: 1, ..Faults::default() });
    assert!(desk.run(&["pull", "org/name"]).code == 0);
}

#[test]
fn offline_mode_asks_nothing() {
    let (hub, desk) = start(Faults::default());
    let desk = desk.with_env("HF_HUB_OFFLINE", "1");
    let error = desk.fails(&["pull", "org/name"]);
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
    assert_eq!(hub.take_requests(), []);
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let (hub, desk) = start(Faults::default());
    let desk = desk.with_env("HF_TOKEN", TOKEN);
    desk.ok(&["pull", "org/private"]);
    for request in hub.take_requests() {
        let to_hub = request.host.starts_with("127.0.0.1");
        assert_eq!(request.authorization.is_some(), to_hub, "{request:?}");
    }
    let (hub, desk) = start(Faults::default());
    desk.write("hf-home/token", format!("{TOKEN}\n"));
    desk.ok(&["pull", "org/private"]);
    assert_eq!(hub.take_requests()[0].authorization, Some(format!("Bearer {TOKEN}")));
}

#[test]
fn refusals_are_explained() {
    let (_hub, desk) = start(Faults::default());
    for (model, words) in [
        ("org/private", "set HF_TOKEN"),
        ("org/missing", "no model org/missing"),
        ("org/name@v9", "no revision v9"),
        ("org/name:Q4_K_M", "no GGUF file"),
        ("hf://org/name/nothing.txt", "holds no file"),
        ("a prompt", "org/name"),
        ("/some/path", "org/name"),
    ] {
        let error = desk.fails(&["pull", model]);
        assert!(error.contains(words), "{model} should say {words:?}: {error}");
    }
    let desk = desk.with_env("HF_TOKEN", "hf_bad");
    assert!(desk.fails(&["pull", "org/private"]).contains("refuses your token"));
    let desk = Desk::new().with_env("HF_ENDPOINT", "http://127.0.0.1:9");
    assert!(desk.fails(&["pull", "org/name"]).contains("can't be reached"));
}

#[test]
fn revisions_with_slashes_and_patterns_are_understood() {
    let (_hub, desk) = start(Faults::default());
    desk.ok(&["pull", "org/name@refs/pr/7", "--include", "*.json", "--exclude", "tokenizer*"]);
    let repo = "hf-home/hub/models--org--name";
    assert_eq!(
        std::fs::read_to_string(desk.path(&format!("{repo}/refs/refs/pr/7"))).expect("a commit"),
        COMMIT
    );
    let names: Vec<String> =
        tree(&desk, &format!("{repo}/snapshots")).into_iter().map(|(name, _)| name).collect();
    assert!(names.iter().all(|name| name.ends_with(".json") && !name.contains("tokenizer")), "{names:?}");
}

#[test]
fn dry_runs_fetch_nothing() {
    let (hub, desk) = start(Faults::default());
    let text = desk.ok(&["pull", "org/name", "--dry-run"]);
    assert!(text.contains("model.safetensors") && !text.contains("pytorch_model.bin"), "{text}");
    assert!(hub.take_requests().iter().all(|it| it.path.starts_with("/api/")));
    assert!(!desk.path("hf-home").exists());
}
