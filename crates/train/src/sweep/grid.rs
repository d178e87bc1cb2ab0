//! What a sweep tries.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The largest grid.
const MAX_CELLS: usize = 100_000;

/// One run of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The highest learning rate.
    pub lr: f64,
    /// Tokens in a step.
    pub batch_tokens: u64,
    /// Width of the model.
    pub hidden: usize,
    /// Tokens in all.
    pub tokens: u64,
}

impl Cell {
    /// A name that is a file's too.
    pub fn name(&self) -> String {
        format!("h{}-d{}-b{}-lr{:e}", self.hidden, self.tokens, self.batch_tokens, self.lr)
    }

    /// Steps of the run; the last may go a little beyond its tokens.
    pub fn steps(&self) -> u64 {
        self.tokens.div_ceil(self.batch_tokens.max(1))
    }
}

/// Values of each setting; a sweep has a run for every combination.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Highest learning rates.
    pub lr: Vec<f64>,
    /// Tokens in a step.
    pub batch_tokens: Vec<u64>,
    /// Widths of the model.
    pub hidden: Vec<usize>,
    /// Tokens in all.
    pub tokens: Vec<u64>,
}

impl Grid {
    /// All runs, by width, then tokens, batch and learning rate.
    ///
    /// # Errors
    /// If a list is empty, holds a value twice or one that is not above 0, or there are too many runs.
    pub fn cells(&self) -> Result<Vec<Cell>> {
        let Grid { lr, batch_tokens, hidden, tokens } = self;
        check("learning rates", lr, |&it| it > 0.0 && it.is_finite())?;
        check("batches", batch_tokens, |&it| it > 0)?;
        check("widths", hidden, |&it| it > 0)?;
        check("numbers of tokens", tokens, |&it| it > 0)?;
        let lengths = [batch_tokens.len(), hidden.len(), tokens.len()];
        let count = lengths.into_iter().try_fold(lr.len(), usize::checked_mul);
        if count.is_none_or(|count| count > MAX_CELLS) {
            return Err(Error::Settings(format!("a sweep of more than {MAX_CELLS} runs is not possible")));
        }
        let mut cells = Vec::new();
        for &hidden in hidden {
            for &tokens in tokens {
                for &batch_tokens in batch_tokens {
                    cells.extend(lr.iter().map(|&lr| Cell { lr, batch_tokens, hidden, tokens }));
                }
            }
        }
        Ok(cells)
    }
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, values: &[T], fits: impl Fn(&T) -> bool) -> Result<()> {
    if values.is_empty() {
        return Err(Error::Settings(format!("a sweep needs {what}; name one at least")));
    }
    for (at, value) in values.iter().enumerate() {
        if !fits(value) {
            return Err(Error::Settings(format!("{what} of a sweep should be above 0, found {value:?}")));
        }
        if values[..at].contains(value) {
            return Err(Error::Settings(format!("{value:?} stands twice among the {what} of the sweep")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid { lr: vec![1e-3, 2e-3], batch_tokens: vec![64], hidden: vec![16, 32], tokens: vec![1000] }
    }

    #[test]
    fn a_grid_has_every_combination_once() {
        let cells = grid().cells().expect("sound");
        let names: Vec<String> = cells.iter().map(Cell::name).collect();
        assert_eq!(
            names,
            ["h16-d1000-b64-lr1e-3", "h16-d1000-b64-lr2e-3", "h32-d1000-b64-lr1e-3", "h32-d1000-b64-lr2e-3"]
        );
        assert_eq!(cells[0].steps(), 16);
    }

    #[test]
    fn senseless_grids_are_refused() {
        let many: Vec<u64> = (1..=60_000).collect();
        for (bad, word) in [
            (Grid { lr: Vec::new(), ..grid() }, "learning rates"),
            (Grid { lr: vec![f64::NAN], ..grid() }, "above 0"),
            (Grid { batch_tokens: vec![0], ..grid() }, "batches"),
            (Grid { hidden: vec![8, 8], ..grid() }, "twice"),
            (Grid { tokens: many, ..grid() }, "more than"),
        ] {
            let error = bad.cells().expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
