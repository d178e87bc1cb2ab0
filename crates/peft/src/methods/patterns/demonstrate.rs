//! Measures pattern-exploiting training on texts about people of the tales that the built-in encoder has read: on adapters and on all
//! weights, against heads, with and without a neighbouring task before, and with names hidden where they have changed sides.

use ounce_eval::method::{DemonstrationError, Evidence, Lab, Row};
use ounce_eval::stats::mean_and_error;
use ounce_train::Trainable;
use ounce_train::data::agreement::kappa::krippendorff;
use ounce_train::data::labelled::Example;
use ounce_train::methods::encoders::{CONTEXT, macro_f1};
use ounce_train::net::classifier::{Task, with_classifier};
use ounce_train::net::{Init, Options};

use super::{Exploit, NUMBER, best};
use crate::few::traits::{self, TRAITS};
use crate::few::{Tales, Told, fit, shots, stream};
use crate::methods::cloze::{Asked, Cloze};
use crate::{Adapted, Kind, Result, Settings, Targets};

/// Sizes of the demonstration.
pub(super) struct Scale {
    /// Labels in all.
    pub shots: [usize; 2],
    pub near: usize,
    pub pool: usize,
    pub judged: usize,
    /// Steps of patterns and heads, and of the classifier behind patterns.
    pub steps: [u64; 2],
    pub seeds: u64,
}

pub(super) fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    let scale = Scale { shots: [8, 32], near: 120, pool: 160, judged: 160, steps: [15, 30], seeds: 3 };
    measure(lab, &scale)
        .map_err(DemonstrationError::step(NUMBER, "exploiting patterns on the built-in encoder"))
}

/// Texts of a step.
const TEXTS: usize = 8;
/// α of Schick and Schütze.
const HIDDEN: f64 = 1e-4;
/// Labels; they are their own words.
const SIDES: [&str; 4] = [TRAITS[0], TRAITS[1], TRAITS[2], TRAITS[3]];
/// No tale that the encoder has read says it so.
const PATTERNS: [&str; 3] = [
    "It was [MASK], because <text>",
    "<text> This was a [MASK] one.",
    "<text> So the child was very [MASK].",
];

/// Ways to learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    WholeHead,
    Head,
    WholePet,
    Pet,
    NearHead,
    NearPet,
    Hidden,
}

const WAYS: [Way; 7] =
    [Way::WholeHead, Way::Head, Way::WholePet, Way::Pet, Way::NearHead, Way::NearPet, Way::Hidden];

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::WholeHead => "all weights, head",
            Way::Head => "adapters, head",
            Way::WholePet => "all weights, patterns",
            Way::Pet => "adapters, patterns",
            Way::NearHead => "adapters, head, neighbouring task first",
            Way::NearPet => "adapters, patterns, neighbouring task first",
            Way::Hidden => "adapters, patterns, names hidden",
        }
    }

    fn pet(self) -> bool {
        matches!(self, Way::WholePet | Way::Pet | Way::NearPet | Way::Hidden)
    }

    fn near(self) -> bool {
        matches!(self, Way::NearHead | Way::NearPet)
    }

    fn settings(self, seed: u64) -> Settings {
        let adapters = Settings {
            seed,
            targets: Targets::parts(&["down"]),
            reduction: 16,
            ..Settings::of(Kind::Bottleneck)
        };
        match self {
            Way::WholeHead | Way::WholePet => {
                Settings { seed, trains: vec![String::new()], ..Settings::of(Kind::Bitfit) }
            }
            _ => adapters,
        }
    }

    fn rates(self) -> [f64; 3] {
        match self {
            Way::WholeHead | Way::WholePet => [3e-4, 1e-3, 3e-3],
            _ => [1e-3, 4e-3, 1.6e-2],
        }
    }

    /// Who has the same rates: only one of each kind is looked for.
    fn kind(self) -> Way {
        match self {
            Way::NearHead => Way::Head,
            Way::NearPet | Way::Hidden => Way::Pet,
            other => other,
        }
    }
}

