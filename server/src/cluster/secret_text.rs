//! How a secret text is written into a message or a file that is for its owner: for `#[serde(with = …)]`, member by
//! member, so that no secret can be written by accident.

use keyward_model::Secret;
use serde::{Deserialize as _, Deserializer, Serializer};

/// Writes the text.
///
/// # Errors
/// The serializer's.
pub fn serialize<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// Reads the text into custody.
///
/// # Errors
/// The deserializer's.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// The same where there may be none.
pub mod optional {
    use keyward_model::Secret;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Writes the text, or nothing.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(secret: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(|secret| secret.expose().as_str()).serialize(serializer)
    }

    /// Reads the text into custody, if there is one.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret<String>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}
