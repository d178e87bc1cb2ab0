//! GradNormLoRP (method 090): all weights are trained, and moments are kept for a few directions of normalised rows' gradients.
//!
//! "Gradient Weight-normalized Low-rank Projection for Efficient LLM Training", arXiv 2412.19616.
//!
//! The rule is one of the optimizer's ([`LowRank`](crate::optim::LowRank)), as is GaLore, with which it is compared; `runs` has LoRA
//! and the training that all share. The released optimizer keeps moments of full size; here it is as the equations say. The paper's
//! further factors of the direction itself (`D₀ + B A`) are not part of it.

mod runs;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row, Text};
use ounce_eval::stats::mean_and_error;

use self::runs::{Corpus, Course, VOCABULARY, Way, base, moments, run};
use crate::Result;
use crate::config::{self, Preset};
use crate::net::Net;

const NUMBER: u16 = 90;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "GradNormLoRP",
    family: Family::LowRank,
    paper: "Gradient Weight-normalized Low-rank Projection for Efficient LLM Training",
    arxiv: Some("2412.19616"),
    gives: "All weights are trained although the optimizer only keeps state for small projections of the gradient.",
    claim: "Up to 89.5 % less optimizer memory in 8 bits, LLaMA-7B pretraining on a 24 GB card, GLUE 80.65 against LoRA's 79.23 at rank 8.",
    command: Some("ounce train run.toml --set optimizer.projection=gradnormlorp --set optimizer.rank=128"),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    width: usize,
    rank: usize,
    text: usize,
    held_out: usize,
    steps: u64,
    tuning: u64,
    seeds: u64,
    rates: Vec<f64>,
    tuning_rates: Vec<f64>,
}

impl Scale {
    fn full() -> Scale {
        Scale {
            width: 64,
            rank: 8,
            text: 400_000,
            held_out: 16_000,
            steps: 250,
            tuning: 100,
            seeds: 3,
            rates: vec![0.003, 0.01, 0.03, 0.1],
            tuning_rates: vec![0.001, 0.003, 0.01, 0.03],
        }
    }
}

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Scale::full()).map_err(DemonstrationError::step(NUMBER, "training small language models"))
}

/// Held-out losses of several seeds, nats a letter.
struct Tries {
    rate: f64,
    losses: Vec<f64>,
}

impl Tries {
    fn mean(&self) -> f64 {
        mean_and_error(&self.losses).0
    }
}

/// What all runs have in common.
struct Bench<'b> {
    lab: &'b dyn Lab,
    scale: &'b Scale,
    shape: config::Model,
    done: usize,
}

impl Bench<'_> {
    fn tell(&mut self, what: &str) {
        self.done += 1;
        let Scale { rates, tuning_rates, seeds, .. } = self.scale;
        let seeds = *seeds as usize;
        let all = Way::ALL.len() * (rates.len() + seeds) + Way::TUNED.len() * (tuning_rates.len() + seeds);
        self.lab.progress(what, self.done as f64 / all as f64);
    }

    fn fresh(&self, seed: u64) -> Result<Net> {
        let model = self.shape.architecture(VOCABULARY, [])?;
        Net::random(&model, Default::default(), self.shape.initial(), seed)
    }

    /// The losses of all seeds at the rate that is best with another seed on other text.
    fn tuned(
        &mut self,
        way: Way,
        corpus: &Corpus,
        steps: u64,
        rates: &[f64],
        net: &dyn Fn(u64) -> Result<Net>,
    ) -> Result<Tries> {
        let (rank, first) = (self.scale.rank, self.lab.seed() * 1000);
        let course = move |rate, seed| Course { way, rank, steps, rate, seed: first + seed };
        let mut best = (f64::INFINITY, rates[0]);
        for &rate in rates {
            let course = course(rate, 900);
            let found = run(&mut net(course.seed)?, corpus, &corpus.validation, course)?;
            if found < best.0 {
                best = (found, rate);
            }
            self.tell(way.label());
        }
        let mut losses = Vec::new();
        for seed in 0..self.scale.seeds {
            let course = course(best.1, seed);
            losses.push(run(&mut net(course.seed)?, corpus, &corpus.test, course)?);
            self.tell(way.label());
        }
        Ok(Tries { rate: best.1, losses })
    }
}

