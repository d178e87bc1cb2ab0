//! Measures prompt learning on texts about people of the tales that the built-in encoder has read: frozen and fine-tuned, with a head or
//! a gap, given and soft templates and verbalizers, at few and at more labels.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_train::Trainable;
use ounce_train::data::labelled::Example;
use ounce_train::methods::encoders::{CONTEXT, macro_f1};
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Net, Options};
use ounce_train::optim::{self, Optimizer};

use super::{Asked, Cloze, NUMBER};
use crate::few::traits::{self, TRAITS};
use crate::few::{Dice, Tales, Told, fit, shots, stream};
use crate::{Adapted, Kind, Result, Settings};

/// Sizes of the demonstration.
pub(super) struct Scale {
    /// Labels of each trait.
    pub shots: [usize; 3],
    pub steps: u64,
    pub judged: usize,
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { shots: [4, 16, 64], steps: 40, judged: 160, seeds: 3 };
    measure(lab, &scale).map_err(DemonstrationError::step(NUMBER, "learning prompts on the built-in encoder"))
}

/// Texts of a step.
const TEXTS: usize = 12;
/// How much faster a template learns than vectors of labels.
const FASTER: f64 = 5.0;

/// Ways to learn a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    FrozenHead,
    GivenSoft,
    SoftGiven,
    SoftSoft,
    MixedSoft,
    Random,
    TunedHead,
    TunedPrompt,
}

const WAYS: [Way; 8] = [
    Way::FrozenHead,
    Way::GivenSoft,
    Way::SoftGiven,
    Way::SoftSoft,
    Way::MixedSoft,
    Way::Random,
    Way::TunedHead,
    Way::TunedPrompt,
];

/// The template; in `{}` what may be soft. No tale that the encoder has read begins so.
const GIVEN: &str = "It was [MASK], because <text>";
const MIXED: &str = "{It was} [MASK] {, because} <text>";
const SOFT: &str = "<text> [MASK]";

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::FrozenHead => "frozen, head",
            Way::GivenSoft => "frozen, given template, soft verbalizer",
            Way::SoftGiven => "frozen, soft template, given verbalizer",
            Way::SoftSoft => "frozen, soft template and verbalizer",
            Way::MixedSoft => "frozen, mixed template, soft verbalizer",
            Way::Random => "the same, words drawn at random",
            Way::TunedHead => "fine-tuned, head",
            Way::TunedPrompt => "fine-tuned, given template and verbalizer",
        }
    }

    fn rates(self) -> [f64; 3] {
        match self {
            Way::TunedHead | Way::TunedPrompt => [3e-4, 1e-3, 3e-3],
            _ => [1e-3, 4e-3, 1.6e-2],
        }
    }
}

/// An encoder and texts.
struct Study {
    tales: Tales,
    pool: Vec<Told>,
    choose: Vec<Told>,
    test: Vec<Told>,
}

/// A network with what it reads.
struct Pupil {
    net: Box<dyn Trainable>,
    /// None for a head, which reads the text alone.
    cloze: Option<Cloze>,
}

impl Study {
    fn examples(&self, texts: &[Told], cloze: Option<&Cloze>) -> Result<Vec<Example>> {
        let Some(cloze) = cloze else {
            return self.tales.examples(texts, &TRAITS);
        };
        let tokenizer = self.tales.tokenizer()?;
        let one = |(text, label): &Told| {
            Ok(cloze.template.example(tokenizer, text, Some(*label), CONTEXT, false)?.0)
        };
        texts.iter().map(one).collect()
    }

    fn cloze(&self, template: &str, free: usize, soft: bool, words: &[String], seed: u64) -> Result<Cloze> {
        let verbalizer: Vec<(String, Vec<String>)> =
            TRAITS.iter().zip(words).map(|(own, word)| ((*own).to_owned(), vec![word.clone()])).collect();
        let asked = Asked { template, free, verbalizer: &verbalizer, soft, seed };
        Ok(Cloze::new(self.tales.tokenizer()?, &asked)?.0)
    }

