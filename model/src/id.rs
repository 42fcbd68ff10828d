//! 128-bit identifiers that are drawn at random and never reused.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Entropy;

/// A 128-bit identifier: of a mount, a secret, a node, a request. Drawn at random, so two never meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(pub [u8; 16]);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Id {
    /// The all-zero id: the place of things that belong to no parent.
    pub const ZERO: Self = Self([0; 16]);

    /// A fresh id.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// The id in the shape of a UUID (`8-4-4-4-12` hex digits, no version bits), as Vault prints its ids.
    pub fn to_uuid(self) -> String {
        let mut out = String::with_capacity(36);
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                out.push('-');
            }
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
        out
    }

    /// Appends what [`Id::to_uuid`] returns, without an allocation of its own.
    pub fn write_uuid(self, out: &mut Vec<u8>) {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                out.push(b'-');
            }
            for nibble in [byte >> 4, byte & 15] {
                out.push(HEX[usize::from(nibble)]);
            }
        }
    }

    /// Reads what [`Id::to_uuid`] wrote; `None` if `text` is anything else.
    pub fn from_uuid(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0u8; 16];
        let mut at = 0;
        for (i, c) in text.bytes().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            let nibble = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'f' => c - b'a' + 10,
                _ => return None,
            };
            bytes[at / 2] = bytes[at / 2] << 4 | nibble;
            at += 1;
        }
        Some(Self(bytes))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_uuid())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_uuid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_goes_both_ways() {
        let id = Id([0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(id.to_uuid(), "ab010203-0405-0607-0809-0a0b0c0d0eff");
        assert_eq!(Id::from_uuid(&id.to_uuid()), Some(id));
        for bad in ["", "ab010203-0405-0607-0809-0a0b0c0d0efg", "ab010203+0405-0607-0809-0a0b0c0d0eff"] {
            assert_eq!(Id::from_uuid(bad), None);
        }
    }
}
