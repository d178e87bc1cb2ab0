//! Fewer bits a number, or cheaper arithmetic on them.

mod descent;
mod factor;
pub mod gptq;
pub mod l_mul;
pub mod moments;
