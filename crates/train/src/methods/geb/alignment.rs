//! Learning to choose: from no liking to a rule, without going far from what the model was.

use ounce_eval::method::{Evidence, Row};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Scale;
use super::corpus::{Choice, STOP, VOCABULARY, pairs};
use crate::data::reference::{Reference, Scored};
use crate::data::{BatchSize, Documents, Packing, SampleSettings, SampleStream};
use crate::methods::workbench::{Logits, cosine, fit, loss};
use crate::net::{Net, Options};
use crate::trainer::Preferences;
use crate::{Batch, Error, IGNORE, Result, Trainable};

const BASELINE: &str = "before learning to choose";
/// β, as in the paper.
const BETA: f64 = 0.1;
const RATE: f64 = 5e-4;
/// Choices of a step.
const BATCH: usize = 16;
/// Tokens of a written answer at most.
const LONGEST: usize = 12;

/// Teaches a network to choose, and measures how it chooses and how far it went.
pub(super) fn measure(seed: u64, scale: &Scale, net: &mut Net, evidence: &mut Evidence) -> Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(seed + 7);
    let mut choices =
        |count: usize| -> Vec<Choice> { (0..count).map(|_| Choice::new(&mut random)).collect() };
    let (learned, held_out) = (choices(scale.choices[0]), choices(scale.choices[1]));
    let mut reference = Net::with_frozen(&net.model()?, Options::default(), &|_| false)?;
    let options = Options { beta: BETA, embedding_gradient: Some(0.1), ..Options::default() };
    let mut policy = Net::from_model(&net.model()?, options)?;
    let mut train = source(&learned, &mut reference, None)?;
    let before = chooses(&mut policy, &held_out, &mut reference)?;
    fit(&mut policy, &mut train, cosine(RATE, scale.aligning))?;
    let after = chooses(&mut policy, &held_out, &mut reference)?;
    let gone = divergence(&mut policy, &mut reference, &held_out, seed)?;
    for (label, found, gone) in [(BASELINE, before, 0.0), ("after learning to choose", after, gone)] {
        evidence.rows.push(
            Row::new(label)
                .with("better answer likelier", 100.0 * found.likelier, "%")
                .with("margin", found.margin, "")
                .with("better answers gained", found.better, "nats")
                .with("worse answers gained", found.worse, "nats")
                .with("KL to the reference", gone, "nats an answer"),
        );
    }
    let gain = 100.0 * (after.likelier - before.likelier);
    evidence.expect(
        "DPO makes the better of two held-out answers the likelier one at least 20 points more often",
        format!("{gain:+.1} points, from {:.1} %", 100.0 * before.likelier),
        gain >= 20.0,
    );
    evidence.expect(
        "and stays within 5 nats of the reference an answer (KL on its own answers; the rule alone needs 0.69)",
        format!("{gone:.2} nats"),
        gone <= 5.0,
    );
    Ok(())
}

fn source(choices: &[Choice], reference: &mut Net, epochs: Option<u64>) -> Result<SampleStream> {
    let documents: Documents = pairs(choices)?;
    let settings = SampleSettings {
        context: 64,
        size: BatchSize::Samples(BATCH),
        seed: 1,
        shuffle: true,
        epochs,
        packing: Packing::None,
        isolated: true,
        pad: 0,
    };
    let of = Scored { cache: documents.cache(), context: settings.context, tokens: 2048, model: [0; 32] };
    let values = of.compute(&mut |batch| reference.log_probabilities(batch), &mut |_, _| Ok(()))?;
    SampleStream::new(documents.clone(), settings)?.with_reference(Reference::new(values))
}

fn chooses(policy: &mut Net, choices: &[Choice], reference: &mut Net) -> Result<Preferences> {
    let mut source = source(choices, reference, Some(1))?;
    policy.take_choices();
    loss(policy, &mut source)?;
    let found = policy.take_choices().and_then(Preferences::of);
    found.ok_or_else(|| Error::Settings("there are no choices".to_string()))
}

/// KL(policy ‖ reference) of an answer, in nats: the policy writes one for each prompt, and at each of its tokens the two
/// distributions are compared as a whole.
fn divergence(policy: &mut Net, reference: &mut Net, choices: &[Choice], seed: u64) -> Result<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut written: Vec<(Vec<u32>, usize)> =
        choices.iter().map(|choice| (choice.prompt.clone(), choice.prompt.len())).collect();
    for _ in 0..LONGEST {
        let mut open: Vec<&mut Vec<u32>> = written
            .iter_mut()
            .filter(|(ids, begun)| ids.len() == *begun || ids.last() != Some(&STOP))
            .map(|(ids, _)| ids)
            .collect();
        if open.is_empty() {
            break;
        }
        let mut batch = Batch::default();
        for ids in &open {
            batch.tokens.extend(ids.iter());
            batch.targets.extend(std::iter::repeat_n(IGNORE, ids.len() - 1).chain([0]));
            batch.lengths.push(ids.len());
        }
        let rows = distributions(policy, &batch)?;
        for (ids, row) in open.iter_mut().zip(rows.chunks_exact(VOCABULARY)) {
            let mut left: f64 = random.random();
            let drawn = row.iter().position(|log| {
                left -= log.exp();
                left < 0.0
            });
            ids.push(drawn.unwrap_or(VOCABULARY - 1) as u32);
        }
    }
    let mut batch = Batch::default();
    for (ids, begun) in &written {
        let count = ids.len() - 1;
        batch.tokens.extend(&ids[..count]);
        batch.targets.extend((1..=count).map(|token| if token >= *begun { ids[token] } else { IGNORE }));
        batch.lengths.push(count);
    }
    let (own, theirs) = (distributions(policy, &batch)?, distributions(reference, &batch)?);
    let sum: f64 = own.iter().zip(&theirs).map(|(own, theirs)| own.exp() * (own - theirs)).sum();
    Ok(sum / written.len() as f64)
}

/// Log-probabilities of all ids at each row with a target, `[rows, vocabulary]`.
fn distributions(net: &mut Net, batch: &Batch) -> Result<Vec<f64>> {
    let mut logits = Logits::default();
    net.run(batch, None, &mut logits)?;
    let mut values: Vec<f64> = logits.0.into_iter().map(f64::from).collect();
    for row in values.chunks_exact_mut(VOCABULARY) {
        let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|value| (value - greatest).exp()).sum();
        row.iter_mut().for_each(|value| *value -= greatest + total.ln());
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiny_model_learns_to_choose_and_is_measured() {
        let scale =
            Scale { hidden: 32, layers: 1, heads: 4, choices: [64, 16], aligning: 60, ..Scale::WHOLE };
        let shape = scale.shape(0);
        let model = shape.bare(VOCABULARY).unwrap();
        let mut net = Net::random(&model, Options::default(), shape.initial(), 1).unwrap();
        let mut evidence = Evidence::new(121, 1, BASELINE);
        measure(1, &scale, &mut net, &mut evidence).unwrap();
        evidence.check().unwrap();
        let after = evidence.row("after learning to choose").unwrap();
        assert!(after.get("margin") > Some(0.0) && after.get("KL to the reference") > Some(0.0), "{after:?}");
        // From itself, a network is nowhere.
        let mut same = Net::from_model(&net.model().unwrap(), Options::default()).unwrap();
        let choices: Vec<Choice> = (0..4).map(|_| Choice::new(&mut ChaCha8Rng::seed_from_u64(3))).collect();
        assert!(divergence(&mut net, &mut same, &choices, 1).unwrap().abs() < 1e-6);
    }
}
