//! What every family's numbers must satisfy, checked once so that nothing after it need ask again: heads that
//! divide evenly, rotations that fit, parts that are not empty, finite factors, and sizes whose products fit
//! 64 bits.

use crate::rope::Rope;
use crate::spec::{Attention, FeedForward, FeedForwardKind, Layer, Mlp, Norm, Norms, Spec};
use crate::{Config, Error, Result};

/// Tensors above this are damage, not models; the largest published mixture of experts has about 100,000. The list
/// of so many names takes 40 MB.
const MAX_TENSORS: usize = 1 << 18;

/// Parameters above this can't be addressed, in any format.
const MAX_PARAMETERS: u128 = 1 << 56;

/// Widths above this are damage; it keeps products of two widths within 64 bits.
const MAX_WIDTH: usize = 1 << 31;

/// Checks a spec.
pub(super) fn check(config: &Config, spec: &Spec) -> Result<()> {
    let whole = |what: String| Error::format(config.path(), what);
    check_norms(&[spec.embedding.norm, spec.final_norm]).map_err(whole)?;
    let mut tensors = 16;
    let mut rope: Option<&Rope> = None;
    for (index, layer) in spec.layers.iter().enumerate() {
        let bad = |what: String| Error::format(config.path(), format!("layer {index}: {what}"));
        if let Some(attention) = &layer.attention {
            check_attention(attention).map_err(bad)?;
            // The layers of a model turn alike, nearly always.
            if attention.rope.as_ref() != rope {
                rope = attention.rope.as_ref();
                rope.map_or(Ok(()), |rope| check_rope(rope, spec.context_length)).map_err(bad)?;
            }
            tensors += 16 + 2 * attention.heads;
        }
        if let Some(feed_forward) = &layer.feed_forward {
            check_feed_forward(feed_forward).map_err(bad)?;
            tensors += match &feed_forward.kind {
                FeedForwardKind::Experts(experts) => 16 + 3 * experts.count,
                FeedForwardKind::Dense(_) => 16,
            };
        }
        check_sharing(spec, index).map_err(bad)?;
        check_copying(spec, index).map_err(bad)?;
        if tensors > MAX_TENSORS {
            return Err(bad(format!(
                "the model would have more than {MAX_TENSORS} tensors, so its sizes are wrong"
            )));
        }
    }
    let narrow = spec.embedding_width() != spec.hidden_size;
    if narrow && spec.head.as_ref().is_some_and(|head| head.tied && head.transform.is_none()) {
        return Err(whole("token vectors narrower than the stream can't serve as its head".to_string()));
    }
    let parameters: u128 =
        spec.tensors().iter().map(|tensor| tensor.shape.iter().map(|&n| n as u128).product::<u128>()).sum();
    if parameters > MAX_PARAMETERS {
        return Err(whole("its sizes multiply to more than any machine holds".to_string()));
    }
    Ok(())
}

/// Weights can only be those of a layer that has some, and fit only a layer of the same shape.
fn check_sharing(spec: &Spec, index: usize) -> Result<(), String> {
    let layer = &spec.layers[index];
    let Some(owner) = layer.shares else { return Ok(()) };
    match spec.layers.get(owner).filter(|it| owner < index && it.shares.is_none()) {
        None => Err(format!(
            "it can't use the weights of layer {owner}; a layer shares with one before it that has its own"
        )),
        Some(other) if (Layer { shares: None, ..layer.clone() }) != *other => {
            Err(format!("it can't use the weights of layer {owner}, which has another shape"))
        }
        Some(_) => Ok(()),
    }
}

