//! Training of a source model, and of models that grew out of it, whose tables are whole or two factors.

use std::collections::HashMap;
use std::sync::Arc;

use ounce_kernels::gemm::{Compute, Operand, Workspace, gemm};
use ounce_kernels::pool::Pool;
use ounce_model::tokenizer::Tokenizer;
use ounce_train::config::{self, Preset};
use ounce_train::data::{BatchSource, Pieces};
use ounce_train::methods::workbench::{cosine, fit};
use ounce_train::net::Net;
use ounce_train::optim::norm::{clip_factor, global_norm};
use ounce_train::optim::{Optimizer, Options};
use ounce_train::{Batch, Loss, Param, ParamKind, Trainable};

use super::NewToken;
use super::words::Vectors;
use crate::{Error, Result};

/// Tokens of a sequence, and sequences of a step.
pub(super) const CONTEXT: usize = 48;
const SEQUENCES: usize = 8;

/// Peak of the learning rate.
pub(super) const RATE: f64 = 4e-3;

/// A text as sequences of tokens.
pub(super) fn sequences(tokenizer: &Tokenizer, text: &str) -> Result<Vec<Vec<u32>>> {
    let mut all = Vec::new();
    for story in text.split("\n\n") {
        let ids = tokenizer.encode(story, false)?;
        all.extend(ids.chunks(CONTEXT).filter(|ids| ids.len() > 1).map(<[u32]>::to_vec));
    }
    Ok(all)
}

/// The shape of all models.
pub(super) fn shape(width: usize) -> config::Model {
    config::Model {
        preset: Preset::Llama,
        hidden: width,
        layers: 2,
        heads: (width / 16).max(1),
        context: CONTEXT,
        ..config::Model::default()
    }
}

/// A network of this shape for so many tokens.
pub(super) fn network(shape: &config::Model, tokens: usize, seed: u64) -> Result<Net> {
    let model = shape.architecture(tokens, [])?;
    Ok(Net::random(&model, Default::default(), shape.initial(), seed)?)
}

/// Where the table of token vectors is; it is the head as well.
pub(super) fn table(net: &Net) -> Result<usize> {
    let place = net.params().iter().position(|param| param.kind == ParamKind::Embedding);
    place.ok_or_else(|| Error::Option("the model has no table of token vectors".into()))
}

/// Trains a new network.
pub(super) fn source(
    shape: &config::Model,
    tokens: usize,
    text: &[Vec<u32>],
    steps: u64,
    seed: u64,
) -> Result<Net> {
    let mut net = network(shape, tokens, seed)?;
    let mut pieces = Pieces::new(text.to_vec().into(), SEQUENCES, seed, None)?;
    fit(&mut net, &mut pieces, cosine(RATE, steps))?;
    Ok(net)
}

/// Vectors of a tokenizer's tokens: of each the mean over all words that are spelled with it.
pub(super) fn token_vectors(tokenizer: &Tokenizer, languages: &[&Vectors]) -> Result<Vec<Option<Vec<f32>>>> {
    let mut sums: Vec<Option<(Vec<f32>, usize)>> = vec![None; tokenizer.id_limit() as usize];
    for vectors in languages {
        for (at, word) in vectors.words.iter().enumerate() {
            let mut letters = word.chars();
            let capital: String =
                letters.next().iter().flat_map(|it| it.to_uppercase()).chain(letters).collect();
            let mut ids = Vec::new();
            for spelled in [word.clone(), format!(" {word}"), capital.clone(), format!(" {capital}")] {
                ids.extend(tokenizer.encode(&spelled, false)?);
            }
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                let Some(place) = sums.get_mut(id as usize) else { continue };
                let (sum, count) = place.get_or_insert_with(|| (vec![0.0; vectors.width], 0));
                sum.iter_mut().zip(vectors.of(at)).for_each(|(sum, x)| *sum += x);
                *count += 1;
            }
        }
    }
    let mean = |(mut sum, count): (Vec<f32>, usize)| {
        sum.iter_mut().for_each(|x| *x /= count as f32);
        sum
    };
    Ok(sums.into_iter().map(|it| it.map(mean)).collect())
}

