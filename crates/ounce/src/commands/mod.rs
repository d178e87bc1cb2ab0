//! The commands, one file each: its flags, its help and what it does.

pub mod eval;
pub mod logits;
pub mod run;
pub mod show;
pub mod tokenize;
