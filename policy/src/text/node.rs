//! The tree that both forms of policy text are read into.

use std::fmt;

/// A place in the text: line and column, both from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// `keys… = value`, or the block `keys… { value }`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Item {
    /// The key and, for a block, its labels.
    pub(super) keys: Vec<String>,
    /// Line of the `=` (in JSON of the `:`); 0 for a block.
    pub(super) line: u32,
    pub(super) value: Node,
}

/// A value and where it stands; JSON values have no place.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    pub(super) at: Option<Position>,
    pub(super) value: Value,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Text(String),
    /// A whole number as written: decimal, `0x`, or octal with a leading 0.
    Number(String),
    /// A number with a fraction or an exponent, as written.
    Float(String),
    Bool(bool),
    Null,
    List(Vec<Node>),
    Object(Vec<Item>),
}

impl Node {
    /// `message` with the place of this node in front.
    pub(super) fn error(&self, message: &str) -> String {
        match self.at {
            Some(at) => format!("At {at}: {message}"),
            None => format!("At -: {message}"),
        }
    }

    /// What clients know this kind of value as.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::List(_) => "*ast.ListType",
            Value::Object(_) => "*ast.ObjectType",
            Value::Text(_) | Value::Number(_) | Value::Float(_) | Value::Bool(_) | Value::Null => "*ast.LiteralType",
        }
    }
}
