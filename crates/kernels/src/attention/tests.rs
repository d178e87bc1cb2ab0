use proptest::prelude::*;

use super::*;

const TYPES: [KvType; 5] = KvType::ALL;

fn noise(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + seed) * 12.9898).sin() * 2.0).collect()
}

/// A cache of noise, with as many positions as `len`.
fn filled(kv_heads: usize, dim: usize, kv_type: KvType, len: usize, seed: f32) -> LayerCache {
    let mut cache = LayerCache::new(kv_heads, dim, kv_type);
    let [keys, values] = [1.0, 2.0].map(|more| noise(len * kv_heads * dim, seed + more));
    cache.push(&keys, &values);
    cache
}

fn attended(cache: &LayerCache, queries: &[f32], start: usize, shape: &Shape, pool: &Pool) -> Vec<f32> {
    let mut out = vec![f32::NAN; queries.len()];
    attend(&mut [Task { cache, keys: cache, queries, start, out: &mut out }], shape, pool);
    out
}

/// The formula on what the cache says it holds, one query at a time, in f64.
fn brute_force(cache: &LayerCache, queries: &[f32], start: usize, shape: &Shape) -> Vec<f64> {
    let dim = cache.head_dim();
    let read = |position, head, what: fn(&LayerCache, usize, usize, &mut [f32])| {
        let mut row = vec![0.0; dim];
        what(cache, position, head, &mut row);
        row
    };
    let mut out = Vec::new();
    for (index, query) in queries.chunks_exact(dim).enumerate() {
        let head = index % shape.heads * cache.kv_heads() / shape.heads;
        let visible = shape.visible(start + index / shape.heads, cache.len());
        let scores: Vec<f64> = visible
            .clone()
            .map(|position| {
                let key = read(position, head, LayerCache::key);
                let dot: f64 = query.iter().zip(&key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                let score = dot * f64::from(shape.scale);
                shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            })
            .collect();
        let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut mixed = vec![0.0; dim];
        for (position, weight) in visible.zip(&weights) {
            let value = read(position, head, LayerCache::value);
            mixed.iter_mut().zip(value).for_each(|(m, v)| *m += weight / sum * f64::from(v));
        }
        out.extend(mixed);
    }
    out
}

fn assert_close(found: &[f32], exact: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), exact.len());
    for (index, (found, exact)) in found.iter().zip(exact).enumerate() {
        assert!((f64::from(*found) - exact).abs() < bound, "{what} at {index}: {found} for {exact}");
    }
}

#[test]
fn results_equal_the_formula_for_every_shape_type_and_instruction_set() {
    for (heads, kv_heads, dim, len, count) in [
        (4, 2, 8, 40, 40),
        (9, 3, 64, 33, 1),
        (1, 1, 20, 1, 1),
        (8, 8, 16, 70, 5),
        (6, 1, 24, 600, 13),
        (5, 1, 80, 300, 2),
        (7, 7, 40, 520, 3),
        (14, 2, 5, 257, 1),
    ] {
        for (window, causal, softcap) in
            [(None, true, None), (Some(7), true, None), (None, false, Some(5.0)), (Some(300), false, None)]
        {
            let shape = Shape { heads, scale: 0.3, softcap, window, causal };
            let queries = noise(count * heads * dim, 3.0);
            for kv_type in TYPES {
                let cache = filled(kv_heads, dim, kv_type, len, 0.0);
                let exact = brute_force(&cache, &queries, len - count, &shape);
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; queries.len()];
                    let task = Task {
                        cache: &cache,
                        keys: &cache,
                        queries: &queries,
                        start: len - count,
                        out: &mut out,
                    };
                    attend_with(isa, &mut [task], &shape, &Pool::new(1));
                    let what = format!("{heads}/{kv_heads}x{dim} {shape:?} {kv_type:?} {}", isa.name());
                    assert_close(&out, &exact, 1e-5, &what);
                }
            }
        }
    }
}

#[test]
fn long_contexts_equal_the_formula() {
    for kv_type in TYPES {
        let cache = filled(2, 32, kv_type, 4096, 0.0);
        for (window, start) in [(None, 4095), (None, 4090), (Some(1000), 4090)] {
            let shape = Shape { heads: 6, scale: 0.18, softcap: None, window, causal: true };
            let queries = noise((4096 - start) * 6 * 32, 3.0);
            let exact = brute_force(&cache, &queries, start, &shape);
            let found = attended(&cache, &queries, start, &shape, &Pool::new(2));
            assert_close(&found, &exact, 1e-5, &format!("{kv_type:?} {window:?}"));
        }
    }
}

