//! A forward pass as a list of its pieces of work, in the engine's order, and what each reads and computes.

use ounce_kernels::DType;
use ounce_kernels::attention::KvType;
use ounce_kernels::packed::PackedMatrix;

use super::sizes::{has_tied_head, is_packed, packed_bytes_of, packed_format, stored_bytes};
use super::{Formats, Operator, cache};
use crate::spec::{Attention, Experts, FeedForward, FeedForwardKind, Layer, Mlp, Residual, Spec};
use crate::spec_tensors::{EXPAND, REDUCE};

/// What one forward pass is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Sequences that are run at once.
    pub sequences: usize,
    /// Positions that each one's cache holds before.
    pub start: usize,
    /// Tokens that each one appends.
    pub tokens: usize,
    /// Vectors of which logits are computed, of all sequences together.
    pub logits: usize,
}

impl Pass {
    /// Vectors that go through the layers.
    pub fn vectors(&self) -> usize {
        self.sequences * self.tokens
    }
}

/// A matrix that vectors are multiplied with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// ounce's name, with `.weight`.
    pub name: String,
    /// Values that a product gives.
    pub rows: usize,
    /// Values of a vector.
    pub columns: usize,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece<'s> {
    /// Its kind.
    pub operator: Operator,
    /// What is done.
    pub work: Work<'s>,
}

/// What a piece of work does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work<'s> {
    /// The same vectors are multiplied with each matrix.
    Product {
        /// The matrices.
        matrices: Vec<Matrix>,
        /// How many vectors: of an expert, those that it gets when tokens choose evenly.
        vectors: f64,
        /// How likely it happens at all: 1 but for experts, which few tokens may all pass by.
        share: f64,
    },
    /// Queries against a layer's cache.
    Attention(&'s Attention),
    /// Something done to every value.
    Elements {
        /// Values.
        values: f64,
        /// Operations on each.
        operations: f64,
    },
}

/// Lists the pieces.
struct List<'s> {
    spec: &'s Spec,
    pass: Pass,
    pieces: Vec<Piece<'s>>,
}

impl<'s> List<'s> {
    /// Factorised matrices are two products each, one behind the other.
    fn product(&mut self, operator: Operator, matrices: Vec<Matrix>, vectors: f64, share: f64) {
        let rank = |matrix: &Matrix| {
            let name = matrix.name.strip_suffix(".weight")?;
            self.spec.ranks.get(name).map(|&rank| (name.to_owned(), rank))
        };
        let (factorised, whole): (Vec<Matrix>, Vec<Matrix>) =
            matrices.into_iter().partition(|matrix| rank(matrix).is_some());
        let thin = factorised.iter().filter_map(|it| Some((it.rows, it.columns, rank(it)?)));
        let thin: Vec<Matrix> = thin
            .flat_map(|(rows, columns, (name, rank))| {
                let reduce = Matrix { name: format!("{name}{REDUCE}"), rows: rank, columns };
                [reduce, Matrix { name: format!("{name}{EXPAND}"), rows, columns: rank }]
            })
            .collect();
        let groups =
            [whole].into_iter().filter(|it| !it.is_empty()).chain(thin.into_iter().map(|it| vec![it]));
        let product = |matrices| Piece { operator, work: Work::Product { matrices, vectors, share } };
        self.pieces.extend(groups.map(product));
    }

    fn elements(&mut self, operator: Operator, values: f64, operations: f64) {
        self.pieces.push(Piece { operator, work: Work::Elements { values, operations } });
    }

    fn stream(&mut self, operator: Operator, operations: f64) {
        self.elements(operator, (self.pass.vectors() * self.spec.hidden_size) as f64, operations);
    }

    fn embedding(&mut self) {
        let (width, hidden) = (self.spec.embedding_width(), self.spec.hidden_size);
        let vectors = self.pass.vectors() as f64;
        self.elements(Operator::Embedding, vectors * width as f64, 0.0);
        if self.spec.embedding.projected_from.is_some() {
            let matrix = matrix("embed.projection", hidden, width);
            self.product(Operator::Embedding, vec![matrix], vectors, 1.0);
        }
    }

    fn attention(&mut self, name: &str, attention: &'s Attention) {
        let (hidden, vectors) = (self.spec.hidden_size, self.pass.vectors() as f64);
        let (query, kv) = (attention.query_width(), attention.kv_width());
        let part = |part: &str, rows: usize| matrix(&format!("{name}.{part}"), rows, hidden);
        let own = attention.copies.is_none();
        let mut projections = if own { vec![part("query", query), part("key", kv)] } else { Vec::new() };
        projections.push(part("value", kv));
        self.product(Operator::QueryKeyValue, projections, vectors, 1.0);
        if own {
            self.elements(Operator::Rotation, vectors * (query + kv) as f64, 3.0);
        }
        self.elements(Operator::CacheWrite, vectors * (kv * if own { 2 } else { 1 }) as f64, 0.0);
        self.pieces.push(Piece { operator: Operator::Attention, work: Work::Attention(attention) });
        let output = matrix(&format!("{name}.output"), hidden, query);
        self.product(Operator::Output, vec![output], vectors, 1.0);
    }

