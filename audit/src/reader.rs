//! Splitting a segment into lines, in bounded memory, however damaged it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The longest line that is read as one, in bytes; the longest record is far shorter.
const LINE_BYTES_MAX: usize = 64 << 10;

const BUFFER_BYTES: usize = 4 * LINE_BYTES_MAX;

/// What stands next in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token<'a> {
    /// A line that ended with a newline (not part of it) and holds no zero byte.
    Line(&'a [u8]),
    /// Bytes that a zero byte or the end of the file cuts off, or too many to be a line.
    Unfinished(&'a [u8]),
    /// Zero bytes with something behind them. Zeros at the end of the file are nothing.
    Hole,
}

/// Reads tokens from a file.
pub(crate) struct Reader<R = File> {
    file: R,
    buffer: Vec<u8>,
    /// The bytes of the buffer that are still to be read.
    from: usize,
    to: usize,
    /// Offset of `from` in the file.
    at: u64,
    ended: bool,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(file: R) -> Self {
        Self { file, buffer: vec![0; BUFFER_BYTES], from: 0, to: 0, at: 0, ended: false }
    }

    /// The offset behind the last token, in bytes.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// The next token and its offset; `None` at the end.
    pub(crate) fn token(&mut self) -> io::Result<Option<(u64, Token<'_>)>> {
        let start = self.at;
        loop {
            let zeros = self.buffer[self.from..self.to].iter().take_while(|&&b| b == 0).count();
            self.skip(zeros);
            if self.from < self.to {
                break;
            }
            if !self.more()? {
                return Ok(None);
            }
        }
        if self.at > start {
            return Ok(Some((start, Token::Hole)));
        }
        let mut seen = 0;
        loop {
            let rest = &self.buffer[self.from..self.to];
            if let Some(n) = memchr::memchr2(b'\n', 0, &rest[seen..]) {
                let length = seen + n;
                let finished = rest[length] == b'\n';
                let from = self.from;
                self.skip(length + usize::from(finished));
                let bytes = &self.buffer[from..from + length];
                return Ok(Some((start, if finished { Token::Line(bytes) } else { Token::Unfinished(bytes) })));
            }
            seen = rest.len();
            if seen > LINE_BYTES_MAX || !self.more()? {
                let from = self.from;
                self.skip(seen);
                return Ok(Some((start, Token::Unfinished(&self.buffer[from..from + seen]))));
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.from += bytes;
        self.at += bytes as u64;
    }

    /// Reads more behind what is there; `false` at the end of the file.
    fn more(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.from..self.to, 0);
        self.to -= self.from;
        self.from = 0;
        while !self.ended {
            match self.file.read(&mut self.buffer[self.to..]) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    self.to += n;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}
