//! The memory that models and sequences share, as a number that no one may pass.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A limit in bytes and what is taken of it. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Budget {
    /// A budget of which nothing is taken.
    pub fn new(limit: u64) -> Budget {
        Budget { limit, used: Arc::new(AtomicU64::new(0)) }
    }

    /// The limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// A holder that has taken nothing yet.
    pub fn holder(&self) -> Held {
        Held { budget: self.clone(), bytes: 0 }
    }
}

/// What one holder has taken of a budget; dropping it gives all back.
#[derive(Debug)]
pub struct Held {
    budget: Budget,
    bytes: u64,
}

impl Held {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.budget.limit.saturating_sub(self.budget.used())
    }

    /// What is held as a share of it and what is free.
    pub fn share(&self) -> f64 {
        self.bytes as f64 / (self.bytes + self.free()).max(1) as f64
    }

    /// Takes more, if that does not pass the limit.
    #[must_use]
    pub fn grow(&mut self, bytes: u64) -> bool {
        let limit = self.budget.limit;
        let taken = self.budget.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(bytes).filter(|&sum| sum <= limit)
        });
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// Gives back what is held above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let rest = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(rest, Ordering::AcqRel);
        self.bytes -= rest;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_holders_pass_the_limit_together() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.holder(), budget.holder());
        assert!(one.grow(6) && !other.grow(5) && other.grow(4));
        assert!(!one.grow(u64::MAX));
        one.shrink_to(2);
        assert!(other.grow(4) && !other.grow(1));
        drop(one);
        assert_eq!(budget.used(), 8);
    }
}
