//! The text of a policy as it comes in a parameter.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};

use crate::refusal::Refusal;

/// As tools write it, and as lenient about the last bits as they are.
const ENCODED: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// What is meant: text that decodes as base64, line breaks aside, is taken for an encoded policy.
///
/// # Errors
/// It decodes to something that is no text.
pub(super) fn decoded(given: &str) -> Result<String, Refusal> {
    let dense: Vec<u8> = given.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let Ok(bytes) = ENCODED.decode(dense) else { return Ok(given.to_owned()) };
    String::from_utf8(bytes).map_err(|error| {
        let (good, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let good = String::from_utf8_lossy(good);
        // Where a stray byte makes the text wrong in another way, that is what is said.
        let text = String::from_utf8_lossy(error.as_bytes());
        keyward_policy::accept(&text).map_or_else(|error| Refusal::malformed(error.to_string()), |_| stray_byte(&good))
    })
}

/// The refusal of a byte that comes after `good`.
fn stray_byte(good: &str) -> Refusal {
    let line = 1 + good.matches('\n').count();
    let column = 1 + good.rsplit('\n').next().map_or(0, |last| last.chars().count());
    Refusal::malformed(format!("failed to parse policy: At {line}:{column}: illegal UTF-8 encoding"))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn texts_are_decoded_as_tools_encode_them() {
        for (given, text) in [
            ("IyBvaw==", "# ok"),
            ("Iy\nBv\r\naw==\n", "# ok"),
            ("IyB=", "# "),
            ("\n\n", ""),
            ("IyBvaw", "IyBvaw"),
            ("Iy Bvaw==", "Iy Bvaw=="),
            ("# plain", "# plain"),
        ] {
            assert_eq!(decoded(given), Ok(text.to_owned()), "{given:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        for (bytes, why) in [
            (&b"\xff\xfe\0"[..], "At 1:1: illegal char"),
            (b"# ok\n\xff", "At 2:1: illegal char"),
            (b"i\xb7\x1d", "At 1:2: illegal char"),
            (b"# \xff\n", "At 1:3: illegal UTF-8 encoding"),
            (b"path \"a\" {} # ok\n# \xff", "At 2:3: illegal UTF-8 encoding"),
            (b"path \"a\xff\" {}", "At 1:8: illegal UTF-8 encoding"),
        ] {
            let expected = Refusal::malformed(format!("failed to parse policy: {why}"));
            assert_eq!(decoded(&STANDARD.encode(bytes)), Err(expected), "{bytes:?}");
        }
    }
}
