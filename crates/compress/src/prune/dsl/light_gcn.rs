//! LightGCN (arXiv 2002.02126): embeddings that are spread along the graph of choices before they are compared.
//!
//! `Ē = 1/(K+1) Σ_k Âᵏ E` (equations 7 and 8), where `Â` joins a user and an item that they chose with the weight `1 / √(d_u d_i)` of their
//! numbers of choices. Nothing but `E` is learned and stored; `Â` is symmetric, so the gradient by `E` is that by `Ē`, spread the same way.

use super::bpr::{Slopes, Triple, ranked};
use super::implicit::Choices;
use super::table::Learned;

/// Who chose what, with weights, from both sides.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Of each user the items, of each item the users.
    sides: [Vec<Vec<(u32, f32)>>; 2],
    /// Times that embeddings are spread.
    layers: usize,
}

/// Embeddings of users, `[users, width]`, and of items.
pub type Pair = [Vec<f32>; 2];

impl Graph {
    /// The graph of what there is to learn from; embeddings are spread `layers` times.
    pub fn new(choices: &Choices, layers: usize) -> Graph {
        let popularity = choices.popularity();
        let mut items = vec![Vec::new(); choices.items];
        let mut users = Vec::new();
        for (user, seen) in choices.seen.iter().enumerate() {
            let weight = |item: u32| 1.0 / ((seen.len() * popularity[item as usize]) as f32).sqrt();
            users.push(seen.iter().map(|&item| (item, weight(item))).collect::<Vec<_>>());
            seen.iter().for_each(|&item| items[item as usize].push((user as u32, weight(item))));
        }
        Graph { sides: [users, items], layers }
    }

    /// `Ē` of embeddings of a width. `macs` counts the products.
    pub fn spread(&self, embeddings: &Pair, width: usize, macs: &mut u64) -> Pair {
        let mut sum = embeddings.clone();
        let mut now = embeddings.clone();
        for _ in 0..self.layers {
            now = [0, 1].map(|side| {
                let mut next = vec![0.0f32; now[side].len()];
                for (out, neighbours) in next.chunks_exact_mut(width).zip(&self.sides[side]) {
                    for &(at, weight) in neighbours {
                        let other = &now[1 - side][at as usize * width..][..width];
                        out.iter_mut().zip(other).for_each(|(out, x)| *out += weight * x);
                    }
                    *macs += (neighbours.len() * width) as u64;
                }
                next
            });
            for (sum, now) in sum.iter_mut().zip(&now) {
                sum.iter_mut().zip(now).for_each(|(sum, x)| *sum += x);
            }
        }
        let share = 1.0 / (self.layers + 1) as f32;
        sum.iter_mut().flatten().for_each(|x| *x *= share);
        sum
    }
}

/// As [`bpr::accumulate`](super::bpr::accumulate), of embeddings that are spread along a graph; the decay is on the stored ones.
pub fn accumulate(
    [users, items]: [&mut Learned; 2],
    graph: &Graph,
    triples: &[Triple],
    decay: f32,
    slopes: Option<&mut Slopes>,
    macs: &mut u64,
) -> f64 {
    let width = users.table.width();
    let own = [users.table.dense(), items.table.dense()];
    let spread = graph.spread(&own, width, macs);
    let row = |row: u32| row as usize * width..(row as usize + 1) * width;
    let share = 1.0 / triples.len().max(1) as f32;
    let mut gradient: Pair = [vec![0.0; own[0].len()], vec![0.0; own[1].len()]];
    let mut sum = 0.0;
    for &[user, chosen, other] in triples {
        let [u, i, j] = [&spread[0][row(user)], &spread[1][row(chosen)], &spread[1][row(other)]];
        let x = f64::from(u.iter().zip(i.iter().zip(j)).map(|(u, (i, j))| u * (i - j)).sum::<f32>());
        let sizes = [&own[0][row(user)], &own[1][row(chosen)], &own[1][row(other)]];
        let sizes = sizes.into_iter().flatten().map(|x| f64::from(x * x)).sum::<f64>();
        let (loss, slope) = ranked(x);
        sum += loss + f64::from(decay) / 2.0 * sizes;
        let slope = slope * share;
        let [of_users, of_items] = &mut gradient;
        let mine = of_users[row(user)].iter_mut().zip(i.iter().zip(j));
        mine.for_each(|(g, (i, j))| *g += slope * (i - j));
        of_items[row(chosen)].iter_mut().zip(u).for_each(|(g, u)| *g += slope * u);
        of_items[row(other)].iter_mut().zip(u).for_each(|(g, u)| *g -= slope * u);
        *macs += 4 * width as u64;
    }
    let gradient = graph.spread(&gradient, width, macs);
    let mut decayed = [vec![0.0f32; users.table.rows()], vec![0.0f32; items.table.rows()]];
    for &[user, chosen, other] in triples {
        decayed[0][user as usize] += decay * share;
        decayed[1][chosen as usize] += decay * share;
        decayed[1][other as usize] += decay * share;
    }
    for ((table, gradient), decayed) in [users, items].into_iter().zip(&gradient).zip(&decayed) {
        let places: Vec<usize> = table.table.places().collect();
        let stored = table.gradient.iter_mut().zip(&table.table.values).zip(places);
        stored.for_each(|((g, value), at)| *g += gradient[at] + decayed[at / width] * value);
    }
    if let Some(slopes) = slopes {
        for (sum, gradient) in [&mut slopes.users, &mut slopes.items].into_iter().zip(&gradient) {
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
        }
    }
    sum * f64::from(share)
}
