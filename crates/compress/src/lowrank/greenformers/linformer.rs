//! Attention of every query over any number of keys, and the projection that makes few keys of many.
//!
//! "Linformer: Self-Attention with Linear Complexity", arXiv 2006.04768, equation 7:
//! `softmax(Q (E K)ᵀ / √d_h) F V` with `E` and `F` `[k, s]`, here shared by the heads of a layer.

use candle_core::Tensor;
use ounce_kernels::gemm::{Operand, Workspace, gemm};
use ounce_kernels::softmax::softmax;
use ounce_train::Result;
use ounce_train::graph::ops::{Factor, Kernels, linear, node, read, tensor};

/// Queries whose probabilities exist at once.
const BLOCK: usize = 128;

/// `E x` for each sequence: `[sequences, s, d]` to `[sequences, k, d]`; `e` is `[k, s]`.
pub(super) fn project(on: Kernels, e: &Tensor, x: &Tensor) -> Result<Tensor> {
    let turned = x.transpose(1, 2)?.contiguous()?;
    let projected = linear(on, &turned, &Factor::Dense(e.clone()), None)?;
    Ok(projected.transpose(1, 2)?.contiguous()?)
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    sequences: usize,
    queries: usize,
    keys: usize,
    width: usize,
    heads: usize,
}

/// `softmax(q kᵀ / √d_h) v`, head by head, without a mask: `q` `[sequences, s, d]`, `k` and `v` `[sequences, m, d]`, result as `q`.
/// Probabilities of a block of queries exist at a time, and again on the way back.
pub(super) fn attend(on: Kernels, q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (sequences, queries, width) = q.dims3()?;
    let keys = k.dims3()?.1;
    let sizes = Sizes { sequences, queries, keys, width, heads };
    let [q, k, v] = [q.contiguous()?, k.contiguous()?, v.contiguous()?];
    let mut out = vec![0.0; sequences * queries * width];
    read([&q, &k, &v], |[q, k, v]| sizes.forward(on, q, k, v, &mut out))?;
    let kept = [q.clone(), k.clone(), v.clone()];
    Ok(node("attend", &[&q, &k, &v], out, (sequences, queries, width), move |behind| {
        let [q, k, v] = &kept;
        let [dq, dk, dv] =
            read([q, k, v, &behind.gradient], |[q, k, v, dy]| sizes.backward(on, q, k, v, dy))?;
        Ok(vec![Some(tensor(dq, q.shape())?), Some(tensor(dk, k.shape())?), Some(tensor(dv, v.shape())?)])
    })?)
}

impl Sizes {
    /// Calls `job` for every block of queries: the place of its first value in `q`, that of the head's in `k`, and its queries.
    fn blocks(self, mut job: impl FnMut(usize, usize, usize)) {
        let Sizes { sequences, queries, keys, width, heads } = self;
        for sequence in 0..sequences {
            for head in 0..heads {
                let inside = head * (width / heads);
                for first in (0..queries).step_by(BLOCK) {
                    let q = (sequence * queries + first) * width + inside;
                    job(q, sequence * keys * width + inside, BLOCK.min(queries - first));
                }
            }
        }
    }

    /// Probabilities of a block, `[count, keys]`.
    fn probabilities(
        self,
        on: Kernels,
        q: &[f32],
        k: &[f32],
        count: usize,
        p: &mut [f32],
        room: &mut Workspace,
    ) {
        let (inner, stride) = (self.width / self.heads, self.width);
        let size = (count, self.keys, inner);
        let (left, right) = (Operand::rows(q, stride), Operand::columns(k, stride));
        gemm(on.pool, on.compute, size, left, right, false, p, self.keys, room);
        let scale = (inner as f32).sqrt().recip();
        for row in p[..count * self.keys].chunks_exact_mut(self.keys) {
            row.iter_mut().for_each(|x| *x *= scale);
            softmax(row);
        }
    }

    fn forward(self, on: Kernels, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let (inner, stride) = (self.width / self.heads, self.width);
        let (mut p, mut room) = (vec![0.0; BLOCK * self.keys], Workspace::default());
        self.blocks(|at, key, count| {
            self.probabilities(on, &q[at..], &k[key..], count, &mut p, &mut room);
            let size = (count, inner, self.keys);
            let (left, right) = (Operand::rows(&p, self.keys), Operand::rows(&v[key..], stride));
            gemm(on.pool, on.compute, size, left, right, false, &mut out[at..], stride, &mut room);
        });
    }

