//! Watching what linear layers are given, without a second forward pass: calibration stands on it.

use std::fmt;
use std::sync::{Arc, Mutex};

/// Somebody who watches.
pub trait Tap: fmt::Debug + Send {
    /// Is shown the vectors `x`, `[count, width]`, that the linear layers of these names (`layers.3.attention.query`;
    /// those that share their input come together) are about to multiply.
    ///
    /// Whether it has seen enough: then nothing more of this pass is computed, and its results are worthless.
    fn observe(&mut self, linears: &[&str], x: &[f32], width: usize) -> bool;
}

/// A tap that the one who looks at its findings shares with the forward pass.
pub type SharedTap = Arc<Mutex<dyn Tap>>;
