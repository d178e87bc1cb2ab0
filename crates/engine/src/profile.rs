//! Where the time of forward passes goes: seconds, bytes and operations of each kind of work.

use std::time::Instant;

use serde::Serialize;

pub use ounce_model::account::Operator;

/// What one kind of work took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cost {
    /// Times it was done.
    pub calls: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Bytes of weights or cache that were read, each once a call.
    pub bytes: u64,
    /// Multiplications and additions.
    pub operations: u64,
}

/// What the forward passes of a sequence or batch took.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    costs: [Cost; Operator::ALL.len()],
}

impl Profile {
    /// The costs of every kind of work that was done, in the order of a forward pass.
    pub fn costs(&self) -> impl Iterator<Item = (Operator, Cost)> {
        Operator::ALL.into_iter().zip(self.costs).filter(|(_, cost)| cost.calls > 0)
    }

    fn add(&mut self, operator: Operator, cost: Cost) {
        let sum = &mut self.costs[operator as usize];
        sum.calls += cost.calls;
        sum.seconds += cost.seconds;
        sum.bytes += cost.bytes;
        sum.operations += cost.operations;
    }
}

/// Measures, if asked to; else it costs a comparison.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    profile: Option<Box<Profile>>,
}

impl Meter {
    /// Begins to measure, from zero.
    pub(crate) fn enable(&mut self) {
        self.profile = Some(Box::default());
    }

    /// What was measured since [`Meter::enable`]; nothing if it was not called.
    pub(crate) fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// The time, if it matters.
    pub(crate) fn start(&self) -> Option<Instant> {
        self.profile.is_some().then(Instant::now)
    }

    /// Notes work that began at `start`, and what it read and computed.
    pub(crate) fn stop(
        &mut self,
        start: Option<Instant>,
        operator: Operator,
        volume: impl FnOnce() -> (usize, usize),
    ) {
        if let (Some(start), Some(profile)) = (start, &mut self.profile) {
            let seconds = start.elapsed().as_secs_f64();
            let (bytes, operations) = volume();
            let cost = Cost { calls: 1, seconds, bytes: bytes as u64, operations: operations as u64 };
            profile.add(operator, cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_only_when_enabled() {
        let mut meter = Meter::default();
        let start = meter.start();
        meter.stop(start, Operator::Head, || unreachable!("nothing is measured"));
        assert!(meter.profile().is_none());
        meter.enable();
        for _ in 0..2 {
            let start = meter.start();
            meter.stop(start, Operator::Head, || (10, 20));
        }
        let costs: Vec<(Operator, Cost)> = meter.profile().unwrap().costs().collect();
        assert_eq!(costs.len(), 1);
        assert_eq!((costs[0].1.calls, costs[0].1.bytes, costs[0].1.operations), (2, 20, 40));
    }
}
