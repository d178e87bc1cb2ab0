//! The workbench: gives demonstrations their fixtures, runs them and measures what they cost.

use crate::{builtin, stories, town};
use ounce_eval::method::{Cost, DemonstrationError, Evidence, Fixture, Lab, Method, Text};
use ounce_eval::trust;
use ounce_model::Model;
use std::time::Instant;

/// The usual [`Lab`]: generated text, and progress handed to a function.
pub struct Workbench<F> {
    seed: u64,
    on_progress: F,
}

impl<F: Fn(&str, f64)> Workbench<F> {
    /// A workbench whose randomness comes from `seed`. `on_progress` is told a message and a share from 0 to 1.
    pub fn new(seed: u64, on_progress: F) -> Self {
        Self { seed, on_progress }
    }

    /// Runs the method's demonstration and checks what comes out; none for a planned method.
    ///
    /// # Errors
    /// If the demonstration fails or its evidence contradicts itself.
    pub fn run(&self, method: &Method) -> Result<Option<Evidence>, DemonstrationError> {
        let Some(demonstrate) = method.demonstrate else { return Ok(None) };
        let start = Instant::now();
        let mut evidence = demonstrate(self)?;
        evidence.cost = Cost { seconds: start.elapsed().as_secs_f64(), peak_bytes: peak_resident_bytes() };
        if evidence.method != method.number {
            let what = format!("it was returned by the demonstration of method {}", method.number);
            return Err(DemonstrationError::Flawed { method: evidence.method, what });
        }
        evidence.check()?;
        Ok(Some(evidence))
    }
}

impl<F: Fn(&str, f64)> Lab for Workbench<F> {
    fn seed(&self) -> u64 {
        self.seed
    }

    /// A seed of the training or of the held-out range, so that the two kinds never share a text's random numbers.
    fn text(&self, kind: Text, bytes: usize) -> String {
        let within = self.seed % stories::FIRST_HELD_OUT_SEED;
        match kind {
            Text::Train => stories::corpus(within, bytes),
            Text::HeldOut => stories::corpus(stories::FIRST_HELD_OUT_SEED + within, bytes),
            Text::Town => town::corpus(within, bytes),
            Text::TownProbes => trust::write(&town::probes(town::PROBE_SEED + within)),
        }
    }

    fn model(&self, fixture: Fixture) -> ounce_model::Result<Model> {
        match fixture {
            Fixture::Builtin => builtin::LANGUAGE.open(),
            Fixture::Tiny => builtin::TINY.open(),
            Fixture::Encoder => builtin::ENCODER.open(),
        }
    }

    fn progress(&self, message: &str, done: f64) {
        (self.on_progress)(message, done.clamp(0.0, 1.0));
    }
}

/// The process's largest resident memory so far, where the system keeps it in `/proc`.
pub fn peak_resident_bytes() -> Option<u64> {
    ounce_train::trainer::memory().1
}

#[cfg(test)]
mod tests {
    use super::*;
    use ounce_eval::method::{Family, Row};
    use std::cell::RefCell;

    fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
        lab.progress("halfway", 0.5);
        lab.progress("too far", 7.0);
        let mut evidence = Evidence::new(20, lab.seed(), "text");
        let bytes = lab.text(Text::HeldOut, 1000).len();
        evidence.rows.push(Row::new("text").with("size", bytes as f64, "bytes"));
        evidence.expect("at least 1000 bytes", bytes.to_string(), bytes >= 1000);
        Ok(evidence)
    }

    fn method(number: u16) -> Method {
        let planned =
            Method::planned(number, "name", Family::Quantization, "paper", None, "gives.", "claim.");
        Method { command: Some("ounce show"), demonstrate: Some(demonstrate), ..planned }
    }

    #[test]
    fn a_demonstration_is_run_and_its_cost_measured() {
        let seen = RefCell::new(Vec::new());
        let bench =
            Workbench::new(3, |message: &str, done| seen.borrow_mut().push((message.to_owned(), done)));
        let evidence = bench.run(&method(20)).expect("runs").expect("is not planned");
        assert!(evidence.holds() && evidence.seed == 3 && evidence.cost.seconds > 0.0);
        assert_eq!(*seen.borrow(), [("halfway".to_owned(), 0.5), ("too far".to_owned(), 1.0)]);
    }

    #[test]
    fn planned_methods_give_nothing_and_foreign_evidence_is_refused() {
        let bench = Workbench::new(3, |_: &str, _| {});
        let planned = Method { demonstrate: None, ..method(20) };
        assert_eq!(bench.run(&planned).expect("nothing to run"), None);
        let error = bench.run(&method(21)).expect_err("evidence of another method");
        assert!(error.to_string().contains("method 21"), "{error}");
    }

    #[test]
    fn the_built_in_model_opens_with_its_tokenizer() {
        let model = Workbench::new(1, |_: &str, _| {}).model(Fixture::Builtin).expect("opens");
        let tokenizer = model.tokenizer.as_ref().expect("has a tokenizer");
        assert_eq!(tokenizer.vocab_size(), model.spec.vocab_size);
        assert_eq!(tokenizer.encode("", true).expect("encodes"), [0], "a text begins with BOS");
    }

    #[test]
    fn training_and_held_out_text_differ() {
        let bench = Workbench::new(2004, |_: &str, _| {});
        assert_eq!(bench.text(Text::Train, 2000), stories::corpus(4, 2000));
        assert_eq!(bench.text(Text::HeldOut, 2000), stories::corpus(1004, 2000));
    }
}
