//! CrisisHelpOffer (method 001): several labellers mark short texts, what they agree on is kept and audited, and an encoder of the
//! domain is distilled to small ones.
//!
//! "'Actionable Help' in Crises: A Novel Dataset and Resource-Efficient Models for Identifying Request and Offer Social Media
//! Posts", arXiv 2502.16839.
//!
//! - **Labels**: [`data::agreement`](crate::data::agreement), for users `ounce labels`: near-duplicates leave, votes decide,
//!   Cohen's and Fleiss' kappa say how far labellers agree beyond chance, a stratified sample goes to a person, whose answers
//!   give the precision of each label with Wilson's interval.
//! - **Encoders**: [`distil::projected`](crate::distil::projected): hidden tokens, the teacher's predictions of them and its
//!   streams, by learned projections. The paper does not say by which losses its students learned; these are the usual ones.
//!
//! The demonstration makes posts of disasters whose near misses (news, advice, sympathy, calls that are out of date) use the same
//! words as calls for help. What it measured stands in `docs/distillation.md`.

mod labellers;
mod texts;

use ounce_eval::method::{DemonstrationError, Evidence, Family, Lab, Method, Row, Text};
use ounce_eval::stats::mean_and_error;

use self::labellers::{Labellers, NAMES};
use self::texts::{LABELS, Post, TEST_EVENTS, TRAIN_EVENTS, posts};
use super::encoders::{Bench, Shape, latency, macro_f1};
use crate::data::agreement::kappa::{Z95, cohen, fleiss, wilson};
use crate::data::agreement::{Rule, Vote, decide, duplicates, stratified};
use crate::net::classifier::Task;
use crate::{Result, Trainable};

const NUMBER: u16 = 1;

/// The method's entry in the catalogue.
pub const METHOD: Method = Method {
    number: NUMBER,
    name: "CrisisHelpOffer",
    family: Family::DomainLanguage,
    paper: "\"Actionable Help\" in Crises: A Novel Dataset and Resource-Efficient Models for Identifying Request and Offer Social Media Posts",
    arxiv: Some("2502.16839"),
    gives: "Several labellers mark raw short texts, agreement and a manual check clean them, and an encoder for the subject comes out in three sizes.",
    claim: "101k tweets; encoders 47, 68 and 83 % smaller than BERT-base, 3.5 to 18.6 times faster, at equal or better accuracy.",
    command: Some("ounce labels TEXTS --votes A.jsonl --votes B.jsonl -o FOLDER"),
    demonstrate: Some(demonstrate),
};

/// Sizes of the demonstration.
struct Scale {
    posts: usize,
    /// Posts from which the third labeller learned.
    seen: usize,
    audit: usize,
    test: usize,
    /// Labelled posts that classifiers learn from.
    labelled: usize,
    vocabulary: usize,
    teacher: Shape,
    tiny: Shape,
    teacher_steps: u64,
    steps: u64,
    label_steps: u64,
    seeds: u64,
}

impl Scale {
    fn full() -> Scale {
        Scale {
            posts: 6_000,
            seen: 80,
            audit: 200,
            test: 1_000,
            labelled: 240,
            vocabulary: 800,
            teacher: Shape { width: 128, layers: 6 },
            tiny: Shape { width: 64, layers: 2 },
            teacher_steps: 800,
            steps: 300,
            label_steps: 150,
            seeds: 3,
        }
    }
}

fn demonstrate(lab: &dyn Lab) -> Result<Evidence, DemonstrationError> {
    measure(lab, &Scale::full()).map_err(DemonstrationError::step(NUMBER, "labelling and distilling"))
}

/// Posts with what labellers say of them.
struct Pool {
    posts: Vec<Post>,
    votes: Vec<[usize; 3]>,
    repeated: usize,
}

const SINGLE: &str = "one labeller: ";
const MAJORITY: &str = "two of three agree";
const AGREED: &str = "all three agree";

