//! One file a method: the paper and its equation, what it trains, what it is called in files.

pub mod adalora;
pub mod aside;
pub mod bitfit;
pub mod bottleneck;
pub mod cloze;
pub mod compacter;
pub mod crosstune;
pub mod dora;
pub mod dylora;
pub mod flora;
pub mod gated_prefix;
pub mod ia3;
pub mod krona;
pub mod language;
pub mod lora;
pub mod lora_fa;
pub mod mam;
pub mod p_tuning;
pub mod parallel;
pub mod patterns;
pub mod prefix;
pub mod prompt;
pub mod sherl;
pub mod ssf;
pub mod svfit;
pub mod vera;
