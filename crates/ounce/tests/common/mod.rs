//! Runs the real binary in an empty folder, away from the user's own files and environment.

#![allow(dead_code)] // each test file uses a part of this

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// An empty folder to run in.
pub struct Desk {
    folder: TempDir,
    env: Vec<(String, String)>,
}

impl Desk {
    pub fn new() -> Desk {
        Desk { folder: tempfile::tempdir().expect("temporary folder"), env: Vec::new() }
    }

    /// One whose machine was measured before, in a hurry: all of a test file share that, since it takes a while.
    pub fn measured() -> Desk {
        static DATA: OnceLock<PathBuf> = OnceLock::new();
        let data = DATA.get_or_init(|| {
            let name = concat!("measured-for-", env!("CARGO_CRATE_NAME"));
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            // What another version kept may not be read by this one.
            let _ = std::fs::remove_dir_all(&folder);
            let ran = Desk::new().with_env("XDG_DATA_HOME", &*folder.to_string_lossy()).run(&[
                "plan",
                "builtin-tiny",
                "--disk",
                "1K",
            ]);
            assert_eq!(ran.code, 1, "{}", ran.stderr);
            folder
        });
        Desk::new().with_env("XDG_DATA_HOME", &*data.to_string_lossy())
    }

    /// The same with an environment variable set.
    pub fn with_env(mut self, name: &str, value: impl Into<String>) -> Desk {
        self.env.push((name.to_string(), value.into()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(&path, content).expect("file");
        path
    }

    /// A command that is ready to start.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ounce"));
        command.args(args).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.env("HF_HOME", self.path("hf-home")).env("XDG_DATA_HOME", self.path("data"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "")
    }

    /// Runs with text on stdin.
    pub fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        // A command that reads no stdin may end before this is written.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the binary ends");
        Ran {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Runs what should succeed and gives its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "ounce {args:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs what should succeed with `--json` and gives what it prints.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("ounce {args:?} --json: {error}: {text}"))
    }

    /// Runs what should fail with exit code 2, one sentence on stderr and nothing on stdout; gives the sentence.
    pub fn fails(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "ounce {args:?}: {}", ran.stderr);
        let sentence = ran.stderr.lines().find_map(|line| line.strip_prefix("error: "));
        sentence.unwrap_or_else(|| panic!("ounce {args:?} says no error: {}", ran.stderr)).to_string()
    }
}

/// A folder of `tests/golden/models`.
pub fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models").join(name);
    path.to_str().expect("UTF-8").to_string()
}

/// The values of a `.npy` file, float32, and its shape.
pub fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("npy file");
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).expect("header");
    assert!(header.contains("'<f4'") && header.contains("False"), "{header}");
    let shape = header.split_once("'shape': (").expect("shape").1.split_once(')').expect("shape").0;
    let shape =
        shape.split(',').map(str::trim).filter(|it| !it.is_empty()).map(|it| it.parse().expect("size"));
    let values = bytes[end..].chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]]));
    (shape.collect(), values.collect())
}

/// Text with something to learn: sentences of a small grammar, one document a paragraph.
pub fn corpus(documents: usize) -> String {
    let (who, what, place) =
        (["the cat", "a dog", "the bird"], ["sat", "slept", "sang"], ["here", "there", "at home"]);
    let sentence = |n: usize| format!("{} {} {}.\n", who[n % 3], what[n / 3 % 3], place[n * 7 % 5 % 3]);
    (0..documents).map(|n| format!("{}{}\n", sentence(n), sentence(n * n + 1))).collect()
}
