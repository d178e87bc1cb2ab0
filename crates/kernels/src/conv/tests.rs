use proptest::prelude::*;

use super::columns::{self, Batch};
use super::*;

/// A window, an image's height and width, more border than needed, channels before and behind the result's.
fn shapes() -> impl Strategy<Value = (Window, usize, usize, usize, usize)> {
    let sides = prop_oneof![Just(1usize), Just(3), Just(5)];
    (1..4usize, 1..40usize, sides, 1..3usize, 1..20usize, 1..20usize, 0..2usize, 0..3usize).prop_map(
        |(groups, outputs, size, stride, height, width, more, beside)| {
            (Window { inputs: groups * GROUP, outputs, size, stride }, height, width, more, beside)
        },
    )
}

fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 11
    }
}

fn layouts(window: &Window, height: usize, width: usize, more: usize, beside: usize) -> (Layout, Layout) {
    let from = Layout { height, width, channels: window.inputs, border: window.padding() + more };
    let (height, width) = (window.result(height), window.result(width));
    (from, Layout { height, width, channels: window.outputs + 2 * beside, border: more })
}

/// Calls `check(index of the plain result, place in the laid out one)`; all other places keep what was there.
fn places(window: &Window, to: &Layout, beside: usize) -> Vec<usize> {
    let pixels = (0..to.height).flat_map(|y| (0..to.width).map(move |x| (y, x)));
    pixels.flat_map(|(y, x)| (0..window.outputs).map(move |it| to.at(y, x) + beside + it)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn floats_are_those_of_the_definition((window, height, width, more, beside) in shapes(), seed in any::<u64>(), relu in any::<bool>()) {
        let mut next = numbers(seed);
        let mut value = || (next() % 2001) as f32 / 1000.0 - 1.0;
        let (from, to) = layouts(&window, height, width, more, beside);
        let weights: Vec<f32> = (0..window.outputs * window.depth()).map(|_| value()).collect();
        let bias: Vec<f32> = (0..window.outputs).map(|_| value()).collect();
        let image: Vec<f32> = (0..from.values()).map(|_| value()).collect();
        let expected = plain::floats(&window, &weights, &image, &from);
        let conv = FloatConv::new(window, &weights, &bias, relu);
        let places = places(&window, &to, beside);
        for isa in Isa::available() {
            let mut out = vec![-7.0; to.values()];
            conv.run(isa, (&image, from), (&mut out, to), beside);
            for (index, &place) in places.iter().enumerate() {
                let exact = expected[index] + f64::from(bias[index % window.outputs]);
                let exact = if relu { exact.max(0.0) } else { exact };
                prop_assert!((f64::from(out[place]) - exact).abs() < 1e-4, "{isa:?}: {} for {exact}", out[place]);
                out[place] = -7.0;
            }
            prop_assert!(out.iter().all(|&it| it == -7.0), "{isa:?} wrote beside the result");
        }
    }

    #[test]
    fn codes_are_those_of_whole_numbers((window, height, width, more, beside) in shapes(), seed in any::<u64>(), zero in 0..255u8, relu in any::<bool>()) {
        let mut next = numbers(seed);
        let (from, to) = layouts(&window, height, width, more, beside);
        // The ends of both ranges often, where 16 bits would overflow.
        let mut byte = || if next().is_multiple_of(3) { 255 } else { (next() % 256) as u8 };
        let image: Vec<u8> = (0..from.values()).map(|_| byte()).collect();
        let weights: Vec<i8> = (0..window.outputs * window.depth()).map(|_| (byte() as i8).max(-127)).collect();
        let steps: Vec<f32> = (0..window.outputs).map(|_| 1e-4 * (1.0 + f32::from(byte()))).collect();
        let bias: Vec<f32> = (0..window.outputs).map(|_| f32::from(byte()) / 100.0 - 1.0).collect();
        let codes = Codes { zero: i32::from(zero), low: if relu { i32::from(zero) } else { 0 }, high: 255 };
        let scales = Scales { weights: &steps, bias: &bias, image: 0.02, zero: 7, result: 0.05, codes };
        let conv = IntConv::new(window, &weights, &scales);
        let sums = plain::ints(&window, &weights, &image, &from);
        let places = places(&window, &to, beside);
        for isa in Isa::available() {
            let (mut out, mut real) = (vec![99; to.values()], vec![-7.0; to.values()]);
            conv.run(isa, (&image, from), (&mut out, to), beside);
            conv.run_to_floats(isa, (&image, from), (&mut real, to), beside);
            for (index, &place) in places.iter().enumerate() {
                let output = index % window.outputs;
                let row: i64 = weights[output * window.depth()..][..window.depth()].iter().map(|&it| i64::from(it)).sum();
                let step = f64::from(steps[output]) * f64::from(0.02f32);
                let exact = (sums[index] - 7 * row) as f64 * step + f64::from(bias[output]);
                // The bias is rounded to a step.
                prop_assert!((f64::from(real[place]) - exact).abs() < step + 1e-5 * exact.abs());
                let code = (exact / f64::from(0.05f32) + f64::from(codes.zero)).clamp(f64::from(codes.low), 255.0);
                prop_assert!((f64::from(out[place]) - code).abs() <= 0.51 + step / 0.05, "{isa:?}: {} for {code}", out[place]);
                (out[place], real[place]) = (99, -7.0);
            }
            prop_assert!(out.iter().all(|&it| it == 99) && real.iter().all(|&it| it == -7.0));
        }
    }

    #[test]
    fn every_path_gives_the_same_codes((window, height, width, more, beside) in shapes(), seed in any::<u64>()) {
        let mut next = numbers(seed);
        let (from, to) = layouts(&window, height, width, more, beside);
        let image: Vec<u8> = (0..from.values()).map(|_| next() as u8).collect();
        let weights: Vec<i8> = (0..window.outputs * window.depth()).map(|_| next() as i8).collect();
        let (steps, bias) = (vec![0.003; window.outputs], vec![0.1; window.outputs]);
        let codes = Codes { zero: 0, low: 0, high: 255 };
        let scales = Scales { weights: &steps, bias: &bias, image: 0.02, zero: 0, result: 0.05, codes };
        let conv = IntConv::new(window, &weights, &scales);
        let results: Vec<Vec<u8>> = Isa::available().into_iter().map(|isa| {
            let mut out = vec![0; to.values()];
            conv.run(isa, (&image, from), (&mut out, to), beside);
            out
        }).collect();
        prop_assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn unfolded_images_times_weights_are_convolutions((window, height, width, ..) in shapes(), images in 1..3usize, seed in any::<u64>()) {
        let mut next = numbers(seed);
        let mut value = || (next() % 2001) as f32 / 1000.0 - 1.0;
        let batch = Batch { images, height, width };
        let weights: Vec<f32> = (0..window.outputs * window.depth()).map(|_| value()).collect();
        let values: Vec<f32> = (0..batch.pixels() * window.inputs).map(|_| value()).collect();
        let out = batch.result(&window);
        let mut unfolded = vec![1.0; out.pixels() * window.depth()];
        columns::unfold(&values, &batch, &window, &mut unfolded);
        let from = Layout { height, width, channels: window.inputs, border: window.padding() };
        for (number, image) in values.chunks(height * width * window.inputs).enumerate() {
            let mut bordered = vec![0.0; from.values()];
            for y in 0..height {
                let row = width * window.inputs;
                bordered[from.at(y, 0)..][..row].copy_from_slice(&image[y * row..][..row]);
            }
            let expected = plain::floats(&window, &weights, &bordered, &from);
            for (index, exact) in expected.iter().enumerate() {
                let pixel = number * out.height * out.width + index / window.outputs;
                let row = &unfolded[pixel * window.depth()..][..window.depth()];
                let own = &weights[index % window.outputs * window.depth()..][..window.depth()];
                let found: f64 = row.iter().zip(own).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                prop_assert!((found - exact).abs() < 1e-6);
            }
        }
        // Folding is the transpose of unfolding: ⟨unfold(x), c⟩ = ⟨x, fold(c)⟩.
        let other: Vec<f32> = unfolded.iter().map(|_| value()).collect();
        let mut folded = vec![0.0; values.len()];
        columns::fold(&other, &batch, &window, &mut folded);
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        prop_assert!((product(&unfolded, &other) - product(&values, &folded)).abs() < 1e-2);
    }

    #[test]
    fn gradients_of_weights_are_sums_over_unfolded_pixels((window, height, width, more, _) in shapes(), seed in any::<u64>()) {
        let mut next = numbers(seed);
        let mut value = || (next() % 2001) as f32 / 1000.0 - 1.0;
        let batch = Batch { images: 1, height, width };
        let image: Vec<f32> = (0..batch.pixels() * window.inputs).map(|_| value()).collect();
        let out = batch.result(&window);
        let dy: Vec<f32> = (0..out.pixels() * window.outputs).map(|_| value()).collect();
        let mut unfolded = vec![0.0; out.pixels() * window.depth()];
        columns::unfold(&image, &batch, &window, &mut unfolded);
        let from = Layout { height, width, channels: window.inputs, border: window.padding() + more };
        let mut bordered = vec![0.0; from.values()];
        let row = width * window.inputs;
        for y in 0..height {
            bordered[from.at(y, 0)..][..row].copy_from_slice(&image[y * row..][..row]);
        }
        let start: Vec<f32> = (0..window.outputs * window.depth()).map(|_| value()).collect();
        for isa in Isa::available() {
            let mut dw = start.clone();
            weight_gradient(isa, &window, (&bordered, from), &dy, &mut dw);
            for (at, (found, start)) in dw.iter().zip(&start).enumerate() {
                let (output, place) = (at / window.depth(), at % window.depth());
                let pixels = unfolded.chunks(window.depth()).zip(dy.chunks(window.outputs));
                let sum: f64 = pixels.map(|(x, dy)| f64::from(x[place]) * f64::from(dy[output])).sum();
                prop_assert!((f64::from(found - start) - sum).abs() < 1e-4, "{isa:?}: {found} {start} {sum}");
            }
        }
    }
}
