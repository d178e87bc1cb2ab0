//! Measures CrossTune on texts about people of the tales that the built-in encoder has read, against what else can be learned from states
//! that a black box gives.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_kernels::pool::Pool;
use ounce_kernels::softmax::softmax;
use ounce_train::data::labelled::Example;
use ounce_train::data::labelled::batch;
use ounce_train::methods::encoders::CONTEXT;
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Net, Options};
use ounce_train::optim::{self, Optimizer};
use ounce_train::{Param, ParamKind, Trainable};

use super::switch::{Switched, Teacher};
use super::{BlackBox, Course, Cross, CrossTune, Frozen, NUMBER, Scale as Scaling, Taught, accuracy, switch};
use crate::few::traits::{self, TRAITS};
use crate::few::{Dice, Tales, Told, fit, shots, stream};
use crate::{Error, Result};

/// Sizes of the demonstration.
pub(super) struct Scale {
    /// Labels of each trait.
    pub shots: [usize; 2],
    pub judged: usize,
    /// Generated texts of each trait, and the part whose trait is wrong.
    pub generated: usize,
    pub corrupted: f64,
    pub head_steps: u64,
    pub teacher_steps: u64,
    /// Prompts that the random search tries.
    pub prompts: usize,
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale {
        shots: [4, 16],
        judged: 400,
        generated: 50,
        corrupted: 0.3,
        head_steps: 100,
        teacher_steps: 40,
        prompts: 10,
        seeds: 3,
    };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "learning from an encoder's states"))
}

/// Inner width of heads.
const WIDTH: usize = 32;
const RATES: [f64; 3] = [3e-4, 1e-3, 3e-3];
const PROBE_RATES: [f64; 4] = [1e-3, 3e-3, 1e-2, 3e-2];
const TEACHER_RATE: f64 = 1e-3;

const PROBE: &str = "linear probe";
const PROTOTYPE: &str = "nearest mean";
const PROMPT: &str = "best of random prompts";
const CROSS: &str = "CrossTune";
const SHUFFLED: &str = "CrossTune, descriptions exchanged";
const ATTENTION: &str = "CrossTune, attention as probability";
const ALWAYS: &str = "CrossTune, all generated texts";
const SWITCHED: &str = "CrossTune, generated texts by the switch";
const NAMES: [&str; 8] = [PROBE, PROTOTYPE, PROMPT, CROSS, SHUFFLED, ATTENTION, ALWAYS, SWITCHED];

/// Texts with their states.
struct Seen {
    texts: Vec<Told>,
    taught: Taught,
}

struct Study {
    tales: Tales,
}

fn one_hot(label: usize) -> impl Iterator<Item = f32> {
    (0..TRAITS.len()).map(move |at| f32::from(u8::from(at == label)))
}

