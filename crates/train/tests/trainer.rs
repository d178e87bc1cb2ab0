//! The training loop on a small model of its own: what it writes, resumes, skips and refuses.

#[path = "common/bigram.rs"]
mod bigram;

use std::path::Path;

use bigram::{Bigram, Counter, Faults, options, quiet};
use ounce_train::checkpoint::{self, Kept};
use ounce_train::optim::{Kind, Optimizer, Options as OptimizerOptions};
use ounce_train::schedule::{Decay, Schedule, Shape, Stage};
use ounce_train::trainer::{Ended, Guarded, Observer, Options, Start, Step, Trainer, guard};
use ounce_train::{Result, Trainable};

fn weights(net: &dyn Trainable) -> Vec<u32> {
    net.params().iter().flat_map(|param| param.value.iter().map(|it| it.to_bits())).collect()
}

fn train(output: &Path, options: Options, start: Start<'_>, kind: Kind, faults: Faults) -> Result<Vec<u32>> {
    train_with(output, options, start, kind, faults, &mut ())
}

fn train_with(
    output: &Path,
    options: Options,
    start: Start<'_>,
    kind: Kind,
    faults: Faults,
    observer: &mut dyn Observer,
) -> Result<Vec<u32>> {
    let mut net = Bigram::new(7);
    let (mut data, mut validation) = (Counter::new(faults), Counter::held_out());
    let settings = OptimizerOptions { kind, ..OptimizerOptions::default() };
    let optimizer = Optimizer::new(settings, net.params())?;
    let mut trainer =
        Trainer::new(&mut net, &mut data, Some(&mut validation), optimizer, options, output, start)?;
    trainer.run(observer)?;
    Ok(weights(&net))
}

/// Stops before a step.
struct StopAt(u64);

impl Observer for StopAt {
    fn wants_to_stop(&mut self) -> bool {
        self.0 == 0
    }

    fn step(&mut self, _step: &Step) -> Result<()> {
        self.0 = self.0.saturating_sub(1);
        Ok(())
    }
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    for kind in [Kind::AdamW, Kind::AdamW8bit, Kind::Lion, Kind::Muon, Kind::Sgd] {
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = train(whole.path(), options(30), Start::Fresh, kind, quiet()).unwrap();
        for stop in [4, 9, 100] {
            train_with(parts.path(), options(30), Start::Resume, kind, quiet(), &mut StopAt(stop)).unwrap();
        }
        let newest = |folder: &Path| Kept::latest(folder).expect("a checkpoint").folder;
        let read = |name: &str, folder: &Path| std::fs::read(newest(folder).join(name)).unwrap();
        for name in ["training/weights.safetensors", "training/optimizer.safetensors"] {
            assert_eq!(read(name, whole.path()), read(name, parts.path()), "{kind:?} {name}");
        }
        let resumed = train(parts.path(), options(30), Start::Resume, kind, quiet()).unwrap();
        assert_eq!(resumed, expected, "{kind:?}");
        let (a, b) =
            [whole.path(), parts.path()].map(|it| checkpoint::read_state(&newest(it)).unwrap()).into();
        assert_eq!((a.data, a.guard, a.tokens, a.best), (b.data, b.guard, b.tokens, b.best));
    }
}

#[test]
fn the_loss_falls_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), options(60), Start::Fresh, Kind::AdamW, quiet()).unwrap();
    let text = std::fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses: Vec<f64> =
        lines.iter().filter(|it| it["event"] == "step").map(|it| it["loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 60);
    assert!(losses[59] < 0.7 * losses[0], "{losses:?}");
    let validations: Vec<f64> = lines
        .iter()
        .filter(|it| it["event"] == "validation")
        .map(|it| it["perplexity"].as_f64().unwrap())
        .collect();
    assert!(validations.len() == 6 && validations[5] < validations[0], "{validations:?}");
}

#[test]
fn two_micro_batches_are_one_batch() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = train(one.path(), options(5), Start::Fresh, Kind::Sgd, Faults { tokens: 64, ..quiet() }).unwrap();
    let halves = Options { accumulation: 2, ..options(5) };
    let b = train(two.path(), halves, Start::Fresh, Kind::Sgd, Faults { tokens: 32, ..quiet() }).unwrap();
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (f32::from_bits(*a), f32::from_bits(*b));
        assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn the_newest_the_best_and_the_end_of_the_stable_part_stay() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape::Wsd { decay: 10, curve: Decay::Linear, floor: 0.0 };
    let mut options = options(40);
    options.schedule.shape = shape;
    options.checkpoint_every = 4;
    options.validate_every = 4;
    train(folder.path(), options, Start::Fresh, Kind::AdamW, quiet()).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder.path().join("checkpoints"))
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| it != ".lock")
        .collect();
    names.sort();
    assert_eq!(names, ["step-30", "step-36", "step-40"], "no draft is left, the stable one stays");
    let stage =
        |step| checkpoint::read_state(&folder.path().join(format!("checkpoints/step-{step}"))).unwrap().stage;
    assert_eq!((stage(30), stage(36)), (Some(Stage::Stable), Some(Stage::Decay)));
}