/// Queries and keys can only be those of the nearest layer before that has its own, and fit only attention of the same shape.
fn check_copying(spec: &Spec, index: usize) -> Result<(), String> {
    let attention = spec.layers[index].attention.as_ref();
    let Some((attention, source)) = attention.and_then(|it| Some((it, it.copies?))) else { return Ok(()) };
    let before = spec.layers[..index].iter().enumerate().rev();
    let mut before = before.filter_map(|(at, layer)| Some((at, layer.attention.as_ref()?)));
    let other = before.find(|(_, it)| it.copies.is_none());
    if spec.layers.iter().any(|layer| layer.shares.is_some()) {
        return Err(
            "it can't attend by another's queries and keys in a model whose layers share weights".into()
        );
    }
    let shape = |it: &Attention| Attention { copies: None, norms: Norms::default(), ..it.clone() };
    match other {
        Some((at, _)) if at != source => Err(format!(
            "it can't attend by the queries and keys of layer {source}; the nearest before it with its own is {at}"
        )),
        Some((_, other)) if shape(other) != shape(attention) => {
            Err(format!("it can't attend by the queries and keys of layer {source}, which has another shape"))
        }
        Some(_) => Ok(()),
        None => Err("no layer before it has queries and keys that it could attend by".into()),
    }
}

fn check_attention(attention: &Attention) -> Result<(), String> {
    let (heads, kv_heads, head_dim) = (attention.heads, attention.kv_heads, attention.head_dim);
    if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(format!("{heads} attention heads can't share {kv_heads} key/value heads evenly"));
    }
    if head_dim == 0 {
        return Err("a head has no dimensions (head_dim is 0)".to_string());
    }
    if heads.checked_mul(head_dim).is_none_or(|width| width > MAX_WIDTH) || heads > MAX_TENSORS {
        return Err(format!("{heads} attention heads of {head_dim} dimensions are more than any model has"));
    }
    if !(attention.scale.is_finite() && attention.scale > 0.0) {
        return Err(format!("the factor {} on attention scores is no positive number", attention.scale));
    }
    check_both(&attention.norms, attention.qk_norm.map(|it| it.norm))?;
    match attention.rope.as_ref().map(|rope| rope.dims) {
        Some(dims) if dims == 0 || !dims.is_multiple_of(2) || dims > head_dim => {
            Err(format!("{dims} rotary dimensions do not fit heads of {head_dim}"))
        }
        _ => Ok(()),
    }
}

/// Settings that are each allowed can still divide by zero together.
fn check_rope(rope: &Rope, context_length: usize) -> Result<(), String> {
    let lengths = [1, context_length, context_length.saturating_add(1)];
    let finite = lengths.iter().all(|&length| {
        let frequencies = rope.frequencies(length);
        frequencies.amplitude.is_finite() && frequencies.radians.iter().all(|radians| radians.is_finite())
    });
    if finite { Ok(()) } else { Err("the rotary settings give angles that are no numbers".to_string()) }
}

fn check_feed_forward(feed_forward: &FeedForward) -> Result<(), String> {
    check_both(&feed_forward.norms, None)?;
    let experts = match &feed_forward.kind {
        FeedForwardKind::Dense(mlp) => return check_width(mlp),
        FeedForwardKind::Experts(experts) => experts,
    };
    if experts.used == 0 || experts.used > experts.count {
        return Err(format!("{} of {} experts can't be used", experts.used, experts.count));
    }
    if experts.count > MAX_TENSORS {
        return Err(format!("{} experts are more than any model has", experts.count));
    }
    check_width(&experts.expert)?;
    experts.shared.as_ref().map_or(Ok(()), check_width)
}

fn check_width(mlp: &Mlp) -> Result<(), String> {
    match mlp.width {
        0 => Err(
            "the feed-forward part has width 0; leave it out of the layer with \"feed_forward\": false in \
                  ounce_layers"
                .to_string(),
        ),
        width if width > MAX_WIDTH => {
            Err(format!("a feed-forward part of width {width} is more than any model has"))
        }
        _ => Ok(()),
    }
}

fn check_both(norms: &Norms, inner: Option<Norm>) -> Result<(), String> {
    check_norms(&[norms.before, norms.after, norms.residual, inner])
}

/// A negative epsilon would take roots of negative numbers.
fn check_norms(norms: &[Option<Norm>]) -> Result<(), String> {
    match norms.iter().flatten().find(|norm| !(norm.eps >= 0.0 && norm.eps.is_finite())) {
        Some(norm) => Err(format!("the epsilon {} of a norm should be a small positive number", norm.eps)),
        None => Ok(()),
    }
}