#[test]
fn what_is_kept_is_as_exact_as_the_type_says() {
    for dim in [20, 64, 128] {
        let (keys, mut values) = (noise(300 * 2 * dim, 1.0), noise(300 * 2 * dim, 2.0));
        // A large dim now and then, as some models' keys have.
        values.iter_mut().step_by(37).for_each(|x| *x *= 50.0);
        for kv_type in TYPES {
            let mut cache = LayerCache::new(2, dim, kv_type);
            cache.push(&keys, &values);
            let mut row = vec![0.0; dim];
            for (position, head) in (0..300).flat_map(|position| [(position, 0), (position, 1)]) {
                for (what, rows) in [
                    (LayerCache::key as fn(&LayerCache, usize, usize, &mut [f32]), &keys),
                    (LayerCache::value, &values),
                ] {
                    what(&cache, position, head, &mut row);
                    let exact = &rows[(position * 2 + head) * dim..][..dim];
                    // Relative error, and absolute error of F16 below its normal numbers.
                    let (relative, absolute) = match kv_type {
                        KvType::F32 => (0.0, 0.0),
                        KvType::F16 => (1.0 / 2048.0, 0.5f32.powi(25)),
                        KvType::Bf16 => (1.0 / 256.0, 0.0),
                        KvType::Q8_0 | KvType::Q4_0 => (0.0, f32::INFINITY),
                    };
                    for (found, exact) in row.iter().zip(exact) {
                        let error = (found - exact).abs();
                        assert!(error <= relative * exact.abs() + absolute, "{kv_type:?} {found} {exact}");
                    }
                    let mut turned = exact.to_vec();
                    hadamard::transform(&mut turned, dim);
                    let greatest = turned.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                    let error = row.iter().zip(exact).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
                    let bound = (dim as f32).sqrt() * greatest / 254.0 * 1.001;
                    assert!(kv_type != KvType::Q8_0 || error <= bound, "{error} {bound}");
                    let norm = exact.iter().map(|x| x * x).sum::<f32>().sqrt();
                    // Rows here are pure tones, which even when transformed have single large dims; a tenth is usual.
                    assert!(kv_type != KvType::Q4_0 || error <= 0.3 * norm, "{dim}: {error} of {norm}");
                }
            }
        }
    }
}

#[test]
fn a_query_alone_gives_what_it_gives_among_others() {
    for kv_type in TYPES {
        for window in [None, Some(20)] {
            let shape = Shape { heads: 6, scale: 0.2, softcap: None, window, causal: true };
            let mut cache = filled(2, 32, kv_type, 530, 0.0);
            let queries = noise(530 * 6 * 32, 3.0);
            let together = attended(&cache, &queries, 0, &shape, &Pool::new(2));
            for position in (0..530).rev().step_by(13) {
                cache.truncate(position + 1);
                let range = position * 192..(position + 1) * 192;
                let alone = attended(&cache, &queries[range.clone()], position, &shape, &Pool::new(1));
                assert_eq!(alone, together[range], "{kv_type:?} position {position}");
            }
        }
    }
}

#[test]
fn a_sequence_gives_the_same_bits_in_any_batch_and_on_any_threads() {
    let sequences: Vec<(LayerCache, Vec<f32>, usize)> =
        [(1, 1), (300, 1), (3000, 1), (40, 40), (900, 200), (17, 3), (1700, 1)]
            .into_iter()
            .enumerate()
            .map(|(index, (len, count))| {
                let cache = filled(3, 24, TYPES[index % TYPES.len()], len, index as f32);
                (cache, noise(count * 9 * 24, 7.0 + index as f32), len - count)
            })
            .collect();
    let shape = Shape { heads: 9, scale: 0.2, softcap: Some(30.0), window: None, causal: true };
    let one = Pool::new(1);
    let alone: Vec<Vec<f32>> = sequences
        .iter()
        .map(|(cache, queries, start)| attended(cache, queries, *start, &shape, &one))
        .collect();
    for threads in [1, 2, 3, 7] {
        let pool = Pool::new(threads);
        for first in 0..sequences.len() {
            let mut outs: Vec<Vec<f32>> =
                sequences[first..].iter().map(|(_, queries, _)| vec![f32::NAN; queries.len()]).collect();
            let mut tasks: Vec<Task> = sequences[first..]
                .iter()
                .zip(&mut outs)
                .map(|((cache, queries, start), out)| Task {
                    cache,
                    keys: cache,
                    queries,
                    start: *start,
                    out,
                })
                .collect();
            attend(&mut tasks, &shape, &pool);
            assert_eq!(outs, alone[first..], "{threads} threads, from {first}");
        }
    }
}

