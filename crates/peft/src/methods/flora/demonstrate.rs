//! Measures FLoRA on convolutions: a change of low Tucker rank is found again, and a small network of pictures is adapted to others.

use candle_core::{Device, Tensor};
use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_train::methods::workbench::cosine;
use ounce_train::net::normal;
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Param, ParamKind};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::NUMBER;
use super::conv::{Tucker, product};
use super::images::{self, World, accuracy, fresh, head, loss, pictures, scores, sizes, tensors};
use crate::Result;

/// Sizes of the demonstration.
pub(super) struct Scale {
    pub pictures: usize,
    pub before: u64,
    pub steps: u64,
    pub choosing: u64,
    pub seeds: u64,
    pub planted: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { pictures: 512, before: 200, steps: 80, choosing: 30, seeds: 3, planted: 3000 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "adapting a network of pictures"))
}

/// Pictures of a step.
const BATCH: usize = 32;
/// Ranks of a kernel's height and width.
const INNER: usize = 2;
/// Rates that are tried.
const RATES: [f64; 3] = [3e-3, 1e-2, 3e-2];

/// What learns besides a new head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Head,
    /// LoRA of the weight seen as a matrix `[out · height, in · width]`, of this rank.
    Lora(usize),
    /// As many numbers as that LoRA has in each convolution, or fewer.
    Flora(usize),
    Whole,
}

const WAYS: [Way; 8] = [
    Way::Head,
    Way::Lora(1),
    Way::Flora(1),
    Way::Lora(2),
    Way::Flora(2),
    Way::Lora(4),
    Way::Flora(4),
    Way::Whole,
];

/// Numbers of a flat LoRA.
fn flat([out, input, height, width]: [usize; 4], rank: usize) -> usize {
    rank * (out * height + input * width)
}

/// The ranks of the greatest core that takes no more numbers than a flat LoRA of this rank.
fn ranks(size: [usize; 4], rank: usize) -> [usize; 4] {
    let of = |r: usize| [r.min(size[0]), r.min(size[1]), INNER, INNER];
    let fits = |r: &usize| Tucker::parameters(&size, &of(*r)) <= flat(size, rank);
    of((1..=size[0]).take_while(fits).last().unwrap_or(1))
}

impl Way {
    fn label(self) -> String {
        match self {
            Way::Head => "head alone".into(),
            Way::Lora(rank) => format!("flat LoRA of rank {rank}"),
            Way::Flora(rank) => format!("FLoRA in the budget of rank {rank}"),
            Way::Whole => "all weights".into(),
        }
    }

    /// What is added to each convolution, as parameters.
    fn parts(self, seed: u64) -> Vec<Vec<Param>> {
        let draw = |name: String, shape: &[usize], deviation: f32| {
            let values = normal(deviation, shape.iter().product(), seed, &name);
            Param::new(name, shape, ParamKind::Matrix, values)
        };
        let zeros = |name: String, shape: &[usize]| {
            Param::new(name, shape, ParamKind::Matrix, vec![0.0; shape.iter().product()])
        };
        let layer = |(layer, size): (usize, [usize; 4])| match self {
            Way::Head | Way::Whole => Vec::new(),
            Way::Lora(rank) => {
                let columns = size[1] * size[3];
                vec![
                    draw(format!("{layer}.a"), &[rank, columns], (2.0 / columns as f32).sqrt()),
                    zeros(format!("{layer}.b"), &[size[0] * size[2], rank]),
                ]
            }
            Way::Flora(rank) => {
                let ranks = ranks(size, rank);
                let factor = |i: usize| {
                    draw(format!("{layer}.{i}"), &[size[i], ranks[i]], (2.0 / ranks[i] as f32).sqrt())
                };
                let mut parts: Vec<Param> = (0..4).map(factor).collect();
                parts.push(zeros(format!("{layer}.core"), &ranks));
                parts
            }
        };
        sizes().into_iter().enumerate().map(layer).collect()
    }
}

/// `ΔW` of a convolution, of its parts.
fn delta(parts: &[Tensor], size: [usize; 4]) -> candle_core::Result<Option<Tensor>> {
    Ok(match parts {
        [] => None,
        [a, b] => {
            let [out, input, height, width] = size;
            let whole = b.matmul(a)?.reshape((out, height, input, width))?;
            Some(whole.transpose(1, 2)?.contiguous()?)
        }
        [factors @ .., core] => Some(product(core, factors)?),
    })
}

/// A network with what is added to it.
struct Net {
    base: Vec<Param>,
    parts: Vec<Vec<Param>>,
}

impl Net {
    fn trained(&self) -> usize {
        let all = self.base.iter().chain(self.parts.iter().flatten());
        all.filter(|it| it.is_trainable() && !it.name.starts_with("head")).map(|it| it.value.len()).sum()
    }

