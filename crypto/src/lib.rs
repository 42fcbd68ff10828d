//! Bytes in, bytes out: sealing rows and versions, the keyring, seals, names, references, the audit chain. No I/O.
//!
//! | construction | standard | used for |
//! |---|---|---|
//! | AES-256-GCM, each key used for one sealing | NIST SP 800-38D | rows, versions, keyring, root key |
//! | AES-256-SIV, deterministic by wish | RFC 5297 | path segments |
//! | HMAC-SHA-256, HKDF-SHA-256 | RFC 2104, RFC 5869 | derivation, token look-up, references, state signature |
//! | Argon2id | RFC 9106 | the passphrase seal |
//! | Shamir over GF(2^8), polynomial 0x11b | as Vault and OpenBao | unseal shares |
//! | SHA-256 | FIPS 180-4 | audit chain |
//!
//! Reading order: [`error`], [`memory`] (where keys live, and the only `unsafe`), `kdf`, `place` (what a sealing is bound
//! to), `aead`, `capsule` (small things under one key), [`seal`] and [`shamir`] (how the root key is kept), [`names`],
//! [`references`], [`keyring`] (rows, versions, tokens), [`chain`].
//!
//! Nothing here reads a clock or draws randomness by itself: both come in as arguments.

pub mod error;

pub mod memory;

mod kdf;

mod place;

mod aead;

mod capsule;

pub mod seal;

pub mod shamir;

pub mod names;

pub mod references;

pub mod keyring;

pub mod chain;

pub use error::CryptoError;
pub use keyring::{EpochInfo, EpochState, Keyring};
pub use names::Names;
pub use references::References;
pub use seal::{KeyFileSeal, PassphraseCost, PassphraseSeal, RootKey, Seal, ShamirSeal};
pub use shamir::ShareError;