    fn pupil(&self, way: Way, seed: u64) -> Result<Pupil> {
        let model = &self.tales.0;
        let own: Vec<String> = TRAITS.map(str::to_owned).to_vec();
        let under = |cloze: Cloze, trains: Vec<String>| -> Result<Pupil> {
            let settings = Settings { seed, trains, cloze: Some(cloze.clone()), ..Settings::of(Kind::Cloze) };
            Ok(Pupil {
                net: Box::new(Adapted::new(model, &settings, Options::default())?),
                cloze: Some(cloze),
            })
        };
        let soft =
            |template: &str, free, soft| under(self.cloze(template, free, soft, &own, seed)?, Vec::new());
        match way {
            Way::FrozenHead | Way::TunedHead => {
                let model = with_classifier(model, Task::Texts, &own, Init::default(), seed)?;
                let all = way == Way::TunedHead;
                let net = Net::with_frozen(&model, Options::default(), &|name| {
                    all || name.starts_with("classifier.")
                })?;
                Ok(Pupil { net: Box::new(net), cloze: None })
            }
            Way::GivenSoft => soft(GIVEN, 0, true),
            Way::SoftGiven => soft(SOFT, 8, false),
            Way::SoftSoft => soft(SOFT, 8, true),
            Way::MixedSoft => soft(MIXED, 0, true),
            Way::Random => {
                let mut cloze = self.cloze(MIXED, 0, true, &own, seed)?;
                let (mut dice, limit) = (Dice::new(seed), model.spec.vocab_size);
                let template = cloze.template.before.iter_mut().chain(&mut cloze.template.after);
                template.filter(|piece| piece.soft).for_each(|piece| piece.id = dice.below(limit) as u32);
                cloze.labels.iter_mut().for_each(|label| label.words = vec![vec![dice.below(limit) as u32]]);
                under(cloze, Vec::new())
            }
            // Every name begins with nothing; the label's vectors are those of the words, as everything moves.
            Way::TunedPrompt => under(self.cloze(GIVEN, 0, true, &own, seed)?, vec![String::new()]),
        }
    }

    /// Macro-F1 behind a run on so many labels of each ward, in percent.
    fn run(
        &self,
        way: Way,
        each: usize,
        rate: f64,
        scale: &Scale,
        seed: u64,
        judged: &[Told],
    ) -> Result<f64> {
        let mut pupil = self.pupil(way, seed)?;
        let learned = self.examples(&shots(&self.pool, TRAITS.len(), each, seed), pupil.cloze.as_ref())?;
        let factors = [("cloze.template".to_owned(), FASTER)];
        fit(pupil.net.as_mut(), &mut stream(&learned, TEXTS, seed)?, (rate, &factors), scale.steps)?;
        let test = self.examples(judged, pupil.cloze.as_ref())?;
        Ok(macro_f1(pupil.net.as_mut(), &test, TRAITS.len())?)
    }
}

/// What a way came to.
struct Found {
    way: Way,
    trained: usize,
    /// Weights, gradients and moments of a step.
    bytes: usize,
    rate: f64,
    /// By number of labels, then seed.
    f1: Vec<Vec<f64>>,
}

