//! Attention and its gradients against the formula in f64.

use super::super::tests::{assert_close, assert_threads_agree, noise, slope, wide};
use super::*;

/// Sizes: heads, key/value heads, dimensions, lengths of the sequences.
type Sizes = (usize, usize, usize, &'static [usize]);

const SMALL: [Sizes; 4] = [(2, 1, 3, &[1, 4, 2]), (1, 1, 17, &[9]), (4, 2, 2, &[11]), (3, 3, 5, &[0, 6])];

const LARGE: [Sizes; 7] = [
    (2, 2, 32, &[256]),
    (4, 2, 64, &[33, 1, 130]),
    (1, 1, 128, &[70]),
    (6, 2, 20, &[300, 7]),
    (2, 1, 16, &[65, 64, 63]),
    (3, 1, 80, &[129]),
    (1, 1, 1, &[600]),
];

fn shapes((heads, kv_heads, head_dim, _): Sizes) -> Vec<Shape> {
    let scale = 0.8 / (head_dim as f32).sqrt();
    [
        (None, true, None),
        (None, false, None),
        (Some(3), true, Some(2.0)),
        (Some(1), true, None),
        (Some(5), false, None),
        (Some(70), true, None),
        (Some(40), false, Some(5.0)),
    ]
    .into_iter()
    .map(|(window, causal, softcap)| Shape { heads, kv_heads, head_dim, scale, softcap, window, causal })
    .collect()
}

/// Which pairs a query sees, in the words of the definition.
fn sees(shape: &Shape, query: usize, key: usize) -> bool {
    let apart = query.abs_diff(key);
    (key <= query || !shape.causal) && shape.window.is_none_or(|window| apart < window)
}

/// Results, log-sum-exps `[heads, tokens]`, and the probabilities with the slope of their scores for each head,
/// query and key of a sequence.
struct Exact {
    out: Vec<f64>,
    lse: Vec<f64>,
    /// Of each head and query: first key's token, then the probability and the softcap's slope for each key.
    rows: Vec<(usize, Vec<(f64, f64)>)>,
}

fn formula(shape: &Shape, lengths: &[usize], q: &[f64], k: &[f64], v: &[f64]) -> Exact {
    let (dim, tokens) = (shape.head_dim, lengths.iter().sum::<usize>());
    let group = shape.heads / shape.kv_heads;
    let mut exact = Exact { out: vec![0.0; q.len()], lse: vec![0.0; shape.heads * tokens], rows: Vec::new() };
    for head in 0..shape.heads {
        let mut start = 0;
        for &length in lengths {
            for query in 0..length {
                let q = &q[((start + query) * shape.heads + head) * dim..][..dim];
                let at = |key: usize| ((start + key) * shape.kv_heads + head / group) * dim;
                let scores: Vec<(f64, f64)> = (0..length)
                    .map(|key| {
                        if !sees(shape, query, key) {
                            return (f64::NEG_INFINITY, 0.0);
                        }
                        let dot: f64 = q.iter().zip(&k[at(key)..]).map(|(q, k)| q * k).sum();
                        let score = dot * f64::from(shape.scale);
                        match shape.softcap.map(f64::from) {
                            Some(cap) => {
                                let bent = (score / cap).tanh();
                                (cap * bent, 1.0 - bent * bent)
                            }
                            None => (score, 1.0),
                        }
                    })
                    .collect();
                let lse = scores.iter().map(|(score, _)| score.exp()).sum::<f64>().ln();
                let row: Vec<(f64, f64)> =
                    scores.iter().map(|(score, slope)| ((score - lse).exp(), *slope)).collect();
                let out = &mut exact.out[((start + query) * shape.heads + head) * dim..][..dim];
                for (key, (p, _)) in row.iter().enumerate() {
                    out.iter_mut().zip(&v[at(key)..]).for_each(|(out, v)| *out += p * v);
                }
                exact.lse[head * tokens + start + query] = lse;
                exact.rows.push((start, row));
            }
            start += length;
        }
    }
    exact
}

/// The gradients, written out from the probabilities.
fn gradients(shape: &Shape, exact: &Exact, inputs: [&[f64]; 3], dout: &[f64]) -> [Vec<f64>; 3] {
    let [q, k, v] = inputs;
    let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
    let tokens = q.len() / (shape.heads * dim);
    let [mut dq, mut dk, mut dv] = inputs.map(|x| vec![0.0; x.len()]);
    for (index, (start, row)) in exact.rows.iter().enumerate() {
        let (head, token) = (index / tokens, index % tokens);
        let query = (token * shape.heads + head) * dim;
        let at = |key: usize| ((start + key) * shape.kv_heads + head / group) * dim;
        let slopes: Vec<f64> =
            (0..row.len()).map(|key| (0..dim).map(|d| dout[query + d] * v[at(key) + d]).sum()).collect();
        let delta: f64 = slopes.iter().zip(row).map(|(slope, (p, _))| slope * p).sum();
        for (key, (p, bend)) in row.iter().enumerate() {
            let ds = p * (slopes[key] - delta) * bend * f64::from(shape.scale);
            for d in 0..dim {
                dv[at(key) + d] += p * dout[query + d];
                dq[query + d] += ds * k[at(key) + d];
                dk[at(key) + d] += ds * q[query + d];
            }
        }
    }
    [dq, dk, dv]
}

fn inputs((heads, kv_heads, dim, lengths): Sizes) -> [Vec<f32>; 4] {
    let tokens: usize = lengths.iter().sum();
    let [queries, keys] = [heads, kv_heads].map(|heads| tokens * heads * dim);
    [noise(queries, 1.0), noise(keys, 2.0), noise(keys, 3.0), noise(queries, 4.0)]
}

/// `out`, `lse`, `dq`, `dk` and `dv`, all from memory full of NaN.
fn computed(pool: &Pool, shape: &Shape, lengths: &[usize], inputs: &[Vec<f32>; 4]) -> Vec<Vec<f32>> {
    let [q, k, v, dout] = inputs;
    let tokens: usize = lengths.iter().sum();
    let (mut out, mut lse) = (vec![f32::NAN; q.len()], vec![f32::NAN; shape.heads * tokens]);
    attention(pool, shape, lengths, q, k, v, &mut out, &mut lse);
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![f32::NAN; x.len()]);
    let mut workspace = vec![f32::NAN; 1000];
    attention_backward(
        pool,
        shape,
        lengths,
        q,
        k,
        v,
        &out,
        &lse,
        dout,
        &mut dq,
        &mut dk,
        &mut dv,
        &mut workspace,
    );
    vec![out, lse, dq, dk, dv]
}

