//! What sets a model apart from the plain decoder or encoder, one sentence each.

use ounce_model::Model;
use ounce_model::rope::{Rope, RopeScaling};
use ounce_model::spec::{Attention, FeedForwardKind, Layer, QkScope, Residual, Spec};

/// The sentences; empty for a plain model.
pub fn peculiarities(model: &Model) -> Vec<String> {
    let spec = &model.spec;
    let mut list = Vec::new();
    shapes(spec, &mut list);
    sharing(spec, &mut list);
    attention(spec, &mut list);
    feed_forward(spec, &mut list);
    rotation(spec, &mut list);
    if spec.embedding.scale != 1.0 {
        list.push(format!("token vectors are scaled by {}", spec.embedding.scale));
    }
    if let Some(head) = &spec.head {
        if head.tied {
            list.push("the token embedding serves as the head too".to_string());
        }
        if head.scale != 1.0 {
            list.push(format!("logits are scaled by {}", head.scale));
        }
        if let Some(cap) = head.softcap {
            list.push(format!("logits are capped softly at {cap}"));
        }
    } else {
        list.push("there is no head, so there are no logits".to_string());
    }
    if let Some(tokenizer) = &model.tokenizer {
        let tokens = tokenizer.id_limit() as usize;
        if spec.vocab_size > tokens {
            list.push(format!("{} rows of the embedding belong to no token", spec.vocab_size - tokens));
        } else if spec.vocab_size < tokens {
            list.push(format!(
                "the tokenizer has {tokens} ids, more than the embedding's {} rows",
                spec.vocab_size
            ));
        }
    }
    let unused = model.weights.unused();
    if let Some(first) = unused.first() {
        let more = if unused.len() > 1 { format!(" and {} more", unused.len() - 1) } else { String::new() };
        list.push(format!("the files hold tensors without use: {first}{more}"));
    }
    list
}

/// `all layers`, `layer 3`, or `12 of 24 layers`.
fn layers_where(spec: &Spec, is: impl Fn(&Layer) -> bool) -> Option<String> {
    let which: Vec<usize> = (0..spec.layers.len()).filter(|&index| is(&spec.layers[index])).collect();
    match which.as_slice() {
        [] => None,
        all if all.len() == spec.layers.len() => Some("all layers".to_string()),
        [one] => Some(format!("layer {one}")),
        some => Some(format!("{} of {} layers", some.len(), spec.layers.len())),
    }
}

fn with_attention(is: impl Fn(&Attention) -> bool) -> impl Fn(&Layer) -> bool {
    move |layer| layer.attention.as_ref().is_some_and(&is)
}

/// The widths of a layer that cut models change.
fn shape(layer: &Layer) -> String {
    let attention = layer.attention.as_ref().map_or("none".to_string(), |it| {
        format!("{} heads, {} key/value heads of {}", it.heads, it.kv_heads, it.head_dim)
    });
    let feed_forward = layer.feed_forward.as_ref().map_or("none".to_string(), |it| match &it.kind {
        FeedForwardKind::Dense(mlp) => format!("width {}", mlp.width),
        FeedForwardKind::Experts(experts) => {
            format!("{} experts of width {}", experts.count, experts.expert.width)
        }
    });
    format!("attention {attention}; feed-forward {feed_forward}")
}

fn shapes(spec: &Spec, list: &mut Vec<String>) {
    // More shapes than this are counted, not listed.
    const LISTED: usize = 4;
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    for (index, layer) in spec.layers.iter().enumerate() {
        let shape = shape(layer);
        match shapes.iter_mut().find(|(known, _)| *known == shape) {
            Some((_, layers)) => layers.push(index),
            None => shapes.push((shape, vec![index])),
        }
    }
    if shapes.len() > LISTED {
        list.push(format!("layers have {} different shapes; see --tensors", shapes.len()));
    } else if shapes.len() > 1 {
        let text = shapes.iter().map(|(shape, layers)| {
            let which: Vec<String> = layers.iter().map(usize::to_string).collect();
            format!("[{}] {shape}", which.join(","))
        });
        list.push(format!("layers differ in shape: {}", text.collect::<Vec<_>>().join(" · ")));
    }
}

fn sharing(spec: &Spec, list: &mut Vec<String>) {
    let sharing = spec.sharing_layers();
    if sharing > 0 {
        let layers = spec.layers.len();
        list.push(format!(
            "{sharing} of {layers} layers have no weights of their own: {} are used {layers} times, stored and counted once",
            layers - sharing
        ));
    }
    let copying = spec.copying_layers();
    if copying > 0 {
        list.push(format!(
            "{copying} of {} layers attend by the queries and keys of a layer before them, and cache values only",
            spec.layers.len()
        ));
    }
    if let (Some(least), Some(most)) = (spec.ranks.values().min(), spec.ranks.values().max()) {
        let count = spec.ranks.len();
        list.push(format!(
            "{count} linear layers are products of two thin matrices, of ranks from {least} to {most}"
        ));
    }
    if let Some(width) = spec.embedding.projected_from {
        list.push(format!(
            "token vectors have {width} values, which a linear layer makes {}",
            spec.hidden_size
        ));
    }
}

