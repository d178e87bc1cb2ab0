//! A model small enough to be trained in no time: which token follows which.

use std::path::Path;

use ounce_train::checkpoint::Keep;
use ounce_train::data::{BatchSource, Position};
use ounce_train::schedule::{Schedule, Shape};
use ounce_train::trainer::Options;
use ounce_train::{Batch, Error, Loss, Param, ParamKind, Result, Trainable};

/// Tokens there are.
const VOCABULARY: usize = 12;

/// A token whose loss is no number.
const POISON: u32 = 9999;

/// `softmax(table[token] + bias)`.
pub struct Bigram {
    params: Vec<Param>,
}

impl Bigram {
    pub fn new(seed: u64) -> Bigram {
        let noise = |at: usize| ((at as u64 * 2_654_435_761 + seed) % 1000) as f32 / 5000.0 - 0.1;
        let table = (0..VOCABULARY * VOCABULARY).map(noise).collect();
        let params = vec![
            Param::new("table.weight", &[VOCABULARY, VOCABULARY], ParamKind::Matrix, table),
            Param::new("table.bias", &[VOCABULARY], ParamKind::Bias, vec![0.0; VOCABULARY]),
        ];
        Bigram { params }
    }

    fn run(&mut self, batch: &Batch, scale: Option<f32>) -> Loss {
        let mut loss = Loss::default();
        for (&token, &target) in batch.tokens.iter().zip(&batch.targets) {
            loss.count += 1;
            if token == POISON {
                loss.sum = f64::NAN;
                continue;
            }
            let start = token as usize * VOCABULARY;
            let row = &self.params[0].value[start..start + VOCABULARY];
            let logits: Vec<f32> = row.iter().zip(&self.params[1].value).map(|(w, b)| w + b).collect();
            let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = logits.iter().map(|it| (it - top).exp()).collect();
            let total: f32 = powers.iter().sum();
            loss.sum += f64::from(total.ln() + top - logits[target as usize]);
            let Some(scale) = scale else { continue };
            for (at, power) in powers.iter().enumerate() {
                let slope = scale * (power / total - f32::from(u8::from(at == target as usize)));
                self.params[0].grad[start + at] += slope;
                self.params[1].grad[at] += slope;
            }
        }
        loss
    }
}

impl Trainable for Bigram {
    fn params(&self) -> &[Param] {
        &self.params
    }

    fn params_mut(&mut self) -> &mut [Param] {
        &mut self.params
    }

    fn loss(&mut self, batch: &Batch) -> Result<Loss> {
        Ok(self.run(batch, None))
    }

    fn accumulate(&mut self, batch: &Batch, scale: f32) -> Result<Loss> {
        Ok(self.run(batch, Some(scale)))
    }

    fn workspace_bytes(&self, _tokens: usize) -> usize {
        0
    }

    fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir(folder).map_err(Error::io(folder))?;
        let path = folder.join("table.bin");
        let bytes: Vec<u8> = self.params[0].value.iter().flat_map(|it| it.to_le_bytes()).collect();
        std::fs::write(&path, bytes).map_err(Error::io(path))
    }
}

/// What goes wrong with the data, by number of batch.
#[derive(Debug, Clone)]
pub struct Faults {
    pub tokens: usize,
    /// Batches whose targets are all wrong.
    pub bad: Vec<u64>,
    pub poison: Option<u64>,
    pub end: Option<u64>,
}

pub fn quiet() -> Faults {
    Faults { tokens: 64, bad: Vec::new(), poison: None, end: None }
}

/// Token `t` is followed by `t + 1`, or by `t + 2` now and then.
pub struct Counter {
    at: Position,
    faults: Faults,
}

impl Counter {
    pub fn new(faults: Faults) -> Counter {
        Counter { at: Position { source: 5, ..Position::default() }, faults }
    }

    pub fn held_out() -> Counter {
        Counter::new(Faults { end: Some(2), ..quiet() })
    }
}

impl BatchSource for Counter {
    fn next(&mut self) -> Result<Option<Batch>> {
        let number = self.at.step;
        if self.faults.end.is_some_and(|end| number >= end) {
            return Ok(None);
        }
        let bad = self.faults.bad.contains(&number);
        let mut batch = Batch::default();
        for place in 0..self.faults.tokens as u64 {
            let global = number * self.faults.tokens as u64 + place;
            let token = (global * 7 + global / 31) % VOCABULARY as u64;
            let ahead = if bad {
                6
            } else if global % 11 == 3 {
                2
            } else {
                1
            };
            batch.tokens.push(token as u32);
            batch.targets.push(((token + ahead) % VOCABULARY as u64) as u32);
        }
        batch.lengths.push(self.faults.tokens);
        if self.faults.poison == Some(number) {
            batch.tokens[3] = POISON;
        }
        self.at.step += 1;
        Ok(Some(batch))
    }

    fn position(&self) -> Position {
        self.at.clone()
    }

    fn seek(&mut self, position: &Position) -> Result<()> {
        self.at = position.clone();
        Ok(())
    }

    fn tokens_per_epoch(&self) -> u64 {
        1 << 20
    }
}

/// A run of so many steps with a checkpoint every five and a validation every ten.
pub fn options(total: u64) -> Options {
    let schedule = Schedule { peak: 0.05, warmup: 3.min(total), total, shape: Shape::Constant };
    Options {
        validate_every: 10,
        checkpoint_every: 5,
        keep: Keep { last: 2, best: false },
        ..Options::plain(schedule, "bigram".to_string())
    }
}