#[test]
fn gradients_equal_central_differences() {
    for sizes in SMALL {
        let (lengths, inputs) = (sizes.3, inputs(sizes));
        let [q, k, v, dout] = &inputs;
        for shape in shapes(sizes) {
            let found = computed(Pool::single(), &shape, lengths, &inputs);
            let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
                let out = formula(&shape, lengths, q, k, v).out;
                out.iter().zip(dout).map(|(out, dout)| out * f64::from(*dout)).sum()
            };
            let (q64, k64, v64) = (wide(q), wide(k), wide(v));
            let what = format!("{sizes:?} {shape:?}");
            assert_close(&found[2], &slope(q, |q| loss(q, &k64, &v64)), 5e-6, &format!("dq {what}"));
            assert_close(&found[3], &slope(k, |k| loss(&q64, k, &v64)), 5e-6, &format!("dk {what}"));
            assert_close(&found[4], &slope(v, |v| loss(&q64, &k64, v)), 5e-6, &format!("dv {what}"));
        }
    }
}

#[test]
fn results_and_gradients_equal_the_formula_at_every_size() {
    for sizes in SMALL.into_iter().chain(LARGE) {
        let (lengths, inputs) = (sizes.3, inputs(sizes));
        let [q, k, v, dout] = inputs.each_ref().map(|x| wide(x));
        for shape in shapes(sizes) {
            let found = computed(Pool::single(), &shape, lengths, &inputs);
            let exact = formula(&shape, lengths, &q, &k, &v);
            let what = format!("{sizes:?} {shape:?}");
            assert_close(&found[0], &exact.out, 5e-6, &format!("out {what}"));
            assert_close(&found[1], &exact.lse, 2e-6, &format!("lse {what}"));
            let [dq, dk, dv] = gradients(&shape, &exact, [&q, &k, &v], &dout);
            assert_close(&found[2], &dq, 2e-5, &format!("dq {what}"));
            assert_close(&found[3], &dk, 2e-5, &format!("dk {what}"));
            assert_close(&found[4], &dv, 2e-5, &format!("dv {what}"));
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_alone_and_among_others_on_any_threads() {
    let sizes: Sizes = (6, 2, 24, &[100, 1, 257, 31]);
    let inputs = inputs(sizes);
    for shape in shapes(sizes) {
        assert_threads_agree(|pool| computed(pool, &shape, sizes.3, &inputs));
        let together = computed(Pool::single(), &shape, sizes.3, &inputs);
        let tokens = 101..358;
        let [queries, keys] = [6, 2].map(|heads| tokens.start * heads * 24..tokens.end * heads * 24);
        let [q, k, v, dout] = &inputs;
        let own = [
            q[queries.clone()].to_vec(),
            k[keys.clone()].to_vec(),
            v[keys.clone()].to_vec(),
            dout[queries.clone()].to_vec(),
        ];
        let alone = computed(Pool::single(), &shape, &[257], &own);
        for (index, range) in [(0, &queries), (2, &queries), (3, &keys), (4, &keys)] {
            assert_eq!(alone[index], together[index][range.clone()], "{index} {shape:?}");
        }
    }
}

#[test]
fn nothing_is_done_for_no_sequences() {
    let shape = shapes(SMALL[0])[0];
    let empty: [Vec<f32>; 4] = Default::default();
    assert!(computed(&Pool::new(2), &shape, &[], &empty).iter().all(Vec::is_empty));
    assert!(computed(&Pool::new(2), &shape, &[0, 0], &empty).iter().all(Vec::is_empty));
}

#[test]
fn threads_get_even_shares() {
    let shape = shapes((4, 2, 8, &[]))[0];
    for threads in [1, 2, 3, 5] {
        let pool = Pool::new(threads);
        let counts: Vec<std::sync::Mutex<Vec<usize>>> = (0..threads).map(|_| Default::default()).collect();
        let plan = Plan::new(&shape, &[64; 10], threads);
        plan.run(&pool, |thread, pieces| {
            counts[thread]
                .lock()
                .unwrap()
                .extend(pieces.iter().map(|piece| piece.start / 64 * 4 + piece.head));
        });
        let all: Vec<Vec<usize>> = counts.into_iter().map(|count| count.into_inner().unwrap()).collect();
        assert!(all.iter().all(|own| own.len().abs_diff(40 / threads) <= 1), "{all:?}");
        assert_eq!(all.concat(), (0..40).collect::<Vec<_>>());
    }
}