#[test]
fn nothing_is_done_for_no_sequences_or_no_queries() {
    let shape = Shape { heads: 2, scale: 1.0, softcap: None, window: None, causal: true };
    let pool = Pool::new(2);
    attend(&mut [], &shape, &pool);
    let (cache, query) = (filled(1, 16, KvType::F32, 4, 0.0), noise(32, 1.0));
    let empty = LayerCache::new(1, 16, KvType::F32);
    let (mut out, mut none) = (vec![f32::NAN; 32], Vec::new());
    let nothing = Task { cache: &empty, keys: &empty, queries: &[], start: 0, out: &mut none };
    let something = Task { cache: &cache, keys: &cache, queries: &query, start: 3, out: &mut out };
    attend(&mut [nothing, something], &shape, &pool);
    assert_eq!(out, attended(&cache, &query, 3, &shape, &pool));
}

#[test]
fn a_number_that_is_none_shows() {
    let shape = Shape { heads: 1, scale: 1.0, softcap: None, window: None, causal: true };
    for kv_type in TYPES {
        let (mut keys, values) = (noise(40 * 16, 1.0), noise(40 * 16, 2.0));
        keys[30 * 16 + 3] = f32::NAN;
        let mut cache = LayerCache::new(1, 16, kv_type);
        cache.push(&keys, &values);
        for isa in Isa::available() {
            let queries = noise(40 * 16, 3.0);
            let mut out = vec![0.0; 40 * 16];
            let task = Task { cache: &cache, keys: &cache, queries: &queries, start: 0, out: &mut out };
            attend_with(isa, &mut [task], &shape, &Pool::new(1));
            let (before, behind) = out.split_at(30 * 16);
            assert!(before.iter().all(|x| x.is_finite()), "{kv_type:?} {}", isa.name());
            assert!(behind.iter().all(|x| x.is_nan()), "{kv_type:?} {}", isa.name());
        }
    }
}

#[test]
fn memory_grows_with_the_sequence_and_is_not_held_twice() {
    let token = 2 * 2 * 32 * 4;
    let mut cache = LayerCache::new(2, 32, KvType::F32);
    let row = noise(64, 0.0);
    let mut sizes = vec![0];
    for len in 1..2000 {
        cache.push(&row, &row);
        let room = cache.bytes() / token;
        assert!(room >= len && room <= (2 * len).max(32) && room <= len + 256, "{room} for {len}");
        sizes.push(cache.bytes());
    }
    sizes.dedup();
    assert!(sizes.len() < 16, "{} allocations", sizes.len());

    let mut cache = LayerCache::new(2, 32, KvType::Q8_0);
    cache.reserve(700);
    let reserved = cache.bytes();
    for _ in 0..700 {
        cache.push(&row, &row);
    }
    cache.truncate(3);
    assert_eq!(cache.bytes(), reserved);
    assert_eq!(reserved, 704 * 2 * (2 * 32 + 2 * 4));

    let mut cache = LayerCache::new(2, 32, KvType::Q4_0);
    cache.reserve(700);
    assert_eq!(cache.bytes(), 704 * 2 * (32 + 2 * 4));
}

#[test]
fn windows_and_causality_bound_what_a_position_sees() {
    let shape = |window, causal| Shape { heads: 1, scale: 1.0, softcap: None, window, causal };
    assert_eq!(shape(None, true).visible(5, 8), 0..6);
    assert_eq!(shape(Some(2), true).visible(5, 8), 4..6);
    assert_eq!(shape(None, false).visible(5, 8), 0..8);
    assert_eq!(shape(Some(16), true).visible(0, 1), 0..1);
    assert_eq!(shape(Some(2), false).visible(4, 8), 3..6);
}

