//! JSON policy text to the tree. Commas may trail, members may repeat; the text must be complete.

use super::DEPTH_MAX;
use super::node::{Item, Node, Value};

/// Reads JSON, an object at the top; with `null` in its lists or without. The error has line and column in front.
pub(super) fn parse(text: &str, takes_null: bool) -> Result<Vec<Item>, String> {
    let mut reader = Reader { text, takes_null, byte: 0, depth: 0, counted: (0, 1) };
    reader.blanks();
    let value = reader.value()?;
    reader.blanks();
    match value {
        Value::Object(items) if reader.byte == text.len() => Ok(items
            .into_iter()
            .flat_map(flatten)
            .map(|mut item| {
                if let Value::Object(inner) = &mut item.value.value {
                    *inner = std::mem::take(inner).into_iter().flat_map(flatten).collect();
                }
                item
            })
            .collect()),
        _ => Err(reader.wrong("expected nothing after the policy's closing brace")),
    }
}

/// Turns objects that hold only objects into labels, as far down as that goes: the member `"path":{"a":{…}}` becomes the
/// block `path "a" {…}`. A list of objects becomes one item for each.
fn flatten(item: Item) -> Vec<Item> {
    let mut out = Vec::new();
    let mut queue = vec![item];
    while let Some(item) = queue.pop() {
        let Item { keys, line, value } = item;
        match value.value {
            Value::Object(items) if !items.is_empty() && items.iter().all(|item| is_object(&item.value)) => {
                queue.extend(items.into_iter().rev().map(|inner| {
                    let keys = keys.iter().cloned().chain(inner.keys).collect();
                    Item { keys, line, value: inner.value }
                }));
            }
            Value::List(nodes) if !nodes.is_empty() && nodes.iter().all(is_object) => {
                queue.extend(nodes.into_iter().rev().map(|value| Item { keys: keys.clone(), line, value }));
            }
            other => out.push(Item { keys, line, value: Node { at: value.at, value: other } }),
        }
    }
    out
}

fn is_object(node: &Node) -> bool {
    matches!(node.value, Value::Object(_))
}

struct Reader<'a> {
    text: &'a str,
    takes_null: bool,
    byte: usize,
    depth: usize,
    /// A place behind us, and the line it is in.
    counted: (usize, u32),
}

impl<'a> Reader<'a> {
    fn value(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.list(),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z') => match self.take_while(|b| b.is_ascii_alphanumeric()) {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                "null" => Ok(Value::Null),
                _ => Err(self.wrong("unknown word")),
            },
            _ => Err(self.wrong("expected a value")),
        }
    }

    fn object(&mut self) -> Result<Value, String> {
        self.open()?;
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.eat(b'}') {
                self.depth -= 1;
                return Ok(Value::Object(items));
            }
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a member name or '}'"));
            }
            let key = self.string()?;
            self.blanks();
            let line = self.line();
            if !self.eat(b':') {
                return Err(self.wrong("expected ':'"));
            }
            self.blanks();
            let value = Node { at: None, value: self.value()? };
            items.push(Item { keys: vec![key], line, value });
            self.blanks();
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return Err(self.wrong("expected ',' or '}'"));
            }
        }
    }

    fn list(&mut self) -> Result<Value, String> {
        self.open()?;
        let mut nodes = Vec::new();
        loop {
            self.blanks();
            if self.eat(b']') {
                self.depth -= 1;
                return Ok(Value::List(nodes));
            }
            let value = self.value()?;
            if matches!(value, Value::Null) && !self.takes_null {
                return Err("unexpected token while parsing list: NULL".to_owned());
            }
            nodes.push(Node { at: None, value });
            self.blanks();
            if !self.eat(b',') && self.peek() != Some(b']') {
                return Err(self.wrong("expected ',' or ']'"));
            }
        }
    }

    fn open(&mut self) -> Result<(), String> {
        self.byte += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.wrong(&format!("nested deeper than {DEPTH_MAX}"))) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, String> {
        let start = self.byte;
        self.byte += 1;
        loop {
            match self.peek() {
                None => return Err(self.wrong("literal not terminated")),
                Some(b'"') => break,
                Some(b'\\') => self.byte += 2,
                Some(_) => self.byte += 1,
            }
        }
        self.byte += 1;
        let token = self.text.get(start..self.byte).unwrap_or_default();
        let parsed = serde_json::from_str(token).ok();
        parsed.ok_or_else(|| self.wrong("illegal character or escape in string"))
    }

    fn number(&mut self) -> Result<Value, String> {
        let token = self.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.'));
        if serde_json::from_str::<serde_json::Number>(token).is_err() {
            return Err(self.wrong("illegal number"));
        }
        let whole = !token.contains(['.', 'e', 'E']);
        Ok(if whole { Value::Number(token.to_owned()) } else { Value::Float(token.to_owned()) })
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let start = self.byte;
        while self.peek().is_some_and(&wanted) {
            self.byte += 1;
        }
        self.text.get(start..self.byte).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.byte).copied()
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let there = self.peek() == Some(wanted);
        self.byte += usize::from(there);
        there
    }

    fn blanks(&mut self) {
        self.take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// The line we are in, counted on from where we last counted, so that asking often stays cheap.
    fn line(&mut self) -> u32 {
        let (from, line) = self.counted;
        let passed = self.text.as_bytes().get(from..self.byte).unwrap_or_default();
        let ends = passed.iter().filter(|b| **b == b'\n').count();
        self.counted = (self.byte, line + u32::try_from(ends).unwrap_or(0));
        self.counted.1
    }

    fn wrong(&mut self, message: &str) -> String {
        let read = self.text.as_bytes().get(..self.byte).unwrap_or(self.text.as_bytes());
        let line = read.rsplit(|b| *b == b'\n').next().unwrap_or_default();
        let column = String::from_utf8_lossy(line).chars().count() + 1;
        let end = if self.peek().is_none() { ", but the text ends" } else { "" };
        format!("At {}:{column}: {message}{end}", self.line())
    }
}
