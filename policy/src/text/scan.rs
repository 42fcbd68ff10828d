//! Characters to tokens of HCL version 1, with positions counted as its scanner counts them.

use std::fmt;

use super::literal::unquote;
use super::node::Position;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Illegal,
    Eof,
    Comment,
    Ident,
    Number,
    Float,
    Bool,
    Text,
    Heredoc,
    OpenBracket,
    OpenBrace,
    Comma,
    Period,
    CloseBracket,
    CloseBrace,
    Assign,
    Add,
    Sub,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Illegal => "ILLEGAL",
            Self::Eof => "EOF",
            Self::Comment => "COMMENT",
            Self::Ident => "IDENT",
            Self::Number => "NUMBER",
            Self::Float => "FLOAT",
            Self::Bool => "BOOL",
            Self::Text => "STRING",
            Self::Heredoc => "HEREDOC",
            Self::OpenBracket => "LBRACK",
            Self::OpenBrace => "LBRACE",
            Self::Comma => "COMMA",
            Self::Period => "PERIOD",
            Self::CloseBracket => "RBRACK",
            Self::CloseBrace => "RBRACE",
            Self::Assign => "ASSIGN",
            Self::Add => "ADD",
            Self::Sub => "SUB",
        })
    }
}

/// One token: what it is, where it begins, and its characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) at: Position,
    pub(super) text: &'a str,
}

/// A place in the text with what is needed to say it in lines and columns.
#[derive(Clone, Copy)]
struct Cursor {
    byte: usize,
    line: u32,
    /// Characters read of this line; 0 right after a line feed.
    column: u32,
    /// Length of the line before, its line feed included.
    line_before: u32,
}

