//! What differs from layer to layer: which layers attend through a window, and access to all attentions.

use crate::spec::{Attention, FeedForward, Spec};
use crate::{Config, Result};

/// For each of `count` layers whether it attends through the window: as `layer_types` says where it is
/// given, else by the family's `rule` on the layer's index.
///
/// # Errors
/// If `layer_types` has another length or names a kind of layer that ounce does not know.
pub fn windowed_layers(config: &Config, count: usize, rule: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    let Some(kinds) = config.texts_opt("layer_types")? else { return Ok((0..count).map(rule).collect()) };
    if kinds.len() != count {
        let what = format!("lists {} layers, but the model has {count}", kinds.len());
        return Err(config.error("layer_types", what));
    }
    kinds
        .into_iter()
        .map(|kind| match kind {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => {
                Err(config.error("layer_types", format!("\"{other}\" is no kind of layer that ounce knows")))
            }
        })
        .collect()
}

/// Gives the window `sliding_window` to the layers that [`windowed_layers`] names. A missing, `null` or zero
/// window switches windows off.
///
/// # Errors
/// As [`windowed_layers`], or if `sliding_window` is no size.
pub fn set_windows(config: &Config, spec: &mut Spec, rule: impl Fn(usize) -> bool) -> Result<()> {
    let window = config.size_opt("sliding_window")?.filter(|&window| window > 0);
    let windowed = windowed_layers(config, spec.layers.len(), rule)?;
    for (index, attention) in attentions(spec) {
        attention.window = window.filter(|_| windowed[index]);
    }
    Ok(())
}

/// The attention of every layer that has one, with the layer's index.
pub fn attentions(spec: &mut Spec) -> impl Iterator<Item = (usize, &mut Attention)> {
    let layers = spec.layers.iter_mut().enumerate();
    layers.filter_map(|(index, layer)| Some((index, layer.attention.as_mut()?)))
}

/// The feed-forward half of every layer that has one, with the layer's index.
pub fn feed_forwards(spec: &mut Spec) -> impl Iterator<Item = (usize, &mut FeedForward)> {
    let layers = spec.layers.iter_mut().enumerate();
    layers.filter_map(|(index, layer)| Some((index, layer.feed_forward.as_mut()?)))
}
