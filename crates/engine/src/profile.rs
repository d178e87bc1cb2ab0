//! Where the time of forward passes goes: seconds, bytes and operations of each kind of work.

use std::time::Instant;

use serde::Serialize;

/// A kind of work in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Token, position and type vectors.
    Embedding,
    /// Norms.
    Norm,
    /// The projections to queries, keys and values.
    QueryKeyValue,
    /// Rotations and the norms of queries and keys.
    Rotation,
    /// Keys and values into the cache.
    CacheWrite,
    /// Scores, softmax and weighted sums.
    Attention,
    /// The projection behind attention.
    Output,
    /// The first projections of a feed-forward part.
    GateUp,
    /// Its nonlinearity.
    Activation,
    /// Its last projection.
    Down,
    /// The choice of experts, and the sum of what they give.
    Routing,
    /// Sums with the residual stream.
    Residual,
    /// Logits.
    Head,
}

impl Operator {
    /// Every kind, in the order of a forward pass.
    pub const ALL: [Operator; 13] = [
        Operator::Embedding,
        Operator::Norm,
        Operator::QueryKeyValue,
        Operator::Rotation,
        Operator::CacheWrite,
        Operator::Attention,
        Operator::Output,
        Operator::GateUp,
        Operator::Activation,
        Operator::Down,
        Operator::Routing,
        Operator::Residual,
        Operator::Head,
    ];

    /// What people read.
    pub fn name(self) -> &'static str {
        match self {
            Operator::Embedding => "embedding",
            Operator::Norm => "norms",
            Operator::QueryKeyValue => "query, key, value",
            Operator::Rotation => "rotation",
            Operator::CacheWrite => "cache write",
            Operator::Attention => "attention",
            Operator::Output => "attention output",
            Operator::GateUp => "gate, up",
            Operator::Activation => "activation",
            Operator::Down => "down",
            Operator::Routing => "routing",
            Operator::Residual => "residual",
            Operator::Head => "head",
        }
    }
}

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
    fn every_operator_has_its_own_place_in_order() {
        for (index, operator) in Operator::ALL.into_iter().enumerate() {
            assert_eq!(operator as usize, index);
        }
    }

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
