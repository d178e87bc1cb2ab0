//! Gates on a network: where they begin, how they are drawn and learn, how they are read.

use std::ops::Range;

use ounce_model::{Model, Spec};
use ounce_train::net::{Net, Options as NetOptions};
use ounce_train::{Batch, Param, Trainable};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::gates::{self, Draw};
use super::lora::{Adapter, is_adapted};
use super::size::{Places, sparsity, weights};
use super::train::Options;
use crate::prune::learning::accumulate;
use crate::prune::structured::Cut;
use crate::prune::structured::groups::{Unit, attention, layer_of, query_range};
use crate::prune::structured::saliency::{self, is_entrance};
use crate::quantize::training::adam::{Adam, cosine};
use crate::{Error, Result};

/// The first sequences, by which units are scored and matrices fitted.
pub(super) fn few(sequences: &[Vec<u32>]) -> Vec<Vec<u32>> {
    const TOKENS: usize = 16_384;
    let mut seen = 0;
    let shown = sequences.iter().take_while(|ids| {
        seen += ids.len();
        seen <= TOKENS.max(ids.len())
    });
    shown.cloned().collect()
}

/// Where gates begin, as [`Options::head_start`] says: heads and channels are ranked together by worth for each weight, the stream by itself.
pub(super) fn begin(
    model: &Model,
    places: &Places,
    sequences: &[Vec<u32>],
    options: &Options,
    log_alpha: &mut [f32],
) -> Result<()> {
    let stream = !places.stream.is_empty();
    let scores = saliency::taylor(model, &few(sequences), stream, &mut |_, _| Ok(()))?;
    let mut parts: Vec<(f64, usize)> = Vec::new();
    for layer in 0..model.spec.layers.len() {
        let (per_head, per_channel, _) = weights(&model.spec, layer);
        let heads = places.heads[layer].clone().zip(&scores.heads[layer]).map(|it| (it, per_head));
        let channels =
            places.channels[layer].clone().zip(&scores.channels[layer]).map(|it| (it, per_channel));
        parts.extend(heads.chain(channels).map(|((at, worth), size)| (worth / size, at)));
    }
    let of_stream: Vec<(f64, usize)> =
        places.stream.clone().zip(&scores.stream).map(|(at, worth)| (*worth, at)).collect();
    for mut ranked in [parts, of_stream] {
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = ranked.len().saturating_sub(1).max(1) as f32;
        for (rank, (_, at)) in ranked.into_iter().enumerate() {
            log_alpha[at] += options.head_start * (2.0 * rank as f32 / last - 1.0);
        }
    }
    Ok(())
}

/// A network whose units pass through gates.
pub(super) struct Gated {
    spec: Spec,
    pub(super) net: Net,
    pub(super) places: Places,
    multiple: usize,
    pub(super) log_alpha: Vec<f32>,
    memory: Adam,
    /// The weights with which units enter the stream, without gates, by their parameter's place.
    entrances: Vec<(usize, Vec<f32>)>,
    adapters: Vec<Adapter>,
    /// λ₁ and λ₂, which hold the gates to the size.
    multipliers: [f32; 2],
    multipliers_memory: Adam,
    /// The share of gated weights that is to go.
    wished: f64,
    random: ChaCha8Rng,
}

impl Gated {
    pub(super) fn new(model: &Model, stream: bool, target: u64, options: &Options) -> Result<Gated> {
        let spec = model.spec.clone();
        let places = Places::of(&spec, stream);
        let trains = |name: &str| is_adapted(name) || is_entrance(name, stream);
        let net = Net::with_frozen(model, NetOptions::default(), &trains)?;
        let gone = spec.parameters().checked_sub(target).filter(|it| *it > 0).ok_or_else(|| {
            Error::Option(format!(
                "the model has {} parameters, which is no more than the {target} that are asked for",
                spec.parameters()
            ))
        })?;
        let count = places.count();
        let all_closed = vec![-1e4; count];
        let gated_weights = super::size::gated_weights(&spec, &places);
        let wished = gone as f64 / gated_weights;
        if wished >= sparsity(&spec, &places, &all_closed).share {
            return Err(Error::Option(format!(
                "{target} parameters are fewer than what no gate can close; ask for more"
            )));
        }
        let entrances = net.params().iter().enumerate().filter(|(_, param)| is_entrance(&param.name, stream));
        let entrances = entrances.map(|(at, param)| (at, param.value.clone())).collect();
        Ok(Gated {
            adapters: Adapter::all(net.params(), options.rank, options.seed),
            log_alpha: vec![gates::closed_with(0.01); count],
            memory: Adam::new(count),
            multipliers: [0.0; 2],
            multipliers_memory: Adam::new(2),
            random: ChaCha8Rng::seed_from_u64(options.seed ^ 0x9e37_79b9),
            spec,
            net,
            places,
            multiple: options.multiple,
            entrances,
            wished,
        })
    }

