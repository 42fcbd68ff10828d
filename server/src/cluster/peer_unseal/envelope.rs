//! The envelope in which the root key goes to a member: HPKE (RFC 9180), to a key that the member drew for this one question.
//!
//! TLS alone would do for the wire. The envelope is for what lies behind it: the root key is in no buffer of a connection,
//! and it opens for one process, in one session, between two certificates, for one state of the seals. All of that goes into
//! HPKE's `info`, which each side makes of what it knows by itself: a key or an envelope that was carried elsewhere is worth
//! nothing there.

use keyward_crypto::RootKey;
use keyward_model::{Id, Secret, SecretBytes};
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke as _, HpkePrivateKey, HpkePublicKey};

use crate::seal::Generation;

/// Label of the exporter of the TLS session that an envelope belongs to.
pub const EXPORTER: &[u8] = b"EXPORTER-keyward-peer-unseal-1";
/// What every `info` begins with.
const LABEL: &[u8] = b"keyward peer unseal 1";

/// One side of the exchange, by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// The number that Raft knows it by.
    pub number: u64,
    /// SHA-256 of the certificate that it showed in this session.
    pub certificate: [u8; 32],
}

/// What an envelope is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bond {
    /// The cluster.
    pub cluster: Id,
    /// The installation, to which the seals are bound, too.
    pub domain: Id,
    /// Who gives.
    pub giver: Party,
    /// Who asks.
    pub asker: Party,
    /// The seals and the keyring that both have.
    pub generation: Generation,
    /// What TLS exports for [`EXPORTER`]: the same for both ends of one session, and for nobody else.
    pub session: [u8; 32],
}

/// A key pair that is used for one envelope.
pub struct Recipient {
    public: HpkePublicKey,
    private: HpkePrivateKey,
}

/// A root key under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The ephemeral public key.
    pub encapsulated: Vec<u8>,
    /// The root key, sealed.
    pub sealed: Vec<u8>,
}

/// Why an envelope is not made or not opened. Which part did not fit is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the envelope of the root key is not for this node, this session or this state of the seals")]
pub struct Unfit;

impl Bond {
    /// Every member has a fixed length, so that no two bonds read the same.
    fn info(&self) -> Vec<u8> {
        let party = |party: &Party| [&party.number.to_be_bytes()[..], &party.certificate].concat();
        let Generation { seals, keyring } = self.generation;
        [
            LABEL,
            &self.cluster.0,
            &self.domain.0,
            &party(&self.giver),
            &party(&self.asker),
            &seals.to_be_bytes(),
            &keyring.to_be_bytes(),
            &self.session,
        ]
        .concat()
    }
}

impl Recipient {
    /// Draws a key pair.
    ///
    /// # Errors
    /// The library has no randomness.
    pub fn draw() -> Result<Self, rustls::Error> {
        let (public, private) = SUITE.generate_key_pair()?;
        Ok(Self { public, private })
    }

    /// The public half.
    pub fn public(&self) -> &[u8] {
        &self.public.0
    }

    /// Opens the envelope that was made for this key and `bond`. The key is good for one.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn open(self, envelope: &Envelope, bond: &Bond) -> Result<RootKey, Unfit> {
        let encapsulated = EncapsulatedSecret(envelope.encapsulated.clone());
        let opened = SUITE.open(&encapsulated, &bond.info(), &[], &envelope.sealed, &self.private);
        let opened = opened.map(SecretBytes::new).map_err(|_| Unfit)?;
        let root = <[u8; 32]>::try_from(opened.expose().as_slice()).map_err(|_| Unfit)?;
        Ok(RootKey::from_secret(Secret::new(root)))
    }
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipient").finish_non_exhaustive()
    }
}

