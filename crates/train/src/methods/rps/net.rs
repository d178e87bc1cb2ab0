//! A network whose matrices and tables live in one small array.

use std::path::Path;

use ounce_model::formats::{WriteOptions, hf};
use ounce_model::{Model, Tensor};

use super::Fold;
use crate::net::Net;
use crate::{Batch, Error, Loss, Param, ParamKind, Result, Trainable};

/// The array's name among the weights.
const ARRAY: &str = "shared";

/// A [`Net`] in which all weights of two dimensions are read from an array; norms and biases stay its own. What is trained, clipped and
/// remembered by optimizers are the array and those.
#[derive(Debug)]
pub struct SharedNet {
    net: Net,
    fold: Fold,
    /// Numbers of the net's weights that are read from the array, and of those that are not.
    shared: Vec<usize>,
    own: Vec<usize>,
    /// The array first, then what is not shared.
    params: Vec<Param>,
    scaling: Vec<f32>,
}

impl SharedNet {
    /// Stores the weights of a network in `stored` numbers in all. The array begins with the network's own weights as far as it reaches;
    /// with as many numbers as the network has, it is that network.
    ///
    /// # Errors
    /// If a weight is frozen, or what can't be shared leaves no room.
    pub fn new(net: Net, stored: usize, seed: u64) -> Result<SharedNet> {
        if let Some(frozen) = net.params().iter().find(|it| !it.is_trainable()) {
            return Err(Error::Settings(format!(
                "{} is not trained; a shared array needs a network whose weights are all trained",
                frozen.name
            )));
        }
        let is_own = |it: &Param| it.shape.len() != 2 || matches!(it.kind, ParamKind::Norm | ParamKind::Bias);
        let (own, shared): (Vec<usize>, Vec<usize>) =
            (0..net.params().len()).partition(|&at| is_own(&net.params()[at]));
        let alone: usize = own.iter().map(|&at| net.params()[at].value.len()).sum();
        if stored <= alone || shared.is_empty() {
            return Err(Error::Settings(format!(
                "{stored} stored weights leave none to share: norms and biases alone have {alone}; store more"
            )));
        }
        let deviation = |at: usize| {
            let values = &net.params()[at].value;
            let square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
            (values.len(), square.sqrt())
        };
        let matrices: Vec<(usize, f64)> = shared.iter().map(|&at| deviation(at)).collect();
        // The deviation that most weights have: their factor is near one then, and Adam's steps are as large as without sharing.
        let all: usize = matrices.iter().map(|it| it.0).sum();
        let mean = matrices.iter().map(|(count, it)| *count as f64 * it).sum::<f64>() / all as f64;
        if mean <= 0.0 {
            return Err(Error::Settings(
                "all matrices are zero; a shared array needs weights to begin with".into(),
            ));
        }
        let fold = Fold::new(&matrices, stored - alone, mean, seed);
        let began: Vec<&[f32]> = shared.iter().map(|&at| net.params()[at].value.as_slice()).collect();
        let array = fold.begin(&began);
        let mut params = vec![Param::new(ARRAY, &[array.len()], ParamKind::Matrix, array)];
        params.extend(own.iter().map(|&at| net.params()[at].clone()));
        let scaling = fold.scaling();
        let mut it = SharedNet { net, fold, shared, own, params, scaling };
        it.unfold();
        Ok(it)
    }

    /// The network behind it, with the weights of its last pass.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Numbers that are stored.
    pub fn stored(&self) -> usize {
        self.params.iter().map(|it| it.value.len()).sum()
    }

    /// Gives the network its weights.
    fn unfold(&mut self) {
        let (array, own) = self.params.split_at(1);
        for (&at, from) in self.own.iter().zip(own) {
            self.net.params_mut()[at].value.copy_from_slice(&from.value);
        }
        let mut shared: Vec<&mut [f32]> = self
            .net
            .params_mut()
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| self.shared.binary_search(at).is_ok())
            .map(|(_, it)| it.value.as_mut_slice())
            .collect();
        self.fold.gather(&array[0].value, &mut shared);
    }

    /// The model with all its weights as they are now.
    ///
    /// # Errors
    /// If a weight can't be read.
    pub fn model(&self) -> Result<Model> {
        let model = self.net.model()?;
        let mut values: Vec<Vec<f32>> =
            self.shared.iter().map(|&at| vec![0.0; self.net.params()[at].value.len()]).collect();
        let mut slices: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
        self.fold.gather(&self.params[0].value, &mut slices);
        let named = |at: usize, values: &[f32]| {
            let it = &self.net.params()[at];
            (it.name.clone(), Tensor::from_f32(&it.shape, values))
        };
        let shared = self.shared.iter().zip(&values).map(|(&at, values)| named(at, values));
        let own = self.own.iter().zip(&self.params[1..]).map(|(&at, it)| named(at, &it.value));
        let weights = model.weights.replaced(shared.chain(own).collect::<Vec<_>>())?;
        Ok(Model { weights, ..model })
    }
}

