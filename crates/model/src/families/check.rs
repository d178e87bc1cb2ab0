//! What every family's numbers must satisfy, checked once so that nothing after it need ask again: heads that
//! divide evenly, rotations that fit, and sizes whose products fit 64 bits.

use crate::spec::{Attention, FeedForward, FeedForwardKind, Spec};
use crate::{Config, Error, Result};

/// Tensors above this are damage, not models; the largest published mixture of experts has about 100,000.
const MAX_TENSORS: usize = 1 << 21;

/// Parameters above this can't be addressed, in any format.
const MAX_PARAMETERS: u128 = 1 << 56;

/// Widths above this are damage; it keeps products of two widths within 64 bits.
const MAX_WIDTH: usize = 1 << 31;

/// Checks a spec.
pub(super) fn check(config: &Config, spec: &Spec) -> Result<()> {
    let mut tensors = 16;
    for (index, layer) in spec.layers.iter().enumerate() {
        let bad = |what: String| Error::format(config.path(), format!("layer {index}: {what}"));
        if let Some(attention) = &layer.attention {
            check_attention(attention).map_err(bad)?;
            tensors += 16 + 2 * attention.heads;
        }
        if let Some(feed_forward) = &layer.feed_forward {
            check_feed_forward(feed_forward).map_err(bad)?;
            tensors += match &feed_forward.kind {
                FeedForwardKind::Experts(experts) => 16 + 3 * experts.count,
                FeedForwardKind::Dense(_) => 16,
            };
        }
        if tensors > MAX_TENSORS {
            return Err(bad(format!(
                "the model would have more than {MAX_TENSORS} tensors, so its sizes are wrong"
            )));
        }
    }
    let parameters: u128 =
        spec.tensors().iter().map(|tensor| tensor.shape.iter().map(|&n| n as u128).product::<u128>()).sum();
    if parameters > MAX_PARAMETERS {
        return Err(Error::format(config.path(), "its sizes multiply to more than any machine holds"));
    }
    Ok(())
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
    match attention.rope.as_ref().map(|rope| rope.dims) {
        Some(dims) if dims == 0 || !dims.is_multiple_of(2) || dims > head_dim => {
            Err(format!("{dims} rotary dimensions do not fit heads of {head_dim}"))
        }
        _ => Ok(()),
    }
}

fn check_feed_forward(feed_forward: &FeedForward) -> Result<(), String> {
    let FeedForwardKind::Experts(experts) = &feed_forward.kind else { return Ok(()) };
    if experts.used == 0 || experts.used > experts.count {
        return Err(format!("{} of {} experts can't be used", experts.used, experts.count));
    }
    if experts.count > MAX_TENSORS {
        return Err(format!("{} experts are more than any model has", experts.count));
    }
    Ok(())
}