/// How many of some labels are right, and how many there are.
#[derive(Debug, Clone, Copy, Default)]
struct Right {
    accuracy: f64,
    coverage: f64,
}

impl Pool {
    /// Posts without those that repeat earlier ones.
    fn new(scale: &Scale, seed: u64) -> Pool {
        let labellers = Labellers::new(&posts(scale.seen, TRAIN_EVENTS, seed + 500));
        let all = posts(scale.posts, TRAIN_EVENTS, seed);
        let texts: Vec<&str> = all.iter().map(|post| post.text.as_str()).collect();
        let repeats = duplicates::repeated(&texts, 0.8);
        let posts: Vec<Post> =
            all.iter().zip(&repeats).filter(|(_, of)| of.is_none()).map(|(post, _)| post.clone()).collect();
        let votes = posts.iter().map(|post| labellers.votes(&post.text)).collect();
        Pool { repeated: all.len() - posts.len(), posts, votes }
    }

    /// Labels by a rule: numbers of posts with their label.
    fn kept(&self, rule: Rule) -> Vec<(usize, usize)> {
        let verdict = |votes: &[usize; 3]| decide(&votes.map(|label| Vote { label, confidence: None }), rule);
        let all = self.votes.iter().map(verdict).enumerate();
        all.filter_map(|(number, verdict)| verdict.filter(|it| it.kept).map(|it| (number, it.label)))
            .collect()
    }

    fn single(&self, labeller: usize) -> Vec<(usize, usize)> {
        self.votes.iter().map(|votes| votes[labeller]).enumerate().collect()
    }

    fn right(&self, labels: &[(usize, usize)]) -> Right {
        let right = labels.iter().filter(|(number, label)| self.posts[*number].label == *label).count();
        Right {
            accuracy: 100.0 * right as f64 / labels.len().max(1) as f64,
            coverage: 100.0 * labels.len() as f64 / self.posts.len().max(1) as f64,
        }
    }

