//! The JSON files of the node's folder: each says which format it has.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::node::ClusterError;

/// The format that this version writes.
pub(super) const FORMAT: u32 = 1;

#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// What stands in the file at `path`; `None` if there is none.
///
/// # Errors
/// The file cannot be read, has a newer format, or is not what `T` is written as.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ClusterError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ClusterError::File { path: path.to_owned(), source }),
    };
    let wrong = |why: String| ClusterError::Content(format!("{}: {why}", path.display()));
    // The format first: what a newer one has in it, this version does not know.
    let Head { format } = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if format != FORMAT {
        return Err(wrong(format!("format {format} is from a newer version of keyward; upgrade to use it")));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(deny_unknown_fields)]
    struct Known {
        format: u32,
        name: String,
    }

    #[test]
    fn a_newer_format_is_told_from_a_damaged_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        assert_eq!(read::<Known>(&path).unwrap(), None);
        for (text, told) in [
            (r#"{"format":2,"name":"n","more":1}"#, "format 2 is from a newer version"),
            (r#"{"format":1,"name":"n","more":1}"#, "unknown field `more`"),
            (r#"{"name":"n"}"#, "missing field `format`"),
            (r#"{"format":1,"na"#, "EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read::<Known>(&path).unwrap_err().to_string();
            assert!(error.contains(told) && error.contains("file.json"), "{text}: {error}");
        }
        fs::write(&path, r#"{"format":1,"name":"n"}"#).unwrap();
        assert_eq!(read(&path).unwrap(), Some(Known { format: 1, name: "n".into() }));
    }
}
