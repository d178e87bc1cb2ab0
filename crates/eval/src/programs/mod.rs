//! A language of pure functions of integers, small enough that a model of a few hundred thousand weights can learn it: programs to be
//! written, tests to be written of them, and scores of both. Nothing in it can reach outside, and every run ends.
//!
//! ```text
//! f(a,b)=max(a,2*b)-1        one function; + - * and brackets, min, max, abs
//! f(a)=if(a<3,a,0)           the second or the third by a comparison, < or =
//! f(a,b)=sum(a,i*b)          the sum of the second for i from 1 to the first
//! f(2,3)=5;f(0,1)=1          tests: what calls give
//! ```
//!
//! - [`syntax`]: trees, reading and writing. [`run`]: what a call gives, within a limit of steps.
//! - [`make`]: programs drawn by chance, with sentences that ask for them. [`mutate`]: programs with one fault.
//! - [`suite`]: tests, whether they are true, which faults they find. [`similar`]: likeness of code (CodeBLEU's idea, smaller).

pub mod make;
pub mod mutate;
pub mod run;
pub mod similar;
pub mod suite;
pub mod syntax;

pub use run::{Limits, evaluate};
pub use suite::{Assertion, Suite};
pub use syntax::{Expr, Operator, Program};