impl Study {
    fn encoder(&self) -> Result<Frozen<'_>> {
        Frozen::new(&self.tales.0, None, CONTEXT)
    }

    fn seen(&self, encoder: &mut Frozen<'_>, texts: Vec<Told>) -> Result<Seen> {
        let mut taught = Taught::default();
        for (text, label) in &texts {
            taught.states.extend(encoder.encode(text)?);
            taught.targets.extend(one_hot(*label));
        }
        Ok(Seen { texts, taught })
    }

    /// A head, its numbers and rate decided by what was held out, which is as small as what is learned from; calls of the encoder for descriptions.
    fn cross(
        &self,
        few: &Taught,
        held: &Taught,
        (descriptions, by_attention): (Vec<String>, bool),
        scale: &Scale,
        seed: u64,
    ) -> Result<(CrossTune, u64)> {
        let cross = Cross {
            labels: TRAITS.map(str::to_owned).to_vec(),
            descriptions,
            template: None,
            width: WIDTH,
            by_attention,
            limit: CONTEXT,
        };
        let mut encoder = self.encoder()?;
        let begun = CrossTune::new(&mut encoder, cross, &few.states, seed)?;
        let mut best: Option<(f64, CrossTune)> = None;
        for rate in RATES {
            let mut made = begun.clone();
            made.train(few, held, Course { steps: scale.head_steps, rate, at_once: 24, seed })?;
            let found = right(&made.probabilities(&held.states)?, held);
            if best.as_ref().is_none_or(|(best, _)| found > *best) {
                best = Some((found, made));
            }
        }
        let (_, made) = best.ok_or_else(|| Error::Option("there are no rates".into()))?;
        Ok((made, encoder.calls))
    }

    /// Prompts of tokens drawn at random between text and gap, the best for the labelled texts; labels are words.
    fn prompted(&self, few: &Seen, test: &[Told], scale: &Scale, seed: u64) -> Result<f64> {
        let model = &self.tales.0;
        let engine = ounce_engine::Engine::new(model).map_err(|error| Error::Option(error.to_string()))?;
        let tokenizer = self.tales.tokenizer()?;
        let words: Vec<u32> = (TRAITS.iter())
            .map(|word| Ok(tokenizer.encode(&format!(" {word}"), false)?[0]))
            .collect::<Result<_>>()?;
        let share = |prompt: &[u32], texts: &[Told]| -> Result<f64> {
            let (mut right, special) = (0, tokenizer.special());
            let (Some(mask), Some(end)) = (special.mask, special.sep) else { return Ok(0.0) };
            for (text, label) in texts {
                let mut ids = tokenizer.encode(text, true)?;
                ids.truncate(CONTEXT - prompt.len() - 2);
                if ids.last() == Some(&end) {
                    ids.pop();
                }
                ids.extend(prompt.iter().copied().chain([mask, end]));
                let logits =
                    engine.masked_logits(&ids, &[]).map_err(|error| Error::Option(error.to_string()))?;
                let at_gap = &logits[(ids.len() - 2) * model.spec.vocab_size..];
                let better = |best: usize, at: usize| {
                    if at_gap[words[at] as usize] > at_gap[words[best] as usize] { at } else { best }
                };
                right += usize::from((0..words.len()).fold(0, better) == *label);
            }
            Ok(right as f64 / texts.len().max(1) as f64)
        };
        let mut dice = Dice::new(seed);
        let mut best = (f64::NEG_INFINITY, Vec::new());
        for _ in 0..scale.prompts {
            let prompt: Vec<u32> = (0..3).map(|_| dice.below(model.spec.vocab_size) as u32).collect();
            let found = share(&prompt, &few.texts)?;
            if found > best.0 {
                best = (found, prompt);
            }
        }
        share(&best.1, test)
    }

    /// The switch, by teachers that are the same encoder fine-tuned.
    fn switched(
        &self,
        few: &[Told],
        generated: &[Told],
        held: &[Told],
        scale: &Scale,
        seed: u64,
    ) -> Result<Switched> {
        let labels: Vec<String> = TRAITS.map(str::to_owned).to_vec();
        let mut teach = |texts: &[Told]| -> Result<Teacher<'_>> {
            let model = with_classifier(&self.tales.0, Task::Texts, &labels, Init::default(), seed)?;
            let mut net = Net::from_model(&model, Options::default())?;
            fit(
                &mut net,
                &mut stream(&self.examples(texts)?, 16, seed)?,
                (TEACHER_RATE, &[]),
                scale.teacher_steps,
            )?;
            let ask = move |text: &str| -> Result<Vec<f32>> {
                let all = self.examples(&[(text.to_owned(), 0)])?;
                let mut scores = net.scores(&batch(&all))?;
                softmax(&mut scores);
                Ok(scores)
            };
            Ok(Box::new(ask))
        };
        switch(few, generated, held, &mut teach)
    }

    fn examples(&self, texts: &[Told]) -> Result<Vec<Example>> {
        self.tales.examples(texts, &TRAITS)
    }
}

fn right(probabilities: &[f32], taught: &Taught) -> f64 {
    accuracy(probabilities, &taught.targets, TRAITS.len())
}