fn attention(spec: &Spec, list: &mut Vec<String>) {
    let mut push = |text: Option<String>| list.extend(text);
    let mut windows: Vec<usize> =
        spec.layers.iter().filter_map(|layer| layer.attention.as_ref()?.window).collect();
    windows.sort_unstable();
    windows.dedup();
    for window in windows {
        let layers = layers_where(spec, with_attention(|it| it.window == Some(window)));
        push(layers.map(|layers| format!("{layers} attend to the last {window} positions only")));
    }
    let caps = spec.layers.iter().filter_map(|layer| layer.attention.as_ref()?.softcap);
    if let Some(cap) = caps.reduce(f32::max) {
        let layers = layers_where(spec, with_attention(|it| it.softcap.is_some()));
        push(layers.map(|layers| format!("attention scores are capped softly at {cap} in {layers}")));
    }
    let usual = |it: &Attention| (it.scale * (it.head_dim as f32).sqrt() - 1.0).abs() < 1e-3;
    let layers = layers_where(spec, with_attention(|it| !usual(it)));
    push(layers.map(|layers| format!("attention scores are scaled unusually in {layers}")));
    for (scope, what) in [
        (QkScope::Head, "each head"),
        (QkScope::EachHead, "each head with weights of its own"),
        (QkScope::Width, "all heads at once"),
    ] {
        let layers =
            layers_where(spec, with_attention(|it| it.qk_norm.is_some_and(|norm| norm.scope == scope)));
        push(layers.map(|layers| format!("queries and keys are normed, {what}, in {layers}")));
    }
    let scaled = layers_where(spec, |layer| layer.residual_scale != 1.0);
    push(scaled.map(|layers| format!("what each half adds to the residual stream is scaled in {layers}")));
    let parallel = layers_where(spec, |layer| layer.residual != Residual::Sequential);
    push(parallel.map(|layers| format!("attention and feed-forward work side by side in {layers}")));
}

fn feed_forward(spec: &Spec, list: &mut Vec<String>) {
    let experts = |layer: &Layer| match &layer.feed_forward.as_ref()?.kind {
        FeedForwardKind::Experts(experts) => Some((experts.used, experts.count, experts.shared.is_some())),
        FeedForwardKind::Dense(_) => None,
    };
    if let Some((used, count, shared)) = spec.layers.iter().find_map(experts) {
        let layers = layers_where(spec, |layer| experts(layer).is_some()).unwrap_or_default();
        let shared = if shared { " besides a shared one" } else { "" };
        list.push(format!("a token uses {used} of {count} experts{shared} in {layers}"));
    }
}

fn rotation(spec: &Spec, list: &mut Vec<String>) {
    if spec.embedding.positions.is_some() {
        return;
    }
    let plain = layers_where(spec, with_attention(|it| it.rope.is_none()));
    list.extend(plain.map(|layers| format!("no position encoding (NoPE) in {layers}")));
    let ropes = || spec.ropes();
    let mut thetas: Vec<f32> = ropes().map(|rope| rope.theta).collect();
    thetas.dedup();
    thetas.sort_by(f32::total_cmp);
    thetas.dedup();
    if thetas.len() > 1 {
        let thetas: Vec<String> = thetas.iter().map(f32::to_string).collect();
        list.push(format!("layers rotate with different bases: {}", thetas.join(", ")));
    }
    let mut scalings: Vec<String> = ropes().filter_map(scaling).collect();
    scalings.sort();
    scalings.dedup();
    list.extend(scalings.into_iter().map(|what| format!("rotation is stretched: {what}")));
    let partial = with_attention(|it| it.rope.as_ref().is_some_and(|rope| rope.dims < it.head_dim));
    list.extend(
        layers_where(spec, partial).map(|layers| format!("only a part of each head is rotated in {layers}")),
    );
}

fn scaling(rope: &Rope) -> Option<String> {
    match &rope.scaling {
        RopeScaling::None => None,
        RopeScaling::Linear { factor } => Some(format!("linear by {factor}")),
        RopeScaling::Dynamic { factor, original } => Some(format!("dynamic by {factor} beyond {original}")),
        RopeScaling::Yarn { factor, original, .. } => Some(format!("YaRN by {factor} from {original}")),
        RopeScaling::Llama3 { factor, original, .. } => {
            Some(format!("Llama 3's by {factor} from {original}"))
        }
        RopeScaling::LongRope { original, .. } => Some(format!("LongRoPE from {original}")),
        RopeScaling::Divisors { .. } => Some("by a list of divisors".to_string()),
    }
}
