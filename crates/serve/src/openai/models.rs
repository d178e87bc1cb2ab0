//! `/v1/models`.

use serde_json::{Value, json};

use crate::registry::Known;

/// One model.
pub fn describe(known: &Known) -> Value {
    let Some(model) = known.loaded() else {
        return json!({
            "id": known.name(), "object": "model", "created": 0, "owned_by": "ounce",
            "parent": known.adapter.as_ref().map(|_| &known.id),
            "aliases": known.aliases, "status": "unloaded",
        });
    };
    let spec = model.engine.spec();
    json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "ounce",
        "root": model.origin,
        "parent": model.parent,
        "max_model_len": model.context,
        "aliases": model.aliases,
        "status": "loaded",
        "meta": {
            "n_ctx_train": spec.context_length,
            "n_params": model.parameters,
            "size": model.weight_bytes,
            "n_vocab": spec.vocab_size,
            "n_embd": spec.hidden_size,
        },
    })
}

/// All models.
pub fn list(models: &[Known]) -> Value {
    json!({"object": "list", "data": models.iter().map(describe).collect::<Vec<_>>()})
}
