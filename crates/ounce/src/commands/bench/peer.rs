//! Another program that measures the same work, in turn with ounce.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use ounce_eval::speed::Work;
use ounce_kernels::pool::Pool;
use ounce_model::Model;
use ounce_model::formats::{WriteOptions, gguf_model};

/// Another program that measures the same work on the same file.
pub(super) struct Peer {
    program: PathBuf,
    file: PathBuf,
    /// Keeps a file that was written for the peer until the end.
    _folder: Option<tempfile::TempDir>,
}

impl Peer {
    /// A peer for a model; one that is no GGUF file is written as one first.
    pub(super) fn new(program: &Path, model: &Model) -> anyhow::Result<Peer> {
        if model.origin.path.is_file() {
            return Ok(Peer {
                program: program.to_path_buf(),
                file: model.origin.path.clone(),
                _folder: None,
            });
        }
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("model.gguf");
        gguf_model::write_model(model, &file, &WriteOptions::default(), &mut |_, _| Ok(()))?;
        Ok(Peer { program: program.to_path_buf(), file, _folder: Some(folder) })
    }

    /// Tokens a second of one timed run.
    pub(super) fn run_once(&self, work: Work) -> anyhow::Result<f64> {
        let (prompt, generation, sequences) = match work {
            Work::Prompt(tokens) => (tokens, 0, 1),
            Work::Generation(tokens) => (0, tokens, 1),
            Work::Batch { steps, sequences } => (0, steps, sequences),
            Work::Draft(_) => bail!("drafts have no peer; leave --drafts away with --against"),
        };
        let name = self.program.display();
        let mut command = Command::new(&self.program);
        if sequences > 1 {
            command.args(["-np", &sequences.to_string()]);
        }
        let ran = command
            .arg("-m")
            .arg(&self.file)
            .args(["-p", &prompt.to_string(), "-n", &generation.to_string(), "-r", "1", "-o", "json"])
            .args(["-t", &Pool::global().threads().to_string()])
            .output()
            .with_context(|| format!("{name} can't be started; give the path of a llama-bench program"))?;
        if !ran.status.success() {
            let said = String::from_utf8_lossy(&ran.stderr);
            bail!("{name} failed: {}", said.lines().last().unwrap_or("it said nothing"));
        }
        let rows: serde_json::Value =
            serde_json::from_slice(&ran.stdout).with_context(|| format!("{name} printed no JSON"))?;
        rows[0]["avg_ts"].as_f64().with_context(|| format!("{name} printed no avg_ts"))
    }
}