/// What is known of each token of the new vocabulary; `vectors` are those of its tokens.
pub(super) fn new_tokens(old: &Tokenizer, new: &Tokenizer, vectors: Vec<Option<Vec<f32>>>) -> Vec<NewToken> {
    let mut exact: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut small: HashMap<Vec<u8>, usize> = HashMap::new();
    for id in 0..old.id_limit() {
        let bytes = old.piece_bytes(id);
        if !bytes.is_empty() {
            small.entry(bytes.to_ascii_lowercase()).or_insert(id as usize);
            exact.insert(bytes, id as usize);
        }
    }
    let of = |(id, vector): (usize, Option<Vec<f32>>)| {
        let bytes = new.piece_bytes(id as u32);
        let same = exact.get(&bytes).or_else(|| small.get(&bytes.to_ascii_lowercase()));
        match (same, vector) {
            (Some(row), _) => NewToken::Same(*row),
            (None, Some(vector)) => NewToken::Near(vector),
            (None, None) => NewToken::Unknown,
        }
    };
    vectors.into_iter().enumerate().map(of).collect()
}

/// A table to begin with.
#[derive(Debug, Clone)]
pub(super) enum Table {
    /// `[V, D]`.
    Whole(Vec<f32>),
    /// `F` `[V, D']` and `P` `[D', D]`.
    Factors(Vec<f32>, Vec<f32>),
}

impl Table {
    pub fn parameters(&self) -> usize {
        match self {
            Table::Whole(it) => it.len(),
            Table::Factors(f, p) => f.len() + p.len(),
        }
    }
}

/// A network whose table may be two factors: what learns is apart from what it computes with.
pub(super) struct Grown {
    net: Net,
    table: usize,
    /// All of the network's parameters; the table's place has `F`, or the table.
    outer: Vec<Param>,
    /// `P`, the last of `outer`.
    factored: bool,
}

fn product(size: (usize, usize, usize), a: Operand<'_>, b: Operand<'_>, onto: &mut [f32]) {
    gemm(Pool::global(), Compute::F32, size, a, b, false, onto, size.1, &mut Workspace::default());
}

impl Grown {
    /// The source's body with another table.
    pub fn new(shape: &config::Model, body: &Net, tokens: usize, table: Table) -> Result<Grown> {
        let net = network(shape, tokens, 0)?;
        let place = self::table(&net)?;
        let width = net.params()[place].shape[1];
        let mut outer = Vec::new();
        for (at, param) in net.params().iter().enumerate() {
            let from = body.params().iter().find(|it| it.name == param.name && it.shape == param.shape);
            let value = match (&table, from) {
                (Table::Whole(values), _) if at == place => values.clone(),
                (Table::Factors(f, _), _) if at == place => f.clone(),
                (_, Some(from)) => from.value.clone(),
                (_, None) => param.value.clone(),
            };
            let columns = value.len() / tokens;
            let shape = if at == place { vec![tokens, columns] } else { param.shape.clone() };
            outer.push(Param::new(param.name.clone(), &shape, param.kind, value));
        }
        let factored = if let Table::Factors(_, p) = table {
            outer.push(Param::new("primitives", &[p.len() / width, width], ParamKind::Embedding, p));
            true
        } else {
            false
        };
        let mut grown = Grown { net, table: place, outer, factored };
        grown.show();
        Ok(grown)
    }

    /// Brings the network up to what learns.
    fn show(&mut self) {
        for (at, param) in self.net.params_mut().iter_mut().enumerate() {
            if self.factored && at == self.table {
                let (f, p) = (&self.outer[at], &self.outer[self.outer.len() - 1]);
                let (tokens, rank, width) = (f.shape[0], f.shape[1], p.shape[1]);
                let (f, p) = (Operand::rows(&f.value, rank), Operand::rows(&p.value, width));
                product((tokens, width, rank), f, p, &mut param.value);
            } else {
                param.value.copy_from_slice(&self.outer[at].value);
            }
        }
    }

