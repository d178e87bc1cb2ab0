//! What distilling came to.

use std::path::PathBuf;

use ounce_engine::Engine;
use ounce_eval::divergence;
use ounce_eval::perplexity::Options;
use ounce_model::Model;
use ounce_train::distil::Losses;
use serde::Serialize;

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
    test: &[u32],
    context: usize,
) -> anyhow::Result<Standing> {
    let options = Options { context, stride: context, prefix: source::text_start(model) };
    let watch = Watch::start();
    let mut bar = Progress::new("comparing", Unit::Tokens);
    let found = divergence::compare(teacher, student, &[test.to_vec()], &options, |done, total| {
        bar.set(done as u64, total as u64);
        Ok(watch.check()?)
    })?;
    Ok(Standing {
        tokens: found.tokens,
        teacher_perplexity: found.original_perplexity.value,
        perplexity: found.perplexity.value,
        kl: found.mean_kl.value,
        same_top: found.top1_agreement.value,
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
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            let mut table = output::table(&["on held-out text", "teacher", "student before", "after"]);
            let perplexity = |it: f64| format!("{it:.3}");
            table.add_row([
                "perplexity",
                &perplexity(after.teacher_perplexity),
                &perplexity(before.perplexity),
                &perplexity(after.perplexity),
            ]);
            table.add_row([
                "KL to the teacher",
                "0",
                &format!("{:.4}", before.kl),
                &format!("{:.4}", after.kl),
            ]);
            let share = |it: f64| format!("{:.1} %", 100.0 * it);
            table.add_row(["same top token", "100 %", &share(before.same_top), &share(after.same_top)]);
            output::print_table(&table)?;
        }
        output::line(format!("{}: {}", self.target.display(), units::bytes(self.bytes)))
    }
}
