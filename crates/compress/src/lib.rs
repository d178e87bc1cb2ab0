//! Techniques that make a model smaller or cheaper, one file a method.
