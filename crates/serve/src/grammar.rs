//! Text that has to follow a grammar or a JSON schema: at each step only tokens that can go on are allowed. llguidance does
//! the parsing; here its tables are made from a model's tokenizer.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use ounce_model::tokenizer::Tokenizer;
use serde_json::Value;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

/// What an answer has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    Schema(Value),
    /// A grammar in llguidance's dialect of Lark.
    Lark(String),
    /// A regular expression.
    Regex(String),
}

/// A model's vocabulary, ready to be constrained.
#[derive(Clone)]
pub struct Grammars {
    factory: Arc<ParserFactory>,
    end_ids: Arc<[u32]>,
}

impl Grammars {
    /// Tables for a tokenizer; `end_ids` end a text.
    ///
    /// # Errors
    /// If no token ends a text, or llguidance refuses the vocabulary.
    pub fn new(tokenizer: &Tokenizer, end_ids: &[u32]) -> Result<Grammars, String> {
        let limit = tokenizer.id_limit();
        let end = end_ids.iter().copied().find(|&id| id < limit);
        let end = end.ok_or(
            "the model has no token that ends a text, so that no grammar can be followed to its end",
        )?;
        let word = |id: u32| {
            if tokenizer.is_special(id) || end_ids.contains(&id) {
                // A special token is no text; the mark keeps it out of all of it.
                let name = tokenizer.piece(id).unwrap_or_default();
                [&[TokTrie::SPECIAL_TOKEN_MARKER][..], name.as_bytes()].concat()
            } else {
                tokenizer.piece_bytes(id)
            }
        };
        let words: Vec<Vec<u8>> = (0..limit).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(limit, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|error| error.to_string())?;
        factory.quiet();
        Ok(Grammars { factory: Arc::new(factory), end_ids: end_ids.into() })
    }

    /// What keeps a text to `shape`.
    ///
    /// # Errors
    /// If the schema or grammar can't be followed, with what is wrong with it.
    pub fn constrain(&self, shape: &Shape) -> Result<Constraint, String> {
        let grammar = match shape {
            Shape::JsonObject => {
                TopLevelGrammar::from_json_schema(concise(serde_json::json!({"type": "object"})))
            }
            Shape::Schema(schema) => TopLevelGrammar::from_json_schema(concise(schema.clone())),
            Shape::Lark(grammar) => TopLevelGrammar::from_lark(grammar.clone()),
            Shape::Regex(expression) => TopLevelGrammar::from_regex(expression),
        };
        let parser = self.factory.create_parser(grammar).map_err(|error| error.to_string())?;
        Ok(Constraint { matcher: Matcher::new(Ok(parser)), end_ids: self.end_ids.clone() })
    }
}

/// The schema with room for a space or an indented line between its parts, and no more: blanks without end are JSON too, and
/// models fall for them.
pub fn concise(mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        let blanks = serde_json::json!({"whitespace_pattern": r" |\n {0,16}"});
        schema.entry("x-guidance").or_insert(blanks);
    }
    schema
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

/// How far a text has come in its grammar.
pub struct Constraint {
    matcher: Matcher,
    end_ids: Arc<[u32]>,
}

impl Constraint {
    /// Forbids all tokens that can't go on.
    ///
    /// # Errors
    /// If the grammar is too costly to follow.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), String> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| error.to_string())?;
        let may_end = self.end_ids.iter().any(|&id| allowed.is_allowed(id));
        for (id, logit) in (0u32..).zip(logits.iter_mut()) {
            let is_end = self.end_ids.contains(&id);
            if !(if is_end { may_end } else { (id as usize) < allowed.len() && allowed.is_allowed(id) }) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Takes note of a token of the text.
    ///
    /// # Errors
    /// If the grammar does not allow it.
    pub fn accept(&mut self, id: u32) -> Result<(), String> {
        self.matcher.consume_token(id).map_err(|error| error.to_string())
    }

    /// Whether nothing may follow.
    pub fn is_done(&self) -> bool {
        self.matcher.is_stopped()
    }
}

impl Clone for Constraint {
    fn clone(&self) -> Constraint {
        Constraint { matcher: self.matcher.deep_clone(), end_ids: self.end_ids.clone() }
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}
