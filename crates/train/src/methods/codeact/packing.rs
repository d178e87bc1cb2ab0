//! What rows of samples waste, and what that costs.

use std::sync::Arc;
use std::time::Instant;

use ounce_eval::method::{Evidence, Row};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Model;
use crate::data::{BatchSize, BatchSource, Cache, Documents, Packing, SampleSettings, SampleStream};
use crate::net::{Net, Options};
use crate::{Batch, Loss, Result, Trainable};

const VOCABULARY: u32 = 64;

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    hidden: usize,
    /// The most tokens of a row.
    context: usize,
    /// Samples, with lengths from 16 tokens to the context, spread evenly over their logarithms.
    samples: usize,
    /// Samples of a batch.
    batch: usize,
    /// Batches that are timed.
    timed: usize,
}

impl Scale {
    /// Of the stored evidence.
    pub const WHOLE: Scale = Scale { hidden: 96, context: 512, samples: 1024, batch: 32, timed: 4 };
}

const WAYS: [(Packing, &str); 5] = [
    (Packing::Fixed, "rows: fixed"),
    (Packing::Padded, "rows: padded"),
    (Packing::DynamicPack, "rows: dynamic pack"),
    (Packing::FirstFit, "rows: first fit"),
    (Packing::None, "no rows"),
];

/// What one way of packing came to.
struct Found {
    padding: f64,
    speed: f64,
}

/// Counts padding, measures time, and compares packed samples with samples alone.
pub(super) fn measure(seed: u64, scale: &Scale, evidence: &mut Evidence) -> Result<()> {
    let documents = documents(seed, scale)?;
    let shape =
        Model { hidden: scale.hidden, layers: 2, heads: 4, context: scale.context, ..Model::default() };
    let mut net = Net::random(&shape.bare(VOCABULARY as usize)?, Options::default(), shape.initial(), seed)?;
    let mut all = Vec::new();
    for (packing, label) in WAYS {
        let found = run(&mut net, stream(&documents, scale, packing, true)?, scale.timed)?;
        evidence.rows.push(Row::new(label).with("padding", 100.0 * found.padding, "%").with(
            "useful tokens",
            found.speed,
            "a second",
        ));
        all.push(found);
    }
    let [fixed, padded, dynamic, first_fit, _] = all.as_slice() else { return Ok(()) };
    let percent = |found: &Found| format!("{:.1} %", 100.0 * found.padding);
    evidence.expect(
        "fixed rows have more padding than rows as long as the longest, and these more than dynamic pack",
        format!("{}, {}, {}", percent(fixed), percent(padded), percent(dynamic)),
        fixed.padding > padded.padding && padded.padding > dynamic.padding,
    );
    evidence.expect(
        "dynamic pack has at most 10 % padding",
        format!("{} (first fit: {})", percent(dynamic), percent(first_fit)),
        dynamic.padding <= 0.1,
    );
    let gain = dynamic.speed / fixed.speed;
    evidence.expect(
        "dynamic pack learns at least 1.5 times the useful tokens a second of fixed rows",
        format!("{gain:.2} times"),
        gain >= 1.5,
    );
    let (isolated, leaking) =
        (difference(&mut net, &documents, scale, true)?, difference(&mut net, &documents, scale, false)?);
    evidence.expect(
        "packed samples that are hidden from each other have the loss that they have alone, to 1e-4",
        format!("{isolated:.1e} nats a target apart"),
        isolated <= 1e-4,
    );
    evidence.expect(
        "samples of a row that see each other, as in the paper's program, have another loss",
        format!("{leaking:.1e} nats a target apart"),
        leaking > 1e-4,
    );
    Ok(())
}

fn documents(seed: u64, scale: &Scale) -> Result<Documents> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let spread = (scale.context as f64 / 16.0).ln();
    let sequences: Vec<Vec<u32>> = (0..scale.samples)
        .map(|_| {
            let tokens = (16.0 * (spread * random.random::<f64>()).exp()) as usize;
            (0..=tokens).map(|_| random.random_range(1..VOCABULARY)).collect()
        })
        .collect();
    // The last third of a sample is its answer.
    let counts: Vec<Vec<bool>> =
        sequences.iter().map(|ids| (0..ids.len()).map(|at| 3 * at >= 2 * ids.len()).collect()).collect();
    let both = sequences.iter().zip(&counts).map(|(ids, counts)| (ids.as_slice(), counts.as_slice()));
    Ok(Documents::all(Arc::new(Cache::in_memory_masked(both, VOCABULARY, false)?)))
}

fn stream(documents: &Documents, scale: &Scale, packing: Packing, isolated: bool) -> Result<SampleStream> {
    let settings = SampleSettings {
        context: scale.context,
        size: BatchSize::Samples(scale.batch),
        seed: 1,
        shuffle: true,
        epochs: Some(1),
        packing,
        isolated,
        pad: 0,
    };
    SampleStream::new(documents.clone(), settings)
}

/// The padding of all batches; the useful tokens a second of the first few, the better of two passes.
fn run(net: &mut Net, mut source: SampleStream, timed: usize) -> Result<Found> {
    let mut first: Vec<Batch> = Vec::new();
    let mut useful = 0;
    while let Some(batch) = source.next()? {
        if first.len() < timed {
            first.push(batch);
            useful = source.stats().useful;
        }
    }
    let mut seconds = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        for batch in &first {
            net.accumulate(batch, 1e-3)?;
        }
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(Found { padding: source.stats().padding(), speed: useful as f64 / seconds })
}

/// How far the loss of the first batch is from that of its samples alone, in nats a target.
fn difference(net: &mut Net, documents: &Documents, scale: &Scale, isolated: bool) -> Result<f64> {
    let first = |packing| -> Result<Batch> {
        Ok(stream(documents, scale, packing, isolated)?.next()?.unwrap_or_default())
    };
    let packed = net.loss(&first(Packing::DynamicPack)?)?.mean();
    let samples = first(Packing::Padded)?;
    let mut alone = Loss::default();
    let mut at = 0;
    for &length in &samples.lengths {
        let own = at..at + length;
        alone += net.loss(&Batch {
            tokens: samples.tokens[own.clone()].to_vec(),
            targets: samples.targets[own].to_vec(),
            lengths: vec![length],
            ..Batch::default()
        })?;
        at += length;
    }
    Ok((packed - alone.mean()).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All but the time, on few samples.
    #[test]
    fn padding_falls_and_packed_samples_stay_alone() {
        let scale = Scale { hidden: 32, context: 64, samples: 64, batch: 16, timed: 1 };
        let mut evidence = Evidence::new(4, 1, WAYS[0].1);
        measure(1, &scale, &mut evidence).unwrap();
        let holds =
            |word: &str| evidence.expectations.iter().find(|it| it.text.contains(word)).unwrap().holds;
        for word in ["more padding", "have alone", "as in the paper's program"] {
            assert!(holds(word), "{word}: {evidence:?}");
        }
        assert_eq!(evidence.row("no rows").unwrap().get("padding"), Some(0.0));
    }
}
