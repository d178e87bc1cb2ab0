//! How a result that is already there becomes part of candle's graph.

use std::sync::Mutex;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Storage, Tensor,
};

/// What the way back of an operation has to work with.
#[derive(Debug)]
pub struct Behind<'a> {
    /// The operation's result.
    pub result: &'a Tensor,
    /// The gradient of the result, of its shape, in one piece.
    pub gradient: Tensor,
    /// Whether each input's gradient is asked for; `None` may be given for the others.
    pub wanted: [bool; 3],
}

type Backward = dyn Fn(&Behind<'_>) -> Result<Vec<Option<Tensor>>> + Send + Sync;

/// A result with its way back.
struct Node {
    name: &'static str,
    result: Mutex<Option<(Vec<f32>, Shape)>>,
    backward: Box<Backward>,
}

/// Makes `result`, the values of an operation on one to three `inputs`, a tensor of this shape. `backward` gives one
/// gradient an input, of the input's shape.
///
/// # Errors
/// If there are no or more than three inputs, or the values do not fill the shape.
pub fn node(
    name: &'static str,
    inputs: &[&Tensor],
    result: Vec<f32>,
    shape: impl Into<Shape>,
    backward: impl Fn(&Behind<'_>) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let shape = shape.into();
    if shape.elem_count() != result.len() {
        candle_core::bail!("{name}: {} values for a result of shape {shape:?}", result.len());
    }
    let node = Node { name, result: Mutex::new(Some((result, shape))), backward: Box::new(backward) };
    match inputs {
        [a] => a.apply_op1(node),
        [a, b] => a.apply_op2(b, node),
        [a, b, c] => a.apply_op3(b, c, node),
        _ => candle_core::bail!("{name}: an operation has one to three inputs, not {}", inputs.len()),
    }
}

impl Node {
    /// candle asks once, when the tensor is made.
    fn take(&self) -> Result<(CpuStorage, Shape)> {
        match self.result.lock().ok().and_then(|mut result| result.take()) {
            Some((values, shape)) => Ok((CpuStorage::F32(values), shape)),
            None => candle_core::bail!("{}: the result was asked for twice", self.name),
        }
    }

    fn back<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let mut wanted = [false; 3];
        wanted.iter_mut().zip(inputs).for_each(|(wanted, input)| *wanted = input.track_op());
        let mut gradients = (self.backward)(&Behind { result, gradient: gradient.contiguous()?, wanted })?;
        for (index, (gradient, input)) in gradients.iter_mut().zip(inputs).enumerate() {
            match gradient {
                // candle would add it to zeros and keep it.
                Some(_) if !wanted[index] => *gradient = None,
                None if wanted[index] => candle_core::bail!("{}: no gradient of input {index}", self.name),
                Some(gradient) if gradient.shape() != input.shape() => candle_core::bail!(
                    "{}: a gradient of shape {:?} for input {index} of shape {:?}",
                    self.name,
                    gradient.dims(),
                    input.dims()
                ),
                _ => {}
            }
        }
        match gradients.try_into() {
            Ok(gradients) => Ok(gradients),
            Err(gradients) => {
                let given = Vec::len(&gradients);
                candle_core::bail!("{}: {given} gradients for {N} inputs", self.name)
            }
        }
    }
}

impl CustomOp1 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, a: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.back([a], result, gradient)?;
        Ok(a)
    }
}

impl CustomOp2 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.back([a, b], result, gradient).map(Into::into)
    }
}

impl CustomOp3 for Node {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.back([a, b, c], result, gradient).map(Into::into)
    }
}

/// Calls `job` with the values of tensors.
///
/// # Errors
/// If a tensor is not f32 or does not lie in one piece (`Tensor::contiguous` helps).
pub fn read<const N: usize, R>(tensors: [&Tensor; N], job: impl FnOnce([&[f32]; N]) -> R) -> Result<R> {
    let held = tensors.map(Tensor::storage_and_layout);
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&held) {
        let Storage::Cpu(storage) = &**storage else {
            candle_core::bail!("a tensor that is not in the processor's memory")
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("a tensor that does not lie in one piece")
        };
        *slice = &storage.as_slice::<f32>()?[start..end];
    }
    Ok(job(slices))
}

/// A tensor of these values, without a way back.
///
/// # Errors
/// If the values do not fill the shape.
pub fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}
