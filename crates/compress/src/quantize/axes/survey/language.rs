//! The weights of a language model on every grid.

use ounce_engine::{Engine, Mode};
use ounce_eval::divergence::Reference;
use ounce_eval::method::{Evidence, Fixture, Lab, Row, Text};
use ounce_eval::perplexity;
use ounce_model::{Model, Tensor};

use super::super::{Options, simulate};
use super::{BITS, CALIBRATIONS, GRANULARITIES, ORIGINAL, label, value};
use crate::quantize::units;
use crate::{Error, Result};

const LM: &str = "language model";
const KL: &str = "KL to the original";

/// Bytes of test text, the most bytes of the original's logits.
const TEST_BYTES: usize = 12_000;
const MOST: u64 = 1 << 30;

pub(super) fn language(lab: &dyn Lab, evidence: &mut Evidence) -> Result<()> {
    lab.progress("the language model", 0.0);
    let model = lab.model(Fixture::Tiny)?;
    let Some(tokenizer) = model.tokenizer.as_ref() else {
        return Err(Error::Option("the built-in model has no tokenizer".into()));
    };
    let text = lab.text(Text::HeldOut, TEST_BYTES);
    let stories: ounce_model::Result<Vec<Vec<u32>>> = text
        .split("\n\n")
        .map(|story| {
            let mut ids = tokenizer.encode(story, true)?;
            ids.truncate(model.spec.context_length);
            Ok(ids)
        })
        .collect();
    let context = model.spec.context_length;
    let options = perplexity::Options { context, stride: context, prefix: None };
    let reference =
        Reference::of(&Engine::load(&model, Mode::fast())?, &stories?, &options, MOST, |_, _| Ok(()))?;
    evidence.rows.push(Row::new(ORIGINAL).with(KL, 0.0, "nats").with("bits a weight", 16.0, ""));
    let all = (BITS.len() * GRANULARITIES.len() * CALIBRATIONS.len()) as f64;
    let mut done = 0.0;
    for bits in BITS {
        for (granularity, shared) in GRANULARITIES {
            for (calibration, range) in CALIBRATIONS {
                let name = label(LM, bits, &format!("{granularity}, {calibration}"));
                lab.progress(&name, 0.5 * done / all);
                let options = Options { bits, granularity: shared, calibration: range, ..Options::default() };
                evidence.rows.push(one_language(&model, &reference, &options, &name)?);
                done += 1.0;
            }
        }
    }
    let kl = |evidence: &Evidence, bits: u32, rest: &str| value(evidence, &label(LM, bits, rest), KL);
    let finer = |evidence: &Evidence, fine: &str, coarse: &str| -> (String, bool) {
        let pairs = BITS.map(|bits| {
            let of = |it: &str| kl(evidence, bits, &format!("{it}, min-max"));
            (of(fine), of(coarse))
        });
        let text = pairs.iter().map(|(fine, coarse)| format!("{fine:.5} ≤ {coarse:.5}"));
        (text.collect::<Vec<_>>().join(", "), pairs.iter().all(|(fine, coarse)| fine <= coarse))
    };
    let (text, holds) = finer(evidence, "channel", "tensor");
    evidence.expect(
        "language model: KL of a grid a channel is at most that of a grid a matrix at 8, 6, 4, 3, 2 bits",
        text,
        holds,
    );
    let (text, holds) = finer(evidence, "group 32", "channel");
    evidence.expect(
        "language model: KL of groups of 32 is at most that of channels at 8, 6, 4, 3, 2 bits",
        text,
        holds,
    );
    for (calibration, _) in &CALIBRATIONS[1..] {
        let pairs = [4, 3, 2].map(|bits| {
            let of = |it: &str| kl(evidence, bits, &format!("channel, {it}"));
            (of(calibration), of("min-max"))
        });
        let text: Vec<String> = pairs.iter().map(|(own, widest)| format!("{own:.4} ≤ {widest:.4}")).collect();
        evidence.expect(
            format!("language model: KL of ranges by {calibration} is at most that of min-max at 4, 3, 2 bits, a grid a channel"),
            text.join(", "),
            pairs.iter().all(|(own, widest)| own <= widest),
        );
    }
    // Sizes against f32, scales included.
    let size = |evidence: &Evidence, bits: u32| {
        32.0 / value(evidence, &label(LM, bits, "channel, min-max"), "bits a weight")
    };
    let (eight, four) = (size(evidence, 8), size(evidence, 4));
    evidence.expect(
        "weights take 4 and 8 times less than f32 at 8 and 4 bits, a grid a channel, within 5 %",
        format!("{eight:.2} and {four:.2} times"),
        (eight / 4.0 - 1.0).abs() <= 0.05 && (four / 8.0 - 1.0).abs() <= 0.05,
    );
    Ok(())
}

fn one_language(model: &Model, reference: &Reference, options: &Options, name: &str) -> Result<Row> {
    let (mut replaced, mut bits, mut count) = (Vec::new(), 0, 0);
    for unit in units(model)?.iter().filter(|unit| !unit.is_outer()) {
        for matrix in &unit.matrices {
            let tensor = model.weights.get(matrix)?;
            let values = tensor.to_f32().map_err(|error| Error::matrix(matrix, error))?;
            let found = simulate(&values, tensor.row_len(), options, None)?;
            (bits, count) = (bits + found.bits, count + values.len());
            replaced.push((matrix.clone(), Tensor::from_f32(&tensor.shape, &found.values)));
        }
    }
    let changed = Model { weights: model.weights.replaced(replaced)?, ..model.clone() };
    let found = reference.compare(&Engine::load(&changed, Mode::fast())?, |_, _| Ok(()))?;
    Ok(Row::new(name)
        .with(KL, found.mean_kl.value, "nats")
        .with("perplexity", found.perplexity.value, "a token")
        .with("bits a weight", bits as f64 / count.max(1) as f64, ""))
}