    fn added(parts: &[Vec<Tensor>]) -> candle_core::Result<Vec<Option<Tensor>>> {
        parts.iter().zip(sizes()).map(|(parts, size)| delta(parts, size)).collect()
    }

    fn scores(&self, x: &Tensor) -> Result<Tensor> {
        let parts: Vec<Vec<Tensor>> =
            self.parts.iter().map(|parts| tensors(parts)).collect::<Result<_, _>>()?;
        Ok(scores(&tensors(&self.base)?, &Net::added(&parts)?, x)?.detach())
    }

    /// The same network with what is added in its weights.
    fn merged(&self) -> Result<Net> {
        let mut base = self.base.clone();
        for (layer, (parts, size)) in self.parts.iter().zip(sizes()).enumerate() {
            if let Some(delta) = delta(&tensors(parts)?, size)? {
                let values = delta.flatten_all()?.to_vec1::<f32>()?;
                base[2 * layer].value.iter_mut().zip(values).for_each(|(w, delta)| *w += delta);
            }
        }
        Ok(Net { base, parts: vec![Vec::new(); self.parts.len()] })
    }

    fn train(&mut self, data: &images::Pictures, steps: u64, rate: f64, seed: u64) -> Result<()> {
        let flat = |net: &Net| -> Vec<Param> {
            net.base.iter().chain(net.parts.iter().flatten()).cloned().collect()
        };
        let mut params = flat(self);
        let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
        let mut optimizer = Optimizer::new(options, &params)?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let count = data.right.dims()[0];
        let schedule = cosine(rate, steps);
        for step in 0..steps {
            let ids: Vec<u32> = (0..BATCH).map(|_| random.random_range(0..count) as u32).collect();
            let ids = Tensor::from_vec(ids, BATCH, &Device::Cpu)?;
            let (x, right) = (data.pixels.index_select(&ids, 0)?, data.right.index_select(&ids, 0)?);
            let all = tensors(&params)?;
            let mut rest = &all[self.base.len()..];
            let mut parts = Vec::new();
            for own in &self.parts {
                let (these, others) = rest.split_at(own.len());
                parts.push(these.to_vec());
                rest = others;
            }
            let value = loss(&scores(&all[..self.base.len()], &Net::added(&parts)?, &x)?, &right)?;
            let gradients = value.backward()?;
            for (param, tensor) in params.iter_mut().zip(&all) {
                if let Some(gradient) = gradients.get(tensor).filter(|_| param.is_trainable()) {
                    param.grad = gradient.flatten_all()?.to_vec1()?;
                }
            }
            optimizer.step(&mut params, schedule.rate(step), 1.0);
        }
        let mut params = params.into_iter();
        for own in self.base.iter_mut().chain(self.parts.iter_mut().flatten()) {
            if let Some(param) = params.next() {
                *own = param;
            }
        }
        Ok(())
    }
}

/// The network before, with a new head, and what learns of it by a way.
fn adapted(before: &Net, way: Way, seed: u64) -> Net {
    let mut base = before.base.clone();
    base.truncate(6);
    if way != Way::Whole {
        base.iter_mut().for_each(Param::freeze);
    }
    base.extend(head(seed));
    Net { base, parts: way.parts(seed) }
}

