//! The BPR loss (Rendle et al., 2009) of sparse embeddings, and its gradient.

use super::table::Learned;

/// A user, an item that they chose, and one that they did not.
pub type Triple = [u32; 3];

/// Gradients by every number of both tables, stored or not, for whoever looks for better places.
#[derive(Debug, Clone, Default)]
pub struct Slopes {
    /// Of users, `[users, width]`.
    pub users: Vec<f32>,
    /// Of items, `[items, width]`.
    pub items: Vec<f32>,
}

impl Slopes {
    /// Zeros.
    pub fn new(users: &Learned, items: &Learned) -> Slopes {
        let zeros = |table: &Learned| vec![0.0; table.table.rows() * table.table.width()];
        Slopes { users: zeros(users), items: zeros(items) }
    }
}

/// Writes a row's numbers into a vector of zeros.
fn lay(table: &Learned, row: u32, out: &mut [f32]) {
    let (columns, values) = table.table.row(row as usize);
    columns.iter().zip(values).for_each(|(column, value)| out[*column as usize] = *value);
}

/// Makes the vector zeros again.
fn lift(table: &Learned, row: u32, out: &mut [f32]) {
    table.table.row(row as usize).0.iter().for_each(|column| out[*column as usize] = 0.0);
}

/// Adds `scale · other + decay · value` to the gradient of a row's stored numbers.
fn pull(table: &mut Learned, row: u32, scale: f32, other: impl Fn(usize) -> f32, decay: f32) {
    let range = table.table.range(row as usize);
    let (columns, values) = table.table.row(row as usize);
    let gradient = &mut table.gradient[range];
    for ((gradient, column), value) in gradient.iter_mut().zip(columns).zip(values) {
        *gradient += scale * other(*column as usize) + decay * value;
    }
}

/// The mean loss of triples, `−log σ(u · (i − j)) + decay/2 · (|u|² + |i|² + |j|²)`; adds its gradient to the tables', and without
/// the decay to the slopes, if there are any. `macs` counts the products of stored numbers, and of all for slopes.
pub fn accumulate(
    users: &mut Learned,
    items: &mut Learned,
    triples: &[Triple],
    decay: f32,
    mut slopes: Option<&mut Slopes>,
    macs: &mut u64,
) -> f64 {
    let width = users.table.width();
    let (mut u, mut i, mut j) = (vec![0.0f32; width], vec![0.0f32; width], vec![0.0f32; width]);
    let share = 1.0 / triples.len().max(1) as f32;
    let mut sum = 0.0;
    for &[user, chosen, other] in triples {
        lay(users, user, &mut u);
        lay(items, chosen, &mut i);
        lay(items, other, &mut j);
        let (columns, values) = users.table.row(user as usize);
        let x: f32 =
            columns.iter().zip(values).map(|(c, value)| value * (i[*c as usize] - j[*c as usize])).sum();
        let squares = |table: &Learned, row: u32| -> f64 {
            table.table.row(row as usize).1.iter().map(|value| f64::from(value * value)).sum()
        };
        let sizes = squares(users, user) + squares(items, chosen) + squares(items, other);
        let (loss, slope) = ranked(f64::from(x));
        sum += loss + f64::from(decay) / 2.0 * sizes;
        let slope = slope * share;
        pull(users, user, slope, |c| i[c] - j[c], decay * share);
        pull(items, chosen, slope, |c| u[c], decay * share);
        pull(items, other, -slope, |c| u[c], decay * share);
        let rows = [items.table.range(chosen as usize).len(), items.table.range(other as usize).len()];
        *macs += (2 * columns_of(users, user) + rows[0] + rows[1]) as u64;
        if let Some(slopes) = &mut slopes {
            let at = |row: u32| row as usize * width..(row as usize + 1) * width;
            let own = slopes.users[at(user)].iter_mut().zip(i.iter().zip(&j));
            own.for_each(|(sum, (i, j))| *sum += slope * (i - j));
            slopes.items[at(chosen)].iter_mut().zip(&u).for_each(|(sum, u)| *sum += slope * u);
            slopes.items[at(other)].iter_mut().zip(&u).for_each(|(sum, u)| *sum -= slope * u);
            *macs += 3 * width as u64;
        }
        lift(users, user, &mut u);
        lift(items, chosen, &mut i);
        lift(items, other, &mut j);
    }
    sum * f64::from(share)
}

/// The loss of a chosen item that scores `x` more than another, and its slope by `x`.
pub(super) fn ranked(x: f64) -> (f64, f32) {
    // −log σ(x) = log(1 + e^−x), without overflow.
    ((-x).max(0.0) + (-x.abs()).exp().ln_1p(), (-1.0 / (1.0 + x.exp())) as f32)
}

fn columns_of(table: &Learned, row: u32) -> usize {
    table.table.range(row as usize).len()
}
