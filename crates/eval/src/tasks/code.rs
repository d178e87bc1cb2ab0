//! Programs that a model wrote, run with limits: a process of its own in an empty folder, with little time, memory and
//! output, and without network where the system lets us take it away. That is a fence against accidents, not against an
//! attacker; programs run only where the user says so.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Memory that a program may have, in KiB.
const MEMORY_KIB: u64 = 1 << 20;
/// A file that it may write, in blocks of 512 bytes.
const FILE_BLOCKS: u64 = 2048;
/// What it may print.
const OUTPUT_BYTES: u64 = 1 << 16;
/// Exit code where a limit can't be set.
const NO_LIMIT: i32 = 97;

/// What became of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It ran to its end.
    Passed,
    /// It ended with an error; the last line of it.
    Failed(String),
    /// It took too long.
    TimedOut,
}

/// Runs programs.
#[derive(Debug)]
pub(super) struct Runner {
    python: PathBuf,
    /// Whether programs have no network and no other processes to see.
    isolated: bool,
}

impl Runner {
    /// Finds Python and tries how far the system lets a program be shut in.
    ///
    /// # Errors
    /// If there is no Python, or limits can't be set.
    pub fn find() -> Result<Runner, String> {
        if !cfg!(unix) {
            return Err(
                "programs can be run on Linux and other Unix systems only; leave out --run-code".into()
            );
        }
        let said = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let said =
            said.map_err(|error| format!("python3, which runs the programs, can't be started ({error})"))?;
        let python = String::from_utf8_lossy(&said.stdout).trim().to_string();
        if !said.status.success() || python.is_empty() {
            return Err("python3, which runs the programs, doesn't work; try it on the command line".into());
        }
        let mut runner = Runner { python: python.into(), isolated: true };
        let enough = Duration::from_secs(30);
        if runner.run("1 + 1", enough)? != Verdict::Passed {
            runner.isolated = false;
            match runner.run("1 + 1", enough)? {
                Verdict::Passed => {
                    tracing::warn!("programs are not cut off from the network: this system doesn't allow it")
                }
                other => return Err(format!("a program of one line can't be run ({other:?})")),
            }
        }
        Ok(runner)
    }

    /// Runs a program.
    ///
    /// # Errors
    /// If it can't be started, or limits can't be set.
    pub fn run(&self, program: &str, time: Duration) -> Result<Verdict, String> {
        let failed = |error: std::io::Error| format!("a program can't be run ({error})");
        let folder = tempfile::tempdir().map_err(failed)?;
        // Known only to the program's last line: ending early is no success.
        let word = format!("{:032x}", rand::random::<u128>());
        let program = format!("{program}\n\nimport sys\nsys.stdout.write('\\n{word}')\n");
        let limits = format!(
            "ulimit -c 0 && ulimit -t {} && ulimit -v {MEMORY_KIB} && ulimit -f {FILE_BLOCKS} && ulimit -n 64 || exit \
             {NO_LIMIT}; exec \"$0\" -I -B -",
            time.as_secs() + 1
        );
        let mut command = match self.isolated {
            true => {
                let mut command = Command::new("unshare");
                command.args([
                    "--user",
                    "--map-root-user",
                    "--net",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "--",
                    "sh",
                ]);
                command
            }
            false => Command::new("sh"),
        };
        command.arg("-c").arg(limits).arg(&self.python).current_dir(folder.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if self.isolated && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Verdict::Failed("unshare is missing".into()));
            }
            Err(error) => return Err(failed(error)),
        };
        if let Some(mut input) = child.stdin.take() {
            // A program that is not read to its end has failed already.
            thread::spawn(move || input.write_all(program.as_bytes()));
        }
        let (out, err) = (listen(child.stdout.take()), listen(child.stderr.take()));
        let code = wait(&mut child, time);
        end_all(&child);
        let _ = child.wait();
        let heard = |pipe: mpsc::Receiver<Vec<u8>>| {
            let bytes = pipe.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        match code.map_err(failed)? {
            None => Ok(Verdict::TimedOut),
            Some(Some(NO_LIMIT)) => {
                Err("this system can't limit a program's memory; leave out --run-code here".to_string())
            }
            Some(Some(0)) if heard(out).ends_with(&word) => Ok(Verdict::Passed),
            Some(Some(0)) => Ok(Verdict::Failed("it ended before its last line".into())),
            Some(_) => {
                let text = heard(err);
                Ok(Verdict::Failed(text.lines().last().unwrap_or("it was killed").to_string()))
            }
        }
    }
}

/// Reads what a program prints, up to the limit; then the pipe is closed.
fn listen(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(OUTPUT_BYTES).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// The exit code, `Some(None)` for a program that was killed, `None` for one that takes too long.
fn wait(child: &mut Child, time: Duration) -> std::io::Result<Option<Option<i32>>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.code()));
        }
        if start.elapsed() >= time {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a program with all that it started.
fn end_all(child: &Child) {
    #[cfg(unix)]
    {
        let group = rustix::process::Pid::from_child(child);
        // Nobody may be left to be ended.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    #[cfg(not(unix))]
    let _ = child;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn programs_pass_fail_and_are_stopped() {
        let Ok(runner) = Runner::find() else {
            eprintln!("skipped: this machine has no python3");
            return;
        };
        let run = |program: &str| runner.run(program, Duration::from_millis(1500)).unwrap();
        assert_eq!(run("def f(x):\n    return x + 1\nassert f(1) == 2"), Verdict::Passed);
        assert_eq!(run("assert 1 == 2, 'no'"), Verdict::Failed("AssertionError: no".into()));
        assert!(matches!(run("def f(:"), Verdict::Failed(why) if why.contains("SyntaxError")));
        assert!(matches!(run("import os\nos._exit(0)"), Verdict::Failed(why) if why.contains("last line")));
        assert!(matches!(run("raise SystemExit(0)"), Verdict::Failed(_)));
        let start = Instant::now();
        assert_eq!(run("while True:\n    pass"), Verdict::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(matches!(run("x = bytearray(4 << 30)"), Verdict::Failed(why) if why.contains("MemoryError")));
        assert!(matches!(run("print('x' * 10_000_000)"), Verdict::Failed(_)));
        assert!(matches!(run("open('f', 'wb').write(bytes(5 << 20))"), Verdict::Failed(_)));
        assert!(matches!(run("import os\nassert os.listdir('.') == ['x']"), Verdict::Failed(_)));
        assert_eq!(run("import os\nassert os.listdir('.') == []"), Verdict::Passed);
        if runner.isolated {
            let reach = "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)";
            assert!(matches!(run(reach), Verdict::Failed(why) if why.contains("unreachable")));
        }
    }
}
