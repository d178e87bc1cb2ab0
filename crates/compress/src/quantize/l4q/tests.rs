//! Merged matrices by hand and on candle's own operations, and training on a small golden model.

use std::path::Path;

use candle_core::{D, Tensor};
use ounce_kernels::DType;
use ounce_model::Model;
use ounce_train::graph::ops::Kernels;
use ounce_train::graph::{GraphNet, Linear, Slot, Weight};
use ounce_train::net::Options as NetOptions;
use ounce_train::{Batch, ParamKind, Trainable};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::demonstrate::gradients;
use super::lsq::Codes;
use super::merged::{Merged, Numbers, Start};
use super::slot::MergedSlot;
use super::{Options, train};
use crate::quantize::{Plan, units};

fn model() -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama")).unwrap()
}

/// Matrices whose rows are whole groups of 32: all of a layer but `down`.
fn plan(model: &Model, dtype: DType) -> Plan {
    let units = units(model).unwrap();
    let fits = |columns: usize| columns.is_multiple_of(32).then_some(dtype);
    Plan::new(units.iter().map(|unit| (unit, if unit.is_outer() { None } else { fits(unit.columns) })))
        .unwrap()
}

fn sequences() -> Vec<Vec<u32>> {
    (0..24u32).map(|seed| (0..20u32).map(|at| (seed * 31 + at * at * 7 + at) % 96).collect()).collect()
}

fn wave(count: usize, speed: f32, size: f32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * speed).sin() * size).collect()
}

#[test]
fn gradients_are_finite_differences_of_the_surrogate() {
    for dtype in [DType::G2x32, DType::G3x32, DType::G4x32] {
        let found = gradients::check(dtype).unwrap();
        let Numbers { a, b, steps, offsets } = found.worst;
        for worst in [a, b, steps, offsets, found.input] {
            assert!(worst < 1e-4, "{dtype}: {found:?}");
        }
        assert!(found.ranges.iter().all(|count| *count > 10), "{dtype}: {found:?}");
    }
}

/// A matrix that is worked on in several parts, with what it is made of.
fn parts() -> (Vec<f32>, Merged, Numbers<Vec<f32>>) {
    let (rows, columns, rank) = (300, 2048, 2);
    let base = wave(rows * columns, 0.377, 0.1);
    let tensor = ounce_model::Tensor::from_f32(&[rows, columns], &base);
    let merged = Merged::new("matrix", tensor, DType::G3x64, rank, 0.5).unwrap();
    let counts = merged.counts();
    let mut numbers = Numbers {
        a: wave(counts.a, 1.3, 0.2),
        b: wave(counts.b, 0.9, 0.2),
        steps: wave(counts.steps, 0.7, 0.005).iter().map(|it| it + 0.02).collect(),
        offsets: wave(counts.offsets, 0.3, 0.03),
    };
    merged.codes().confine(&mut numbers.steps, &mut numbers.offsets);
    (base, merged, numbers)
}

fn borrowed(numbers: &Numbers<Vec<f32>>) -> Numbers<&[f32]> {
    Numbers { a: &numbers.a, b: &numbers.b, steps: &numbers.steps, offsets: &numbers.offsets }
}

#[test]
fn what_is_packed_is_what_a_pass_saw() {
    let (base, merged, numbers) = parts();
    let (rows, columns) = merged.size();
    let packed = merged.pack(&borrowed(&numbers)).unwrap();
    assert_eq!((packed.dtype, &packed.shape[..]), (DType::G3x64, &[rows, columns][..]));
    let stored = packed.to_f32().unwrap();
    let x = wave(2 * columns, 0.51, 1.0);
    let mut y = vec![0.0; 2 * rows];
    merged.forward(Kernels::default(), &borrowed(&numbers), &x, &mut y).unwrap();
    let mut far = 0.0f64;
    for token in 0..2 {
        for row in 0..rows {
            let pairs = x[token * columns..][..columns].iter().zip(&stored[row * columns..][..columns]);
            let expected: f64 = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            assert!((f64::from(y[token * rows + row]) - expected).abs() < 1e-4, "{token} {row}");
        }
    }
    // In range, the adapter is in it and the rest is rounding.
    for (index, stored) in stored.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let added = (0..2).map(|k| numbers.b[row * 2 + k] * numbers.a[k * columns + column]).sum::<f32>();
        let (step, offset) = (numbers.steps[index / 64], numbers.offsets[index / 64]);
        let weight = base[index] + 0.5 * added;
        let (least, most) = (offset - 4.0 * step, offset + 3.0 * step);
        if weight > least + step && weight < most - step {
            far = far.max(f64::from((stored - weight).abs() / step));
        }
    }
    assert!(far > 0.4 && far < 0.51, "half a step at most: {far}");
}