impl Trainable for SharedNet {
    fn params(&self) -> &[Param] {
        &self.params
    }

    fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        self.unfold();
        self.net.loss(batch)
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Loss> {
        self.unfold();
        self.net.params_mut().iter_mut().for_each(|it| it.grad.fill(0.0));
        let loss = self.net.accumulate(batch, scale)?;
        let net = self.net.params();
        let slices: Vec<&[f32]> = self.shared.iter().map(|&at| net[at].grad.as_slice()).collect();
        let mut slope = vec![0.0; self.fold.size()];
        self.fold.scatter(&slices, &mut slope);
        let (array, own) = self.params.split_at_mut(1);
        let scaled = slope.iter().zip(&self.scaling).map(|(slope, scaling)| slope * scaling);
        array[0].grad.iter_mut().zip(scaled).for_each(|(sum, slope)| *sum += slope);
        for (&at, to) in self.own.iter().zip(own) {
            to.grad.iter_mut().zip(&net[at].grad).for_each(|(sum, slope)| *sum += slope);
        }
        Ok(loss)
    }

    fn take_choices(&mut self) -> Option<crate::loss::Choices> {
        self.net.take_choices()
    }

    fn scores(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        self.unfold();
        self.net.scores(batch)
    }

    fn workspace_bytes(&self, tokens: usize) -> usize {
        let unfolded: usize = self.net.params().iter().map(|it| 8 * it.value.len()).sum();
        self.net.workspace_bytes(tokens) + unfolded
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let options = WriteOptions { overwrite: true, ..WriteOptions::default() };
        hf::write_model(&self.model()?, folder, &options, &mut |_, _| Ok(()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Preset};

    fn net() -> Net {
        let shape = config::Model {
            preset: Preset::Llama,
            hidden: 16,
            layers: 1,
            heads: 2,
            context: 16,
            init: 0.3,
            ..config::Model::default()
        };
        let model = shape.architecture(20, []).expect("a shape");
        Net::random(&model, Default::default(), shape.initial(), 3).expect("a network")
    }

    fn batch() -> Batch {
        let ids: Vec<u32> = (0..15).map(|at| at * at % 20).collect();
        Batch::next_token([ids.as_slice()])
    }

    #[test]
    fn with_room_for_all_it_is_the_network_and_gradients_are_its_own() {
        let mut plain = net();
        let mut whole = SharedNet::new(net(), 1_000_000, 1).expect("an array");
        assert_eq!(whole.stored(), plain.params().iter().map(|it| it.value.len()).sum::<usize>());
        let [a, b] = [plain.loss(&batch()), whole.loss(&batch())].map(|it| it.expect("a loss").mean());
        assert!((a - b).abs() < 1e-5, "{a} {b}");
        let model = whole.model().expect("a model");
        for it in plain.params() {
            let own = model.weights.f32(&it.name).expect("there");
            assert!(own.iter().zip(&it.value).all(|(a, b)| (a - b).abs() < 1e-6), "{}", it.name);
        }
    }

    #[test]
    fn the_arrays_gradient_is_that_of_finite_differences_times_the_scaling() {
        let mut shared = SharedNet::new(net(), 400, 7).expect("an array");
        assert_eq!(shared.stored(), 400);
        shared.accumulate(&batch(), 1.0 / 14.0).expect("a step");
        let gradients: Vec<Vec<f32>> = shared.params().iter().map(|it| it.grad.clone()).collect();
        for (index, gradient) in gradients.iter().enumerate() {
            for place in [0, gradient.len() / 2, gradient.len() - 1] {
                let mut loss = |by: f32| {
                    let was = shared.params[index].value[place];
                    shared.params[index].value[place] = was + by;
                    let loss = shared.loss(&batch()).expect("a loss").mean();
                    shared.params[index].value[place] = was;
                    loss
                };
                let mut expected = (loss(2e-3) - loss(-2e-3)) / 4e-3;
                if index == 0 {
                    expected *= f64::from(shared.scaling[place]);
                }
                let found = f64::from(gradient[place]);
                assert!(
                    (found - expected).abs() < 0.02 * expected.abs() + 2e-3,
                    "{index} {place}: {found} {expected}"
                );
            }
        }
        assert!(gradients[0].iter().any(|x| x.abs() > 1e-2));
        let error = SharedNet::new(net(), 3, 1).expect_err("no room").to_string();
        assert!(error.contains("store more"), "{error}");
    }
}
