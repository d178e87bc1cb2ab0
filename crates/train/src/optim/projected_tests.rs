//! Projections against exact directions, moments of whole matrices and differences.

use super::super::options::Kind;
use super::*;
use crate::ParamKind;
use crate::optim::Optimizer;

fn options(kind: Kind, projection: Projection, rank: usize) -> Options {
    let low_rank = LowRank { projection, rank, refresh: 5, scale: 1.0 };
    Options { kind, low_rank, weight_decay: 0.0, ..Options::default() }
}

fn matrix(rows: usize, columns: usize) -> Param {
    Param::new("w.weight", &[rows, columns], ParamKind::Matrix, normal(0.3, rows * columns, 2, "w"))
}

fn memory(options: &Options, param: &Param) -> Projected {
    Projected::new(options, &options.group(param), param)
}

#[test]
fn the_strongest_directions_are_found_and_moments_carried_over() {
    let pool = Pool::global();
    for (rows, columns) in [(12, 30), (30, 12)] {
        let param = matrix(rows, columns);
        let mut it = memory(&options(Kind::AdamW, Projection::Galore, 3), &param);
        // Three strong directions, and a little of everything.
        let (a, b) = (normal(1.0, rows * 3, 1, "a"), normal(1.0, 3 * columns, 1, "b"));
        let mut g = product(pool, (rows, columns, 3), Operand::rows(&a, 3), Operand::rows(&b, columns));
        g.iter_mut().zip(normal(0.05, rows * columns, 1, "c")).for_each(|(g, c)| *g += c);
        it.refresh(pool, &g, 1, "w");
        let again = it.back(pool, &it.project(pool, &g));
        let lost: f64 = g.iter().zip(&again).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        assert!(lost < 0.01 * dot(&g, &g), "{lost} {}", dot(&g, &g));
        let small = rows.min(columns);
        for (i, u) in it.basis.chunks(small).enumerate() {
            for (j, v) in it.basis.chunks(small).enumerate() {
                assert!((dot(u, v) - f64::from(u8::from(i == j))).abs() < 1e-5);
            }
        }
        // A mean in the span stays what it is in the matrix's own space.
        let mean = it.project(pool, &g);
        it.moments.change(|_, v| (mean.clone(), v.to_vec()));
        let before = it.back(pool, &mean);
        it.refresh(pool, &g, 77, "w");
        let Moments::Wide { m, .. } = it.moments.clone() else { unreachable!("not in bytes") };
        let after = it.back(pool, &m);
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() < 0.05, "{a} {b}");
        }
    }
}

/// With all directions but rounding, Adam's moments are those of turned coordinates; norm and direction are the definition's.
#[test]
fn rows_are_split_into_norm_and_direction() {
    let columns = 7;
    let (w, g) = (normal(0.5, columns, 1, "w"), normal(1.0, columns, 1, "g"));
    let norm = dot(&w, &w).sqrt() as f32;
    let (mut direction, mut tangent, mut along) = (w.clone(), g.clone(), 0.0);
    apart(&mut tangent, &mut direction, norm, &mut along);
    // L(w) = g · w as a function of norm and direction, whose length is divided away.
    let value = |norm: f64, direction: &[f32]| -> f64 {
        norm * dot(&g, direction) / dot(direction, direction).sqrt()
    };
    let slope =
        (value(f64::from(norm) + 1e-3, &direction) - value(f64::from(norm) - 1e-3, &direction)) / 2e-3;
    assert!((slope - f64::from(along)).abs() < 1e-4, "{slope} {along}");
    for at in 0..columns {
        let mut near = |by: f32| {
            direction[at] += by;
            let value = value(f64::from(norm), &direction);
            direction[at] -= by;
            value
        };
        let slope = (near(1e-3) - near(-1e-3)) / 2e-3;
        assert!((slope - f64::from(tangent[at])).abs() < 1e-3, "{at}: {slope} {}", tangent[at]);
    }
    assert!(dot(&tangent, &direction).abs() < 1e-5);
}

#[test]
fn every_projection_comes_nearer_and_goes_on_from_a_copy() {
    for kind in [Kind::AdamW, Kind::AdamW8bit] {
        for projection in [Projection::Galore, Projection::GradNormLorp] {
            for (rows, columns) in [(10, 24), (24, 10)] {
                let goal = normal(0.5, rows * columns, 9, "goal");
                let far = |param: &Param| -> f64 {
                    param.value.iter().zip(&goal).map(|(a, b)| f64::from(a - b).powi(2)).sum()
                };
                let pull = |params: &mut [Param]| {
                    for at in 0..goal.len() {
                        params[0].grad[at] = params[0].value[at] - goal[at];
                    }
                };
                let mut params = [matrix(rows, columns)];
                let mut optimizer = Optimizer::new(options(kind, projection, 4), &params).expect("sound");
                let before = far(&params[0]);
                for step in 0..150 {
                    pull(&mut params);
                    optimizer.step(&mut params, 0.03 * (1.0 - f64::from(step) / 150.0), 1.0);
                }
                let after = far(&params[0]);
                assert!(after < 0.05 * before, "{kind:?} {projection:?}: {before} {after}");
                let mut there = params.clone();
                let mut second = Optimizer::new(options(kind, projection, 4), &there).expect("sound");
                second.set_steps(optimizer.steps());
                for (to, from) in second.slots_mut(&params).into_iter().zip(optimizer.slots(&params)) {
                    assert_eq!((to.name, to.dtype), (format!("{}.{}", from.param, from.part), from.dtype));
                    to.bytes.copy_from_slice(from.bytes);
                }
                for _ in 0..7 {
                    pull(&mut params);
                    optimizer.step(&mut params, 0.01, 1.0);
                    pull(&mut there);
                    second.step(&mut there, 0.01, 1.0);
                }
                assert_eq!(params[0].value, there[0].value);
            }
        }
    }
}

#[test]
fn memory_is_what_the_formula_says() {
    let (rows, columns, rank) = (64, 256, 8);
    let param = matrix(rows, columns);
    let bytes = |kind, projection| memory(&options(kind, projection, rank), &param).bytes();
    let values = 2 * rank * columns + rows * rank;
    assert_eq!(bytes(Kind::AdamW, Projection::Galore), 4 * values);
    assert_eq!(bytes(Kind::AdamW, Projection::GradNormLorp), 4 * (values + 2 * rows));
    assert!(4 * bytes(Kind::AdamW, Projection::GradNormLorp) < 8 * rows * columns);
    assert!(2 * bytes(Kind::AdamW8bit, Projection::GradNormLorp) < bytes(Kind::AdamW, Projection::Galore));
    // Small matrices and other weights keep all moments.
    let small = matrix(8, 30);
    let group = options(Kind::AdamW, Projection::Galore, 8).group(&small);
    assert_eq!(group.projection, Projection::None);
    assert!(Optimizer::new(options(Kind::Lion, Projection::Galore, 8), &[]).is_err());
    assert!(Optimizer::new(options(Kind::AdamW, Projection::Galore, 0), &[]).is_err());
}