    /// Fleiss' kappa, and the least and greatest of Cohen's between two.
    fn kappas(&self) -> (f64, f64, f64) {
        let counts: Vec<Vec<usize>> = self
            .votes
            .iter()
            .map(|votes| {
                (0..LABELS.len()).map(|label| votes.iter().filter(|it| **it == label).count()).collect()
            })
            .collect();
        let of = |labeller: usize| -> Vec<usize> { self.votes.iter().map(|votes| votes[labeller]).collect() };
        let pairs = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| cohen(&of(a), &of(b)));
        let least = pairs.iter().copied().fold(f64::INFINITY, f64::min);
        (fleiss(&counts), least, pairs.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    mean_and_error(&values.collect::<Vec<_>>()).0
}

fn measure(lab: &dyn Lab, scale: &Scale) -> Result<Evidence> {
    let seeds: Vec<u64> = (0..scale.seeds).map(|number| lab.seed() * 1_000 + number).collect();
    let mut evidence = Evidence::new(NUMBER, lab.seed(), format!("{SINGLE}{}", NAMES[0]));
    let pools: Vec<Pool> = seeds.iter().map(|&seed| Pool::new(scale, seed)).collect();
    let best = labels(&pools, scale, &mut evidence);
    evidence.baseline = format!("{SINGLE}{}", NAMES[best]);
    small_encoders(lab, scale, &pools, best, &seeds, &mut evidence)?;
    evidence.notes = vec![
        format!(
            "Generated posts of twelve disasters in English; classifiers are judged on {} of four disasters that nobody saw. Means of {} \
             seeds, which draw posts, labels and first weights; the teacher is one.",
            scale.test, scale.seeds
        ),
        format!(
            "Steps of students: {} on texts, {} on labels; the one from scratch has all {} on labels, or {} where that is better.",
            scale.steps, scale.label_steps, scale.steps + scale.label_steps, scale.label_steps
        ),
        "Labellers are rules and naive Bayes in the place of large language models; the paper's tweets, its Medium and Small and thirteen \
         tasks were not measured. Who audits knows what is right.".into(),
    ];
    lab.progress("done", 1.0);
    Ok(evidence)
}

/// What labels are worth; gives the best labeller.
fn labels(pools: &[Pool], scale: &Scale, evidence: &mut Evidence) -> usize {
    let of = |labels: &dyn Fn(&Pool) -> Vec<(usize, usize)>| {
        let all: Vec<Right> = pools.iter().map(|pool| pool.right(&labels(pool))).collect();
        Right {
            accuracy: mean(all.iter().map(|it| it.accuracy)),
            coverage: mean(all.iter().map(|it| it.coverage)),
        }
    };
    let row = |label: String, right: Right| {
        Row::new(label).with("right labels", right.accuracy, "%").with(
            "texts that have one",
            right.coverage,
            "%",
        )
    };
    let singles = [0, 1, 2].map(|labeller| of(&|pool| pool.single(labeller)));
    for (name, right) in NAMES.iter().zip(singles) {
        evidence.rows.push(row(format!("{SINGLE}{name}"), right));
    }
    let best =
        (0..3).fold(0, |best, it| if singles[it].accuracy > singles[best].accuracy { it } else { best });
    let majority = of(&|pool| pool.kept(Rule { share: 2.0 / 3.0, confidence: 0.0 }));
    evidence.rows.push(row(MAJORITY.into(), majority));
    let agreed = of(&|pool| pool.kept(Rule::default()));
    let kappas: Vec<(f64, f64, f64)> = pools.iter().map(Pool::kappas).collect();
    evidence.rows.push(
        row(AGREED.into(), agreed)
            .with("Fleiss' kappa", mean(kappas.iter().map(|it| it.0)), "")
            .with("least Cohen's kappa", mean(kappas.iter().map(|it| it.1)), "")
            .with("greatest Cohen's kappa", mean(kappas.iter().map(|it| it.2)), "")
            .with("posts that repeated others", mean(pools.iter().map(|it| it.repeated as f64)), ""),
    );
    evidence.expect(
        "What all three agree on is at least 5 points more often right than the best single labeller, and 60 % of all texts.",
        format!("{:.1} % of {:.1} % against {:.1} %", agreed.accuracy, agreed.coverage, singles[best].accuracy),
        agreed.accuracy >= singles[best].accuracy + 5.0 && agreed.coverage >= 60.0,
    );
    let (mut inside, mut all) = (0, 0);
    for (number, pool) in pools.iter().enumerate() {
        let kept = pool.kept(Rule::default());
        let labels: Vec<usize> = kept.iter().map(|(_, label)| *label).collect();
        let sample = stratified(&labels, scale.audit, 7 + number as u64);
        for (label, name) in LABELS.iter().enumerate() {
            let is_right = |&at: &usize| pool.posts[kept[at].0].label == label;
            let of_label: Vec<usize> = (0..kept.len()).filter(|&at| labels[at] == label).collect();
            let whole =
                of_label.iter().filter(|it| is_right(it)).count() as f64 / of_label.len().max(1) as f64;
            let asked: Vec<usize> = sample.iter().copied().filter(|&at| labels[at] == label).collect();
            let right = asked.iter().filter(|it| is_right(it)).count();
            let [low, high] = wilson(right, asked.len(), Z95);
            all += 1;
            inside += usize::from((low..=high).contains(&whole));
            if number == 0 {
                evidence.rows.push(
                    Row::new(format!("audit of {} agreed as {name}", asked.len()))
                        .with("right labels", 100.0 * right as f64 / asked.len().max(1) as f64, "%")
                        .with("Wilson's interval from", 100.0 * low, "%")
                        .with("to", 100.0 * high, "%")
                        .with("of all that are kept", 100.0 * whole, "%"),
                );
            }
        }
    }
    evidence.expect(
        "The audit's intervals of 95 % hold the precision of all kept labels, but for one in nine.",
        format!("{inside} of {all}"),
        inside * 9 >= all * 8,
    );
    best
}

/// What classifiers do.
const TASK: (Task, &[&str]) = (Task::Texts, &LABELS);

/// The teacher's rate on texts; at the students' its six layers, normed behind what they add, diverge.
const TEACHER_RATE: f64 = 5e-4;

const TEACHER: &str = "teacher";
const DOMAIN: &str = "tiny, distilled on posts";
const OTHER: &str = "tiny, distilled on tales";
const HIDDEN: &str = "tiny, hidden tokens of posts without a teacher";
const SCRATCH: &str = "tiny, from scratch";
const BY_ONE: &str = "tiny, distilled on posts, labels of the best labeller";

fn small_encoders(
    lab: &dyn Lab,
    scale: &Scale,
    pools: &[Pool],
    best: usize,
    seeds: &[u64],
    evidence: &mut Evidence,
) -> Result<()> {
    let Some(first) = pools.first() else { return Ok(()) };
    lab.progress("training the teacher", 0.02);
    let texts = || first.posts.iter().map(|post| post.text.as_str());
    let tales = lab.text(Text::Train, texts().map(str::len).sum());
    // Sentences, about as long as posts.
    let sentences = || tales.split_inclusive(['.', '\n']).map(str::trim).filter(|it| it.len() > 8);
    let bench = Bench::new(texts().chain(sentences()), scale.vocabulary)?;
    let (domain, other) = (bench.corpus(texts())?, bench.corpus(sentences())?);
    let teacher = bench.random(scale.teacher, seeds[0])?;
    let teacher = bench.learn_at(TEACHER_RATE, teacher, &domain, scale.teacher_steps, seeds[0])?;
    let test = posts(scale.test, TEST_EVENTS, seeds[0] + 900);
    let test = bench.examples(test.iter().map(|post| (post.text.as_str(), post.label)), &LABELS)?;
    let mut found: Vec<(&str, Vec<f64>)> =
        [TEACHER, DOMAIN, OTHER, HIDDEN, SCRATCH, BY_ONE].iter().map(|it| (*it, Vec::new())).collect();
    let mut scratch = [Vec::new(), Vec::new()];
    let mut seconds = [f64::INFINITY; 2];
    let mut sizes = [[0.0; 2]; 2];
    for (number, (pool, &seed)) in pools.iter().zip(seeds).enumerate() {
        lab.progress("small encoders", 0.3 + 0.7 * number as f64 / seeds.len() as f64);
        let labelled = |labels: &[(usize, usize)]| {
            // As many of each label as there are, in the order of a random sample.
            let numbers: Vec<usize> = labels.iter().map(|(_, label)| *label).collect();
            let sample = stratified(&numbers, scale.labelled / LABELS.len(), seed);
            bench.examples(
                sample.into_iter().map(|at| (pool.posts[labels[at].0].text.as_str(), labels[at].1)),
                &LABELS,
            )
        };
        let agreed = labelled(&pool.kept(Rule::default()))?;
        let by_one = labelled(&pool.single(best))?;
        let begun = bench.random(scale.tiny, seed)?;
        let distilled = bench.distil(&begun, &teacher, &domain, scale.steps, seed)?;
        let elsewhere = bench.distil(&begun, &teacher, &other, scale.steps, seed)?;
        let hidden = bench.learn(bench.random(scale.tiny, seed)?, &domain, scale.steps, seed)?;
        let steps = scale.label_steps;
        let mut large = bench.classifier(&teacher, TASK, &agreed, steps, seed)?;
        let mut small = bench.classifier(&distilled, TASK, &agreed, steps, seed)?;
        found[0].1.push(macro_f1(&mut large, &test, LABELS.len())?);
        found[1].1.push(macro_f1(&mut small, &test, LABELS.len())?);
        for (at, encoder, labels) in
            [(2, &elsewhere, &agreed), (3, &hidden, &agreed), (5, &distilled, &by_one)]
        {
            found[at].1.push(macro_f1(
                &mut bench.classifier(encoder, TASK, labels, steps, seed)?,
                &test,
                LABELS.len(),
            )?);
        }
        let raw = begun.model()?;
        for (scores, steps) in scratch.iter_mut().zip([steps, scale.steps + steps]) {
            scores.push(macro_f1(
                &mut bench.classifier(&raw, TASK, &agreed, steps, seed)?,
                &test,
                LABELS.len(),
            )?);
        }
        if number == 0 {
            sizes = [&large, &small]
                .map(|net| [parameters(net, |_| true), parameters(net, |name| !name.starts_with("embed."))]);
            seconds = latency([&mut large, &mut small], &test)?;
        }
    }
    let better = usize::from(mean(scratch[1].iter().copied()) > mean(scratch[0].iter().copied()));
    found[4].1 = scratch[better].clone();
    for (at, (label, scores)) in found.iter().enumerate() {
        let (f1, error) = mean_and_error(scores);
        let of = usize::from(at > 0);
        let row = Row::new(*label)
            .with("macro-F1", f1, "%")
            .with("standard error", error, "points")
            .with("parameters", sizes[of][0], "")
            .with("without embeddings", sizes[of][1], "");
        evidence.rows.push(match at {
            0 | 1 => row.with("time of a text", 1e6 * seconds[at] / test.len().max(1) as f64, "µs"),
            _ => row,
        });
    }
    let of = |at: usize| mean(found[at].1.iter().copied());
    evidence.expect(
        "Tiny, distilled on posts, is at least 2 points of macro-F1 better than distilled on tales and than from scratch.",
        format!("{:.1} against {:.1} and {:.1} %", of(1), of(2), of(4)),
        of(1) >= of(2) + 2.0 && of(1) >= of(4) + 2.0,
    );
    evidence.expect(
        "A teacher helps: hidden tokens alone are not better.",
        format!("{:.1} against {:.1} %", of(1), of(3)),
        of(1) >= of(3),
    );
    evidence.expect(
        "Tiny runs at least 4 times as fast as its teacher.",
        format!("{:.1} times", seconds[0] / seconds[1]),
        seconds[0] / seconds[1] >= 4.0,
    );
    evidence.expect(
        "Labels that all agree on teach more than as many of the best labeller.",
        format!("{:.1} against {:.1} %", of(1), of(5)),
        of(1) > of(5),
    );
    Ok(())
}

fn parameters(net: &impl Trainable, which: impl Fn(&str) -> bool) -> f64 {
    net.params().iter().filter(|param| which(&param.name)).map(|param| param.value.len()).sum::<usize>()
        as f64
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Desk;
    use super::*;

    #[test]
    fn a_small_study_gives_sound_evidence() {
        let scale = Scale {
            posts: 400,
            seen: 80,
            audit: 30,
            test: 40,
            labelled: 30,
            vocabulary: 320,
            teacher: Shape { width: 16, layers: 2 },
            tiny: Shape { width: 8, layers: 1 },
            teacher_steps: 3,
            steps: 2,
            label_steps: 2,
            seeds: 2,
        };
        let evidence = measure(&Desk, &scale).expect("measured");
        evidence.check().expect("sound");
        assert_eq!((evidence.rows.len(), evidence.expectations.len()), (3 + 2 + 3 + 6, 6));
        // What is agreed on does not hang on the scale.
        assert!(evidence.expectations[0].holds, "{:?}", evidence.expectations[0]);
    }

    /// The whole, in the tests' profile: `cargo test -p ounce-train --lib crisis -- --ignored --nocapture`.
    #[test]
    #[ignore = "takes minutes"]
    fn the_whole_study() {
        let start = std::time::Instant::now();
        let evidence = measure(&Desk, &Scale::full()).expect("measured");
        for row in &evidence.rows {
            println!("{row:?}");
        }
        for it in &evidence.expectations {
            println!("{} | {} | {}", it.holds, it.text, it.measured);
        }
        println!("{:?}", start.elapsed());
    }
}