    /// Takes the network's gradients over: `∂F = G Pᵀ`, `∂P = Fᵀ G`.
    fn collect(&mut self) {
        let params = self.net.params();
        for (at, param) in params.iter().enumerate() {
            if !(self.factored && at == self.table) {
                self.outer[at].grad.copy_from_slice(&param.grad);
            }
        }
        if !self.factored {
            return;
        }
        let Some((p, rest)) = self.outer.split_last_mut() else { return };
        let f = &mut rest[self.table];
        let (tokens, rank, width) = (f.shape[0], f.shape[1], p.shape[1]);
        let g = &params[self.table].grad;
        let (left, right) = (Operand::rows(g, width), Operand::columns(&p.value, width));
        product((tokens, rank, width), left, right, &mut f.grad);
        let (left, right) = (Operand::columns(&f.value, rank), Operand::rows(g, width));
        product((rank, width, tokens), left, right, &mut p.grad);
    }

    /// Goes on training, and gives bits a byte of held-out texts before and at each of `stops`.
    pub fn train(
        &mut self,
        text: &Arc<[Vec<u32>]>,
        stops: &[u64],
        seed: u64,
        held_out: &[(Vec<Vec<u32>>, usize)],
    ) -> Result<Vec<f64>> {
        let mut pieces = Pieces::new(text.clone(), SEQUENCES, seed, None)?;
        let mut optimizer = Optimizer::new(Options::default(), &self.outer)?;
        let total = stops.last().copied().unwrap_or(0);
        let schedule = cosine(RATE / 2.0, total);
        let mut found = vec![self.bits(held_out)?];
        for step in 0..total {
            let Some(batch) = pieces.next()? else { break };
            self.net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
            self.net.accumulate(&batch, 1.0 / batch.counted().max(1) as f32)?;
            self.collect();
            let clip = clip_factor(global_norm(Pool::global(), &self.outer), Some(1.0));
            optimizer.step(&mut self.outer, schedule.rate(step), clip);
            self.show();
            if stops.contains(&(step + 1)) {
                found.push(self.bits(held_out)?);
            }
        }
        Ok(found)
    }

    /// Mean over texts of bits a byte.
    fn bits(&mut self, held_out: &[(Vec<Vec<u32>>, usize)]) -> Result<f64> {
        let mut mean = 0.0;
        for (sequences, bytes) in held_out {
            let mut sum = Loss::default();
            for some in sequences.chunks(32) {
                sum += self.net.loss(&Batch::next_token(some.iter().map(Vec::as_slice)))?;
            }
            mean += sum.sum / std::f64::consts::LN_2 / (*bytes).max(1) as f64 / held_out.len() as f64;
        }
        Ok(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::numbers;
    use super::*;

    /// Gradients of both factors are those of finite differences, through embedding and head.
    #[test]
    fn factors_have_the_gradients_of_the_loss() {
        let (shape, tokens, rank) = (shape(16), 20, 3);
        let body = network(&shape, 7, 1).expect("sound");
        let table = Table::Factors(numbers(tokens * rank, 1), numbers(rank * 16, 2));
        let mut grown = Grown::new(&shape, &body, tokens, table).expect("sound");
        let ids: Vec<u32> = (0..24).map(|at| at * 7 % 20).collect();
        let batch = Batch::next_token([&ids[..]]);
        grown.net.params_mut().iter_mut().for_each(|param| param.grad.fill(0.0));
        grown.net.accumulate(&batch, 1.0).expect("fits");
        grown.collect();
        for index in [grown.table, grown.outer.len() - 1] {
            let grad = grown.outer[index].grad.clone();
            let place =
                (0..grad.len()).fold(0, |best, at| if grad[at].abs() > grad[best].abs() { at } else { best });
            let mut at = |by: f32| {
                grown.outer[index].value[place] += by;
                grown.show();
                grown.outer[index].value[place] -= by;
                grown.net.loss(&batch).expect("fits").sum
            };
            let slope = (at(3e-3) - at(-3e-3)) / 6e-3;
            let told = f64::from(grad[place]);
            assert!(told.abs() > 0.1 && (slope - told).abs() < 0.03 * told.abs() + 1e-2, "{slope} {told}");
        }
        for param in body.params().iter().filter(|it| it.kind == ParamKind::Matrix) {
            let own = grown.outer.iter().find(|it| it.name == param.name).expect("there");
            assert_eq!(own.value, param.value);
        }
    }
}
