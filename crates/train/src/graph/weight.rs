//! Values that candle computes with and the trainer changes, held once.
//!
//! A [`Param`] owns its values between passes. For a pass they change places with those of the weight's variable, which
//! are zeros that nobody reads: on most systems memory that is never touched and so never there. Nothing is copied.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Tensor, Var};

use crate::{Error, Param, ParamKind, Result};

/// A weight of a slot, norm or table. Clones are the same weight.
#[derive(Debug, Clone)]
pub struct Weight {
    name: Arc<str>,
    kind: ParamKind,
    var: Var,
    state: Arc<AtomicU8>,
}

/// The values are with the parameter.
const AWAY: u8 = 0;
/// They are here, and gradients are not asked for.
const FIXED: u8 = 1;
/// They are here, and gradients are.
const TRACKED: u8 = 2;
/// Before there is a parameter: it will be frozen.
const FROZEN: u8 = 3;
/// Before there is a parameter: it will be trained.
const TRAINED: u8 = 4;

impl Weight {
    /// A new weight that is trained; names are the checkpoint's and must differ.
    ///
    /// # Errors
    /// If the values do not fill the shape.
    pub fn new(name: &str, shape: &[usize], kind: ParamKind, values: Vec<f32>) -> Result<Weight> {
        let var = Var::from_vec(values, shape, &Device::Cpu)?;
        Ok(Weight { name: name.into(), kind, var, state: Arc::new(AtomicU8::new(TRAINED)) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        self.var.dims()
    }

    /// Says that it is not to be trained; counts while the network is built. Later, [`Param::freeze`] does.
    pub fn freeze(&self) {
        let _ = self.state.compare_exchange(TRAINED, FROZEN, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Its values in a pass: a variable if it is trained and gradients are asked for, else a plain tensor. What is made
    /// of it must not outlive the pass.
    ///
    /// # Errors
    /// Outside a pass.
    pub fn tensor(&self) -> Result<Tensor> {
        match self.state.load(Ordering::Relaxed) {
            TRACKED => Ok(self.var.as_tensor().clone()),
            AWAY => Err(Error::Unsupported(format!(
                "the values of {} are with its parameter; they can be computed with inside a pass only",
                self.name
            ))),
            _ => Ok(self.var.as_detached_tensor()),
        }
    }

    /// The variable, under whose identity gradients are found.
    pub(super) fn var(&self) -> &Var {
        &self.var
    }

    /// Makes the parameter that owns the values from now on.
    pub(super) fn param(&self) -> Result<Param> {
        let mut values = vec![0.0; self.var.elem_count()];
        self.swap(&mut values)?;
        let mut param = Param::new(self.name.as_ref(), self.shape(), self.kind, values);
        if self.state.swap(AWAY, Ordering::Relaxed) == FROZEN {
            param.freeze();
        }
        Ok(param)
    }

    /// Exchanges the variable's values with others.
    fn swap(&self, values: &mut Vec<f32>) -> Result<()> {
        if values.len() != self.var.elem_count() {
            let (name, shape, count) = (&self.name, self.shape(), values.len());
            return Err(Error::Unsupported(format!(
                "{name} of shape {shape:?} has {count} values now; the size of a weight can't change"
            )));
        }
        self.var.inplace_op1(&Swap(RefCell::new(values)))?;
        Ok(())
    }
}

/// Exchanges values in place.
struct Swap<'a>(RefCell<&'a mut Vec<f32>>);

impl InplaceOp1 for Swap<'_> {
    fn name(&self) -> &'static str {
        "swap"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        match storage {
            CpuStorage::F32(values) => {
                std::mem::swap(values, &mut self.0.borrow_mut());
                Ok(())
            }
            _ => candle_core::bail!("weights are f32"),
        }
    }
}

/// The values of all parameters, lent to their variables until this is dropped.
pub(super) struct Lent<'a> {
    weights: &'a [Weight],
    /// With the weights' values away, but with their gradients.
    pub params: &'a mut [Param],
    lent: usize,
}

impl<'a> Lent<'a> {
    /// Lends; `track` says whether gradients are asked for.
    pub fn new(weights: &'a [Weight], params: &'a mut [Param], track: bool) -> Result<Lent<'a>> {
        let mut lent = Lent { weights, params, lent: 0 };
        for (weight, param) in weights.iter().zip(lent.params.iter_mut()) {
            weight.swap(&mut param.value)?;
            let state = if track && param.is_trainable() { TRACKED } else { FIXED };
            weight.state.store(state, Ordering::Relaxed);
            lent.lent += 1;
        }
        Ok(lent)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for (weight, param) in self.weights.iter().zip(self.params.iter_mut()).take(self.lent) {
            weight.state.store(AWAY, Ordering::Relaxed);
            // Fails only where another thread panicked in the middle of it; the parameter then keeps zeros.
            if let Err(error) = weight.swap(&mut param.value) {
                tracing::error!("{}: its values did not come back: {error}", weight.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_move_into_a_pass_and_back_without_a_copy() {
        let weight = Weight::new("w", &[3], ParamKind::Norm, vec![1.0, 2.0, 3.0]).unwrap();
        assert_eq!(weight.tensor().unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        let mut params = [weight.param().unwrap()];
        assert!(weight.tensor().unwrap_err().to_string().contains("inside a pass"));
        params[0].value[0] = 5.0;
        let place = params[0].value.as_ptr();
        let weights = [weight.clone()];
        let lent = Lent::new(&weights, &mut params, true).unwrap();
        assert!(weight.tensor().unwrap().is_variable());
        assert_eq!(weight.tensor().unwrap().to_vec1::<f32>().unwrap(), [5.0, 2.0, 3.0]);
        drop(lent);
        assert_eq!((params[0].value.as_ptr(), params[0].value[0]), (place, 5.0));
        params[0].freeze();
        let lent = Lent::new(&weights, &mut params, true).unwrap();
        assert!(!weight.tensor().unwrap().track_op());
        drop(lent);
        params[0].value.push(0.0);
        assert!(Lent::new(&weights, &mut params, true).is_err());
        assert_eq!(params[0].value.len(), 4);
    }
}