    fn mlp(&mut self, name: &str, mlp: &Mlp, vectors: f64, share: f64) {
        let hidden = self.spec.hidden_size;
        let first = |part: &str| matrix(&format!("{name}.{part}"), mlp.width, hidden);
        let first = if mlp.gated { vec![first("gate"), first("up")] } else { vec![first("up")] };
        self.product(Operator::GateUp, first, vectors, share);
        self.elements(Operator::Activation, vectors * share * mlp.width as f64, 1.0);
        let down = matrix(&format!("{name}.down"), hidden, mlp.width);
        self.product(Operator::Down, vec![down], vectors, share);
    }

    /// Tokens choose their experts evenly and without regard to each other: of `n` tokens that use `u` of `c` experts
    /// each, an expert gets none with probability `(1 − u/c)ⁿ`.
    fn experts(&mut self, name: &str, experts: &Experts) {
        let (hidden, vectors) = (self.spec.hidden_size, self.pass.vectors() as f64);
        let router = matrix(&format!("{name}.router"), experts.count, hidden);
        self.product(Operator::Routing, vec![router], vectors, 1.0);
        let chosen = experts.used as f64 / experts.count.max(1) as f64;
        let share = 1.0 - (1.0 - chosen).powf(vectors);
        for index in 0..experts.count {
            let takers = vectors * chosen / share.max(f64::MIN_POSITIVE);
            self.mlp(&format!("{name}.experts.{index}"), &experts.expert, takers, share);
        }
        if let Some(shared) = &experts.shared {
            self.mlp(&format!("{name}.shared"), shared, vectors, 1.0);
        }
        if experts.shared_gate {
            let gate = matrix(&format!("{name}.shared_gate"), 1, hidden);
            self.product(Operator::Routing, vec![gate], vectors, 1.0);
        }
    }

    fn feed_forward(&mut self, name: &str, feed_forward: &FeedForward) {
        match &feed_forward.kind {
            FeedForwardKind::Dense(mlp) => self.mlp(name, mlp, self.pass.vectors() as f64, 1.0),
            FeedForwardKind::Experts(experts) => self.experts(name, experts),
        }
    }

    fn layer(&mut self, index: usize, layer: &'s Layer) {
        let owner = self.spec.owner(index);
        if let Some(attention) = &layer.attention {
            self.stream(Operator::Norm, 4.0);
            self.attention(&format!("layers.{owner}.attention"), attention);
            self.stream(Operator::Residual, 1.0);
        }
        if let Some(feed_forward) = &layer.feed_forward {
            let shares_norm = layer.residual == Residual::ParallelSharedNorm && layer.attention.is_some();
            if !shares_norm {
                self.stream(Operator::Norm, 4.0);
            }
            self.feed_forward(&format!("layers.{owner}.feed_forward"), feed_forward);
            self.stream(Operator::Residual, 1.0);
        }
    }

    fn head(&mut self) {
        let (hidden, width) = (self.spec.hidden_size, self.spec.embedding_width());
        let vectors = self.pass.logits as f64;
        let Some(head) = self.spec.head.as_ref().filter(|_| self.pass.logits > 0) else { return };
        let mut read = hidden;
        if head.transform.is_some() {
            read = width;
            self.product(Operator::Head, vec![matrix("head.dense", width, hidden)], vectors, 1.0);
        }
        let name = if head.tied { "embed.tokens" } else { "head" };
        self.product(Operator::Head, vec![matrix(name, self.spec.vocab_size, read)], vectors, 1.0);
        self.elements(Operator::Head, vectors * self.spec.vocab_size as f64, 0.0);
    }
}

fn matrix(name: &str, rows: usize, columns: usize) -> Matrix {
    Matrix { name: format!("{name}.weight"), rows, columns }
}

/// The pieces of a forward pass, from token ids to the wanted logits.
pub fn pieces(spec: &Spec, pass: Pass) -> Vec<Piece<'_>> {
    let mut list = List { spec, pass, pieces: Vec::new() };
    list.embedding();
    for (index, layer) in spec.layers.iter().enumerate() {
        list.layer(index, layer);
    }
    if spec.final_norm.is_some() {
        list.stream(Operator::Norm, 4.0);
    }
    list.head();
    list.pieces
}

