//! The commands, one file each: its flags, its help and what it does.

pub mod advise;
pub mod bench;
pub mod classify;
pub mod completions;
pub mod convert;
pub mod density;
pub mod embed;
pub mod eval;
pub mod footprint;
pub mod forecast;
pub mod logits;
pub mod man;
pub mod methods;
pub mod predict_scores;
pub mod profile;
pub mod pull;
pub mod quantize;
pub mod run;
pub mod select;
pub mod show;
pub mod sweep;
pub mod tokenize;
pub mod tokenizer;
pub mod train;
