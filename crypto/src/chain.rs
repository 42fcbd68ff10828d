//! The hash chain of an audit stream: each hash covers the one before, so no event can be cut out or changed alone.

use sha2::{Digest, Sha256};

/// The hash before the first event of the stream: `SHA-256("keyward:audit:genesis:v1" 00 stream)`.
pub fn genesis(stream: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"keyward:audit:genesis:v1\0");
    hash.update(stream.as_bytes());
    hash.finalize().into()
}

/// The hash of the next event: `SHA-256("keyward:audit:event:v1" 00 prev event)`.
///
/// `event` is the canonical JSON (RFC 8785) of the event without its `hash` and `prev`, in as many slices as are at
/// hand; how it is cut makes no difference.
pub fn next(prev: &[u8; 32], event: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"keyward:audit:event:v1\0");
    hash.update(prev);
    for part in event {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let start = genesis("n1-0001");
        assert_eq!(hex::encode(start), "ee1de7185bcd1060081f62db8ce84a3df91310a7da3eda3139ada872355ad099");
        let event: &[u8] = br#"{"decision":"PERMIT","event":"SECRET_PERMIT","seq":1,"stream":"n1-0001","v":1}"#;
        let expected = "227e7a9f34cbd5e19f052fe67dbaecb766f4b2957cbd16bea6939d6ad81a8012";
        assert_eq!(hex::encode(next(&start, &[event])), expected);
        assert_eq!(hex::encode(next(&start, &[&event[..7], &[], &event[7..]])), expected);
    }
}
