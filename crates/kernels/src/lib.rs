//! Arithmetic on slices. Slices go in, slices come out; nothing here knows what a model is.
//!
//! - [`dtype`]: every element type and block format a weight can be stored in, with its sizes.
//! - [`quant`]: one file per block format: decode to f32 and, where ounce writes the format, encode from f32.
//! - [`isa`], [`pool`]: the instruction set and the threads in use.
//! - [`packed`]: products of quantized weights with int8 activations.
//! - [`attention`]: the KV cache of a layer and attention over it.
//! - [`conv`]: convolutions of images in f32 and int8.
//! - [`gemm`]: products of matrices in f32 and bf16 with any operands, for training.
//! - [`grad`], [`optimizer`]: what training computes beside the products: gradients of a layer's parts, steps of optimizers.
//! - [`eigen`]: eigenvalues and eigenvectors of symmetric matrices.
//! - [`matmul`], [`vector`]: inner products and what loops over vectors share. [`norm`], [`softmax`], [`rope`], [`activation`]: the rest of a layer.
//! - [`probe`]: loops that find a processor's limits: bytes read and operations a second.
//! - [`requantize`]: sums of codes brought back to codes by dyadic multipliers.
//! - [`meter`]: the most memory that a piece of work holds.
//! - [`lmul`]: products by integer addition, emulated, and the fp8 rounding they are compared with.

pub mod activation;
pub mod attention;
pub mod conv;
pub mod dtype;
pub mod eigen;
pub mod gemm;
pub mod grad;
pub mod isa;
pub mod lmul;
pub mod matmul;
pub mod meter;
pub mod norm;
pub mod optimizer;
pub mod packed;
pub mod pool;
pub mod probe;
pub mod quant;
pub mod requantize;
pub mod rope;
pub mod softmax;
pub mod vector;

pub use dtype::DType;
