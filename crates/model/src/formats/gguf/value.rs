//! Metadata values of a GGUF file: the thirteen kinds, and how Rust types are taken from them.
//!
//! Tools disagree about the kind of number a key holds (`u32`, `u64` and `i32` all occur for a layer count), so
//! [`FromValue`] accepts every integer kind whose value fits. Nothing here reads or writes bytes.

use std::fmt;

/// What a value is; the numbers of the variants are those of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are the format's own names
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    /// Every kind in the order of the numbers.
    pub const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// The number in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The kind with this number.
    pub fn from_id(id: u32) -> Option<Kind> {
        Kind::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The fewest bytes a value takes in a file: an empty string is its length, an empty array its kind and count.
    pub(super) fn least_bytes(self) -> u64 {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::String => 8,
            Kind::Array => 12,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::U8 => "u8",
            Kind::I8 => "i8",
            Kind::U16 => "u16",
            Kind::I16 => "i16",
            Kind::U32 => "u32",
            Kind::I32 => "i32",
            Kind::F32 => "f32",
            Kind::Bool => "bool",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::U64 => "u64",
            Kind::I64 => "i64",
            Kind::F64 => "f64",
        })
    }
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the variants are the format's own names
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A list of values of one kind; an empty list has a kind too. The items of `Nested` are lists themselves.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the variants are the format's own names
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Nested(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Array {
    /// The kind of the items.
    pub fn kind(&self) -> Kind {
        match self {
            Array::U8(_) => Kind::U8,
            Array::I8(_) => Kind::I8,
            Array::U16(_) => Kind::U16,
            Array::I16(_) => Kind::I16,
            Array::U32(_) => Kind::U32,
            Array::I32(_) => Kind::I32,
            Array::F32(_) => Kind::F32,
            Array::Bool(_) => Kind::Bool,
            Array::String(_) => Kind::String,
            Array::Nested(_) => Kind::Array,
            Array::U64(_) => Kind::U64,
            Array::I64(_) => Kind::I64,
            Array::F64(_) => Kind::F64,
        }
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(items) => items.len(),
            Array::I8(items) => items.len(),
            Array::U16(items) => items.len(),
            Array::I16(items) => items.len(),
            Array::U32(items) => items.len(),
            Array::I32(items) => items.len(),
            Array::F32(items) => items.len(),
            Array::Bool(items) => items.len(),
            Array::String(items) => items.len(),
            Array::Nested(items) => items.len(),
            Array::U64(items) => items.len(),
            Array::I64(items) => items.len(),
            Array::F64(items) => items.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items as whole numbers that fit `T`; `None` for other kinds or if one does not fit.
    fn integers<T: TryFrom<i128>>(&self) -> Option<Vec<T>> {
        fn fit<S: Copy + Into<i128>, T: TryFrom<i128>>(items: &[S]) -> Option<Vec<T>> {
            items.iter().map(|&item| T::try_from(item.into()).ok()).collect()
        }
        match self {
            Array::U8(items) => fit(items),
            Array::I8(items) => fit(items),
            Array::U16(items) => fit(items),
            Array::I16(items) => fit(items),
            Array::U32(items) => fit(items),
            Array::I32(items) => fit(items),
            Array::U64(items) => fit(items),
            Array::I64(items) => fit(items),
            Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) | Array::Nested(_) => None,
        }
    }
}

impl Value {
    /// What the value is.
    pub fn kind(&self) -> Kind {
        match self {
            Value::U8(_) => Kind::U8,
            Value::I8(_) => Kind::I8,
            Value::U16(_) => Kind::U16,
            Value::I16(_) => Kind::I16,
            Value::U32(_) => Kind::U32,
            Value::I32(_) => Kind::I32,
            Value::F32(_) => Kind::F32,
            Value::Bool(_) => Kind::Bool,
            Value::String(_) => Kind::String,
            Value::Array(_) => Kind::Array,
            Value::U64(_) => Kind::U64,
            Value::I64(_) => Kind::I64,
            Value::F64(_) => Kind::F64,
        }
    }

    /// The value as a whole number, if it is one of the integer kinds.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Value::U8(x) => Some((*x).into()),
            Value::I8(x) => Some((*x).into()),
            Value::U16(x) => Some((*x).into()),
            Value::I16(x) => Some((*x).into()),
            Value::U32(x) => Some((*x).into()),
            Value::I32(x) => Some((*x).into()),
            Value::U64(x) => Some((*x).into()),
            Value::I64(x) => Some((*x).into()),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    /// What the value is, in words for messages: kind, and number or length where that explains a refusal.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Array(array) => format!("an array of {} items of kind {}", array.len(), array.kind()),
            _ => match self.integer() {
                Some(number) => format!("{number} ({})", self.kind()),
                None => format!("of kind {}", self.kind()),
            },
        }
    }
}

/// A Rust type that can be taken from a metadata value.
pub trait FromValue<'a>: Sized {
    /// What is wanted, in words for messages.
    const WANTED: &'static str;

    /// The value as this type; `None` if it is another kind or does not fit.
    fn from_value(value: &'a Value) -> Option<Self>;
}