/// How weights and caches are held while a pass runs.
#[derive(Debug, Clone, Copy)]
pub struct Held<'f> {
    /// The stored format of every weight.
    pub formats: &'f Formats,
    /// Whether the fast mode packs what it has kernels for.
    pub packed: bool,
    /// The format to which matrices that are not quantized yet are quantized at load (fast mode).
    pub quantize: Option<DType>,
    /// How keys and values are cached.
    pub kv: KvType,
}

/// Where a matrix's values lie while it is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The format they are read in.
    pub dtype: DType,
    /// Whether that is a packed copy; else rows are decoded from the file's mapping.
    pub packed: bool,
    /// Bytes that a product reads.
    pub bytes: u64,
    /// Bytes that it would read if no zeros were left out.
    pub dense_bytes: u64,
}

impl Held<'_> {
    /// How a matrix is held.
    ///
    /// # Errors
    /// If it has no format.
    pub fn place(&self, spec: &Spec, matrix: &Matrix) -> crate::Result<Place> {
        let Matrix { name, rows, columns } = matrix;
        let stored = self.formats.get(name);
        let stored =
            stored.ok_or_else(|| crate::Error::unsupported(format!("no format is given for {name}")))?;
        let tied = has_tied_head(spec);
        let packed = packed_format(stored, *columns, self.quantize);
        Ok(match packed.filter(|_| self.packed && is_packed(name, tied)) {
            Some(dtype) => {
                let bytes = packed_bytes_of(name, &[*rows, *columns], tied, self.formats, self.quantize);
                let dense_bytes = PackedMatrix::bytes_for(dtype, *rows, *columns).unwrap_or(0) as u64;
                Place { dtype, packed: true, bytes, dense_bytes }
            }
            None => {
                let bytes = stored_bytes(stored, &[*rows, *columns]);
                Place { dtype: stored, packed: false, bytes, dense_bytes: bytes }
            }
        })
    }
}

/// What work costs; expected values where experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Times it is done.
    pub calls: f64,
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes of weights that are read, each once a call.
    pub weight_bytes: f64,
    /// Bytes of keys and values that are read or written.
    pub cache_bytes: f64,
    /// Bytes of f32 activations that are read or written: they pass through caches.
    pub activation_bytes: f64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.calls += other.calls;
        self.operations += other.operations;
        self.weight_bytes += other.weight_bytes;
        self.cache_bytes += other.cache_bytes;
        self.activation_bytes += other.activation_bytes;
    }
}

/// Bytes of an activation.
const ACTIVATION: f64 = 4.0;

/// What one piece of a pass costs.
///
/// # Errors
/// If a weight has no format.
pub fn cost(spec: &Spec, pass: Pass, held: &Held<'_>, piece: &Piece<'_>) -> crate::Result<Cost> {
    Ok(match &piece.work {
        Work::Product { matrices, vectors, share } => {
            let mut cost = Cost { calls: *share, ..Cost::default() };
            let columns = matrices.first().map_or(0, |it| it.columns) as f64;
            cost.activation_bytes += share * vectors * columns * ACTIVATION;
            for matrix in matrices {
                let (rows, columns) = (matrix.rows as f64, matrix.columns as f64);
                cost.operations += share * 2.0 * vectors * rows * columns;
                cost.weight_bytes += share * held.place(spec, matrix)?.bytes as f64;
                cost.activation_bytes += share * vectors * rows * ACTIVATION;
            }
            cost
        }
        Work::Attention(attention) => {
            let sequences = pass.sequences as f64;
            let seen = sequences * cache::seen(attention, spec.causal, pass.start, pass.tokens) as f64;
            let reached = cache::reached(attention, spec.causal, pass.start, pass.tokens) as f64;
            let width = attention.query_width() as f64;
            Cost {
                calls: 1.0,
                operations: 4.0 * width * seen,
                weight_bytes: 0.0,
                cache_bytes: sequences * reached * cache::position_bytes(attention, held.kv),
                activation_bytes: 2.0 * pass.vectors() as f64 * width * ACTIVATION,
            }
        }
        Work::Elements { values, operations } => Cost {
            calls: 1.0,
            operations: values * operations,
            activation_bytes: 2.0 * values * ACTIVATION,
            ..Cost::default()
        },
    })
}

/// What each kind of work of a pass costs, in the order of a forward pass; kinds without work are left out.
///
/// # Errors
/// If a weight has no format.
pub fn costs(spec: &Spec, pass: Pass, held: &Held<'_>) -> crate::Result<Vec<(Operator, Cost)>> {
    let mut sums = [Cost::default(); Operator::ALL.len()];
    for piece in pieces(spec, pass) {
        sums[piece.operator as usize] += cost(spec, pass, held, &piece)?;
    }
    let all = Operator::ALL.into_iter().zip(sums);
    Ok(all.filter(|(_, cost)| cost.calls > 0.0).collect())
}
