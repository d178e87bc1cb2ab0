//! A linear layer, `y = W x + b`, for several vectors at once.
//!
//! The weight is either packed for the fast kernels, or stays in its stored format: then its rows are decoded to f32
//! one at a time, into a buffer each task keeps, and used for all vectors. In both cases threads split the rows, so
//! results do not depend on their number.

use std::cell::RefCell;

use ounce_kernels::isa::Isa;
use ounce_kernels::packed::{PackedMatrix, multiply_all};
use ounce_kernels::pool::Pool;
use ounce_kernels::vector::add;
use ounce_kernels::{DType, quant};
use ounce_model::account::sizes::packed_format;
use ounce_model::spec_tensors::{EXPAND, REDUCE};
use ounce_model::{Tensor, Weights};

use crate::arithmetic::{Mode, Product};
use crate::error::Result;
use crate::profile::Operator;
use crate::scratch::Scratch;

/// Rows of a stored weight that one task handles; small enough to share a small layer between threads.
const ROWS_PER_TASK: usize = 16;

/// A weight `[out, in]` with an optional bias `[out]`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Its name without `.weight`, for those who watch.
    name: String,
    weight: Weight,
    bias: Option<Vec<f32>>,
}

#[derive(Debug)]
enum Weight {
    Stored(Tensor, Product),
    Packed(PackedMatrix),
    /// The product of two thin matrices, the one that is used first before the other.
    Factors(Box<[Linear; 2]>),
}

impl Linear {
    /// Takes `{name}.weight` and, if the model has it, `{name}.bias`.
    pub(crate) fn load(weights: &Weights, name: &str, mode: Mode) -> Result<Linear> {
        let bias = format!("{name}.bias");
        let bias = if weights.contains(&bias) { Some(weights.f32(&bias)?) } else { None };
        if weights.contains(&format!("{name}{REDUCE}")) {
            let thin = |end: &str| {
                let name = format!("{name}{end}");
                Linear::new(weights, name.trim_end_matches(".weight"), weights.get(&name)?, None, mode)
            };
            let weight = Weight::Factors(Box::new([thin(REDUCE)?, thin(EXPAND)?]));
            return Ok(Linear { name: name.to_owned(), weight, bias });
        }
        let weight = weights.get(&format!("{name}.weight"))?;
        Linear::new(weights, name, weight, bias, mode)
    }

    /// Makes a linear layer of a weight that is already at hand; `name` is for messages.
    pub(crate) fn new(
        weights: &Weights,
        name: &str,
        weight: Tensor,
        bias: Option<Vec<f32>>,
        mode: Mode,
    ) -> Result<Linear> {
        let weight = match mode {
            Mode::Fast { quantize } => pack(weight, quantize),
            Mode::Reference | Mode::Emulated(_) => stored(weight, mode.arithmetic().linear),
        };
        let weight = weight.map_err(|error| {
            let tensor = format!("{name}.weight");
            let name = weights.file_name(&tensor).or(weights.file_name(name)).unwrap_or(name);
            ounce_model::Error::tensor(weights.path(), name, error.to_string())
        })?;
        Ok(Linear { name: name.trim_end_matches(".weight").to_owned(), weight, bias })
    }

    /// Width of the output.
    pub(crate) fn out_width(&self) -> usize {
        match &self.weight {
            Weight::Stored(tensor, _) => tensor.rows(),
            Weight::Packed(packed) => packed.rows(),
            Weight::Factors(factors) => factors[1].out_width(),
        }
    }

    /// Bytes of memory besides the file's mapping.
    pub(crate) fn packed_bytes(&self) -> usize {
        match &self.weight {
            Weight::Stored(..) => 0,
            Weight::Packed(packed) => packed.bytes(),
            Weight::Factors(factors) => factors.iter().map(Linear::packed_bytes).sum(),
        }
    }

    fn in_width(&self) -> usize {
        match &self.weight {
            Weight::Stored(tensor, _) => tensor.row_len(),
            Weight::Packed(packed) => packed.columns(),
            Weight::Factors(factors) => factors[0].in_width(),
        }
    }

    /// Bytes that a product reads.
    fn read_bytes(&self) -> usize {
        match &self.weight {
            Weight::Stored(tensor, _) => tensor.data.len(),
            Weight::Packed(packed) => packed.bytes(),
            Weight::Factors(factors) => factors.iter().map(Linear::read_bytes).sum(),
        }
    }

    /// Multiplies the vectors of `x`, `[count, in]`; gives `[count, out]` in a buffer of `scratch`.
    pub(crate) fn forward(&self, x: &[f32], operator: Operator, scratch: &mut Scratch) -> Vec<f32> {
        let [y] = forward_all([self], x, operator, scratch);
        y
    }