struct Study {
    tales: Tales,
    few: Vec<Told>,
    choose: Vec<Told>,
    near: Vec<Told>,
    pool: Vec<String>,
    test: Vec<Told>,
    flipped: Vec<Told>,
}

fn hidden(texts: &[Told]) -> Vec<Told> {
    texts.iter().map(|(text, label)| (traits::hidden(text), *label)).collect()
}

/// What a run came to.
struct Run {
    f1: f64,
    /// Where names have changed sides.
    flipped: f64,
    /// Labels given to the texts that are judged.
    given: Vec<usize>,
    /// Alpha of the patterns and runs among each other.
    agreement: f64,
}

impl Study {
    fn patterns(&self) -> Result<Vec<Cloze>> {
        let words: Vec<(String, Vec<String>)> =
            SIDES.iter().map(|side| ((*side).to_owned(), vec![(*side).to_owned()])).collect();
        let one = |template: &&str| {
            let asked = Asked { template, verbalizer: &words, ..Asked::default() };
            Ok(Cloze::new(self.tales.tokenizer()?, &asked)?.0)
        };
        PATTERNS.iter().map(one).collect()
    }

    fn examples(&self, texts: &[Told]) -> Result<Vec<Example>> {
        self.tales.examples(texts, &SIDES)
    }

    fn net(&self, way: Way, rate: f64, few: &[Told], scale: &Scale, seed: u64) -> Result<(Adapted, f64)> {
        let near: &[Told] = if way.near() { &self.near } else { &[] };
        let (few, pool) = match way {
            Way::Hidden => (hidden(few), self.pool.iter().map(|text| traits::hidden(text)).collect()),
            _ => (few.to_vec(), self.pool.clone()),
        };
        let settings = way.settings(seed);
        if way.pet() {
            let exploit = Exploit {
                patterns: self.patterns()?,
                settings,
                words: HIDDEN,
                temperature: 2.0,
                runs: 1,
                generations: 1,
                steps: scale.steps,
                rate,
                at_once: TEXTS,
                limit: CONTEXT,
                seed,
            };
            let found = exploit.run(&self.tales.0, near, &few, &pool, &mut |_, _| Ok(()))?;
            return Ok((found.net, found.agreement));
        }
        let labels: Vec<String> = SIDES.map(str::to_owned).to_vec();
        let model = with_classifier(&self.tales.0, Task::Texts, &labels, Init::default(), seed)?;
        let mut settings = settings;
        settings.trains.push("classifier.".into());
        let mut net = Adapted::new(&model, &settings, Options::default())?;
        // As many steps as a pattern and the classifier behind it have together, so that no way learns for longer.
        let steps = scale.steps[0] + scale.steps[1];
        if !near.is_empty() {
            fit(&mut net, &mut stream(&self.examples(near)?, TEXTS, seed)?, (rate, &[]), steps)?;
        }
        fit(&mut net, &mut stream(&self.examples(&few)?, TEXTS, seed)?, (rate, &[]), steps)?;
        Ok((net, f64::NAN))
    }

    fn run(&self, way: Way, rate: f64, few: &[Told], scale: &Scale, seed: u64) -> Result<Run> {
        let (mut net, agreement) = self.net(way, rate, few, scale, seed)?;
        let seen =
            |texts: &[Told]| self.examples(&if way == Way::Hidden { hidden(texts) } else { texts.to_vec() });
        let test = seen(&self.test)?;
        let mut given = Vec::new();
        for some in test.chunks(32) {
            let scores = net.scores(&ounce_train::data::labelled::batch(some))?;
            given.extend(scores.chunks_exact(SIDES.len()).map(best));
        }
        let f1 = macro_f1(&mut net, &test, SIDES.len())?;
        let flipped = macro_f1(&mut net, &seen(&self.flipped)?, SIDES.len())?;
        Ok(Run { f1, flipped, given, agreement })
    }
}

/// What a way came to.
struct Found {
    way: Way,
    trained: u64,
    rate: f64,
    /// By number of labels, then seed.
    runs: Vec<Vec<Run>>,
}