    /// The gates of a weight's rows and columns.
    fn sides(&self, name: &str, z: &[f32], width: usize) -> (Option<Range<usize>>, Vec<Option<usize>>) {
        let stream = (!self.places.stream.is_empty()).then(|| self.places.stream.clone());
        if name.starts_with("embed.") {
            return (None, self.places.stream.clone().map(Some).collect());
        }
        let layer = layer_of(name).unwrap_or(0);
        let mut columns = vec![None; width];
        if name.contains(".attention.") {
            if let Some(heads) = attention(&self.spec, layer) {
                for (kv_head, at) in self.places.heads[layer].clone().enumerate() {
                    columns[query_range(heads, kv_head)].fill(Some(at));
                }
            }
        } else {
            columns
                .iter_mut()
                .zip(self.places.channels[layer].clone())
                .for_each(|(column, at)| *column = Some(at));
        }
        debug_assert!(z.len() == self.places.count(), "a factor for each gate");
        (stream, columns)
    }

    /// Writes entrances as the gates let them through.
    pub(super) fn write(&mut self, z: &[f32]) {
        for (at, base) in &self.entrances {
            let param = &self.net.params()[*at];
            let width = param.shape[1];
            let (rows, columns) = self.sides(&param.name, z, width);
            let factors: Vec<f32> = columns.iter().map(|it| it.map_or(1.0, |it| z[it])).collect();
            let mut value = base.clone();
            for (row, values) in value.chunks_exact_mut(width).enumerate() {
                let own = rows.as_ref().map_or(1.0, |rows| z[rows.start + row]);
                values.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= own * factor);
            }
            self.net.params_mut()[*at].value = value;
        }
    }

    /// The derivative of the loss by each gate's factor, from the gradients of entrances.
    pub(super) fn slopes(&self, z: &[f32]) -> Vec<f32> {
        let mut slopes = vec![0.0; z.len()];
        for (at, base) in &self.entrances {
            let param: &Param = &self.net.params()[*at];
            let width = param.shape[1];
            let (rows, columns) = self.sides(&param.name, z, width);
            for (row, (grads, weights)) in
                param.grad.chunks_exact(width).zip(base.chunks_exact(width)).enumerate()
            {
                let own = rows.as_ref().map_or(1.0, |rows| z[rows.start + row]);
                let mut along = 0.0;
                for ((g, w), column) in grads.iter().zip(weights).zip(&columns) {
                    let product = g * w;
                    along += product * column.map_or(1.0, |it| z[it]);
                    if let Some(column) = column {
                        slopes[*column] += product * own;
                    }
                }
                if let Some(rows) = &rows {
                    slopes[rows.start + row] += along;
                }
            }
        }
        slopes
    }

    /// One step: gates are drawn, the loss and the distance from the size pull at them, the multipliers rise against both.
    pub(super) fn step(&mut self, batch: &Batch, step: u64, options: &Options) -> Result<()> {
        let draws: Vec<Draw> = self.log_alpha.iter().map(|&it| gates::draw(it, &mut self.random)).collect();
        let z: Vec<f32> = draws.iter().map(|draw| draw.z).collect();
        self.write(&z);
        self.adapters.iter().for_each(|adapter| adapter.write(self.net.params_mut()));
        accumulate(&mut self.net, batch)?;
        let now = sparsity(&self.spec, &self.places, &self.log_alpha);
        let rising = (step + 1) as f64 / (options.warmup * options.gate_steps as f64).max(1.0);
        let off = (now.share - self.wished * rising.min(1.0)) as f32;
        let pull = self.multipliers[0] + 2.0 * self.multipliers[1] * off;
        let slopes = self.slopes(&z).into_iter().zip(&draws).zip(&now.slopes);
        let gradient: Vec<f32> = slopes.map(|((d, draw), size)| d * draw.slope + pull * size).collect();
        self.memory.step(&mut self.log_alpha, &gradient, options.gate_rate, step + 1);
        // Up, not down: a size that is missed costs more and more.
        let up = [-off, -off * off];
        self.multipliers_memory.step(&mut self.multipliers, &up, options.gate_rate, step + 1);
        let rate = options.adapter_rate * cosine(step, options.gate_steps);
        let params = self.net.params();
        self.adapters.iter_mut().for_each(|adapter| adapter.step(params, rate, 1.0, step + 1));
        Ok(())
    }

    /// Reads the gates: the model with the factors of open ones folded in, and the cut that takes closed ones out.
    pub(super) fn settle(mut self, model: &Model, target: u64) -> Result<(Model, Cut, f64)> {
        let expected = sparsity(&self.spec, &self.places, &self.log_alpha).share;
        let cut = self.cut(target)?;
        let z: Vec<f32> = self.log_alpha.iter().map(|&it| gates::settled(it)).collect();
        // What stays must not be lost to a factor of zero.
        let z: Vec<f32> = z.into_iter().map(|z| if z > 0.0 { z } else { 1.0 }).collect();
        self.write(&z);
        self.adapters.iter().for_each(|adapter| adapter.write(self.net.params_mut()));
        let weights = self.net.model()?.weights;
        Ok((Model { weights, ..model.clone() }, cut, expected))
    }

    /// Of heads, channels and the stream each as many as are expected to be closed, the least open ones, so that channels and the stream
    /// stay in whole multiples; channels make up for what is missing to the size or beyond it.
    fn cut(&self, target: u64) -> Result<Cut> {
        let (spec, places, multiple) = (&self.spec, &self.places, self.multiple.max(1));
        let mut closed: Vec<Unit> = Vec::new();
        // Units from the least open on, and how many of them are closed.
        let sorted = |range: &Range<usize>, unit: &dyn Fn(usize) -> Unit| -> Vec<(f32, Unit)> {
            let mut own: Vec<(f32, Unit)> =
                range.clone().enumerate().map(|(index, at)| (self.log_alpha[at], unit(index))).collect();
            own.sort_by(|a, b| a.0.total_cmp(&b.0));
            own
        };
        let close = |own: &[(f32, Unit)], least: usize, multiple: usize| -> usize {
            let kept: f32 = own.iter().map(|it| gates::open(it.0).0).sum();
            let kept = (kept / multiple as f32).round() as usize * multiple;
            own.len() - kept.clamp(least.min(own.len()), own.len())
        };
        let mut channels: Vec<(Vec<(f32, Unit)>, usize)> = Vec::new();
        for layer in 0..spec.layers.len() {
            let heads = sorted(&places.heads[layer], &|kv_head| Unit::Heads { layer, kv_head });
            closed.extend(heads[..close(&heads, 1, 1)].iter().map(|it| it.1));
            let own = sorted(&places.channels[layer], &|channel| Unit::Channel { layer, channel });
            let count = close(&own, multiple, multiple);
            channels.push((own, count));
        }
        let stream = sorted(&places.stream, &|channel| Unit::Stream { channel });
        let least = multiple.max(8);
        let mut narrow = close(&stream, least, multiple);
        let cut = |channels: &[(Vec<(f32, Unit)>, usize)], narrow: usize| -> Result<Cut> {
            let gone = channels.iter().flat_map(|(own, count)| &own[..*count]).chain(&stream[..narrow]);
            Cut::without(spec, &closed.iter().copied().chain(gone.map(|it| it.1)).collect::<Vec<_>>())
        };
        let parameters = |channels: &[(Vec<(f32, Unit)>, usize)], narrow: usize| -> Result<u64> {
            Ok(cut(channels, narrow)?.spec(spec, false)?.parameters())
        };
        let mean = |block: &[(f32, Unit)]| block.iter().map(|it| it.0).sum::<f32>() / block.len() as f32;
        // The least open blocks leave while there is too much,
        while parameters(&channels, narrow)? > target {
            let next = |(own, count): &(Vec<(f32, Unit)>, usize)| {
                let more = count + 2 * multiple <= own.len();
                more.then(|| mean(&own[*count..count + multiple]))
            };
            let open = channels.iter_mut().filter_map(|it| Some((next(it)?, it)));
            if let Some((_, (_, count))) = open.min_by(|a, b| a.0.total_cmp(&b.0)) {
                *count += multiple;
            } else if narrow + multiple + least <= stream.len() {
                narrow += multiple;
            } else {
                let left = parameters(&channels, narrow)?;
                return Err(Error::Option(format!(
                    "the gates left {left} parameters where {target} are asked for; give more steps, or a higher rate for gates"
                )));
            }
        }
        // and the most open of those that are closed come back while there is room.
        loop {
            let last = |(own, count): &(Vec<(f32, Unit)>, usize)| {
                (*count >= multiple).then(|| mean(&own[count - multiple..*count]))
            };
            let shut = channels.iter().enumerate().filter_map(|(layer, it)| Some((last(it)?, layer)));
            let Some((_, layer)) = shut.max_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            channels[layer].1 -= multiple;
            if parameters(&channels, narrow)? > target {
                channels[layer].1 += multiple;
                break;
            }
        }
        cut(&channels, narrow)
    }
}
