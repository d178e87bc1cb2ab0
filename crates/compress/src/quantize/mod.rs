//! Fewer bits a number, or cheaper arithmetic on them.

pub mod l_mul;