/// Softmax regression on scaled states with AdamW, its rate and end decided by what was held out.
fn probed(few: &Taught, held: &Taught, test: &Taught, steps: u64) -> Result<f64> {
    let (count, width) = (TRAITS.len(), few.states.len() / (few.targets.len() / TRAITS.len()));
    let scaling = Scaling::of(&few.states, width);
    let (x, dev, judged) =
        (scaling.apply(&few.states), scaling.apply(&held.states), scaling.apply(&test.states));
    let scores = |params: &[Param], x: &[f32]| -> Vec<f32> {
        let mut all = Vec::with_capacity(x.len() / width * count);
        for state in x.chunks_exact(width) {
            let rows = params[0].value.chunks_exact(width).zip(&params[1].value);
            let mut row: Vec<f32> = rows
                .map(|(row, bias)| bias + row.iter().zip(state).map(|(a, b)| a * b).sum::<f32>())
                .collect();
            softmax(&mut row);
            all.extend(row);
        }
        all
    };
    let mut best = (f64::NEG_INFINITY, f64::NAN);
    for rate in PROBE_RATES {
        let mut params = [
            Param::new("w", &[count, width], ParamKind::Matrix, vec![0.0; count * width]),
            Param::new("b", &[count], ParamKind::Bias, vec![0.0; count]),
        ];
        let options = optim::Options { weight_decay: 0.01, ..optim::Options::default() };
        let mut optimizer = Optimizer::new(options, &params)?;
        for step in 0..=steps {
            if step % (steps / 10).max(1) == 0 {
                let found = right(&scores(&params, &dev), held);
                if found > best.0 {
                    best = (found, right(&scores(&params, &judged), test));
                }
            }
            let given = scores(&params, &x);
            params.iter_mut().for_each(|param| param.grad.fill(0.0));
            let texts = (x.len() / width) as f32;
            let rows =
                given.chunks_exact(count).zip(few.targets.chunks_exact(count)).zip(x.chunks_exact(width));
            for ((given, target), state) in rows {
                for label in 0..count {
                    let gradient = (given[label] - target[label]) / texts;
                    params[1].grad[label] += gradient;
                    let row = &mut params[0].grad[label * width..][..width];
                    row.iter_mut().zip(state).for_each(|(sum, value)| *sum += gradient * value);
                }
            }
            let clip = optim::norm::clip_factor(optim::norm::global_norm(Pool::global(), &params), Some(1.0));
            optimizer.step(&mut params, rate, clip);
        }
    }
    Ok(best.1)
}

/// The label whose texts' mean is nearest.
fn nearest(few: &Taught, test: &Taught) -> f64 {
    let (count, width) = (TRAITS.len(), few.states.len() / (few.targets.len() / TRAITS.len()));
    let scaling = Scaling::of(&few.states, width);
    let (x, judged) = (scaling.apply(&few.states), scaling.apply(&test.states));
    let mut means = vec![0.0f32; count * width];
    for (state, target) in x.chunks_exact(width).zip(few.targets.chunks_exact(count)) {
        for (label, share) in target.iter().enumerate() {
            means[label * width..][..width]
                .iter_mut()
                .zip(state)
                .for_each(|(sum, value)| *sum += share * value);
        }
    }
    let cosine = |a: &[f32], b: &[f32]| {
        let (mut dot, mut length) = (0.0, 1e-12f32);
        a.iter().zip(b).for_each(|(a, b)| (dot, length) = (dot + a * b, length + a * a));
        dot / length.sqrt()
    };
    let found: Vec<f32> = judged
        .chunks_exact(width)
        .flat_map(|state| means.chunks_exact(width).map(|mean| cosine(mean, state)).collect::<Vec<_>>())
        .collect();
    right(&found, test)
}

