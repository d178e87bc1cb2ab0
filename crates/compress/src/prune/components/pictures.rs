//! A text encoder with a denoiser, judged by what a reader finds in the drawings.

use std::collections::HashMap;

use ounce_train::diffusion::{Layer, Part, Pass, Plain, Products, Prompt, Reader, Request, Tensor};

use super::criterion::Matrix;
use super::subject::{Component, Subject, components};
use crate::Result;

/// Names and patterns of the two components, the text encoder first.
pub const PARTS: [(&str, &str); 2] = [("text encoder", "text.*"), ("denoiser", "*")];

/// Sees the squares of what layers read; of a convolution, those of its points, which serve for all nine places.
struct Inputs {
    squares: Vec<Vec<f64>>,
    rows: Vec<f64>,
}

impl Products for Inputs {
    fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> ounce_train::Result<Tensor> {
        let width = x.dims().last().copied().unwrap_or(1).max(1);
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        self.squares[layer].resize(width, 0.0);
        for row in values.chunks_exact(width) {
            row.iter().zip(&mut self.squares[layer]).for_each(|(x, square)| *square += f64::from(*x).powi(2));
            self.rows[layer] += 1.0;
        }
        Plain.product(pass, layer, x)
    }
}

/// Other matrices in the place of some layers' own.
struct Pruned(HashMap<usize, Tensor>);

impl Products for Pruned {
    fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> ounce_train::Result<Tensor> {
        match self.0.get(&layer) {
            Some(weight) => pass.apply(layer, x, weight),
            None => Plain.product(pass, layer, x),
        }
    }
}

/// A network that draws what a request asks for. An item is a drawing; its number, the share of its words that the reader finds.
#[derive(Debug)]
pub struct Pictures<'n> {
    pass: &'n Pass<'n>,
    reader: &'n Reader,
    request: Request,
    matrices: Vec<Matrix>,
    components: Vec<Component>,
}

impl<'n> Pictures<'n> {
    /// A network with the gradients of its layers' matrices, a request that shows what layers read, and one by which it is judged.
    ///
    /// # Errors
    /// If the network can't be run.
    pub fn new(
        pass: &'n Pass<'n>,
        reader: &'n Reader,
        gradients: Vec<Vec<f32>>,
        shown: &Request,
        request: Request,
    ) -> Result<Pictures<'n>> {
        let layers = pass.net().layers();
        let mut inputs = Inputs { squares: vec![Vec::new(); layers.len()], rows: vec![0.0; layers.len()] };
        shown.draw(pass, &mut inputs)?;
        let matrix = |(at, (layer, gradient)): (usize, (&Layer, Vec<f32>))| {
            let own = inputs.squares[at].iter().map(|square| (square / inputs.rows[at].max(1.0)) as f32);
            let own: Vec<f32> = own.collect();
            let times = if layer.part == Part::Convolution { 9 } else { 1 };
            Matrix {
                name: layer.name.clone(),
                columns: layer.inputs,
                values: pass.net().weight(at).to_vec(),
                inputs: (0..times).flat_map(|_| own.iter().copied()).collect(),
                gradient,
            }
        };
        let matrices: Vec<Matrix> = layers.iter().zip(gradients).enumerate().map(matrix).collect();
        let patterns = PARTS.map(|(name, pattern)| (name.to_owned(), pattern.to_owned()));
        let components = components(&matrices, &patterns)?;
        Ok(Pictures { pass, reader, request, matrices, components })
    }

    /// The drawings with these matrices.
    ///
    /// # Errors
    /// If the network can't be run.
    pub fn draw(&self, pruned: &HashMap<usize, Vec<f32>>) -> Result<Vec<f32>> {
        let tensor = |(&at, values): (&usize, &Vec<f32>)| -> Result<(usize, Tensor)> {
            let shape = self.pass.weight(at).shape();
            Ok((
                at,
                Tensor::from_slice(values, shape, self.pass.weight(at).device())
                    .map_err(ounce_train::Error::from)?,
            ))
        };
        let mut products = Pruned(pruned.iter().map(tensor).collect::<Result<_>>()?);
        Ok(self.request.draw(self.pass, &mut products)?)
    }

    /// Every prompt so many times, with noise of a seed.
    pub fn every(times: usize, seed: u64) -> Request {
        let all = Prompt::all();
        Request::new(all.iter().cycle().take(times * all.len()).copied().collect(), seed)
    }
}

impl Subject for Pictures<'_> {
    fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    fn components(&self) -> &[Component] {
        &self.components
    }

    fn items(&mut self, pruned: &HashMap<usize, Vec<f32>>) -> Result<Vec<f64>> {
        let each = self.reader.read_each(&self.draw(pruned)?, &self.request.prompts)?;
        Ok(each.into_iter().map(|read| read.words as f64 / 3.0).collect())
    }
}
