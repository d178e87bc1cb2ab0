//! What distilling came to.

use std::f64::consts::LN_2;
use std::path::PathBuf;

use ounce_engine::Engine;
use ounce_eval::divergence;
use ounce_eval::perplexity::{self, Options};
use ounce_model::Model;
use ounce_train::distil::Losses;
use serde::Serialize;

use super::texts::Test;
use crate::cli::Globals;
use crate::interrupt::Watch;
use crate::progress::{Progress, Unit};
use crate::{output, source, units};

/// How a student stands beside its teacher on the test text.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Tokens predicted.
    pub tokens: usize,
    /// Of the teacher.
    pub teacher_bits_per_byte: f64,
    /// Of the student.
    pub bits_per_byte: f64,
    /// What can be compared where both have the same tokens.
    #[serde(flatten)]
    pub by_token: Option<ByToken>,
}

/// Predictions compared token by token.
#[derive(Debug, Clone, Serialize)]
pub struct ByToken {
    /// Of the teacher.
    pub teacher_perplexity: f64,
    /// Of the student.
    pub perplexity: f64,
    /// Mean KL from the teacher's predictions to the student's, in nats.
    pub kl: f64,
    /// Share of tokens where both hold the same for the likeliest.
    pub same_top: f64,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub target: PathBuf,
    pub bytes: u64,
    pub loss_kind: &'static str,
    pub steps: u64,
    pub tokens: u64,
    pub seconds: f64,
    pub learning_rate: f64,
    /// Of the last step.
    pub loss: Option<f64>,
    /// How far TAID's target went.
    pub target_share: Option<f64>,
    /// The share of tokens for which a teacher with another tokenizer has a prediction.
    pub understood: Option<f64>,
    pub before: Option<Standing>,
    pub after: Option<Standing>,
    /// What keeping the teacher's predictions lost.
    pub cache: Option<Losses>,
}

/// Compares a student with its teacher on one document, with a bar.
///
/// # Errors
/// If one of them can't be run, or the user stops it.
pub fn stand(
    teacher: &Engine,
    student: &Engine,
    model: &Model,
    test: &Test,
    context: usize,
) -> anyhow::Result<Standing> {
    let options = Options { context, stride: context, prefix: source::text_start(model) };
    let watch = Watch::start();
    let mut bar = Progress::new("comparing", Unit::Tokens);
    let mut told = |done: usize, total: usize| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    };
    let bytes = test.bytes.max(1) as f64;
    if let Some((ids, prefix)) = &test.others {
        let mut bits = |engine: &Engine, ids: &[u32], options: Options| -> anyhow::Result<(usize, f64)> {
            let scores = perplexity::score(engine, &[ids.to_vec()], &options, &mut told)?;
            let nats: f64 = scores.iter().map(|it| -it.log_likelihood).sum();
            Ok((scores.iter().map(|it| it.tokens).sum(), nats / LN_2 / bytes))
        };
        let longest = context.min(teacher.spec().context_length);
        let (_, of_teacher) =
            bits(teacher, ids, Options { context: longest, stride: longest, prefix: *prefix })?;
        let (tokens, of_student) = bits(student, &test.ids, options)?;
        return Ok(Standing {
            tokens,
            teacher_bits_per_byte: of_teacher,
            bits_per_byte: of_student,
            by_token: None,
        });
    }
    let found = divergence::compare(teacher, student, std::slice::from_ref(&test.ids), &options, told)?;
    let bits = |perplexity: f64| perplexity.log2() * found.tokens as f64 / bytes;
    let by_token = ByToken {
        teacher_perplexity: found.original_perplexity.value,
        perplexity: found.perplexity.value,
        kl: found.mean_kl.value,
        same_top: found.top1_agreement.value,
    };
    Ok(Standing {
        tokens: found.tokens,
        teacher_bits_per_byte: bits(by_token.teacher_perplexity),
        bits_per_byte: bits(by_token.perplexity),
        by_token: Some(by_token),
    })
}

impl Report {
    /// Prints it.
    ///
    /// # Errors
    /// If stdout is closed.
    pub fn print(&self, globals: &Globals) -> anyhow::Result<()> {
        if globals.json {
            return output::json(self);
        }
        let time = units::seconds(std::time::Duration::from_secs_f64(self.seconds));
        let share = self.target_share.map_or(String::new(), |t| format!(", TAID's target at {t:.2}"));
        output::line(format!(
            "{} steps, {} tokens in {time}, loss {} at learning rates up to {:.1e}{share}",
            self.steps,
            units::count(self.tokens),
            self.loss_kind,
            self.learning_rate
        ))?;
        if let Some(kept) = &self.cache {
            output::line(format!(
                "predictions kept in {} bytes each ({} exactly); of {} asked now the tokens that were left out had {:.2} %, and what \
                 is read is {:.1e} nats off",
                kept.row_bytes,
                kept.exact_row_bytes,
                units::count(kept.rows),
                100.0 * kept.rest,
                kept.kl
            ))?;
        }
        let share = |it: f64| format!("{:.1} %", 100.0 * it);
        if let Some(understood) = self.understood {
            output::line(format!(
                "teacher and student cut texts into different tokens; the teacher had a prediction for {} of the student's, the \
                 others were learnt from the text",
                share(understood)
            ))?;
        }
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            let mut table = output::table(&["on held-out text", "teacher", "student before", "after"]);
            let number = |it: f64| format!("{it:.3}");
            let mut row = |name: &str, numbers: [f64; 3]| {
                let [teacher, before, after] = numbers.map(number);
                table.add_row([name, &teacher, &before, &after]);
            };
            row("bits a byte", [after.teacher_bits_per_byte, before.bits_per_byte, after.bits_per_byte]);
            if let (Some(before), Some(after)) = (&before.by_token, &after.by_token) {
                row("perplexity", [after.teacher_perplexity, before.perplexity, after.perplexity]);
                let kl = |it: &ByToken| format!("{:.4}", it.kl);
                table.add_row(["KL to the teacher", "0", &kl(before), &kl(after)]);
                table.add_row(["same top token", "100 %", &share(before.same_top), &share(after.same_top)]);
            }
            output::print_table(&table)?;
        }
        output::line(format!("{}: {}", self.target.display(), units::bytes(self.bytes)))
    }
}
