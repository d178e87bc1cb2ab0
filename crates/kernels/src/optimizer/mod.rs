//! Steps of optimizers.