#[test]
fn parts_of_rows_add_up_to_the_gradients_of_the_whole() {
    let (_, merged, numbers) = parts();
    let (rows, columns) = merged.size();
    let (x, dy) = (wave(3 * columns, 0.51, 1.0), wave(3 * rows, 0.23, 1.0));
    let mut dx = vec![0.0; x.len()];
    let mut found = Numbers {
        a: vec![0.0; numbers.a.len()],
        b: vec![0.0; numbers.b.len()],
        steps: vec![0.0; numbers.steps.len()],
        offsets: vec![0.0; numbers.offsets.len()],
    };
    merged.backward(Kernels::default(), &borrowed(&numbers), (&x, &dy), Some(&mut dx), &mut found).unwrap();
    // The same of each row alone, all in one part.
    let stored = merged.pack(&borrowed(&numbers)).unwrap().to_f32().unwrap();
    for (at, dx) in dx.iter().enumerate().step_by(97) {
        let (token, column) = (at / columns, at % columns);
        let expected: f64 = (0..rows)
            .map(|row| f64::from(dy[token * rows + row]) * f64::from(stored[row * columns + column]))
            .sum();
        assert!((f64::from(*dx) - expected).abs() < 1e-4, "{at}");
    }
    let base = merged_base(&parts().0, rows, columns);
    let mut of_a = vec![0.0f32; found.a.len()];
    let groups = merged.groups();
    for row in 0..rows {
        let one = Merged::new("row", base[row].clone(), DType::G3x64, 2, 0.5).unwrap();
        let own = Numbers {
            a: numbers.a.clone(),
            b: numbers.b[row * 2..][..2].to_vec(),
            steps: numbers.steps[row * groups..][..groups].to_vec(),
            offsets: numbers.offsets[row * groups..][..groups].to_vec(),
        };
        let dy: Vec<f32> = (0..3).map(|token| dy[token * rows + row]).collect();
        let mut gradients = Numbers {
            a: vec![0.0; own.a.len()],
            b: vec![0.0; 2],
            steps: vec![0.0; groups],
            offsets: vec![0.0; groups],
        };
        one.backward(Kernels::default(), &borrowed(&own), (&x, &dy), None, &mut gradients).unwrap();
        of_a.iter_mut().zip(&gradients.a).for_each(|(sum, it)| *sum += it);
        close(&gradients.b, &found.b[row * 2..][..2], 1e-4);
        close(&gradients.steps, &found.steps[row * groups..][..groups], 1e-4);
        close(&gradients.offsets, &found.offsets[row * groups..][..groups], 1e-4);
    }
    close(&of_a, &found.a, 1e-4);
}

fn merged_base(base: &[f32], rows: usize, columns: usize) -> Vec<ounce_model::Tensor> {
    let row = |row: usize| ounce_model::Tensor::from_f32(&[1, columns], &base[row * columns..][..columns]);
    (0..rows).map(row).collect()
}

/// Equal to a share of the largest.
fn close(found: &[f32], expected: &[f32], share: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-6f32, |most, it| most.max(it.abs()));
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= share * largest, "{index}: {a} for {b}");
    }
}

/// The equations on candle's own operations, whole matrices at once; steps and offsets are such that nothing rounds them.
struct Composed {
    linear: Linear,
    base: Tensor,
    numbers: Numbers<Weight>,
    scale: f64,
    half: f64,
}

impl Slot for Composed {
    fn forward(&self, x: &Tensor) -> ounce_train::Result<Tensor> {
        let Numbers { a, b, steps, offsets } = &self.numbers;
        let weight = (&self.base + (b.tensor()?.matmul(&a.tensor()?)? * self.scale)?)?;
        let (rows, columns) = weight.dims2()?;
        let shape = (rows, steps.shape()[1], 32);
        let wide = |weight: &Weight| -> ounce_train::Result<Tensor> {
            Ok(weight.tensor()?.unsqueeze(D::Minus1)?.broadcast_as(shape)?)
        };
        let (step, offset) = (wide(steps)?, wide(offsets)?);
        let v = ((weight.reshape(shape)? - &offset)? / &step)?;
        let code = v.detach().round()?;
        let below = code.lt(-self.half)?.to_dtype(candle_core::DType::F32)?;
        let above = code.gt(self.half - 1.0)?.to_dtype(candle_core::DType::F32)?;
        let inside = ((&below + &above)?.affine(-1.0, 1.0))?;
        let through = (&v + (&code - &v)?.detach())?;
        let ends = (below.affine(-self.half, 0.0)? + above.affine(self.half - 1.0, 0.0)?)?;
        let code = ((through * inside)? + ends)?;
        let rounded = ((code * step)? + offset)?.reshape((rows, columns))?;
        Ok(x.matmul(&rounded.t()?)?)
    }

    fn vars(&self) -> Vec<Weight> {
        let mut weights = self.linear.vars();
        let Numbers { a, b, steps, offsets } = &self.numbers;
        weights.extend([a, b, steps, offsets].map(Weight::clone));
        weights
    }
}

