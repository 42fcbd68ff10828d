//! The nodes of a JSON text in one flat list: for the few operations that must look inside a value.
//!
//! Nothing here recurses, so ten thousand levels cost heap, not stack.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::raw::{Kind, scalar_end, string_end};
use super::text::{decode, write_string};

/// A node of a [`Tape`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeId(u32);

struct Node {
    start: u32,
    end: u32,
    /// The node after this one and all that is inside it.
    next: u32,
}

/// The nodes of one JSON value, outermost first.
pub struct Tape<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
}

impl<'a> Tape<'a> {
    /// The outermost node.
    pub const ROOT: NodeId = NodeId(0);

    /// Lists the nodes of `bytes`, which should be one well-formed value (not necessarily UTF-8 within strings).
    /// `None` if brackets do not match, there is not exactly one value, or it is longer than 4 GiB.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let start = at;
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' => {
                    at += 1;
                    continue;
                }
                b'}' | b']' => {
                    at += 1;
                    let next = u32::try_from(nodes.len()).ok()?;
                    let node = nodes.get_mut(open.pop()?)?;
                    node.end = u32::try_from(at).ok()?;
                    node.next = next;
                    continue;
                }
                b'{' | b'[' => {
                    open.push(nodes.len());
                    at += 1;
                }
                b'"' => at = string_end(bytes, at),
                _ => at = scalar_end(bytes, at),
            }
            let next = u32::try_from(nodes.len() + 1).ok()?;
            nodes.push(Node { start: u32::try_from(start).ok()?, end: u32::try_from(at).ok()?, next });
        }
        let whole = nodes.first()?.next as usize == nodes.len() && open.is_empty();
        whole.then_some(Self { bytes, nodes })
    }

    /// The text of a node.
    pub fn text(&self, node: NodeId) -> &'a [u8] {
        self.nodes
            .get(node.0 as usize)
            .and_then(|node| self.bytes.get(node.start as usize..node.end as usize))
            .unwrap_or_default()
    }

    /// What a node is.
    pub fn kind(&self, node: NodeId) -> Kind {
        match self.text(node).first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// The items of an array.
    pub fn items(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let end = self.nodes.get(node.0 as usize).map_or(0, |node| node.next);
        let mut at = node.0 + 1;
        std::iter::from_fn(move || {
            let this = (at < end).then_some(at)?;
            at = self.nodes.get(this as usize)?.next;
            Some(NodeId(this))
        })
    }

    /// The members of an object: the node of the name, and the value.
    pub fn members(&self, node: NodeId) -> impl Iterator<Item = (NodeId, NodeId)> {
        let mut items = self.items(node);
        std::iter::from_fn(move || Some((items.next()?, items.next()?)))
    }

    /// What a string node says.
    pub fn string(&self, node: NodeId) -> Cow<'a, str> {
        let text = self.text(node);
        decode(text.get(1..text.len().saturating_sub(1)).unwrap_or_default())
    }
}

/// Writes a value anew in Go's way: names sorted, of several equal ones the last, no blanks, replacement characters
/// for what is not text. Numbers keep their text.
pub(super) fn normalise(bytes: &[u8]) -> Option<String> {
    enum Step {
        Text(&'static str),
        Name(String),
        Value(NodeId),
    }
    let tape = Tape::new(bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    let mut todo = vec![Step::Value(Tape::ROOT)];
    while let Some(step) = todo.pop() {
        let node = match step {
            Step::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                continue;
            }
            Step::Name(name) => {
                write_string(&mut out, &name);
                out.push(b':');
                continue;
            }
            Step::Value(node) => node,
        };
        let from = todo.len();
        match tape.kind(node) {
            Kind::Object => {
                let members: BTreeMap<_, _> =
                    tape.members(node).map(|(name, value)| (tape.string(name).into_owned(), value)).collect();
                todo.push(Step::Text("{"));
                for (i, (name, value)) in members.into_iter().enumerate() {
                    todo.extend([Step::Text(if i == 0 { "" } else { "," }), Step::Name(name), Step::Value(value)]);
                }
                todo.push(Step::Text("}"));
            }
            Kind::Array => {
                todo.push(Step::Text("["));
                for (i, item) in tape.items(node).enumerate() {
                    todo.extend([Step::Text(if i == 0 { "" } else { "," }), Step::Value(item)]);
                }
                todo.push(Step::Text("]"));
            }
            Kind::String => write_string(&mut out, &tape.string(node)),
            Kind::Null | Kind::Bool | Kind::Number => out.extend_from_slice(tape.text(node)),
        }
        if let Some(new) = todo.get_mut(from..) {
            new.reverse();
        }
    }
    String::from_utf8(out).ok()
}