#[test]
fn a_decay_can_branch_from_a_stable_checkpoint_and_from_no_other() {
    let (stable, branch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let wsd = |total, decay| {
        let shape = Shape::Wsd { decay, curve: Decay::Linear, floor: 0.0 };
        Options { schedule: Schedule { shape, total, ..options(total).schedule }, ..options(total) }
    };
    train_with(stable.path(), wsd(100, 10), Start::Fresh, Kind::AdamW, quiet(), &mut StopAt(20)).unwrap();
    let from = stable.path().join("checkpoints/step-20");
    let early = train(branch.path(), wsd(28, 8), Start::Branch(&from), Kind::AdamW, quiet()).unwrap();

    // The same as a run that was to decay there from the start.
    let direct = tempfile::tempdir().unwrap();
    assert_eq!(early, train(direct.path(), wsd(28, 8), Start::Fresh, Kind::AdamW, quiet()).unwrap());

    let decayed = Kept::latest(branch.path()).expect("a checkpoint").folder;
    let other = tempfile::tempdir().unwrap();
    let error = train(other.path(), wsd(100, 10), Start::Branch(&decayed), Kind::AdamW, quiet()).unwrap_err();
    assert!(error.to_string().contains("stable checkpoint"), "{error}");
}

#[derive(Default)]
struct Spikes(Vec<Guarded>);

impl Observer for Spikes {
    fn guarded(&mut self, what: &Guarded) {
        self.0.push(what.clone());
    }
}

#[test]
fn bad_batches_are_left_out_and_a_bad_stretch_restores() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(60);
    options.guard =
        Some(guard::Options { patience: 8, window: 10, deviations: 5.0, ..guard::Options::default() });
    let mut spikes = Spikes::default();
    let faults = Faults { bad: vec![25, 40, 41, 42], ..quiet() };
    train_with(folder.path(), options, Start::Fresh, Kind::AdamW, faults, &mut spikes).unwrap();
    let restored: Vec<Option<u64>> = spikes.0.iter().map(|it| it.restored).collect();
    assert_eq!(restored, [None, None, None, Some(35)], "{:?}", spikes.0);
    let state = checkpoint::read_state(&Kept::latest(folder.path()).unwrap().folder).unwrap();
    assert_eq!((state.step, state.guard.skipped, state.guard.restores), (60, 4, 1));
    // 60 steps, four batches left out, and the four steps since the checkpoint of step 35 done again with other batches.
    assert_eq!(state.data.step, 60 + 4 + 4, "the data goes on behind the bad stretch");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Faults { poison: Some(17), ..quiet() };
    let error = train(folder.path(), options(30), Start::Fresh, Kind::AdamW, faults).unwrap_err().to_string();
    assert!(
        error.contains("step 18") && error.contains("batch 17") && error.contains("checkpoint of step 15"),
        "{error}"
    );
    let kept = Kept::latest(folder.path()).expect("a checkpoint");
    assert_eq!(kept.step, 15);
    // With good data it goes on from there as if nothing had been.
    let other = tempfile::tempdir().unwrap();
    let expected = train(other.path(), options(30), Start::Fresh, Kind::AdamW, quiet()).unwrap();
    assert_eq!(train(folder.path(), options(30), Start::Resume, Kind::AdamW, quiet()).unwrap(), expected);
}

#[test]
fn damage_and_other_runs_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), options(10), Start::Fresh, Kind::AdamW, quiet()).unwrap();
    let again = |start, options, kind| {
        train(folder.path(), options, start, kind, quiet()).expect_err("refused").to_string()
    };
    assert!(again(Start::Fresh, options(10), Kind::AdamW).contains("--resume"));
    let other = Options { identity: "another".to_string(), ..options(20) };
    assert!(again(Start::Resume, other, Kind::AdamW).contains("another model"));
    assert!(again(Start::Resume, options(5), Kind::AdamW).contains("behind the run's end"));
    assert!(again(Start::Resume, options(20), Kind::Sgd).contains("another optimizer"));
    let newest = Kept::latest(folder.path()).expect("a checkpoint");
    let path = newest.folder.join("training/weights.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(again(Start::Resume, options(20), Kind::AdamW).contains("damaged"));
    std::fs::write(&path, &bytes[..9]).unwrap();
    let older = Kept::latest(folder.path()).expect("an older one is taken");
    assert!(older.step < newest.step);
}