/// Puts the root key into an envelope for the public key `to`.
///
/// # Errors
/// [`Unfit`]: `to` is no key.
pub fn seal(root: &RootKey, to: &[u8], bond: &Bond) -> Result<Envelope, Unfit> {
    let sealed = SUITE.seal(&bond.info(), &[], root.expose(), &HpkePublicKey(to.to_vec()));
    let (encapsulated, sealed) = sealed.map_err(|_| Unfit)?;
    Ok(Envelope { encapsulated: encapsulated.0, sealed })
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;

    use super::*;

    const BOND: Bond = Bond {
        cluster: Id([1; 16]),
        domain: Id([2; 16]),
        giver: Party { number: 3, certificate: [3; 32] },
        asker: Party { number: 4, certificate: [4; 32] },
        generation: Generation { seals: 5, keyring: 6 },
        session: [7; 32],
    };

    fn root() -> RootKey {
        RootKey::generate(&SeededEntropy::new(1))
    }

    #[test]
    fn the_root_key_arrives_and_is_not_seen_on_the_way() {
        let recipient = Recipient::draw().unwrap();
        let envelope = seal(&root(), recipient.public(), &BOND).unwrap();
        let again = seal(&root(), recipient.public(), &BOND).unwrap();
        assert!(envelope.encapsulated != again.encapsulated && envelope.sealed != again.sealed);
        assert!(!envelope.sealed.windows(8).any(|part| root().expose().windows(8).any(|key| key == part)));
        assert_eq!(recipient.open(&envelope, &BOND).unwrap().expose(), root().expose());
    }

    #[test]
    fn it_opens_for_this_key_and_this_bond_only() {
        let other = |change: fn(&mut Bond)| {
            let mut bond = BOND;
            change(&mut bond);
            bond
        };
        let bonds = [
            ("another cluster", other(|bond| bond.cluster = Id([9; 16]))),
            ("another installation", other(|bond| bond.domain = Id([9; 16]))),
            ("another asker", other(|bond| bond.asker.number = 9)),
            ("the asker with another certificate", other(|bond| bond.asker.certificate = [9; 32])),
            ("another giver", other(|bond| bond.giver.number = 9)),
            ("the giver with another certificate", other(|bond| bond.giver.certificate = [9; 32])),
            ("the roles exchanged", other(|bond| std::mem::swap(&mut bond.giver, &mut bond.asker))),
            ("other seals", other(|bond| bond.generation.seals = 9)),
            ("another keyring", other(|bond| bond.generation.keyring = 9)),
            ("both exchanged", other(|bond| bond.generation = Generation { seals: 6, keyring: 5 })),
            ("played again in another session", other(|bond| bond.session = [9; 32])),
        ];
        for (name, bond) in bonds {
            let recipient = Recipient::draw().unwrap();
            let envelope = seal(&root(), recipient.public(), &BOND).unwrap();
            assert_eq!(recipient.open(&envelope, &bond).unwrap_err(), Unfit, "{name}");
        }
        let envelope = seal(&root(), Recipient::draw().unwrap().public(), &BOND).unwrap();
        assert!(Recipient::draw().unwrap().open(&envelope, &BOND).is_err(), "another key");
    }

    #[test]
    fn what_was_changed_on_the_way_does_not_open() {
        for place in 0..4 {
            let recipient = Recipient::draw().unwrap();
            let mut envelope = seal(&root(), recipient.public(), &BOND).unwrap();
            match place {
                0 => envelope.encapsulated[0] ^= 1,
                1 => envelope.sealed[0] ^= 1,
                2 => drop(envelope.sealed.pop()),
                _ => envelope.encapsulated.clear(),
            }
            assert!(recipient.open(&envelope, &BOND).is_err(), "{place}");
        }
    }

    #[test]
    fn what_is_no_key_gets_nothing() {
        // Points of small order would make the secret known to everybody.
        for key in [&[][..], &[7; 31], &[7; 33], &[0; 32]] {
            assert_eq!(seal(&root(), key, &BOND).unwrap_err(), Unfit, "{key:?}");
        }
    }
}
