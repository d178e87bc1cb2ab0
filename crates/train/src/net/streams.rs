//! Losses on what goes through a network between its layers.

/// A loss on the stream behind layers.
pub trait StreamLoss {
    /// The sum of the loss over the tokens of the stream behind a layer, `[tokens, hidden]`; with `scale`, the gradient of
    /// that sum times it as well, if there is one.
    fn layer(&mut self, layer: usize, stream: &[f32], scale: Option<f32>) -> (f64, Option<Vec<f32>>);
}

/// No loss.
pub(super) struct NoStreams;

impl StreamLoss for NoStreams {
    fn layer(&mut self, _: usize, _: &[f32], _: Option<f32>) -> (f64, Option<Vec<f32>>) {
        (0.0, None)
    }
}

/// No loss: someone is shown the streams.
pub struct Watched<'w>(pub &'w mut dyn FnMut(usize, &[f32]));

impl StreamLoss for Watched<'_> {
    fn layer(&mut self, layer: usize, stream: &[f32], _: Option<f32>) -> (f64, Option<Vec<f32>>) {
        (self.0)(layer, stream);
        (0.0, None)
    }
}
