//! A value in the forms in which it can leave its place: as it is, encoded, escaped, turned around.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The forms of a value, each with its name. `value` should have 16 bytes at least, or chance will find it everywhere.
pub fn forms(value: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![
        ("plain", value.to_vec()),
        ("reversed", value.iter().rev().copied().collect()),
        ("hex", hex::encode(value).into_bytes()),
        ("upper-case hex", hex::encode_upper(value).into_bytes()),
        ("spaced hex", value.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ").into_bytes()),
        ("percent-encoded", value.iter().map(|byte| format!("%{byte:02X}")).collect::<String>().into_bytes()),
        ("as a list of numbers", value.iter().map(u8::to_string).collect::<Vec<_>>().join(",").into_bytes()),
        ("as a debugged list", value.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into_bytes()),
        ("UTF-16", value.iter().flat_map(|byte| [*byte, 0]).collect()),
    ];
    if let Ok(text) = std::str::from_utf8(value) {
        let quoted = serde_json::Value::from(text).to_string();
        forms.push(("escaped for JSON", quoted.trim_matches('"').as_bytes().to_vec()));
        let twice = serde_json::Value::from(quoted).to_string();
        forms.push(("escaped twice", twice.trim_matches(['"', '\\']).as_bytes().to_vec()));
        let codes: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        forms.push(("as escapes", codes.into_bytes()));
        forms.push(("escaped by Rust", text.escape_debug().to_string().into_bytes()));
    }
    for before in 0..3_usize {
        // What stands before a value shifts its base64; the characters that its neighbours touch are left out.
        let mut shifted = vec![0; before];
        shifted.extend_from_slice(value);
        let (skip, keep) = ([0, 2, 3][before], shifted.len() / 3 * 4);
        for (name, engine) in [("base64", &STANDARD_NO_PAD), ("base64url", &URL_SAFE_NO_PAD)] {
            let text = engine.encode(&shifted);
            forms.push((name, text.as_bytes()[skip..keep].to_vec()));
        }
    }
    forms.sort_by(|left, right| left.1.cmp(&right.1));
    forms.dedup_by(|left, right| left.1 == right.1);
    forms
}

/// Looks for many values in all their forms at once.
pub struct Finder {
    needles: Vec<(String, &'static str, Vec<u8>)>,
    /// Needles by their first two bytes.
    by_start: Vec<Vec<usize>>,
}

impl Finder {
    /// For these values, each with a name.
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut finder = Self { needles: Vec::new(), by_start: vec![Vec::new(); 1 << 16] };
        for (name, value) in values {
            for (form, bytes) in forms(value) {
                assert!(bytes.len() >= 8, "{name}: too short to be looked for");
                finder.by_start[start(&bytes)].push(finder.needles.len());
                finder.needles.push((name.to_owned(), form, bytes));
            }
        }
        finder
    }

    /// Which values are in `hay`, and in which form.
    pub fn find(&self, hay: &[u8]) -> Vec<String> {
        let mut found = std::collections::BTreeSet::new();
        for (number, chunk) in hay.chunks(CHUNK).enumerate() {
            if chunk == &ZEROES[..chunk.len()] {
                continue; // files are long before they are full
            }
            for at in number * CHUNK..(number * CHUNK + chunk.len()).min(hay.len().saturating_sub(1)) {
                for index in &self.by_start[start(&hay[at..])] {
                    let (name, form, bytes) = &self.needles[*index];
                    if hay[at..].starts_with(bytes) {
                        found.insert(format!("{name} ({form})"));
                    }
                }
            }
        }
        found.into_iter().collect()
    }
}

const CHUNK: usize = 4096;
const ZEROES: [u8; CHUNK] = [0; CHUNK];

fn start(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disguised_value_is_found() {
        let value = b"canary-\"quoted\"-0123456789";
        let text = std::str::from_utf8(value).unwrap();
        let doubly = serde_json::to_string(&serde_json::to_string(text).unwrap()).unwrap();
        let hays = [
            STANDARD_NO_PAD.encode([b"x", &value[..]].concat()),
            STANDARD_NO_PAD.encode([b"xy", &value[..], b"z"].concat()),
            URL_SAFE_NO_PAD.encode([&value[..], b"zzz"].concat()),
            hex::encode([b"..", &value[..]].concat()),
            format!("{text:?}"),
            format!("{:?}", &value[..]),
            doubly,
        ];
        let finder = Finder::new([("it", &value[..])]);
        for hay in hays {
            let far = [&[0; 4090][..], hay.as_bytes(), &[0; 5000]].concat();
            assert!(!finder.find(&far).is_empty(), "{hay}");
        }
        assert!(finder.find(b"canary-quoted-0123456789").is_empty());
    }
}