    fn add_bias(&self, y: &mut [f32]) {
        if let Some(bias) = &self.bias {
            for y in y.chunks_exact_mut(bias.len()) {
                add(y, bias);
            }
        }
    }
}

/// Multiplies the same vectors with several weights of one width, and adds what adapters add for them.
pub(crate) fn forward_all<const N: usize>(
    linears: [&Linear; N],
    x: &[f32],
    operator: Operator,
    scratch: &mut Scratch,
) -> [Vec<f32>; N] {
    let mut outputs = products(linears, x, operator, scratch);
    if !scratch.beside.is_empty() && !scratch.enough {
        let start = scratch.meter.start();
        let (mut bytes, mut operations) = (0, 0);
        for (linear, y) in linears.iter().zip(&mut outputs) {
            let done = scratch.beside.add(&linear.name, x, y);
            (bytes, operations) = (bytes + done.0, operations + done.1);
        }
        scratch.meter.stop(start, operator, || (bytes, operations));
    }
    outputs
}

/// What the weights give; what the kernels need of the vectors is made once for weights that want the same.
fn products<const N: usize>(
    linears: [&Linear; N],
    x: &[f32],
    operator: Operator,
    scratch: &mut Scratch,
) -> [Vec<f32>; N] {
    if linears.iter().any(|linear| matches!(linear.weight, Weight::Factors(_))) {
        return linears.map(|linear| match &linear.weight {
            Weight::Factors(factors) => {
                let [reduce, expand] = &**factors;
                let middle = reduce.forward(x, operator, scratch);
                let mut y = expand.forward(&middle, operator, scratch);
                scratch.give(middle);
                linear.add_bias(&mut y);
                y
            }
            Weight::Stored(..) | Weight::Packed(_) => {
                let [y] = products([linear], x, operator, scratch);
                y
            }
        });
    }
    if let Some(tap) = scratch.tap.as_ref().filter(|_| !scratch.enough) {
        let mut tap = tap.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        scratch.enough |= tap.observe(&linears.map(|linear| linear.name.as_str()), x, linears[0].in_width());
    }
    let start = scratch.meter.start();
    let mut outputs = linears.map(|linear| {
        let count = x.len() / linear.in_width();
        scratch.take(count * linear.out_width())
    });
    if scratch.enough {
        return outputs;
    }
    if let Some(matrices) = packed_alike(linears) {
        matrices[0].prepare(x, Pool::global(), &mut scratch.activations);
        let mut rest = outputs.iter_mut();
        // One piece of work for the threads in place of one for each weight.
        let products = matrices.map(|matrix| (matrix, rest.next().map_or(&mut [][..], |y| &mut y[..])));
        multiply_all(Isa::current(), products, &scratch.activations, Pool::global());
    } else {
        for (linear, y) in linears.iter().zip(&mut outputs) {
            match &linear.weight {
                Weight::Packed(packed) => {
                    packed.prepare(x, Pool::global(), &mut scratch.activations);
                    packed.multiply(&scratch.activations, Pool::global(), y);
                }
                Weight::Stored(tensor, product) => multiply_stored(tensor, x, *product, y),
                Weight::Factors(_) => unreachable!("factors are linear layers of their own"),
            }
        }
    }
    for (linear, y) in linears.iter().zip(&mut outputs) {
        linear.add_bias(y);
    }
    scratch.meter.stop(start, operator, || {
        let operations = linears.iter().map(|linear| 2 * x.len() * linear.out_width()).sum();
        (linears.iter().map(|linear| linear.read_bytes()).sum(), operations)
    });
    outputs
}

/// The packed weights, if all are packed and want activations in one form.
fn packed_alike<const N: usize>(linears: [&Linear; N]) -> Option<[&PackedMatrix; N]> {
    let matrix = |linear: &Linear| match &linear.weight {
        Weight::Packed(packed) => Some(packed.form()),
        Weight::Stored(..) | Weight::Factors(_) => None,
    };
    let form = matrix(linears[0])?;
    if linears.iter().any(|linear| matrix(linear) != Some(form)) {
        return None;
    }
    Some(linears.map(|linear| match &linear.weight {
        Weight::Packed(packed) => packed,
        Weight::Stored(..) | Weight::Factors(_) => unreachable!("every weight was found packed"),
    }))
}

/// Packs a weight for the fast kernels, quantizing it first if asked to and it is not quantized yet. A format or row
/// length without a kernel stays as it is stored.
fn pack(weight: Tensor, quantize: Option<DType>) -> Result<Weight, quant::QuantError> {
    let (rows, columns, dtype) = (weight.rows(), weight.row_len(), weight.dtype);
    let Some(target) = packed_format(dtype, columns, quantize) else {
        return stored(weight, Product::Exact);
    };
    let packed = if target == dtype {
        // From here on the copy is what is read.
        PackedMatrix::pack_and(dtype, &weight.data, rows, columns, |range| {
            weight.data.slice(range).release()
        })?
    } else {
        let values = weight.to_f32()?;
        let mut bytes = Vec::new();
        quant::encode_rows(target, &values, columns, &mut bytes)?;
        PackedMatrix::pack(target, &bytes, rows, columns)?
    };
    weight.data.release_file();
    Ok(Weight::Packed(packed))
}

