//! Bytes of the KV cache: what the engine holds, and what a forward pass has to read of it.

use ounce_kernels::attention::{KvType, LayerCache};

use crate::spec::{Attention, Spec};

/// Bytes that the engine's cache holds for one sequence after pushes of these numbers of positions, over all layers. Layers
/// that share weights have keys and values of their own, and a window bounds what is read, not what is kept.
pub fn held_bytes(spec: &Spec, kv: KvType, pushes: impl Iterator<Item = usize> + Clone) -> u64 {
    let attentions = spec.layers.iter().filter_map(|layer| layer.attention.as_ref());
    attentions.map(|it| layer_bytes(it, kv, pushes.clone())).sum()
}

/// Bytes that one layer's cache holds after these pushes.
pub fn layer_bytes(attention: &Attention, kv: KvType, pushes: impl Iterator<Item = usize>) -> u64 {
    let cache = if attention.copies.is_some() { LayerCache::of_values } else { LayerCache::new };
    cache(attention.kv_heads, attention.head_dim, kv).bytes_after(pushes) as u64
}

/// Bytes of keys and values that one position in one layer reads, scales included, without the room that a cache keeps for
/// positions to come. A layer that copies another's attention reads the other's keys.
pub fn position_bytes(attention: &Attention, kv: KvType) -> f64 {
    let (head_dim, heads) = (attention.head_dim as f64, attention.kv_heads as f64);
    let value = match kv {
        KvType::F32 => 4.0,
        KvType::F16 | KvType::Bf16 => 2.0,
        KvType::Q8_0 => 1.0 + 4.0 / head_dim,
        KvType::Q4_0 => 0.5 + 4.0 / head_dim,
    };
    2.0 * heads * head_dim * value
}

/// Positions that queries at `start..start + tokens` see, summed over them: a query sees itself and what is before it, at
/// most a window's length; without causality all of the `tokens`.
pub fn seen(attention: &Attention, causal: bool, start: usize, tokens: usize) -> u64 {
    if !causal {
        return (tokens * tokens) as u64;
    }
    let reach = attention.window.unwrap_or(usize::MAX);
    // Queries before the window is full see one position more each; the others see the window.
    let growing = tokens.min(reach.saturating_sub(start));
    let (start, growing, rest) = (start as u64, growing as u64, (tokens - growing) as u64);
    growing * start + growing * (growing + 1) / 2 + rest * (reach as u64).min(u64::MAX / rest.max(1))
}

/// Positions whose keys and values those queries read at least once.
pub fn reached(attention: &Attention, causal: bool, start: usize, tokens: usize) -> usize {
    if !causal {
        return tokens;
    }
    let first = start.saturating_sub(attention.window.unwrap_or(usize::MAX).saturating_sub(1));
    start + tokens - first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Norms;

    fn attention(window: Option<usize>) -> Attention {
        Attention {
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            norms: Norms::default(),
            qkv_bias: false,
            output_bias: false,
            qk_norm: None,
            copies: None,
            scale: 1.0,
            softcap: None,
            window,
            rope: None,
        }
    }

    #[test]
    fn seen_positions_are_those_counted_one_by_one() {
        for window in [None, Some(1), Some(3), Some(8), Some(100)] {
            let it = attention(window);
            for start in [0, 1, 5, 9] {
                for tokens in [1, 2, 7, 20] {
                    let reach = window.unwrap_or(usize::MAX);
                    let counted: usize = (start..start + tokens).map(|at| (at + 1).min(reach)).sum();
                    assert_eq!(seen(&it, true, start, tokens), counted as u64, "{window:?} {start} {tokens}");
                    let first = (start + 1).saturating_sub(reach);
                    assert_eq!(reached(&it, true, start, tokens), start + tokens - first);
                }
            }
            assert_eq!(seen(&it, false, 0, 6), 36);
        }
    }
}
