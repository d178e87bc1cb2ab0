//! AmoebaLLM (method 024): one fine-tuning run, after which models of many depths and widths are cut out at once.
//!
//! "AmoebaLLM: Constructing Any-Shape Large Language Models for Efficient and Instant Deployment", arXiv 2411.10606.
//!
//! - **Depth** (section 4.1, `depth`): which layers leave, for every number of them, by dynamic programming over the layers; a set's worth is
//!   the loss on calibration text without it.
//! - **Width** (section 4.1, `width`): heads and channels by how much their results fluctuate (FLAP, arXiv 2312.11983), ranked once; the
//!   mean of what leaves stays as a bias. Each layer keeps the same share, so that what is cut out is of one shape.
//!   [`Way::Fitted`], which is not the paper's, lets layers keep different shares and fits what stays by least squares.
//! - **Adapters** (section 4.2, `smol`): five low-rank adapters of each matrix, of which a gate that sees the shape (the layers that stay and the
//!   width) takes two; for a shape that is chosen they are a sum of matrices, which merge.
//! - **Training** (section 4.3, `train`): each step the largest shape, the smallest and two at random. The largest learns the text, the others its
//!   prediction (in-place distillation); each loss is brought to the size of the largest shape's.
//! - **Extraction** (`elastic`, `file`): cut, merge, write; seconds, whatever the shape. A shape in training *is* the cut model, so nothing
//!   differs between the two.

mod demonstrate;
pub mod depth;
pub mod elastic;
pub mod file;
pub mod smol;
pub mod train;
pub mod width;

use ounce_eval::method::{Family, Method};

pub use elastic::{Elastic, Settings, Shape, Way};
pub use train::{Options, Trained, train};

const NUMBER: u16 = 24;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "AmoebaLLM",
    family: Family::Pruning,
    paper: "AmoebaLLM: Constructing Any-Shape Large Language Models for Efficient and Instant Deployment",
    arxiv: Some("2411.10606"),
    gives: "After one fine-tuning run, models of many depths and widths can be cut out at once to fit the speed and memory of each device.",
    claim: "The best accuracy at a given cost among shrunken LLaMA-2-7B and Vicuna-7B models, derived without further training.",
    command: Some("ounce prune ./folder -o any.shapes --ratio 0.5 --train amoeba --calibration text.txt"),
    demonstrate: Some(demonstrate::demonstrate),
};

#[cfg(test)]
mod tests;
