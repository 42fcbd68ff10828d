//! What is said on the unseal lane: one question, one answer, in the frames of [`wire`](crate::cluster::wire).

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use crate::seal::Generation;

/// What a sealed member says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The public key that the envelope is to be for, base64.
    pub key: String,
    /// The seals and the keyring that it has.
    pub generation: Generation,
}

/// What an unsealed one says to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The root key, in its envelope.
    Given {
        /// The ephemeral public key, base64.
        encapsulated: String,
        /// The root key, sealed, base64.
        sealed: String,
    },
    /// No, and why, for whoever runs the node.
    Refused {
        /// The reason.
        text: String,
    },
}

impl Answer {
    /// Says why not.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::Refused { text: text.into() }
    }

    /// Hands an envelope over.
    pub fn given(envelope: &Envelope) -> Self {
        let Envelope { encapsulated, sealed } = envelope;
        Self::Given { encapsulated: STANDARD.encode(encapsulated), sealed: STANDARD.encode(sealed) }
    }

    /// The envelope in it.
    ///
    /// # Errors
    /// It was refused, or is not well formed.
    pub fn envelope(self) -> io::Result<Envelope> {
        let bytes =
            |text: &str| STANDARD.decode(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        match self {
            Self::Given { encapsulated, sealed } => {
                Ok(Envelope { encapsulated: bytes(&encapsulated)?, sealed: bytes(&sealed)? })
            }
            Self::Refused { text } => Err(io::Error::new(io::ErrorKind::PermissionDenied, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use keyward_model::SecretBytes;

    use super::*;
    use crate::cluster::wire::{decode, encode};

    #[test]
    fn they_read_back_and_rubbish_is_none() {
        let question = Question { key: "AA==".into(), generation: Generation { seals: 1, keyring: 2 } };
        assert_eq!(decode::<Question>(&encode(&question).unwrap()).unwrap(), question);
        let envelope = Envelope { encapsulated: vec![1; 32], sealed: vec![2; 48] };
        let answer: Answer = decode(&encode(&Answer::given(&envelope)).unwrap()).unwrap();
        assert_eq!(answer.envelope().unwrap(), envelope);
        let refused: Answer = decode(&encode(&Answer::refused("no")).unwrap()).unwrap();
        assert_eq!(refused.envelope().unwrap_err().to_string(), "no");
        for rubbish in ["", "{}", r#"{"key":1}"#, r#"{"given":{"sealed":""}}"#, "\0"] {
            let rubbish = SecretBytes::new(rubbish.as_bytes().to_vec());
            assert!(decode::<Question>(&rubbish).is_err() && decode::<Answer>(&rubbish).is_err());
        }
        let broken = Answer::Given { encapsulated: "%".into(), sealed: String::new() };
        assert_eq!(broken.envelope().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
