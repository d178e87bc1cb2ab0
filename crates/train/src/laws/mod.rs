//! Fitting the laws by which losses, learning rates and batch sizes follow from a few small runs.
//!
//! - [`least_squares`]: linear least squares with standard errors.
//! - [`power`]: `y = c · Π x_i^{a_i}` by least squares of the logarithms.
//! - [`parabola`]: the best of one setting that was swept alone.
//! - [`surface`]: the best learning rate and batch size of a sweep, by a quadratic in their logarithms.
//! - [`scaling`]: `L(N, D) = E + A / N^α + B / D^β`, robustly, and the best split of a budget.
//! - [`bootstrap`]: how far a fit depends on which runs it saw.
//! - [`minimise`]: what fits by something else than lines are searched with.

pub mod bootstrap;
pub mod least_squares;
pub mod minimise;
pub mod parabola;
pub mod power;
pub mod scaling;
pub mod surface;