/// The limit on a file's size stands for a disk that is full; it holds for a whole process, so this test runs itself again
/// as one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_older_checkpoints_as_they_were() {
    const OUTPUT: &str = "OUNCE_TEST_FULL_DISK";
    if let Ok(output) = std::env::var(OUTPUT) {
        let error = train(Path::new(&output), options(20), Start::Resume, Kind::AdamW, quiet()).unwrap_err();
        println!("error: {error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    train_with(folder.path(), options(20), Start::Fresh, Kind::AdamW, quiet(), &mut StopAt(7)).unwrap();
    let before = Kept::latest(folder.path()).expect("a checkpoint");
    let program = std::env::current_exe().unwrap();
    // The log and the state fit into so little, the optimizer's file does not.
    let ran = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(program)
        .args(["--exact", "a_full_disk_leaves_older_checkpoints_as_they_were", "--nocapture"])
        .env(OUTPUT, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        said.contains("error: ") && said.contains("too large"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let after = Kept::latest(folder.path()).expect("the older checkpoint");
    assert_eq!((after.step, before.step), (7, 7));
    let drafts = std::fs::read_dir(folder.path().join("checkpoints")).unwrap().flatten();
    assert!(
        !drafts.into_iter().any(|it| it.file_name().to_string_lossy().ends_with(".tmp")),
        "no draft is left"
    );
    // With room again it goes on to the same end.
    let other = tempfile::tempdir().unwrap();
    let expected = train(other.path(), options(20), Start::Fresh, Kind::AdamW, quiet()).unwrap();
    assert_eq!(train(folder.path(), options(20), Start::Resume, Kind::AdamW, quiet()).unwrap(), expected);
}

/// Runs itself again as a process that is killed wherever it happens to be, until one of them gets to the end.
#[cfg(unix)]
#[test]
fn a_killed_process_resumes_to_the_same_bits() {
    const OUTPUT: &str = "OUNCE_TEST_KILLED";
    let steps = || Options { checkpoint_every: 3, ..options(40) };
    if let Ok(output) = std::env::var(OUTPUT) {
        /// Slow enough to be killed within a step, a checkpoint or between.
        struct Slow;
        impl Observer for Slow {
            fn step(&mut self, _step: &Step) -> Result<()> {
                std::thread::sleep(std::time::Duration::from_millis(3));
                Ok(())
            }
        }
        train_with(Path::new(&output), steps(), Start::Resume, Kind::AdamW8bit, quiet(), &mut Slow).unwrap();
        return;
    }
    let (killed, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = train(whole.path(), steps(), Start::Fresh, Kind::AdamW8bit, quiet()).unwrap();
    let step = |folder: &Path| Kept::latest(folder).map_or(0, |kept| kept.step);
    let (mut kills, mut wait) = (0, 20);
    while step(killed.path()) < 40 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_resumes_to_the_same_bits"])
            .env(OUTPUT, killed.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        if child.try_wait().unwrap().is_none() {
            kills += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Longer each time, so that slow machines get to the end too.
        wait += 17;
    }
    assert!(kills > 0, "the process was never interrupted");
    assert_eq!(train(killed.path(), steps(), Start::Resume, Kind::AdamW8bit, quiet()).unwrap(), expected);
    let log = |folder: &Path| -> Vec<(u64, String)> {
        let text = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .filter(|it| it["event"] == "step")
            .map(|it| (it["step"].as_u64().unwrap(), it["loss"].to_string()))
            .collect()
    };
    assert_eq!(log(killed.path()), log(whole.path()), "the log has each step once");
}

#[test]
fn data_that_ends_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = Bigram::new(7);
    let mut data = Counter::new(Faults { end: Some(6), ..quiet() });
    let optimizer = Optimizer::new(OptimizerOptions::default(), net.params()).unwrap();
    let mut trainer =
        Trainer::new(&mut net, &mut data, None, optimizer, options(30), folder.path(), Start::Fresh).unwrap();
    assert_eq!(trainer.run(&mut ()).unwrap(), Ended::OutOfData);
    assert_eq!(Kept::latest(folder.path()).expect("a checkpoint").step, 6);
}