    /// `dv = pᵀ dy`, `dp = dy vᵀ`, `ds = p ⊙ (dp − Σ p ⊙ dp) / √d_h`, `dq = ds k`, `dk = dsᵀ q`.
    fn backward(self, on: Kernels, q: &[f32], k: &[f32], v: &[f32], dy: &[f32]) -> [Vec<f32>; 3] {
        let (inner, stride, keys) = (self.width / self.heads, self.width, self.keys);
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|it| vec![0.0; it.len()]);
        let [mut p, mut ds] = [vec![0.0; BLOCK * keys], vec![0.0; BLOCK * keys]];
        let mut room = Workspace::default();
        let scale = (inner as f32).sqrt().recip();
        self.blocks(|at, key, count| {
            self.probabilities(on, &q[at..], &k[key..], count, &mut p, &mut room);
            let mut times = |size, left: Operand<'_>, right: Operand<'_>, add, out: &mut [f32], stride| {
                gemm(on.pool, on.compute, size, left, right, add, out, stride, &mut room);
            };
            let dy = &dy[at..];
            let (over_keys, over_block) = ((count, inner, keys), (keys, inner, count));
            let p_columns = Operand::columns(&p, keys);
            times(over_block, p_columns, Operand::rows(dy, stride), true, &mut dv[key..], stride);
            let of_v = Operand::columns(&v[key..], stride);
            times((count, keys, inner), Operand::rows(dy, stride), of_v, false, &mut ds, keys);
            for (ds, p) in ds.chunks_exact_mut(keys).zip(p.chunks_exact(keys)).take(count) {
                let mean: f32 = ds.iter().zip(p).map(|(d, p)| d * p).sum();
                ds.iter_mut().zip(p).for_each(|(d, p)| *d = scale * p * (*d - mean));
            }
            let of_k = Operand::rows(&k[key..], stride);
            times(over_keys, Operand::rows(&ds, keys), of_k, false, &mut dq[at..], stride);
            let of_q = Operand::rows(&q[at..], stride);
            times(over_block, Operand::columns(&ds, keys), of_q, true, &mut dk[key..], stride);
        });
        [dq, dk, dv]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::super::tests::numbers;
    use super::*;

    const SIZES: Sizes = Sizes { sequences: 2, queries: 150, keys: 5, width: 6, heads: 2 };

    /// One query after the other.
    fn by_hand(q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
        let Sizes { sequences, queries, keys, width, heads } = SIZES;
        let inner = width / heads;
        let mut out = vec![0.0; q.len()];
        for sequence in 0..sequences {
            for query in 0..queries {
                for head in 0..heads {
                    let at = (sequence * queries + query) * width + head * inner;
                    let of = |m: usize| (sequence * keys + m) * width + head * inner;
                    let weights: Vec<f32> = (0..keys)
                        .map(|m| {
                            let dot: f32 = (0..inner).map(|i| q[at + i] * k[of(m) + i]).sum();
                            (dot / (inner as f32).sqrt()).exp()
                        })
                        .collect();
                    let all: f32 = weights.iter().sum();
                    for i in 0..inner {
                        out[at + i] = (0..keys).map(|m| weights[m] / all * v[of(m) + i]).sum();
                    }
                }
            }
        }
        out
    }

    #[test]
    fn attention_and_its_gradients_are_those_by_hand() {
        let Sizes { sequences, queries, keys, width, heads } = SIZES;
        let counts = [queries, keys, keys].map(|rows| sequences * rows * width);
        let values = [0, 1, 2].map(|at| numbers(counts[at], 20 + at as u64));
        let slope = numbers(counts[0], 30);
        let value = |values: &[Vec<f32>; 3]| -> f64 {
            let out = by_hand(&values[0], &values[1], &values[2]);
            out.iter().zip(&slope).map(|(x, s)| f64::from(x * s)).sum()
        };
        let shapes = [queries, keys, keys].map(|rows| (sequences, rows, width));
        let vars = [0, 1, 2]
            .map(|at| Var::from_vec(values[at].clone(), shapes[at], &Device::Cpu).expect("a variable"));
        let [q, k, v] = vars.each_ref().map(|var| var.as_tensor().clone());
        let out = attend(Kernels::default(), &q, &k, &v, heads).expect("attention");
        let found = out.flatten_all().and_then(|it| it.to_vec1::<f32>()).expect("values");
        let expected = by_hand(&values[0], &values[1], &values[2]);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
        let slopes = tensor(slope.clone(), shapes[0]).expect("a tensor");
        let loss = (out * slopes).and_then(|it| it.sum_all()).expect("a sum");
        let gradients = loss.backward().expect("gradients");
        for (which, var) in vars.iter().enumerate() {
            let gradient = gradients.get(var).expect("one").flatten_all().expect("flat");
            let gradient = gradient.to_vec1::<f32>().expect("values");
            for place in [0, counts[which] / 3, counts[which] - 1] {
                let moved = |by: f32| {
                    let mut values = values.clone();
                    values[which][place] += by;
                    value(&values)
                };
                let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                let found = f64::from(gradient[place]);
                assert!(
                    (found - expected).abs() < 2e-3 * (1.0 + expected.abs()),
                    "{which} {place}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_projection_is_a_product_by_sequence() {
        let (s, k, d) = (4, 3, 2);
        let (e, x) = (numbers(k * s, 1), numbers(2 * s * d, 2));
        let on = Kernels::default();
        let found =
            project(on, &tensor(e.clone(), (k, s)).expect("e"), &tensor(x.clone(), (2, s, d)).expect("x"));
        let found =
            found.expect("a product").flatten_all().and_then(|it| it.to_vec1::<f32>()).expect("values");
        for (at, found) in found.iter().enumerate() {
            let (sequence, row, column) = (at / (k * d), at / d % k, at % d);
            let sum: f32 = (0..s).map(|t| e[row * s + t] * x[(sequence * s + t) * d + column]).sum();
            assert!((sum - found).abs() < 1e-6);
        }
    }
}
