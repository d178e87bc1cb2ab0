//! Time of passes: the roofline of each piece of work, with the efficiencies of a calibration.

use ounce_kernels::DType;
use ounce_kernels::isa::Isa;
use ounce_model::Spec;
use ounce_model::account::Operator;
use ounce_model::account::cache::{reached, seen};
use ounce_model::account::pass::{Cost, Held, Matrix, Pass, Piece, Work, cost, pieces};
use ounce_model::machine::{Machine, OpKind};

use super::whole::Factors;
use super::{Bound, OperatorForecast, Phase, op_kind};
use crate::calibrate::{Calibration, Level};
use crate::{Error, Result};

/// What a forecast of time is made of.
pub(super) struct Roof<'a> {
    pub spec: &'a Spec,
    pub held: Held<'a>,
    pub machine: &'a Machine,
    pub calibration: &'a Calibration,
    pub threads: usize,
    pub factors: &'a Factors,
}

/// Vectors up to which zeros that are left out make a product faster.
const FEW: f64 = 8.0;

/// What a piece of work takes.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    seconds: f64,
    /// By the machine's limits alone.
    roofline: f64,
    /// Seconds by what limits them: compute, memory, cache, overhead.
    bounds: [f64; 4],
}

impl Taken {
    fn bound(&mut self, bound: Bound, seconds: f64) {
        self.seconds += seconds;
        self.bounds[bound as usize] += seconds;
    }
}

/// One kind of work of a phase, summed.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    cost: Cost,
    taken: Taken,
}

