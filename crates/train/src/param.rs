//! A weight with its gradient.

/// What a weight is: decides decay, learning-rate factors and which optimizers take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// A linear layer's `[out, in]`.
    Matrix,
    /// A table of vectors looked up by id, `[ids, width]`; also the tied head.
    Embedding,
    /// The matrix in front of the logits, if it is not the embedding.
    Head,
    /// A norm's weight.
    Norm,
    /// A bias.
    Bias,
    /// The step sizes of a matrix in groups whose codes are frozen, `[out, in / group]`.
    Steps,
}

/// A weight, row-major, with its gradient.
#[derive(Debug, Clone)]
pub struct Param {
    /// ounce's name, for instance `layers.3.attention.query.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParamKind,
    /// Its values.
    pub value: Vec<f32>,
    /// Sum of gradients since they were last cleared; empty if the weight is frozen.
    pub grad: Vec<f32>,
}

impl Param {
    /// A trainable weight with a gradient of zero.
    pub fn new(name: impl Into<String>, shape: &[usize], kind: ParamKind, value: Vec<f32>) -> Param {
        assert_eq!(shape.iter().product::<usize>(), value.len(), "as many values as the shape says");
        let grad = vec![0.0; value.len()];
        Param { name: name.into(), shape: shape.to_vec(), kind, value, grad }
    }

    /// Whether it is trained.
    pub fn is_trainable(&self) -> bool {
        !self.grad.is_empty()
    }

    /// Stops training it and gives its gradient's memory back.
    pub fn freeze(&mut self) {
        self.grad = Vec::new();
    }
}