fn row(label: String, tries: &Tries, bytes: usize, all: usize) -> Row {
    let (mean, error) = mean_and_error(&tries.losses);
    Row::new(label)
        .with("held-out loss", mean, "nats")
        .with("its standard error", if error.is_finite() { error } else { 0.0 }, "nats")
        .with("learning rate", tries.rate, "")
        .with("bytes of moments and directions, layers' matrices", bytes as f64, "")
        .with("part of AdamW's", 100.0 * bytes as f64 / all as f64, "%")
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let shape = config::Model {
        preset: Preset::Llama,
        hidden: scale.width,
        layers: 2,
        heads: (scale.width / 16).max(1),
        context: runs::CONTEXT,
        ..config::Model::default()
    };
    let mut bench = Bench { lab, scale, shape, done: 0 };
    let tales = Corpus::new(&lab.text(Text::Train, scale.text), &lab.text(Text::HeldOut, 2 * scale.held_out));
    let mut evidence = Evidence::new(NUMBER, lab.seed(), label(Way::Adam, "from the start"));
    let state = |bench: &Bench<'_>, way| moments(&bench.fresh(1)?, way, scale.rank);
    let all = state(&bench, Way::Adam)?;
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    for way in Way::ALL {
        let shape = bench.shape.clone();
        let net = |seed| {
            let model = shape.architecture(VOCABULARY, [])?;
            Net::random(&model, Default::default(), shape.initial(), seed)
        };
        let tries = bench.tuned(way, &tales, scale.steps, &scale.rates, &net)?;
        let bytes = state(&bench, way)?;
        evidence.rows.push(row(label(way, "from the start"), &tries, bytes, all));
        found.push((way, tries));
        sizes.push((way, 100.0 * bytes as f64 / all as f64));
    }
    let size = |wanted| sizes.iter().find(|(way, _)| *way == wanted).map_or(f64::NAN, |it| it.1);
    evidence.expect(
        "Moments and directions of layers' matrices take at most 25 % of AdamW's moments, at most 12 % in 8 bits.",
        format!("{:.1} %, {:.1} %", size(Way::Lorp), size(Way::Lorp8)),
        size(Way::Lorp) <= 25.0 && size(Way::Lorp8) <= 12.0,
    );
    let of = |found: &[(Way, Tries)], wanted| {
        found.iter().find(|(way, _)| *way == wanted).map_or(f64::NAN, |it| it.1.mean())
    };
    let said = |found: &[(Way, Tries)]| -> String {
        let parts: Vec<String> =
            found.iter().map(|(way, tries)| format!("{} {:.4}", way.label(), tries.mean())).collect();
        parts.join(", ")
    };
    evidence.expect(
        "From the start GradNormLoRP's held-out loss is at most GaLore's and below LoRA's at the same rank.",
        said(&found),
        of(&found, Way::Lorp) <= of(&found, Way::Galore) && of(&found, Way::Lorp) < of(&found, Way::Lora),
    );
    evidence.expect(
        "Moments in 8 bits cost at most 0.02 nats.",
        format!("{:.4} against {:.4}", of(&found, Way::Lorp8), of(&found, Way::Lorp)),
        of(&found, Way::Lorp8) <= of(&found, Way::Lorp) + 0.02,
    );
    tune(&mut bench, &tales, &found, all, &mut evidence, &said)?;
    evidence.notes = vec![
        format!(
            "Letters of generated tales, a Llama of two layers of width {}, rank {}, new directions every {} steps, {} steps of {} sequences of \
             {} letters; then {} steps on documents of a made-up town from one model that AdamW trained. Means of {} seeds; each way at the best of \
             its rates, chosen with another seed on other text.",
            scale.width,
            scale.rank,
            runs::REFRESH,
            scale.steps,
            runs::SEQUENCES,
            runs::CONTEXT,
            scale.tuning,
            scale.seeds
        ),
        "All ways train token vectors, head and norms by AdamW (in 8 bits where moments are); LoRA adds factors to matrices that stay, scale 2. \
         The model is far smaller than the card that the paper speaks of; GLUE is not measured."
            .into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// Says what was found of some ways.
type Said<'s> = &'s dyn Fn(&[(Way, Tries)]) -> String;

/// Tuning of a model that is there.
fn tune(
    bench: &mut Bench<'_>,
    tales: &Corpus,
    scratch: &[(Way, Tries)],
    all: usize,
    evidence: &mut Evidence,
    said: Said<'_>,
) -> Result<()> {
    let scale = bench.scale;
    let rate = scratch.first().map_or(0.01, |(_, tries)| tries.rate);
    let mut first = bench.fresh(bench.lab.seed() * 1000 + 950)?;
    base(
        &mut first,
        tales,
        Course { way: Way::Adam, rank: scale.rank, steps: scale.steps, rate, seed: 950 },
    )?;
    let model = first.model()?;
    let text = bench.lab.text(Text::Town, scale.text / 4);
    let cut = (text.len() - text.len() / 5..).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let town = Corpus::new(&text[..cut], &text[cut..]);
    let mut found = Vec::new();
    for way in Way::TUNED {
        let net = |_| Net::from_model(&model, Default::default());
        let tries = bench.tuned(way, &town, scale.tuning, &scale.tuning_rates, &net)?;
        let bytes = moments(&bench.fresh(1)?, way, scale.rank)?;
        evidence.rows.push(row(label(way, "tuned"), &tries, bytes, all));
        found.push((way, tries));
    }
    let of = |wanted| found.iter().find(|(way, _)| *way == wanted).map_or(f64::NAN, |it| it.1.mean());
    evidence.expect(
        format!("Tuned at rank {} GradNormLoRP's held-out loss is at most LoRA's.", scale.rank),
        said(&found),
        of(Way::Lorp) <= of(Way::Lora),
    );
    Ok(())
}

fn label(way: Way, what: &str) -> String {
    format!("{}, {what}", way.label())
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Desk;
    use super::*;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale {
            width: 16,
            rank: 2,
            text: 4_000,
            held_out: 400,
            steps: 2,
            tuning: 2,
            seeds: 1,
            rates: vec![0.01],
            tuning_rates: vec![0.01],
        };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!(evidence.expectations.len(), 4);
        assert_eq!(evidence.rows.len(), Way::ALL.len() + Way::TUNED.len());
    }
}
