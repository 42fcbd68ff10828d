//! Answers, read as far as needed: the status, and where the body ends.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

const HEADERS_MAX: usize = 64;
/// No answer of a benchmark is longer.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 16 << 10;

/// Reads answers from one connection, one after the other.
pub(crate) struct Reader {
    bytes: Vec<u8>,
    filled: usize,
}

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// Bytes of the body, without the framing of chunks.
    pub(crate) body_bytes: usize,
    /// Whether the server closes the connection now.
    pub(crate) last: bool,
}

impl Reader {
    /// With a buffer, without an answer.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; READ_BYTES], filled: 0 }
    }

    /// Reads one whole answer. No requests are pipelined, so nothing follows it.
    ///
    /// # Errors
    /// The connection ends or breaks, or the bytes are no HTTP/1.1 answer with a known length.
    pub(crate) async fn next(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
        self.filled = 0;
        loop {
            if self.filled == self.bytes.len() {
                if self.filled >= ANSWER_BYTES_MAX {
                    return Err(invalid("an answer of more than 64 MiB"));
                }
                self.bytes.resize(self.filled * 2, 0);
            }
            let read = stream.read(&mut self.bytes[self.filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += read;
            if let Some((answer, end)) = parse(&self.bytes[..self.filled])? {
                return if end == self.filled { Ok(answer) } else { Err(invalid("bytes after the answer")) };
            }
        }
    }
}

/// The answer and where it ends; `None` if it has not all come yet.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let start = match head.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(&format!("no HTTP answer: {error}"))),
    };
    let status = head.code.unwrap_or_default();
    let mut length = None;
    let (mut chunked, mut last) = (false, false);
    for header in head.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse::<usize>().ok());
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = header.value.eq_ignore_ascii_case(b"chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            last = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    if matches!(status, 204 | 304) {
        length = Some(0);
    }
    if chunked {
        let end = chunks(&bytes[start..])?;
        return Ok(end.map(|(body_bytes, taken)| (Answer { status, body_bytes, last }, start + taken)));
    }
    let Some(length) = length else { return Err(invalid("an answer without a length")) };
    let end = start.saturating_add(length);
    Ok((bytes.len() >= end).then_some((Answer { status, body_bytes: length, last }, end)))
}

/// The bytes of a chunked body, and those it takes on the wire; `None` if it has not all come yet.
fn chunks(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let (mut body, mut at) = (0_usize, 0_usize);
    loop {
        let Some(rest) = bytes.get(at..) else { return Ok(None) };
        let (taken, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(invalid("a chunk without a size")),
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= ANSWER_BYTES_MAX);
        let Some(size) = size else { return Err(invalid("a chunk that is too large")) };
        // The line end after the chunk; after the last one, that of the (empty) trailers.
        at += taken + size + 2;
        body += size;
        if size == 0 {
            return Ok((bytes.len() >= at).then_some((body, at)));
        }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
    const EMPTY: &[u8] = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

    #[test]
    fn whole_answers_end_where_they_end_and_no_part_of_one_does() {
        for (bytes, status, body_bytes, last) in
            [(PLAIN, 200, 5, false), (CHUNKED, 404, 6, false), (EMPTY, 204, 0, true)]
        {
            assert_eq!(parse(bytes).unwrap(), Some((Answer { status, body_bytes, last }, bytes.len())));
            for part in 0..bytes.len() {
                assert_eq!(parse(&bytes[..part]).unwrap(), None, "{part}");
            }
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse(b"SSH-2.0-x\r\n").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            answer.extend(&bytes);
            parse(&answer).ok();
            parse(&bytes).ok();
        }
    }
}
