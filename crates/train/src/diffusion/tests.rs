use candle_core::{Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::fit::{self, Options as Fit};
use super::glyphs::PIXELS;
use super::*;
use crate::Result;
use crate::graph::ops::Kernels;

fn small() -> Options {
    Options { width: 16, heads: 2, word_width: 8, blocks: 1, outlier: 50.0, text_layers: 0 }
}

fn net(options: Options) -> Denoiser {
    Denoiser::new(options, Kernels::default(), 5)
}

fn some(count: usize) -> Vec<Prompt> {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    (0..count).map(|_| Prompt::random(&mut random)).collect()
}

#[test]
fn layers_are_named_once_and_are_most_of_the_network() {
    let net = net(Options::default());
    let mut names: Vec<&str> = net.layers().iter().map(|layer| layer.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), net.layers().len());
    let matrices: usize = net.layers().iter().map(Layer::weights).sum();
    assert!(net.other_values() * 10 < matrices, "{} of {matrices}", net.other_values());
    for (index, layer) in net.layers().iter().enumerate() {
        assert_eq!(net.weight(index).len(), layer.weights());
    }
}

/// Every layer is computed once a pass, in the seam; words and noise matter.
#[test]
fn all_products_go_through_the_seam() {
    struct Count(Vec<usize>);
    impl Products for Count {
        fn product(&mut self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> Result<Tensor> {
            self.0[layer] += 1;
            let own = &pass.net().layers()[layer];
            let rows =
                x.elem_count() / if own.part == Part::Convolution { own.inputs / 9 } else { own.inputs };
            assert_eq!(rows * x.dims()[1], 3 * own.activations(), "{}", own.name);
            Plain.product(pass, layer, x)
        }
    }
    let net = net(small());
    let pass = net.pass().unwrap();
    let request = Request::new(some(3), 1);
    let mut count = Count(vec![0; net.layers().len()]);
    let drawings = request.draw(&pass, &mut count).unwrap();
    assert!(count.0.iter().all(|&times| times == STEPS.len()), "{:?}", count.0);
    assert_eq!(drawings.len(), 3 * PIXELS);
    let other = Request::new(some(3), 2).draw(&pass, &mut Plain).unwrap();
    assert_ne!(drawings, other);
    let mut prompts = some(3);
    prompts[1].shape = (prompts[1].shape + 1) % glyphs::SHAPES.len();
    let other = Request::new(prompts, 1).draw(&pass, &mut Plain).unwrap();
    assert_eq!(drawings[..PIXELS], other[..PIXELS]);
    assert_ne!(drawings[PIXELS..2 * PIXELS], other[PIXELS..2 * PIXELS]);
    // The last step's inputs lead to the drawings.
    let inputs = request.inputs(&pass, &mut Plain).unwrap();
    let outputs = request.denoise(&pass, &inputs, &mut Plain).unwrap();
    assert_eq!(outputs[3 * PIXELS..], drawings);
}

/// The gradient of every parameter, against differences of the loss.
#[test]
fn gradients_are_slopes() {
    slopes_of(net(small()));
}

/// The same with a text encoder, whose matrices come last, so that the others begin as they do without.
#[test]
fn gradients_of_the_text_encoder_are_slopes() {
    let with = net(Options { text_layers: 2, ..small() });
    let names: Vec<&str> =
        with.layers().iter().filter(|it| it.part == Part::Text).map(|it| it.name.as_str()).collect();
    assert_eq!((names.len(), names[0], names[12]), (13, "text.0.query", "text.exit"));
    let plain = net(small());
    assert_eq!(with.weight(0), plain.weight(0));
    slopes_of(with);
}

fn slopes_of(net: Denoiser) {
    let request = Request::new(some(2), 3);
    let x = Tensor::from_vec(
        request.inputs(&net.pass().unwrap(), &mut Plain).unwrap()[0].clone(),
        (2, PIXELS),
        &Device::Cpu,
    );
    let x = x.unwrap();
    let loss = |vars: &[Var]| {
        let out = net.tracked(vars).forward(&x, &[1.0, 1.5], &request.prompts, &mut Plain).unwrap();
        (out.sqr().unwrap().sum_all().unwrap() * 10.0).unwrap()
    };
    let vars: Vec<Var> = net
        .params()
        .iter()
        .map(|param| Var::from_slice(&param.value, param.shape.as_slice(), &Device::Cpu).unwrap())
        .collect();
    let gradients = loss(&vars).backward().unwrap();
    for (number, param) in net.params().iter().enumerate() {
        let gradient = gradients.get(&vars[number]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Along the gradient the slope is its length.
        let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        if length < 1e-3 {
            continue;
        }
        let step = 2e-3f32.min(0.02 / length);
        let moved = |sign: f32| {
            let values: Vec<f32> =
                param.value.iter().zip(&gradient).map(|(v, g)| v + sign * step * g / length).collect();
            let mut vars = vars.clone();
            vars[number] = Var::from_slice(&values, param.shape.as_slice(), &Device::Cpu).unwrap();
            loss(&vars).to_scalar::<f32>().unwrap()
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        assert!((slope - length).abs() < 0.05 * length + 0.02, "{}: {slope} {length}", param.name);
    }
}

#[test]
fn training_makes_losses_smaller_and_a_reader_reads() {
    let mut net = net(small());
    let steps = |steps| Fit { steps, drawings: 8, rate: 3e-3 };
    let mut told = 0;
    let first = fit::denoiser(&mut net.clone(), &steps(2), 1, &mut |_| ()).unwrap();
    let last = fit::denoiser(&mut net, &steps(60), 1, &mut |step| told = step).unwrap();
    assert!(last < 0.6 * first, "{first} {last}");
    assert_eq!(told, 60);
    let mut reader = Reader::new(Kernels::default(), 2);
    let prompts = some(60);
    let mut random = ChaCha8Rng::seed_from_u64(99);
    let drawings: Vec<f32> = prompts.iter().flat_map(|prompt| prompt.draw(&mut random)).collect();
    let before = reader.read(&drawings, &prompts).unwrap();
    fit::reader(&mut reader, &Fit { steps: 120, drawings: 32, rate: 5e-3 }, 1, &mut |_| ()).unwrap();
    let after = reader.read(&drawings, &prompts).unwrap();
    assert!(after.words > 0.7 && before.words < 0.4, "{before:?} {after:?}");
    assert!(after.surprise < before.surprise && after.agreement <= after.words);
}