impl Found {
    fn mean(&self, at: usize, of: impl Fn(&Run) -> f64) -> (f64, f64) {
        let (mean, error) = mean_and_error(&self.runs[at].iter().map(of).collect::<Vec<_>>());
        (mean, error * (self.runs[at].len() as f64).sqrt())
    }

    /// Krippendorff's alpha between seeds.
    fn reliability(&self, at: usize) -> f64 {
        let runs = &self.runs[at];
        let rows: Vec<Vec<usize>> = (0..runs[0].given.len())
            .map(|text| {
                let mut counts = vec![0; SIDES.len()];
                runs.iter().for_each(|run| counts[run.given[text]] += 1);
                counts
            })
            .collect();
        let alpha = krippendorff(&rows);
        // One run alone agrees with none.
        if alpha.is_finite() { alpha } else { 0.0 }
    }
}

pub(super) fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let first = lab.seed() * 1000;
    let texts = |seed: u64, count: usize, shift| traits::biased(first + seed, count, SIDES.len(), shift);
    let study = Study {
        tales: Tales::new(lab)?,
        few: texts(1, 40 * scale.shots[1], 0),
        choose: texts(2, 40 * scale.shots[1], 0),
        near: traits::near(first + 3, scale.near, SIDES.len()),
        pool: texts(4, scale.pool, 0).into_iter().map(|(text, _)| text).collect(),
        test: texts(5, scale.judged, 0),
        flipped: texts(6, scale.judged, 1),
    };
    let whole = study.tales.0.spec.parameters();
    let mut rates: Vec<(Way, f64)> = Vec::new();
    let mut found: Vec<Found> = Vec::new();
    for (at, way) in WAYS.into_iter().enumerate() {
        lab.progress(way.label(), at as f64 / WAYS.len() as f64);
        let known = rates.iter().find(|(kind, _)| *kind == way.kind()).map(|it| it.1);
        let rate = match known {
            Some(rate) => rate,
            None => {
                // What rates are chosen by is as small as what is learned from.
                let each = scale.shots[1] / SIDES.len();
                let (few, held) = (
                    shots(&study.few, SIDES.len(), each, first + 9),
                    shots(&study.choose, SIDES.len(), each, first + 9),
                );
                let mut best = (f64::NEG_INFINITY, way.rates()[0]);
                for rate in way.rates() {
                    let (mut net, _) = study.net(way, rate, &few, scale, first + 9)?;
                    let f1 = macro_f1(&mut net, &study.examples(&held)?, SIDES.len())?;
                    if f1 > best.0 {
                        best = (f1, rate);
                    }
                }
                rates.push((way.kind(), best.1));
                best.1
            }
        };
        let runs = scale.shots.iter().map(|&count| {
            let of = |seed| {
                study.run(way, rate, &shots(&study.few, SIDES.len(), count / SIDES.len(), seed), scale, seed)
            };
            (first..first + scale.seeds).map(of).collect::<Result<Vec<Run>>>()
        });
        let runs = runs.collect::<Result<Vec<_>>>()?;
        let net = Adapted::new(&study.tales.0, &way.settings(first), Options::default())?;
        found.push(Found { way, trained: net.trained(), rate, runs });
    }
    let mut evidence = Evidence::new(NUMBER, lab.seed(), Way::WholeHead.label());
    for it in &found {
        let mut row = Row::new(it.way.label());
        for (at, count) in scale.shots.iter().enumerate() {
            let (f1, deviation) = it.mean(at, |run| run.f1);
            row = row
                .with(format!("macro-F1, {count} labels"), f1, "%")
                .with(format!("its deviation over seeds, {count}"), deviation, "points")
                .with(format!("names changed sides, {count}"), it.mean(at, |run| run.flipped).0, "%")
                .with(format!("alpha between seeds, {count}"), it.reliability(at), "");
        }
        evidence.rows.push(
            row.with("numbers trained, without a head", it.trained as f64, "")
                .with("of the encoder's", 100.0 * it.trained as f64 / whole as f64, "%")
                .with("learning rate", it.rate, ""),
        );
    }
    expect(&mut evidence, &found, scale, whole);
    let pet = found.iter().find(|it| it.way == Way::Pet);
    let agreement: Vec<String> = pet
        .iter()
        .flat_map(|it| (0..2).map(|at| format!("{:.2}", it.mean(at, |run| run.agreement).0)))
        .collect();
    evidence.notes = vec![
        format!(
            "The built-in encoder, which has read tales. {} traits: each text shows one by what somebody does, and names mostly have one of their own in \
             what is learned from and in the first test. {} patterns, {} unlabelled texts, α {HIDDEN}, T 2, {} steps of {TEXTS} texts for each pattern \
             and {} for the classifier; heads have as many as both. {} seeds, {} texts judged.",
            SIDES.len(),
            PATTERNS.len(),
            scale.pool,
            scale.steps[0],
            scale.steps[1],
            scale.seeds,
            scale.judged
        ),
        format!(
            "Rates are chosen for each way at {} labels by another seed's and as many held out; a neighbouring task has {} labelled texts about \
             animals. The patterns of adapters agree among each other with an alpha of {}.",
            scale.shots[1],
            scale.near,
            agreement.join(" and ")
        ),
        "English made up by a grammar, one size of model; windows of neighbouring sentences and generations (iPET) are not measured.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

fn expect(evidence: &mut Evidence, found: &[Found], scale: &Scale, whole: u64) {
    let of = |way: Way| found.iter().find(|it| it.way == way);
    let f1 = |way, at| of(way).map_or((f64::NAN, f64::NAN), |it| it.mean(at, |run| run.f1));
    let both = |a: Way, b: Way| {
        (0..2)
            .map(|at| format!("{:.1} against {:.1} %", f1(a, at).0, f1(b, at).0))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let [few, some] = scale.shots;
    evidence.expect(
        format!("At {few} and at {some} labels patterns with adapters are 5 points of macro-F1 or more above all weights with a head."),
        both(Way::Pet, Way::WholeHead),
        (0..2).all(|at| f1(Way::Pet, at).0 >= f1(Way::WholeHead, at).0 + 5.0),
    );
    let share = of(Way::Pet).map_or(f64::NAN, |it| 100.0 * it.trained as f64 / whole as f64);
    evidence.expect(
        "They train at most 5 % of the encoder's numbers.",
        format!("{share:.1} %"),
        share <= 5.0,
    );
    evidence.expect(
        "Their macro-F1 differs no more from seed to seed than that of all weights with a head.",
        (0..2)
            .map(|at| format!("{:.1} against {:.1} points", f1(Way::Pet, at).1, f1(Way::WholeHead, at).1))
            .collect::<Vec<_>>()
            .join(", "),
        (0..2).all(|at| f1(Way::Pet, at).1 <= f1(Way::WholeHead, at).1),
    );
    evidence.expect(
        "A neighbouring task before raises the macro-F1 of adapters with a head and with patterns at the fewest labels.",
        format!(
            "{:.1} to {:.1} %, {:.1} to {:.1} %",
            f1(Way::Head, 0).0,
            f1(Way::NearHead, 0).0,
            f1(Way::Pet, 0).0,
            f1(Way::NearPet, 0).0
        ),
        f1(Way::NearHead, 0).0 > f1(Way::Head, 0).0 && f1(Way::NearPet, 0).0 > f1(Way::Pet, 0).0,
    );
    let flipped = |way, at| of(way).map_or(f64::NAN, |it| it.mean(at, |run| run.flipped).0);
    evidence.expect(
        "Where names have changed sides, hiding them raises the macro-F1.",
        (0..2)
            .map(|at| format!("{:.1} to {:.1} %", flipped(Way::Pet, at), flipped(Way::Hidden, at)))
            .collect::<Vec<_>>()
            .join(", "),
        (0..2).all(|at| flipped(Way::Hidden, at) > flipped(Way::Pet, at)),
    );
}
