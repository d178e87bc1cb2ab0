//! The kinds of work of a forward pass.

use serde::{Deserialize, Serialize};

/// A kind of work in a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_has_its_own_place_in_order() {
        for (index, operator) in Operator::ALL.into_iter().enumerate() {
            assert_eq!(operator as usize, index);
        }
    }
}