/// How well a planted change of Tucker rank (4, 4, 2, 2) is found by a core of these ranks, and by the largest flat LoRA of no more
/// numbers: relative errors.
fn planted(steps: u64, seed: u64) -> Result<[f64; 2]> {
    let (size, ranks) = ([24, 16, 3, 3], [4, 4, 2, 2]);
    let mut truth = Tucker::new(&size, &ranks, 1.0, seed + 1)?;
    truth.core = candle_core::Var::from_vec(normal(1.0, 64, seed, "core"), &ranks[..], &Device::Cpu)?;
    let target = truth.delta()?.detach();
    let scale = target.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
    let target = (target / f64::from(scale))?;
    // The best flat LoRA is the singular value decomposition; no training could do better.
    let budget = Tucker::parameters(&size, &ranks);
    let rank = (budget / flat(size, 1)).max(1);
    let matrix = target.transpose(1, 2)?.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
    let parts = crate::svd::svd("planted", &matrix, size[0] * size[2], size[1] * size[3])?;
    let left: f64 = parts.values[rank..].iter().map(|value| value * value).sum();
    let mut found = Tucker::new(&size, &ranks, 1.0, seed + 2)?;
    let as_param = |(at, var): (usize, candle_core::Var)| -> Result<Param> {
        Ok(Param::new(at.to_string(), var.dims(), ParamKind::Matrix, var.flatten_all()?.to_vec1()?))
    };
    let mut params: Vec<Param> = found.vars().into_iter().enumerate().map(as_param).collect::<Result<_>>()?;
    let options = optim::Options { weight_decay: 0.0, ..optim::Options::default() };
    let mut optimizer = Optimizer::new(options, &params)?;
    let schedule = cosine(2e-2, steps);
    for step in 0..steps {
        let far = (found.delta()? - &target)?.sqr()?.sum_all()?;
        let gradients = far.backward()?;
        for (param, var) in params.iter_mut().zip(found.vars()) {
            if let Some(gradient) = gradients.get(&var) {
                param.grad = gradient.flatten_all()?.to_vec1()?;
            }
        }
        optimizer.step(&mut params, schedule.rate(step), 1.0);
        for (param, var) in params.iter().zip(found.vars()) {
            var.set(&Tensor::from_vec(param.value.clone(), param.shape.as_slice(), &Device::Cpu)?)?;
        }
    }
    found.scale = 1.0;
    let error = (found.delta()? - &target)?.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?;
    Ok([f64::from(error), left.sqrt()])
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let first = lab.seed() * 1000;
    lab.progress("learning the first pictures", 0.0);
    let mut before = Net { base: fresh(first), parts: vec![Vec::new(); 3] };
    before.train(&pictures(World::First, scale.pictures, first)?, scale.before, 1e-2, first)?;
    let known = pictures(World::First, scale.pictures, first + 500)?;
    let reached = accuracy(&before.scores(&known.pixels)?, &known.right)?;
    let learn = pictures(World::Second, scale.pictures / 2, first + 1)?;
    let choose = pictures(World::Second, scale.pictures, first + 501)?;
    let test = pictures(World::Second, 2 * scale.pictures, first + 502)?;
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::Lora(2).label());
    let (mut found, mut difference) = (Vec::new(), 0.0f32);
    for (at, way) in WAYS.into_iter().enumerate() {
        lab.progress(&way.label(), 0.1 + 0.8 * at as f64 / WAYS.len() as f64);
        let mut best = (f64::NEG_INFINITY, RATES[0]);
        for rate in RATES {
            let mut net = adapted(&before, way, first + 900);
            net.train(&learn, scale.choosing, rate, first + 900)?;
            let right = accuracy(&net.scores(&choose.pixels)?, &choose.right)?;
            if right > best.0 {
                best = (right, rate);
            }
        }
        let (mut rights, mut trained) = (Vec::new(), 0);
        for seed in first..first + scale.seeds {
            let mut net = adapted(&before, way, seed);
            trained = net.trained();
            net.train(&learn, scale.steps, best.1, seed)?;
            let given = net.scores(&test.pixels)?;
            rights.push(accuracy(&given, &test.right)?);
            if matches!(way, Way::Flora(_)) {
                let merged = net.merged()?.scores(&test.pixels)?;
                let far = (given - merged)?.abs()?.max_all()?.to_scalar::<f32>()?;
                difference = difference.max(far);
            }
        }
        let (mean, error) = mean_and_error(&rights);
        evidence.rows.push(
            Row::new(way.label())
                .with("accuracy", mean, "%")
                .with("its standard error", if error.is_finite() { error } else { 0.0 }, "%")
                .with("numbers trained besides the head", trained as f64, "")
                .with("learning rate", best.1, ""),
        );
        found.push((way, mean, trained));
    }
    let of = |way: Way| found.iter().find(|it| it.0 == way).map_or((f64::NAN, 0), |it| (it.1, it.2));
    let pairs: Vec<String> = [1, 2, 4]
        .into_iter()
        .map(|rank| {
            let ((flora, fewer), (lora, more)) = (of(Way::Flora(rank)), of(Way::Lora(rank)));
            format!("{flora:.1} % of {fewer} against {lora:.1} % of {more}")
        })
        .collect();
    evidence.expect(
        "At each of three budgets FLoRA's accuracy is at least that of a flat LoRA, with no more numbers.",
        pairs.join(", "),
        [1, 2, 4].into_iter().all(|rank| of(Way::Flora(rank)).0 >= of(Way::Lora(rank)).0),
    );
    evidence.expect(
        "Merged, scores are those of the network beside which the core stood, to 1e-4.",
        format!("{difference:.1e}"),
        difference < 1e-4,
    );
    lab.progress("a planted change", 0.95);
    let [core, lora] = planted(scale.planted, first)?;
    evidence.expect(
        "A planted change of Tucker rank (4, 4, 2, 2) is found to a relative error below 1e-3, which the best flat LoRA of no more \
         numbers can't.",
        format!("{core:.1e} against {lora:.2}"),
        core < 1e-3 && lora > 1e-3,
    );
    evidence.notes = vec![format!(
        "A network of three convolutions (1, 16, 32 and 64 channels) that learned {} pictures of four figures, {reached:.1} % right on new \
         ones, then {} pictures of four other figures, dark on bright ground; {} steps, means of {} seeds, each way at the best of three \
         rates, chosen with another seed on other pictures. All ways learn a new head. ConvNeXt, DeBERTa and LLaVA are not measured.",
        scale.pictures,
        scale.pictures / 2,
        scale.steps,
        scale.seeds
    )];
    lab.progress("done", 1.0);
    Ok(evidence)
}
