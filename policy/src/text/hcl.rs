//! Tokens of HCL version 1 to the tree.

use super::DEPTH_MAX;
use super::literal::{heredoc_text, unquote};
use super::node::{Item, Node, Position, Value};
use super::scan::{Kind, Scanner, Token};

/// Reads HCL. The error has line and column in front.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, String> {
    let mut scanner = Scanner::new(text);
    let token = Token { kind: Kind::Eof, at: Position { line: 1, column: 1 }, text: "" };
    let mut parser = Parser { scanner: &mut scanner, token, buffered: false, depth: 0 };
    let items = parser.items(Inside::File);
    match (scanner.take_error(), items) {
        (Some(error), _) | (None, Err(Stop::Wrong(error))) => Err(error),
        (None, Err(Stop::Ended)) => Ok(Vec::new()),
        (None, Ok(items)) => Ok(items),
    }
}

/// Why reading stops.
enum Stop {
    /// The text ended where an item could have begun, or right after a `=`.
    Ended,
    Wrong(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    File,
    Braces,
}

struct Parser<'s, 'a> {
    scanner: &'s mut Scanner<'a>,
    /// The token last read; read once more if `buffered`.
    token: Token<'a>,
    buffered: bool,
    depth: usize,
}

impl<'a> Parser<'_, 'a> {
    fn read(&mut self) -> Token<'a> {
        if !std::mem::take(&mut self.buffered) {
            self.token = self.scanner.token();
            while self.token.kind == Kind::Comment {
                self.token = self.scanner.token();
            }
        }
        self.token
    }

    fn look(&mut self) -> Kind {
        let kind = self.read().kind;
        self.buffered = true;
        kind
    }

    fn wrong<T>(&self, message: &str) -> Result<T, Stop> {
        Err(Stop::Wrong(format!("At {}: {message}", self.token.at)))
    }

    fn items(&mut self, inside: Inside) -> Result<Vec<Item>, Stop> {
        let mut items = Vec::new();
        loop {
            if inside == Inside::Braces && self.look() == Kind::CloseBrace {
                return Ok(items);
            }
            match self.item() {
                Ok(item) => items.push(item),
                Err(Stop::Ended) => return Ok(items),
                Err(wrong) => return Err(wrong),
            }
            if self.look() == Kind::Comma {
                self.read();
            }
        }
    }

    fn item(&mut self) -> Result<Item, Stop> {
        let mut keys = Vec::new();
        let mut written = Vec::new();
        loop {
            let token = self.read();
            match token.kind {
                Kind::Ident => keys.push(token.text.to_owned()),
                // The scanner has complained of a string that cannot be unquoted, and its complaint is what is reported.
                Kind::Text => keys.push(unquote(token.text).unwrap_or_default()),
                Kind::Eof if keys.is_empty() => return Err(Stop::Ended),
                Kind::Eof | Kind::CloseBrace if !keys.is_empty() => {
                    let keys = written.join(" ");
                    return self.wrong(&format!("key '{keys}' expected start of object ('{{') or assignment ('=')"));
                }
                Kind::Assign if keys.is_empty() => return self.wrong("no object keys found!"),
                Kind::Assign if keys.len() > 1 => return self.wrong("nested object expected: LBRACE got: ASSIGN"),
                Kind::Assign => {
                    let line = token.at.line;
                    return Ok(Item { keys, line, value: self.value()? });
                }
                Kind::OpenBrace if keys.is_empty() => return self.wrong("expected: IDENT | STRING got: LBRACE"),
                Kind::OpenBrace => return Ok(Item { keys, line: 0, value: self.object()? }),
                Kind::Illegal => return self.wrong("illegal character"),
                other => return self.wrong(&format!("expected: IDENT | STRING | ASSIGN | LBRACE got: {other}")),
            }
            written.push(token.text);
        }
    }

    fn value(&mut self) -> Result<Node, Stop> {
        let token = self.read();
        match token.kind {
            Kind::OpenBrace => self.object(),
            Kind::OpenBracket => self.list(),
            Kind::Eof => Err(Stop::Ended),
            _ => match self.literal() {
                Some(node) => Ok(node),
                None => self.wrong(&format!("Unknown token: {} {} {}", token.at, token.kind, token.text)),
            },
        }
    }

    /// The current token as a value, if it is one.
    fn literal(&self) -> Option<Node> {
        let token = self.token;
        let value = match token.kind {
            Kind::Number => Value::Number(token.text.to_owned()),
            Kind::Float => Value::Float(token.text.to_owned()),
            Kind::Bool => Value::Bool(token.text == "true"),
            Kind::Heredoc => Value::Text(heredoc_text(token.text)),
            Kind::Text => Value::Text(unquote(token.text).unwrap_or_default()),
            _ => return None,
        };
        Some(Node { at: Some(token.at), value })
    }

    fn object(&mut self) -> Result<Node, Stop> {
        let at = self.token.at;
        self.deeper()?;
        let items = self.items(Inside::Braces)?;
        match self.read().kind {
            Kind::CloseBrace => {
                self.depth -= 1;
                Ok(Node { at: Some(at), value: Value::Object(items) })
            }
            other => self.wrong(&format!("object expected closing RBRACE got: {other}")),
        }
    }

    fn list(&mut self) -> Result<Node, Stop> {
        let at = self.token.at;
        self.deeper()?;
        let mut nodes = Vec::new();
        let mut comma_due = false;
        loop {
            let token = self.read();
            let node = match token.kind {
                Kind::CloseBracket => {
                    self.depth -= 1;
                    return Ok(Node { at: Some(at), value: Value::List(nodes) });
                }
                Kind::Comma => {
                    comma_due = false;
                    continue;
                }
                other if comma_due => {
                    return self.wrong(&format!("error parsing list, expected comma or list end, got: {other}"));
                }
                Kind::OpenBrace => self.object().map_err(|stop| within("object", token.at, stop))?,
                Kind::OpenBracket => self.list().map_err(|stop| within("list", token.at, stop))?,
                other => match self.literal() {
                    Some(node) => node,
                    None => return self.wrong(&format!("unexpected token while parsing list: {other}")),
                },
            };
            nodes.push(node);
            comma_due = true;
        }
    }

    fn deeper(&mut self) -> Result<(), Stop> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.wrong(&format!("nested deeper than {DEPTH_MAX}"));
        }
        Ok(())
    }
}

/// Says that `stop` happened inside a list. Depth is bounded, and with it the length of the message.
fn within(what: &str, at: Position, stop: Stop) -> Stop {
    match stop {
        Stop::Ended => Stop::Ended,
        Stop::Wrong(message) => {
            Stop::Wrong(format!("At {at}: error while trying to parse {what} within list: {message}"))
        }
    }
}