/// What one way came to, by number of labels, then seed, in percent.
type Found = [Vec<Vec<f64>>; NAMES.len()];

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let first = lab.seed() * 1000;
    let study = Study { tales: Tales::new(lab)? };
    let texts = |seed: u64, count: usize| traits::mixed(first + seed, count, 0.0);
    let pool = texts(1, 40 * scale.shots[1] * TRAITS.len());
    let held = texts(2, 40 * scale.shots[1] * TRAITS.len());
    let test = study.seen(&mut study.encoder()?, texts(3, scale.judged))?;
    let mut found: Found = Default::default();
    let (mut calls, mut switches) = ((0, 0), Vec::new());
    for (at, each) in scale.shots.into_iter().enumerate() {
        found.iter_mut().for_each(|it| it.push(Vec::new()));
        for number in 0..scale.seeds {
            lab.progress("heads", 0.5 * (at as f64 + number as f64 / scale.seeds as f64));
            let seed = first + number;
            let mut encoder = study.encoder()?;
            let few = study.seen(&mut encoder, shots(&pool, TRAITS.len(), each, seed))?;
            let own = encoder.calls;
            let held = study.seen(&mut encoder, shots(&held, TRAITS.len(), each, seed))?;
            let mut put = |name: &str, share: f64| {
                if let Some(place) = NAMES.iter().position(|it| *it == name) {
                    found[place][at].push(100.0 * share);
                }
            };
            put(PROBE, probed(&few.taught, &held.taught, &test.taught, 2 * scale.head_steps)?);
            put(PROTOTYPE, nearest(&few.taught, &test.taught));
            put(PROMPT, study.prompted(&few, &test.texts, scale, seed)?);
            let told = traits::descriptions();
            let mut exchanged = told.clone();
            exchanged.rotate_left(1 + number as usize % (TRAITS.len() - 1));
            for (name, descriptions, by_attention) in
                [(CROSS, told.clone(), false), (SHUFFLED, exchanged, false), (ATTENTION, told.clone(), true)]
            {
                let (made, more) =
                    study.cross(&few.taught, &held.taught, (descriptions, by_attention), scale, seed)?;
                put(name, right(&made.probabilities(&test.taught.states)?, &test.taught));
                calls = (own + more, few.texts.len() as u64 + TRAITS.len() as u64);
            }
            let made_up = traits::mixed(seed + 500, scale.generated * TRAITS.len(), scale.corrupted);
            let switched = study.switched(&few.texts, &made_up, &held.texts, scale, seed)?;
            let more = study.seen(&mut encoder, made_up)?;
            let joined = |states: &[f32], targets: &[f32]| Taught {
                states: [&few.taught.states, states].concat(),
                targets: [&few.taught.targets, targets].concat(),
            };
            let mut kept = Taught::default();
            for (text, probabilities) in &switched.kept {
                kept.states.extend(encoder.encode(text)?);
                kept.targets.extend(probabilities);
            }
            let always = joined(&more.taught.states, &more.taught.targets);
            for (name, taught) in [(ALWAYS, always), (SWITCHED, joined(&kept.states, &kept.targets))] {
                let (made, _) = study.cross(&taught, &held.taught, (told.clone(), false), scale, seed)?;
                put(name, right(&made.probabilities(&test.taught.states)?, &test.taught));
            }
            switches.push((each, switched));
        }
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), PROBE);
    for (name, runs) in NAMES.iter().zip(&found) {
        let mut row = Row::new(*name);
        for (each, runs) in scale.shots.iter().zip(runs) {
            let (mean, error) = mean_and_error(runs);
            row = row.with(format!("right, {each} labels each"), mean, "%").with(
                format!("its error, {each}"),
                error,
                "points",
            );
        }
        evidence.rows.push(row);
    }
    expect(&mut evidence, &found, calls, scale);
    let on = switches.iter().filter(|(_, it)| it.on).count();
    let dropped: usize = switches.iter().map(|(_, it)| it.dropped).sum();
    evidence.notes = vec![
        format!(
            "The built-in encoder, which has read tales; states are means over tokens, of mean 0 and deviation 1. {} traits: each text shows one by what \
             somebody does, and half of the texts have somebody else besides who shows another. Descriptions have no word of what shows a trait. {} \
             seeds; what is held out to choose rates, ends and the switch is as small as what is learned from; {} texts judged. The head has {} numbers.",
            TRAITS.len(),
            scale.seeds,
            scale.judged,
            super::Head::parameters(study.tales.0.spec.hidden_size, WIDTH)
        ),
        format!(
            "{} generated texts of each trait, {:.0} % of which show another; they come from the grammar, not from a language model. The \
             switch was on in {on} of {} runs and dropped {dropped} texts in all; its teachers are the encoder, fine-tuned.",
            scale.generated,
            100.0 * scale.corrupted,
            switches.len()
        ),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, found: &Found, calls: (u64, u64), scale: &Scale) {
    let of = |name: &str, at: usize| {
        NAMES.iter().position(|it| *it == name).map_or(f64::NAN, |place| mean_and_error(&found[place][at]).0)
    };
    let few = scale.shots[0];
    evidence.expect(
        format!("CrossTune is right in 3 points more of the texts than a linear probe, or more, at {few} labels each."),
        format!("{:.1} against {:.1} %", of(CROSS, 0), of(PROBE, 0)),
        of(CROSS, 0) >= of(PROBE, 0) + 3.0,
    );
    evidence.expect(
        format!("With descriptions exchanged that is lost at {few} labels each: not 3 points above the probe, and below the right ones."),
        format!("{:.1} against {:.1} and {:.1} %", of(SHUFFLED, 0), of(PROBE, 0), of(CROSS, 0)),
        of(SHUFFLED, 0) < of(PROBE, 0) + 3.0 && of(SHUFFLED, 0) < of(CROSS, 0),
    );
    evidence.expect(
        format!("With {:.0} % of the generated texts corrupted, the switch does as well as using all of them, or better.", 100.0 * scale.corrupted),
        format!(
            "{:.1} against {:.1} %, {:.1} against {:.1} %",
            of(SWITCHED, 0),
            of(ALWAYS, 0),
            of(SWITCHED, 1),
            of(ALWAYS, 1)
        ),
        (0..2).all(|at| of(SWITCHED, at) >= of(ALWAYS, at)),
    );
    evidence.expect(
        "The encoder is called once for each example and once for each label.",
        format!("{} calls for {} examples and labels", calls.0, calls.1),
        calls.0 == calls.1,
    );
}