impl Found {
    fn f1(&self, at: usize) -> f64 {
        mean_and_error(&self.f1[at]).0
    }
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let first = lab.seed() * 1000;
    let texts = |seed: u64, count: usize| traits::labelled(first + seed, count, TRAITS.len());
    let study = Study {
        tales: Tales::new(lab)?,
        pool: texts(1, 8 * scale.shots[2] * TRAITS.len()),
        choose: texts(2, 4 * scale.shots[1].max(4) * TRAITS.len()),
        test: texts(3, scale.judged),
    };
    let whole = study.tales.0.spec.parameters() as usize;
    let mut found = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        lab.progress(way.label(), at as f64 / WAYS.len() as f64);
        // What rates are chosen by is as small as what is learned from.
        let chosen = shots(&study.choose, TRAITS.len(), scale.shots[1], first + 9);
        let mut best = (f64::NEG_INFINITY, way.rates()[0]);
        for rate in way.rates() {
            let f1 = study.run(way, scale.shots[1], rate, scale, first + 9, &chosen)?;
            if f1 > best.0 {
                best = (f1, rate);
            }
        }
        let net = study.pupil(way, first)?.net;
        let trained: usize =
            net.params().iter().map(|param| if param.is_trainable() { param.value.len() } else { 0 }).sum();
        let optimizer = Optimizer::new(optim::Options::default(), net.params())?;
        let mut it = Found {
            way,
            trained,
            bytes: 4 * (whole + trained) + optimizer.bytes(),
            rate: best.1,
            f1: Vec::new(),
        };
        for each in scale.shots {
            let runs = (first..first + scale.seeds)
                .map(|seed| study.run(way, each, best.1, scale, seed, &study.test));
            it.f1.push(runs.collect::<Result<_>>()?);
        }
        found.push(it);
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::FrozenHead.label());
    for it in &found {
        let mut row = Row::new(it.way.label());
        for (at, each) in scale.shots.iter().enumerate() {
            let (f1, error) = mean_and_error(&it.f1[at]);
            row = row.with(format!("macro-F1, {each} labels each"), f1, "%").with(
                format!("its error, {each}"),
                error,
                "points",
            );
        }
        evidence.rows.push(
            row.with("numbers trained", it.trained as f64, "")
                .with("weights, gradients, moments", it.bytes as f64 / 1024.0, "KiB")
                .with("learning rate", it.rate, ""),
        );
    }
    expect(&mut evidence, &found, scale, whole);
    evidence.notes = vec![
        format!(
            "The built-in encoder of {} k parameters, which has read tales. {} traits: each text shows one by what somebody does, in the words of the \
             tales, where the word for it stands beside; it does not here. {} steps of {TEXTS} texts, {} seeds that draw labels, heads and orders; {} texts \
             judged. Rates are chosen for each way by another seed's labels and as many held out.",
            whole / 1000,
            TRAITS.len(),
            scale.steps,
            scale.seeds,
            scale.judged
        ),
        "Memory is that of weights, gradients and moments, not of activations, which are the same for all that leads back to the template."
            .into(),
        "The template is the best of 11 that were tried on such texts before anything was trained, the others finding from 8 to 68 % of the \
         traits; so the prompt without training, 92 %, is as good as it is by choice."
            .into(),
        "The paper's tasks of admission notes (MIMIC-III), mortality and length of stay are not measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, found: &[Found], scale: &Scale, whole: usize) {
    let f1 = |way: Way, at: usize| found.iter().find(|it| it.way == way).map_or(f64::NAN, |it| it.f1(at));
    let of = |way: Way| found.iter().find(|it| it.way == way);
    let [few, some, many] = scale.shots;
    evidence.expect(
        format!("A mixed template with a soft verbalizer on the frozen encoder beats a head on it by 5 points of macro-F1 or more at {few} and at {some} labels each."),
        format!(
            "{:.1} against {:.1} %, {:.1} against {:.1} %",
            f1(Way::MixedSoft, 0),
            f1(Way::FrozenHead, 0),
            f1(Way::MixedSoft, 1),
            f1(Way::FrozenHead, 1)
        ),
        (0..2).all(|at| f1(Way::MixedSoft, at) >= f1(Way::FrozenHead, at) + 5.0),
    );
    let share = of(Way::MixedSoft).map_or(f64::NAN, |it| 100.0 * it.trained as f64 / whole as f64);
    let tuned = f1(Way::TunedHead, 2).max(f1(Way::TunedPrompt, 2));
    evidence.expect(
        format!("At {many} labels each it comes within 3 points of the better fine-tuning, with at most 5 % of the numbers trained."),
        format!("{:.1} against {tuned:.1} %, {share:.1} % of the numbers", f1(Way::MixedSoft, 2)),
        f1(Way::MixedSoft, 2) >= tuned - 3.0 && share <= 5.0,
    );
    evidence.expect(
        format!("A prompt of words drawn at random is worse at {few} and at {some} labels each."),
        format!(
            "{:.1} against {:.1} %, {:.1} against {:.1} %",
            f1(Way::Random, 0),
            f1(Way::MixedSoft, 0),
            f1(Way::Random, 1),
            f1(Way::MixedSoft, 1)
        ),
        (0..2).all(|at| f1(Way::Random, at) < f1(Way::MixedSoft, at)),
    );
    let bytes = |way| of(way).map_or(f64::NAN, |it| it.bytes as f64);
    let ratio = bytes(Way::MixedSoft) / bytes(Way::TunedPrompt);
    evidence.expect(
        "Weights, gradients and moments take at most 0.6 of what they take when all is fine-tuned.",
        format!("{ratio:.2}"),
        ratio <= 0.6,
    );
}