/// `FromValue` from a single kind.
macro_rules! taken_from {
    ($wanted:literal, $type:ty, $pattern:pat => $taken:expr) => {
        impl<'a> FromValue<'a> for $type {
            const WANTED: &'static str = $wanted;

            fn from_value(value: &'a Value) -> Option<Self> {
                match value {
                    $pattern => Some($taken),
                    _ => None,
                }
            }
        }
    };
}

taken_from!("true or false", bool, Value::Bool(x) => *x);
taken_from!("a string", &'a str, Value::String(x) => x.as_str());
taken_from!("an array", &'a Array, Value::Array(x) => x);
taken_from!("an array of strings", &'a [String], Value::Array(Array::String(x)) => x.as_slice());
taken_from!("an array of f32", &'a [f32], Value::Array(Array::F32(x)) => x.as_slice());
taken_from!("an array of bool", &'a [bool], Value::Array(Array::Bool(x)) => x.as_slice());

impl FromValue<'_> for f64 {
    const WANTED: &'static str = "a floating-point number";

    fn from_value(value: &Value) -> Option<f64> {
        match value {
            Value::F32(x) => Some((*x).into()),
            Value::F64(x) => Some(*x),
            _ => None,
        }
    }
}

impl FromValue<'_> for f32 {
    const WANTED: &'static str = f64::WANTED;

    fn from_value(value: &Value) -> Option<f32> {
        f64::from_value(value).map(|x| x as f32)
    }
}

/// `FromValue` for an integer type and for lists of it, from every integer kind that fits.
macro_rules! integers {
    ($($type:ty, $wanted:literal, $wanted_list:literal;)*) => {$(
        impl FromValue<'_> for $type {
            const WANTED: &'static str = $wanted;

            fn from_value(value: &Value) -> Option<Self> {
                value.integer()?.try_into().ok()
            }
        }

        impl FromValue<'_> for Vec<$type> {
            const WANTED: &'static str = $wanted_list;

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Array(array) => array.integers(),
                    _ => None,
                }
            }
        }
    )*};
}

integers! {
    u32, "a whole number from 0 to 2^32 - 1", "an array of whole numbers from 0 to 2^32 - 1";
    u64, "a whole number that is not negative", "an array of whole numbers that are not negative";
    usize, "a whole number that is not negative", "an array of whole numbers that are not negative";
    i32, "a whole number from -2^31 to 2^31 - 1", "an array of whole numbers from -2^31 to 2^31 - 1";
    i64, "a whole number", "an array of whole numbers";
}

/// `From` for a single value and for a list of it.
macro_rules! stored_as {
    ($($type:ty => $variant:ident;)*) => {$(
        impl From<$type> for Value {
            fn from(x: $type) -> Value {
                Value::$variant(x)
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(items: Vec<$type>) -> Value {
                Value::Array(Array::$variant(items))
            }
        }
    )*};
}

stored_as! {
    u8 => U8;
    i8 => I8;
    u16 => U16;
    i16 => I16;
    u32 => U32;
    i32 => I32;
    f32 => F32;
    bool => Bool;
    String => String;
    u64 => U64;
    i64 => I64;
    f64 => F64;
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_of_their_numbers() {
        for (id, kind) in (0..).zip(Kind::ALL) {
            assert_eq!(kind.id(), id);
            assert_eq!(Kind::from_id(id), Some(kind));
        }
        assert_eq!(Kind::from_id(13), None);
    }

    #[test]
    fn integers_are_taken_from_every_integer_kind_that_fits() {
        for value in [32u8.into(), 32i8.into(), 32u32.into(), 32i32.into(), 32u64.into(), 32i64.into()] {
            assert_eq!(usize::from_value(&value), Some(32), "{value:?}");
        }
        assert_eq!(u32::from_value(&Value::I32(-1)), None);
        assert_eq!(u32::from_value(&Value::U64(1 << 32)), None);
        assert_eq!(i64::from_value(&Value::U64(u64::MAX)), None);
        assert_eq!(u32::from_value(&Value::F32(1.0)), None);
        assert_eq!(Vec::<u32>::from_value(&vec![1i64, 2].into()), Some(vec![1, 2]));
        assert_eq!(Vec::<u32>::from_value(&vec![1i64, -2].into()), None);
        assert_eq!(Vec::<i64>::from_value(&vec![1.0f32].into()), None);
    }

    #[test]
    fn other_types_are_taken_from_their_own_kind_only() {
        assert_eq!(f32::from_value(&Value::F64(0.5)), Some(0.5));
        assert_eq!(f32::from_value(&Value::U8(1)), None);
        assert_eq!(bool::from_value(&Value::Bool(true)), Some(true));
        assert_eq!(bool::from_value(&Value::U8(1)), None);
        assert_eq!(<&str>::from_value(&"llama".into()), Some("llama"));
        assert_eq!(<&[f32]>::from_value(&vec![1.0f32].into()), Some(&[1.0][..]));
        assert_eq!(<&[String]>::from_value(&vec![1u8].into()), None);
    }
}
