//! The loss curve of a training run, from its log.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use super::thin::smooth;
use super::{Chart, Series};

/// No line of a log is longer.
const LONGEST_LINE: u64 = 1 << 20;

/// With fewer steps the raw losses are the curve.
const ENOUGH_TO_SMOOTH: usize = 30;

/// What a log says of the loss.
#[derive(Debug, Default, PartialEq)]
struct Losses {
    /// (step, targets learned from, nats a target)
    steps: Vec<(u64, u64, f64)>,
    /// (step, nats a target)
    validations: Vec<(u64, f64)>,
}

/// Training and validation loss of a run over the tokens it learned from. Steps that the run took back are left out; so
/// is a last line that was cut off.
///
/// # Errors
/// If the log can't be read, or a line of it is no record.
pub fn loss_curve(log: &Path) -> anyhow::Result<Chart> {
    let losses = read(log)?;
    let raw: Vec<(f64, f64)> = losses.steps.iter().map(|&(_, tokens, loss)| (tokens as f64, loss)).collect();
    let finite: Vec<(f64, f64)> = raw.iter().copied().filter(|point| point.1.is_finite()).collect();
    let mut series = Vec::new();
    if finite.len() >= ENOUGH_TO_SMOOTH {
        let half = (finite.len() / 100).max(3);
        series.push(Series::faint("training loss", raw));
        series.push(Series::line(
            format!("training loss, running mean of {} points", 2 * half + 1),
            smooth(&finite, half),
        ));
    } else {
        series.push(Series::line("training loss", raw));
    }
    if !losses.validations.is_empty() {
        let place = |&(step, loss): &(u64, f64)| (tokens_at(&losses.steps, step), loss);
        series.push(Series::dotted("validation loss", losses.validations.iter().map(place).collect()));
    }
    Ok(Chart {
        title: "Loss".to_string(),
        x_label: "tokens learned from".to_string(),
        y_label: "loss (nats per token)".to_string(),
        series,
        log_x: false,
        log_y: false,
    })
}

fn read(path: &Path) -> anyhow::Result<Losses> {
    let context = || format!("the training log {} can't be read", path.display());
    let mut reader = BufReader::new(File::open(path).with_context(context)?);
    let (mut losses, mut line) = (Losses::default(), Vec::new());
    for number in 1.. {
        line.clear();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).with_context(context)? == 0 {
            break;
        }
        let whole = line.ends_with(b"\n");
        if !whole && line.len() as u64 == LONGEST_LINE {
            bail!("line {number} of {} is longer than 1 MiB; is it a training log?", path.display());
        }
        match serde_json::from_slice(&line) {
            Ok(record) => losses.add(&record),
            // Cut off while it was written, or being written now.
            Err(_) if !whole => break,
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(error) => {
                let name = path.display();
                bail!("line {number} of {name} is no JSON record ({error}); is it a training log?")
            }
        }
    }
    Ok(losses)
}

impl Losses {
    fn add(&mut self, record: &Value) {
        let Some(step) = record["step"].as_u64() else { return };
        // JSON has no NaN: it is written as null.
        let loss = record["loss"].as_f64().unwrap_or(f64::NAN);
        match record["event"].as_str() {
            Some("step") => {
                let Some(tokens) = record["tokens"].as_u64() else { return };
                // After a restored checkpoint the run counts its steps from there.
                self.steps.truncate(self.steps.partition_point(|old| old.0 < step));
                self.validations.truncate(self.validations.partition_point(|old| old.0 < step));
                self.steps.push((step, tokens, loss));
            }
            Some("validation") => {
                self.validations.truncate(self.validations.partition_point(|old| old.0 < step));
                self.validations.push((step, loss));
            }
            _ => {}
        }
    }
}

/// Tokens learned from after a step, between the nearest that are in the log; NaN if none is.
fn tokens_at(steps: &[(u64, u64, f64)], step: u64) -> f64 {
    let after = steps.partition_point(|known| known.0 < step);
    let place = |&(step, tokens, _): &(u64, u64, f64)| (step as f64, tokens as f64);
    let (from, to) = match (after, steps.get(after)) {
        (0, None) => return f64::NAN,
        (0, Some(first)) => ((0.0, 0.0), place(first)),
        (_, Some(next)) => (place(&steps[after - 1]), place(next)),
        // Behind the last: as fast as on the whole.
        (_, None) => ((0.0, 0.0), place(&steps[after - 1])),
    };
    if to.0 <= from.0 {
        return to.1;
    }
    from.1 + (step as f64 - from.0) * (to.1 - from.1) / (to.0 - from.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(text: &str) -> anyhow::Result<Chart> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text).expect("log");
        loss_curve(&path)
    }

    fn step(step: u64, loss: &str) -> String {
        format!("{{\"event\":\"step\",\"step\":{step},\"tokens\":{},\"loss\":{loss}}}\n", step * 100)
    }

    fn validation(step: u64) -> String {
        // Its tokens are those validated on.
        format!("{{\"event\":\"validation\",\"step\":{step},\"loss\":2.5,\"tokens\":7}}\n")
    }

    #[test]
    fn losses_stand_at_the_tokens_learned_from() {
        let text =
            [step(1, "4.0"), validation(1), step(5, "3.0"), validation(7), step(10, "2.0"), validation(12)];
        let chart = curve(&text.concat()).expect("curve");
        assert_eq!(chart.series[0].points, [(100.0, 4.0), (500.0, 3.0), (1000.0, 2.0)]);
        assert_eq!(chart.series[1].points, [(100.0, 2.5), (700.0, 2.5), (1200.0, 2.5)]);
        assert!(chart.series[1].dots);
    }

    #[test]
    fn what_was_taken_back_is_left_out() {
        let text = [step(1, "4"), step(2, "3"), validation(2), step(3, "9"), step(2, "3.5"), step(3, "3")];
        let chart = curve(&text.concat()).expect("curve");
        assert_eq!(chart.series[0].points, [(100.0, 4.0), (200.0, 3.5), (300.0, 3.0)]);
        assert_eq!(chart.series.len(), 1, "the validation of step 2 was of another step 2");
    }

    #[test]
    fn many_steps_get_a_mean_behind_which_each_is_pale() {
        let text: String = (1..=40).map(|at| step(at, if at == 20 { "null" } else { "3.0" })).collect();
        let chart = curve(&text).expect("curve");
        let [raw, mean] = &chart.series[..] else { panic!("{} series", chart.series.len()) };
        assert!(raw.faint && !mean.faint);
        assert_eq!((raw.points.len(), mean.points.len()), (40, 39));
        assert!(mean.points.iter().all(|point| point.1 == 3.0));
    }

    #[test]
    fn a_torn_line_is_the_end_and_rubbish_is_refused() {
        let torn = format!("{}{}", step(1, "4"), "{\"event\":\"step\",\"st");
        assert_eq!(curve(&torn).expect("curve").series[0].points.len(), 1);
        let error = curve(&format!("{torn}\n{}", step(2, "3"))).expect_err("refused").to_string();
        assert!(error.contains("line 2 of ") && error.contains("is no JSON record"), "{error}");
        assert!(curve("[1]\n\"text\"\n{\"event\":\"note\"}\n").expect("curve").series[0].points.is_empty());
        let error = loss_curve(Path::new("no such log")).expect_err("refused").to_string();
        assert_eq!(error, "the training log no such log can't be read");
    }
}
