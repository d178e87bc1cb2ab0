//! Trains models of letters by Adam, LoRA, GaLore and GradNormLoRP at the same steps, each with the best of the same learning rates.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_kernels::pool::Pool;

use super::super::tiny::Letters;
use super::super::workbench::cosine;
use super::NUMBER;
use super::optimizer::{Kind, Options, Projected};
use crate::config::Preset;
use crate::optim::norm::{clip_factor, global_norm};
use crate::{Loss, Result};

const ADAM: &str = "Adam";
const LORA: &str = "LoRA";
const GALORE: &str = "GaLore";
const OWN: &str = "GradNormLoRP";
const OWN_8: &str = "GradNormLoRP, 8 bits";

const WAYS: [(&str, Kind, bool); 5] = [
    (ADAM, Kind::Full, false),
    (LORA, Kind::Lora, false),
    (GALORE, Kind::Galore, false),
    (OWN, Kind::GradNorm, false),
    (OWN_8, Kind::GradNorm, true),
];

/// How much is done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub seeds: u64,
    pub width: usize,
    pub steps: u64,
    /// Letters of a step.
    pub batch: usize,
    pub text: [usize; 2],
    pub rates: Vec<f64>,
    pub every: u64,
}

impl Plan {
    fn full() -> Plan {
        Plan {
            seeds: 3,
            width: 64,
            steps: 300,
            batch: 1024,
            text: [400_000, 20_000],
            rates: vec![0.003, 0.01, 0.03],
            every: 100,
        }
    }
}

/// The demonstration of the catalogue's entry.
pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Plan::full()).map_err(DemonstrationError::step(NUMBER, "training models of letters"))
}

/// Held-out loss in nats, and bytes of states of projected matrices and of all other weights.
fn run(letters: &Letters, plan: &Plan, way: (Kind, bool), rate: f64, seed: u64) -> Result<(f64, (usize, usize))> {
    let schedule = cosine(rate, plan.steps);
    let shape = letters.shape(Preset::Llama, plan.width);
    let job = letters.job(&shape, plan.batch, schedule, Pool::global())?;
    let (mut net, mut data) = (job.net, job.data);
    let (kind, eight_bits) = way;
    let options = Options { kind, rank: plan.width / 8, every: plan.every, scale: 1.0, eight_bits, seed };
    let mut optimizer = Projected::new(options, net.params());
    for step in 0..plan.steps {
        let Some(batch) = data.next()? else { break };
        net.params_mut().iter_mut().for_each(|it| it.grad.fill(0.0));
        net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
        let clip = clip_factor(global_norm(Pool::global(), net.params()), Some(1.0));
        optimizer.step(net.params_mut(), schedule.rate(step), clip);
    }
    let mut loss = Loss::default();
    if let Some(mut held_out) = job.validation {
        while let Some(batch) = held_out.next()? {
            loss += net.loss(&batch)?;
        }
    }
    Ok((loss.mean(), optimizer.bytes()))
}

pub(super) fn measure(lab: &dyn Lab, plan: &Plan) -> Result<Evidence> {
    let mut evidence = Evidence::new(NUMBER, lab.seed(), ADAM);
    let letters = |seed: u64| -> Result<Letters> {
        Ok(Letters::new(lab, plan.text[0], plan.text[1])?.with_seed(100 * lab.seed() + seed))
    };
    let each = plan.rates.len() as u64 + plan.seeds;
    let all = (each * WAYS.len() as u64) as f64;
    let mut done = 0.0;
    let mut bytes_of_adam = 0;
    for (label, kind, eight_bits) in WAYS {
        let mut tell = || {
            lab.progress(label, done / all);
            done += 1.0;
        };
        // The rate is chosen with a seed that is not judged.
        let other = letters(50)?;
        let mut best = (f64::INFINITY, plan.rates[0]);
        for &rate in &plan.rates {
            tell();
            let loss = run(&other, plan, (kind, eight_bits), rate, 50)?.0;
            if loss < best.0 {
                best = (loss, rate);
            }
        }
        let (mut losses, mut bytes) = (Vec::new(), (0, 0));
        for seed in 0..plan.seeds {
            tell();
            let found = run(&letters(seed)?, plan, (kind, eight_bits), best.1, seed)?;
            losses.push(found.0);
            bytes = found.1;
        }
        if kind == Kind::Full {
            // Adam's moments of the matrices that others project.
            let shape = letters(0)?.shape(Preset::Llama, plan.width);
            let net = letters(0)?.job(&shape, plan.batch, cosine(best.1, plan.steps), Pool::global())?.net;
            let options =
                Options { kind: Kind::Galore, rank: plan.width / 8, every: 1, scale: 1.0, eight_bits: false, seed: 0 };
            bytes_of_adam = Projected::new(options, net.params()).projected_values() * 8;
            bytes = (bytes_of_adam, bytes.1 - bytes_of_adam);
        }
        let (mean, error) = mean_and_error(&losses);
        evidence.rows.push(
            Row::new(label)
                .with("held-out loss", mean, "nats a letter")
                .with("standard error", error, "nats")
                .with("states of layers' matrices", bytes.0 as f64, "bytes")
                .with("states of other weights", bytes.1 as f64, "bytes")
                .with("learning rate", best.1, ""),
        );
    }
    let of = |evidence: &Evidence, label: &str, what: &str| {
        evidence.row(label).and_then(|row| row.get(what)).unwrap_or(f64::NAN)
    };
    for (label, most) in [(OWN, 0.25), (OWN_8, 0.12)] {
        let share = of(&evidence, label, "states of layers' matrices") / bytes_of_adam as f64;
        evidence.expect(
            format!("{label}: states of the layers' matrices, projections included, take at most {:.0} % of Adam's.", 100.0 * most),
            format!("{:.1} %", 100.0 * share),
            share <= most,
        );
    }
    let loss = |label: &str| of(&evidence, label, "held-out loss");
    let [lora, galore, own] = [LORA, GALORE, OWN].map(loss);
    evidence.expect(
        "GradNormLoRP's held-out loss is at most that of GaLore at the same rank.",
        format!("{own:.4} against {galore:.4} nats"),
        own <= galore,
    );
    evidence.expect(
        "It is below that of LoRA at the same rank, from nothing.",
        format!("{own:.4} against {lora:.4} nats"),
        own < lora,
    );
    evidence.notes = vec![format!(
        "Models of letters, two layers, {} wide, rank {}, {} steps of {} letters; means of {} seeds. Each way has the best of the rates {:?} with \
         another seed. Projections anew every {} steps, with empty moments. Embedding and norms have Adam's moments in all ways.",
        plan.width,
        plan.width / 8,
        plan.steps,
        plan.batch,
        plan.seeds,
        plan.rates,
        plan.every
    )];
    lab.progress("done", 1.0);
    Ok(evidence)
}