pub(super) struct Scanner<'a> {
    text: &'a str,
    now: Cursor,
    before: Cursor,
    /// The last complaint. Scanning goes on after one; the last one is what is reported.
    error: Option<String>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let start = Cursor { byte: 0, line: 1, column: 0, line_before: 0 };
        Self { text, now: start, before: start, error: None }
    }

    /// What was wrong with the characters so far, if anything.
    pub(super) fn take_error(&mut self) -> Option<String> {
        self.error.take()
    }

    /// The next token, comments included. At the end it is [`Kind::Eof`] again and again.
    pub(super) fn token(&mut self) -> Token<'a> {
        let mut first = self.next();
        while matches!(first, Some(' ' | '\t' | '\n' | '\r')) {
            first = self.next();
        }
        let at = self.position();
        let start = self.now.byte - first.map_or(0, char::len_utf8);
        let kind = match first {
            None => Kind::Eof,
            Some(c) if is_letter(c) => {
                self.skip_while(|c| is_letter(c) || is_digit(c) || matches!(c, '-' | '.'));
                if matches!(self.since(start), "true" | "false") { Kind::Bool } else { Kind::Ident }
            }
            Some(c) if c.is_ascii_digit() => self.number(c),
            Some('"') => {
                self.string();
                if self.error.is_none() && unquote(self.since(start)).is_none() {
                    self.complain("illegal char escape"); // well formed, but of no Unicode text
                }
                Kind::Text
            }
            Some(c @ ('#' | '/')) => {
                self.comment(c);
                Kind::Comment
            }
            Some('.') if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.skip_while(|c| c.is_ascii_digit());
                self.exponent();
                Kind::Float
            }
            Some('-') if self.peek().is_some_and(|c| c.is_ascii_digit()) => match self.next() {
                Some(digit) => self.number(digit),
                None => Kind::Sub,
            },
            Some('<') => {
                self.heredoc();
                Kind::Heredoc
            }
            Some('.') => Kind::Period,
            Some('[') => Kind::OpenBracket,
            Some(']') => Kind::CloseBracket,
            Some('{') => Kind::OpenBrace,
            Some('}') => Kind::CloseBrace,
            Some(',') => Kind::Comma,
            Some('=') => Kind::Assign,
            Some('+') => Kind::Add,
            Some('-') => Kind::Sub,
            Some(_) => {
                self.complain("illegal char");
                Kind::Illegal
            }
        };
        Token { kind, at, text: self.since(start) }
    }

    fn next(&mut self) -> Option<char> {
        let Some(c) = self.peek() else {
            self.now.column += 1; // the end counts as a character
            return None;
        };
        self.before = self.now;
        self.now.byte += c.len_utf8();
        self.now.column += 1;
        match c {
            '\n' => {
                self.now.line += 1;
                self.now.line_before = self.now.column;
                self.now.column = 0;
            }
            '\0' => {
                self.complain("unexpected null character (0x00)");
                return None;
            }
            _ => {}
        }
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.now.byte..)?.chars().next()
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.now.byte).unwrap_or_default()
    }

    /// Where the last character read stands.
    fn position(&self) -> Position {
        match self.now.column {
            0 => Position { line: self.now.line.saturating_sub(1).max(1), column: self.now.line_before.max(1) },
            column => Position { line: self.now.line, column },
        }
    }

    fn complain(&mut self, message: &str) {
        self.error = Some(format!("At {}: {message}", self.position()));
    }

    /// Reads on while `wanted`, leaving the first other character unread.
    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while let Some(c) = self.next() {
            if !wanted(c) {
                self.now = self.before;
                return;
            }
        }
    }

    fn number(&mut self, first: char) -> Kind {
        if first == '0' && matches!(self.peek(), Some('x' | 'X')) {
            self.next();
            let start = self.now.byte;
            self.skip_while(|c| c.is_ascii_hexdigit());
            if self.since(start).is_empty() {
                self.next();
                self.complain("illegal hexadecimal number");
            }
            return Kind::Number;
        }
        self.skip_while(|c| c.is_ascii_digit());
        let fraction = self.peek() == Some('.');
        if fraction {
            self.next();
            self.skip_while(|c| c.is_ascii_digit());
        }
        if self.exponent() || fraction { Kind::Float } else { Kind::Number }
    }

    fn exponent(&mut self) -> bool {
        if !matches!(self.peek(), Some('e' | 'E')) {
            return false;
        }
        self.next();
        if matches!(self.peek(), Some('+' | '-')) {
            self.next();
        }
        self.skip_while(|c| c.is_ascii_digit());
        true
    }

    fn comment(&mut self, first: char) {
        if first == '#' || self.peek() == Some('/') {
            return self.skip_while(|c| c != '\n');
        }
        if self.peek() != Some('*') {
            return self.complain("expected '/' for comment");
        }
        self.next();
        let mut star = false;
        loop {
            match self.next() {
                None => return self.complain("comment not terminated"),
                Some('/') if star => return,
                Some(c) => star = c == '*',
            }
        }
    }

    /// The rest of a string after its opening quote. Inside `${…}` quotes and line ends are text.
    fn string(&mut self) {
        let mut braces = 0u32;
        loop {
            match self.next() {
                None => return self.complain("literal not terminated"),
                Some('\n') if braces == 0 => return self.complain("literal not terminated"),
                Some('"') if braces == 0 => return,
                Some('$') if braces == 0 && self.peek() == Some('{') => {
                    self.next();
                    braces = 1;
                }
                Some('{') if braces > 0 => braces += 1,
                Some('}') if braces > 0 => braces -= 1,
                Some('\\') => self.escape(),
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self) {
        let (digits, base) = match self.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"') => return,
            Some('0'..='7') => (2, 8),
            Some('x') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            _ => return self.complain("illegal char escape"),
        };
        for _ in 0..digits {
            if !self.peek().is_some_and(|c| c.is_digit(base)) {
                self.next();
                return self.complain("illegal char escape");
            }
            self.next();
        }
    }

    /// The rest of `<<WORD`, lines, and a line of only `WORD`.
    fn heredoc(&mut self) {
        if self.next() != Some('<') {
            return self.complain("heredoc expected second '<', didn't see it");
        }
        if self.peek() == Some('-') {
            self.next();
        }
        let start = self.now.byte;
        self.skip_while(|c| is_letter(c) || is_digit(c));
        let anchor = self.since(start);
        if self.peek() == Some('\r') {
            self.next();
        }
        if self.peek().is_none() {
            return self.complain("heredoc not terminated"); // the end has been counted already
        }
        match self.next() {
            None => return self.complain("heredoc not terminated"),
            Some('\n') if anchor.is_empty() => return self.complain("zero-length heredoc anchor"),
            Some('\n') => {}
            Some(_) => return self.complain("invalid characters in heredoc anchor"),
        }
        let mut line = self.now.byte;
        loop {
            match self.next() {
                None => return self.complain("heredoc not terminated"),
                Some('\n') if self.since(line).trim() == anchor => return,
                Some('\n') => line = self.now.byte,
                Some(_) => {}
            }
        }
    }
}

fn is_letter(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}