#[test]
fn the_slot_has_the_gradients_of_the_equations_on_candles_operations() {
    let model = model();
    let options = Options { rank: 3, ..Options::default() };
    let batch = Batch::next_token(sequences().iter().take(3).map(Vec::as_slice));
    let number = |name: &str, part: &str, shape: [usize; 2], values: Vec<f32>| {
        Weight::new(&format!("{name}.{part}"), &shape, ParamKind::Steps, values).unwrap()
    };
    let taken = |name: &str| name.ends_with("attention.query") || name.ends_with("feed_forward.up");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut net = GraphNet::with_frozen(&model, NetOptions::default(), &|_| false, &mut |name, linear| {
        if !taken(name) {
            return Ok(Box::new(linear));
        }
        let base = model.weights.get(&format!("{name}.weight"))?;
        let start = (DType::G3x32, Start::Extremes);
        let slot = MergedSlot::new(name, linear, base, start, &options, &mut random);
        Ok(Box::new(slot.map_err(|error| ounce_train::Error::Unsupported(error.to_string()))?))
    })
    .unwrap();
    // Steps that f16 has, offsets that are whole numbers of them, an adapter that is not zero.
    for index in 0..net.params().len() {
        let name = net.params()[index].name.clone();
        let params = net.params_mut();
        if name.ends_with(".lora_b") {
            params[index].value = wave(params[index].value.len(), 1.1, 0.05);
        } else if name.ends_with(".steps") {
            let two = |step: &mut f32| *step = 2f32.powi((*step * 0.7).log2().round() as i32);
            params[index].value.iter_mut().for_each(two);
        } else if name.ends_with(".offsets") {
            let steps = params[index - 1].value.clone();
            let whole = |(at, step): (usize, &f32)| step * ((at % 3) as f32 - 1.0);
            params[index].value = steps.iter().enumerate().map(whole).collect();
        }
    }
    let params = net.params().to_vec();
    let mut composed =
        GraphNet::with_frozen(&model, NetOptions::default(), &|_| false, &mut |name, linear| {
            if !taken(name) {
                return Ok(Box::new(linear));
            }
            let value = |part: &str| {
                let param = params.iter().find(|it| it.name == format!("{name}.{part}")).unwrap();
                number(name, part, [param.shape[0], param.shape[1]], param.value.clone())
            };
            let numbers = Numbers {
                a: value("lora_a"),
                b: value("lora_b"),
                steps: value("steps"),
                offsets: value("offsets"),
            };
            let scale = f64::from(options.scale);
            Ok(Box::new(Composed { base: linear.dense()?, linear, numbers, scale, half: 4.0 }))
        })
        .unwrap();
    let found = net.accumulate(&batch, 0.5).unwrap();
    let expected = composed.accumulate(&batch, 0.5).unwrap();
    assert!((found.sum / expected.sum - 1.0).abs() < 1e-5, "{found:?} {expected:?}");
    let mut compared = 0;
    for param in net.params().iter().filter(|it| it.is_trainable()) {
        let other = composed.params().iter().find(|it| it.name == param.name).unwrap();
        close(&param.grad, &other.grad, 1e-4);
        compared += usize::from(param.grad.iter().any(|it| *it != 0.0));
    }
    assert_eq!(compared, 4 * 2 * 2, "two matrices of two layers, none without a gradient");
}

#[test]
fn a_trained_model_is_packed_better_than_it_began_and_nothing_is_left_beside() {
    let model = model();
    let plan = plan(&model, DType::G3x32);
    let options = Options { epochs: 6, tokens: 60, rate: 0.01, step_rate: 0.02, ..Options::default() };
    let mut shares = Vec::new();
    let (weights, trained) = train(&model, &plan, None, &sequences(), &options, &mut |share| {
        shares.push(share);
        Ok(())
    })
    .unwrap();
    assert!(trained.after < trained.before, "{trained:?}");
    assert!(shares.is_sorted() && shares.last() == Some(&1.0));
    let names = |weights: &ounce_model::Weights| weights.names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(&weights), names(&model.weights));
    for name in model.weights.names() {
        let (before, after) = (model.weights.get(name).unwrap(), weights.get(name).unwrap());
        match plan.dtype(name) {
            Some(dtype) => assert_eq!((after.dtype, &after.shape), (dtype, &before.shape), "{name}"),
            None => assert_eq!(*after.data, *before.data, "{name}"),
        }
    }
    let numbers: usize = plan
        .formats
        .keys()
        .map(|name| {
            let shape = model.weights.get(name).unwrap().shape;
            options.rank * (shape[0] + shape[1]) + 2 * shape[0] * shape[1] / 32
        })
        .sum();
    assert_eq!(trained.trained, numbers);
    assert_eq!((trained.memory.gradients, trained.memory.optimizer), (4 * numbers, 8 * numbers));
}

#[test]
fn what_can_not_be_trained_is_refused() {
    let model = model();
    let refused = |plan: &Plan, sequences: &[Vec<u32>], options: Options| {
        train(&model, plan, None, sequences, &options, &mut |_| Ok(())).err().unwrap().to_string()
    };
    let plan = plan(&model, DType::G3x32);
    let few = refused(&plan, &sequences()[..1], Options::default());
    assert!(few.contains("longer text"), "{few}");
    let rank = refused(&plan, &sequences(), Options { rank: 0, ..Options::default() });
    assert!(rank.contains("rank"), "{rank}");
    let nothing = refused(&Plan::default(), &sequences(), Options::default());
    assert!(nothing.contains("groups"), "{nothing}");
    assert!(Codes::of(DType::Q4_0).is_none());
}