/// A weight that stays as it is stored, if its scales are finite.
fn stored(weight: Tensor, product: Product) -> Result<Weight, quant::QuantError> {
    match quant::check_scales(weight.dtype, &weight.data) {
        Some(offset) => Err(quant::QuantError::Scale { dtype: weight.dtype, offset }),
        None => Ok(Weight::Stored(weight, product)),
    }
}

thread_local! {
    /// A decoded row; kept, so that a step allocates nothing.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn multiply_stored(weight: &Tensor, x: &[f32], product: Product, y: &mut [f32]) {
    let (rows, width) = (weight.rows(), weight.row_len());
    let count = x.len() / width;
    let plain = weight.as_f32();
    // Tasks write whole rows of the transposed result, so that no two share memory.
    let mut transposed = vec![0.0f32; if count == 1 { 0 } else { rows * count }];
    let target = if count == 1 { &mut *y } else { &mut transposed[..] };
    Pool::global().split_chunks(target, ROWS_PER_TASK * count.max(1), |task, out| {
        ROW.with_borrow_mut(|buffer| {
            buffer.resize(width.max(buffer.len()), 0.0);
            for (index, out) in out.chunks_mut(count.max(1)).enumerate() {
                let row = task * ROWS_PER_TASK + index;
                let weights: &[f32] = match plain {
                    Some(plain) => &plain[row * width..(row + 1) * width],
                    None => {
                        let buffer = &mut buffer[..width];
                        weight.decode_row(row, buffer).expect("formats and sizes are checked at load");
                        buffer
                    }
                };
                for (x, out) in x.chunks_exact(width).zip(out) {
                    *out = product.dot(weights, x);
                }
            }
        });
    });
    if count != 1 {
        for (column, y) in y.chunks_exact_mut(rows).enumerate() {
            for (row, y) in y.iter_mut().enumerate() {
                *y = transposed[row * count + column];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(shape: &[usize], values: &[f32], bias: Option<Vec<f32>>) -> Linear {
        let weight = Weight::Stored(Tensor::from_f32(shape, values), Product::Exact);
        Linear { name: String::new(), weight, bias }
    }

    #[test]
    fn several_vectors_give_what_each_gives_alone() {
        let values: Vec<f32> = (0..40 * 24).map(|i| (i as f32 * 0.11).sin()).collect();
        let linear = stored(&[40, 24], &values, Some((0..40).map(|i| i as f32).collect()));
        let x: Vec<f32> = (0..3 * 24).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut scratch = Scratch::default();
        let together = linear.forward(&x, Operator::Head, &mut scratch);
        for (index, x) in x.chunks_exact(24).enumerate() {
            let alone = linear.forward(x, Operator::Head, &mut scratch);
            assert_eq!(alone, together[index * 40..(index + 1) * 40]);
            let row5: f64 = (0..24).map(|i| f64::from(values[5 * 24 + i]) * f64::from(x[i])).sum();
            assert!((f64::from(alone[5]) - row5 - 5.0).abs() < 1e-5);
        }
    }

    #[test]
    fn packed_weights_give_nearly_what_stored_ones_give() {
        let values: Vec<f32> = (0..64 * 256).map(|i| (i as f32 * 0.7).sin()).collect();
        let x: Vec<f32> = (0..5 * 256).map(|i| (i as f32 * 0.3).cos()).collect();
        let mut scratch = Scratch::default();
        let exact = stored(&[64, 256], &values, None).forward(&x, Operator::Head, &mut scratch);
        for (quantize, tolerance) in
            [(None, 1e-5), (Some(DType::BF16), 0.02), (Some(DType::Q8_0), 0.03), (Some(DType::Q4K), 0.3)]
        {
            let weight = pack(Tensor::from_f32(&[64, 256], &values), quantize).unwrap();
            let linear = Linear { name: String::new(), weight, bias: None };
            assert!(linear.packed_bytes() > 0);
            let found = linear.forward(&x, Operator::Head, &mut scratch);
            let rms = (exact.iter().map(|x| x * x).sum::<f32>() / exact.len() as f32).sqrt();
            let error =
                exact.iter().zip(&found).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / exact.len() as f32;
            assert!(error.sqrt() <= tolerance * rms, "{quantize:?}: {} of {rms}", error.sqrt());
        }
    }
}