impl Roof<'_> {
    /// What each kind of work takes in these passes, one after the other.
    pub fn operators(&self, phase: Phase, passes: &[Pass]) -> Result<Vec<OperatorForecast>> {
        let mut sums = [Sum::default(); Operator::ALL.len()];
        for &pass in passes {
            let pieces = pieces(self.spec, pass);
            let costs: Vec<Cost> =
                pieces.iter().map(|it| cost(self.spec, pass, &self.held, it)).collect::<Result<_, _>>()?;
            // What is read before the first byte is read again.
            let working_set: f64 = costs.iter().map(|it| it.weight_bytes + it.cache_bytes).sum();
            for (piece, cost) in pieces.iter().zip(costs) {
                let sum = &mut sums[piece.operator as usize];
                let taken = self.taken(pass, piece, &cost, working_set)?;
                sum.cost += cost;
                sum.taken.seconds += taken.seconds;
                sum.taken.roofline += taken.roofline;
                sum.taken.bounds.iter_mut().zip(taken.bounds).for_each(|(sum, it)| *sum += it);
            }
        }
        let all = Operator::ALL.into_iter().zip(sums).filter(|(_, sum)| sum.cost.calls > 0.0);
        Ok(all.map(|(operator, sum)| sum.forecast(phase, operator)).collect())
    }

    fn taken(&self, pass: Pass, piece: &Piece<'_>, cost: &Cost, working_set: f64) -> Result<Taken> {
        let mut taken = Taken::default();
        match &piece.work {
            Work::Product { matrices, vectors, share } => {
                self.product(matrices, *vectors, working_set, &mut taken)?;
                taken.seconds *= share;
                taken.roofline *= share;
                taken.bounds.iter_mut().for_each(|it| *it *= share);
            }
            Work::Attention(attention) => {
                let sharing = attention.heads as f64 / attention.kv_heads.max(1) as f64;
                // A query of a windowed layer sees as much as one at the window's end.
                let seen = seen(attention, self.spec.causal, pass.start, pass.tokens) as f64;
                let reached = reached(attention, self.spec.causal, pass.start, pass.tokens) as f64;
                let before = (reached - pass.tokens as f64).max(0.0);
                let rate = self.calibration.attention_rate(
                    self.held.kv,
                    sharing,
                    pass.tokens as f64,
                    if seen > 0.0 { before } else { 0.0 },
                );
                let rate = rate.ok_or_else(|| missing("attention"))?;
                let peak = self.peak(OpKind::F32);
                let (compute, memory) =
                    (cost.operations / peak, cost.cache_bytes / self.machine.read_bandwidth(self.threads));
                let bound = if memory > compute { Bound::Memory } else { Bound::Compute };
                taken.roofline = compute.max(memory);
                taken.bound(bound, cost.operations / rate / self.scale(bound));
            }
            Work::Elements { values, .. } => {
                let vectors = pass.vectors() as f64;
                let each = self.calibration.element_seconds(piece.operator, self.held.kv, vectors);
                let cache = self.machine.cache_bandwidth(self.threads).max(1.0);
                taken.roofline = cost.activation_bytes / cache;
                taken.bound(Bound::Cache, values * each);
            }
        }
        Ok(taken)
    }

    fn product(&self, matrices: &[Matrix], vectors: f64, working_set: f64, taken: &mut Taken) -> Result<()> {
        let mut prepared: Option<DType> = None;
        for matrix in matrices {
            let place = self.held.place(self.spec, matrix)?;
            let operations = 2.0 * vectors * matrix.rows as f64 * matrix.columns as f64;
            let rate = |level| {
                let rate = self.calibration.product_rate(place.dtype, place.packed, vectors, level);
                rate.ok_or_else(|| missing(place.dtype.name()))
            };
            // What a product with few vectors takes are its bytes: of a matrix without its zeros there are fewer. Many vectors
            // share the work of putting them back.
            let fewer = match vectors <= FEW {
                true => place.bytes as f64 / place.dense_bytes.max(1) as f64,
                false => 1.0,
            };
            let (near, far) =
                (fewer * operations / rate(Level::Cache)?, fewer * operations / rate(Level::Memory)?);
            let distance = self.calibration.distance(working_set);
            let bandwidth = self.machine.read_bandwidth(self.threads);
            let cached = self.machine.cache_bandwidth(self.threads).max(bandwidth);
            let reading = place.bytes as f64 * (distance / bandwidth + (1.0 - distance) / cached);
            let bound = match reading > near / self.scale(Bound::Compute) {
                true if distance >= 0.5 => Bound::Memory,
                true => Bound::Cache,
                false => Bound::Compute,
            };
            let tiles = Isa::current() == Isa::Amx;
            let peak = self.peak(op_kind(place.dtype, tiles));
            taken.roofline += (operations / peak).max(reading);
            let seconds = near + (far - near).max(0.0) * distance;
            let seconds = seconds * self.factors.get(place.dtype, vectors);
            taken.bound(bound, seconds / self.scale(bound));
            if place.packed && prepared != Some(place.dtype) {
                let values = vectors * matrix.columns as f64;
                let each = self.calibration.preparation_seconds(place.dtype, vectors);
                taken.bound(Bound::Overhead, values * each);
                prepared = Some(place.dtype);
            }
        }
        taken.bound(Bound::Overhead, self.calibration.call_seconds);
        Ok(())
    }

    /// How much faster these threads are than those of the calibration.
    fn scale(&self, bound: Bound) -> f64 {
        let (here, there) = (self.threads, self.calibration.threads.max(1));
        match bound {
            Bound::Memory => self.machine.read_bandwidth(here) / self.machine.read_bandwidth(there),
            _ => here.min(self.machine.cpu.cores.max(1)) as f64 / there as f64,
        }
    }

    fn peak(&self, kind: OpKind) -> f64 {
        let peak = self.machine.peak_ops(kind, self.threads);
        peak.or_else(|| self.machine.peak_ops(OpKind::F32, self.threads)).unwrap_or(f64::INFINITY)
    }
}

fn missing(what: &str) -> Error {
    Error::Option(format!(
        "the calibration has no rate of {what}; measure again with ounce profile --refresh"
    ))
}

impl Sum {
    fn forecast(self, phase: Phase, operator: Operator) -> OperatorForecast {
        let Sum { cost, taken } = self;
        let bytes = cost.weight_bytes + cost.cache_bytes;
        let read = if bytes > 0.0 { bytes } else { cost.activation_bytes };
        let bounds = [Bound::Compute, Bound::Memory, Bound::Cache, Bound::Overhead];
        let most =
            bounds.into_iter().max_by(|a, b| taken.bounds[*a as usize].total_cmp(&taken.bounds[*b as usize]));
        OperatorForecast {
            phase,
            operator,
            calls: cost.calls,
            operations: cost.operations,
            bytes,
            activation_bytes: cost.activation_bytes,
            intensity: if read > 0.0 { cost.operations / read } else { 0.0 },
            bound: most.unwrap_or(Bound::Compute),
            roofline_seconds: taken.roofline,
            seconds: taken.seconds,
        }
    }
}