proptest! {
    /// Pushing in any pieces, truncating and pushing again leaves what one push of the same rows leaves.
    #[test]
    fn a_cache_holds_what_was_pushed_and_not_truncated(
        kv_type in prop::sample::select(&TYPES),
        dim in prop::sample::select(&[4usize, 16, 20, 40]),
        reserved in 0usize..400,
        steps in prop::collection::vec((1usize..300, 0usize..900), 1..8),
    ) {
        let width = 2 * dim;
        let (keys, values) = (noise(3000 * width, 1.0), noise(3000 * width, 2.0));
        let mut cache = LayerCache::new(2, dim, kv_type);
        cache.reserve(reserved);
        for (count, kept) in steps {
            let rows = cache.len() * width..(cache.len() + count) * width;
            cache.push(&keys[rows.clone()], &values[rows]);
            cache.truncate(kept);
        }
        let len = cache.len();
        let mut fresh = LayerCache::new(2, dim, kv_type);
        fresh.push(&keys[..len * width], &values[..len * width]);
        let (mut found, mut expected) = (vec![0.0; dim], vec![0.0; dim]);
        for (position, head) in (0..len).flat_map(|position| [(position, 0), (position, 1)]) {
            cache.key(position, head, &mut found);
            fresh.key(position, head, &mut expected);
            prop_assert_eq!(&found, &expected);
            cache.value(position, head, &mut found);
            fresh.value(position, head, &mut expected);
            prop_assert_eq!(&found, &expected);
        }
        let shape = Shape { heads: 4, scale: 0.5, softcap: None, window: None, causal: true };
        if len > 0 {
            let (queries, pool) = (noise(4 * dim, 3.0), Pool::new(1));
            let [found, expected] =
                [&cache, &fresh].map(|cache| attended(cache, &queries, len - 1, &shape, &pool));
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn bytes_after_pushes_are_those_of_a_cache_that_was_pushed_to() {
    for kv_type in TYPES {
        for pushes in [&[1][..], &[16, 1, 1], &[200, 100, 1], &[256, 256, 1, 1], &[256, 40, 90, 1], &[700, 1]]
        {
            let mut cache = LayerCache::new(3, 24, kv_type);
            for (index, &count) in pushes.iter().enumerate() {
                cache.push(&noise(count * 72, index as f32), &noise(count * 72, 9.0));
                let told = LayerCache::new(3, 24, kv_type).bytes_after(pushes[..=index].iter().copied());
                assert_eq!(told, cache.bytes(), "{kv_type:?} {pushes:?}");
            }
        }
    }
    assert_eq!(LayerCache::new(0, 0, KvType::F32).bytes_after([5]), 0);
}

#[test]
fn keys_of_another_cache_are_as_good_as_own_ones() {
    let noise = |count: usize, from: f32| -> Vec<f32> {
        (0..count).map(|at| ((at as f32 + from) * 12.9898).sin() * 0.7).collect()
    };
    let (len, width) = (300, 3 * 24);
    let (keys, values, others) = (noise(len * width, 0.0), noise(len * width, 5.0), noise(len * width, 9.0));
    let shape = Shape { heads: 6, scale: 0.2, softcap: None, window: None, causal: true };
    for kv_type in KvType::ALL {
        let mut whole = LayerCache::new(3, 24, kv_type);
        let mut source = LayerCache::new(3, 24, kv_type);
        let mut copy = LayerCache::of_values(3, 24, kv_type);
        // In different steps, so that blocks have different capacities.
        whole.push(&keys, &values);
        for (keys, others) in keys.chunks(30 * width).zip(others.chunks(30 * width)) {
            source.push(keys, others);
        }
        for values in values.chunks(50 * width) {
            copy.push(&[], values);
        }
        assert!(copy.bytes() < whole.bytes() && copy.len() == len);
        for count in [1, 40] {
            let queries = noise(count * 6 * 24, 3.0);
            let expected = attended(&whole, &queries, len - count, &shape, &Pool::new(1));
            let mut out = vec![0.0; queries.len()];
            let task =
                Task { cache: &copy, keys: &source, queries: &queries, start: len - count, out: &mut out };
            attend(&mut [task], &shape, &Pool::new(2));
            assert_eq!(out, expected, "{kv_type:?} {count}");
        }
        assert_eq!(copy.fork(17).len(), 17);
        let told = LayerCache::of_values(3, 24, kv_type).bytes_after([50; 6]);
        assert_eq!(copy.bytes(), told);
    }
}
