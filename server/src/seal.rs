//! Sealing and unsealing: the records of the seals, the ceremony of shares, init.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_crypto::{CryptoError, KeyFileSeal, Keyring, PassphraseCost, PassphraseSeal, RootKey, Seal, ShamirSeal};
use keyward_model::{Entropy, Id, Secret, SecretBytes, Table, Timestamp};
use keyward_storage::Reader;
use serde::{Deserialize, Serialize};

use crate::barrier::{Columns, Draft, storage};
use crate::cluster::authority::Authority;
use crate::cluster::rows::{self, AuthorityRow};
use crate::refusal::Refusal;

/// Row with the facts of the installation.
const INSTALLATION: &[u8] = b"installation";
/// Row with the root key, wrapped by each seal.
const SEALS: &[u8] = b"seals";
/// Row with the keyring, wrapped by the root key.
const KEYRING: &[u8] = b"keyring";

/// What an installation knows of itself before it is unsealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installation {
    /// Born at init; bound into every seal.
    pub domain: Id,
    /// Shown as `cluster_id`.
    pub cluster: Id,
    /// When it was initialised.
    pub created: Timestamp,
}

/// One way to the root key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealRecord {
    /// `keyfile`, `shamir`, `passphrase`.
    pub kind: String,
    /// Shares of the key; 1 where it is whole.
    pub shares: u8,
    /// Shares that make the key.
    pub threshold: u8,
    /// Whether it is kept apart for the day the others are lost.
    pub recovery: bool,
    /// The wrapped root key, base64.
    pub wrapped: String,
    /// The node that has the key, where it is one node's: its id as a UUID. `None` for what people have, and for the key
    /// file of a node that was always alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

impl SealRecord {
    /// Whether `node` opens it by itself when it starts: a key file of its own, not one of another node.
    pub fn opens_at_start(&self, node: Id) -> bool {
        self.kind == KEY_FILE && self.is_for(node)
    }

    /// Whether it may be this node's to open.
    pub fn is_for(&self, node: Id) -> bool {
        self.node.as_ref().is_none_or(|owner| *owner == node.to_uuid())
    }
}

/// Which seals and which keyring stand in the state, by how often each was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Of the records of the seals.
    pub seals: u64,
    /// Of the keyring.
    pub keyring: u64,
}

/// The unseal ceremony under way: shares given so far. Only in memory, wiped with the ceremony.
#[derive(Debug, Default)]
pub struct Unsealing(Mutex<Ceremony>);

#[derive(Debug, Default)]
struct Ceremony {
    nonce: String,
    shares: Vec<SecretBytes>,
}

/// What init gives back, once.
#[derive(Debug)]
pub struct Initialised {
    /// Shares that unseal; empty where the server unseals itself.
    pub keys: Vec<SecretBytes>,
    /// Shares that recover; empty if none were asked for.
    pub recovery_keys: Vec<SecretBytes>,
    /// The keys, for the server to go on with.
    pub opened: OpenedKeys,
    /// Rows to write.
    pub records: Records,
}

/// What a seal opens: the root key, and the keyring it wraps.
#[derive(Debug)]
pub struct OpenedKeys {
    /// Opens and seals rows and versions.
    pub keyring: Keyring,
    /// Wraps the keyring when it is rotated.
    pub root: Arc<RootKey>,
}

/// The rows of init.
#[derive(Debug)]
pub struct Records {
    installation: Installation,
    seals: Vec<SealRecord>,
    keyring: Vec<u8>,
    authority: AuthorityRow,
}

/// How a new installation is sealed.
#[derive(Debug)]
pub enum NewSeal {
    /// By the key of a file.
    KeyFile(Secret<[u8; 32]>),
    /// By shares.
    Shamir {
        /// How many.
        shares: u8,
        /// How many of them make the key.
        threshold: u8,
    },
    /// By a passphrase.
    Passphrase(SecretBytes),
}

/// Reads the facts of the installation; `None` before init.
///
/// # Errors
/// The row cannot be read.
pub fn installation(reader: &Reader) -> Result<Option<Installation>, Refusal> {
    config_row(reader, INSTALLATION)
}

/// Reads the records of the seals; empty before init.
///
/// # Errors
/// The row cannot be read.
pub fn records(reader: &Reader) -> Result<Vec<SealRecord>, Refusal> {
    Ok(config_row(reader, SEALS)?.unwrap_or_default())
}

/// Reads the wrapped keyring; `None` before init.
///
/// # Errors
/// The row cannot be read.
pub fn keyring_row(reader: &Reader) -> Result<Option<Vec<u8>>, Refusal> {
    Ok(reader.row(Table::Config, KEYRING).map_err(storage)?.map(|row| row.body))
}

/// The generation of seals and keyring; `None` before init.
///
/// # Errors
/// A row cannot be read.
pub fn generation(reader: &Reader) -> Result<Option<Generation>, Refusal> {
    let written = |key| Ok::<_, Refusal>(reader.row(Table::Config, key).map_err(storage)?.map(|row| row.rev));
    Ok(written(SEALS)?.zip(written(KEYRING)?).map(|(seals, keyring)| Generation { seals, keyring }))
}

/// Whether `node` unseals itself when it starts.
///
/// # Errors
/// The row cannot be read.
pub fn opens_itself(reader: &Reader, node: Id) -> Result<bool, Refusal> {
    Ok(records(reader)?.iter().any(|record| record.opens_at_start(node)))
}

/// The wrapped keyring as all commands before this one leave it.
///
/// # Errors
/// The row cannot be read.
pub fn draft_keyring(draft: &mut Draft<'_>) -> Result<Option<Vec<u8>>, Refusal> {
    Ok(draft.get(Table::Config, KEYRING)?.map(|row| row.body.expose().to_vec()))
}

/// Whether `key` is that of the wrapped keyring in the table of the configuration.
pub fn is_keyring(key: &[u8]) -> bool {
    key == KEYRING
}

fn config_row<T: serde::de::DeserializeOwned>(reader: &Reader, key: &[u8]) -> Result<Option<T>, Refusal> {
    let Some(row) = reader.row(Table::Config, key).map_err(storage)? else { return Ok(None) };
    serde_json::from_slice(&row.body).map(Some).map_err(|error| Refusal::damaged("config row", error))
}

/// What the root key is bound to when it is wrapped.
fn context(domain: Id) -> Vec<u8> {
    [&domain.0[..], b"root"].concat()
}

/// Makes keys and records for a new installation. Nothing is written yet.
///
/// # Errors
/// The shares cannot be made as asked, or a seal cannot be used.
pub fn prepare(
    seal: NewSeal,
    recovery: Option<(u8, u8)>,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<Initialised, Refusal> {
    let domain = Id::random(entropy);
    let root = RootKey::generate(entropy);
    let keyring = Keyring::generate(domain, now, entropy);
    let mut seals = Vec::new();
    let keys = match seal {
        NewSeal::KeyFile(key) => {
            seals.push(record(&KeyFileSeal::new(key), &root, domain, (1, 1), false, entropy)?);
            Vec::new()
        }
        NewSeal::Passphrase(passphrase) => {
            let seal = PassphraseSeal::new(passphrase, PassphraseCost::RECOMMENDED);
            seals.push(record(&seal, &root, domain, (1, 1), false, entropy)?);
            Vec::new()
        }
        NewSeal::Shamir { shares, threshold } => {
            let seal = ShamirSeal::generate(entropy);
            seals.push(record(&seal, &root, domain, (shares, threshold), false, entropy)?);
            split(&seal, (shares, threshold), entropy)?
        }
    };
    let recovery_keys = match recovery {
        None => Vec::new(),
        Some(shape) => {
            let seal = ShamirSeal::generate(entropy);
            seals.push(record(&seal, &root, domain, shape, true, entropy)?);
            split(&seal, shape, entropy)?
        }
    };
    let installation = Installation { domain, cluster: Id::random(entropy), created: now };
    let wrapped = keyring.seal_to(&root, entropy);
    let authority = Authority::generate(installation.cluster, now.seconds())
        .map_err(|error| Refusal::internal(error.to_string()))?
        .to_row(domain, &root, entropy);
    Ok(Initialised {
        keys,
        recovery_keys,
        opened: OpenedKeys { keyring, root: Arc::new(root) },
        records: Records { installation, seals, keyring: wrapped, authority },
    })
}

fn split(seal: &ShamirSeal, shape: (u8, u8), entropy: &dyn Entropy) -> Result<Vec<SecretBytes>, Refusal> {
    seal.split(shape.0, shape.1, entropy)
        .map_err(|error| Refusal::malformed(format!("invalid seal configuration: {error}")))
}

fn record(
    seal: &dyn Seal,
    root: &RootKey,
    domain: Id,
    (shares, threshold): (u8, u8),
    recovery: bool,
    entropy: &dyn Entropy,
) -> Result<SealRecord, Refusal> {
    let wrapped = seal
        .wrap(root, &context(domain), entropy)
        .map_err(|error| Refusal::internal(format!("the root key could not be wrapped: {error}")))?;
    Ok(SealRecord {
        kind: seal.kind().to_owned(),
        shares,
        threshold,
        recovery,
        wrapped: STANDARD.encode(wrapped),
        node: None,
    })
}

impl Records {
    /// Writes the records, within the command of init.
    ///
    /// # Errors
    /// Already initialised, or a row cannot be read.
    pub fn write(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        if draft.exists(Table::Config, INSTALLATION)? {
            return Err(Refusal::malformed("Vault is already initialized"));
        }
        let Self { installation, seals, keyring, authority } = self;
        let json = |text: serde_json::Result<Vec<u8>>| text.map_err(|error| Refusal::internal(error.to_string()));
        draft.put(Table::Config, INSTALLATION, Columns::default(), &json(serde_json::to_vec(installation))?)?;
        draft.put(Table::Config, SEALS, Columns::default(), &json(serde_json::to_vec(seals))?)?;
        draft.put(Table::Config, KEYRING, Columns::default(), keyring)?;
        rows::put_authority(draft, authority)
    }
}

/// Opens the keyring with one seal of `node`, and checks that the rows in the database are those that were signed.
///
/// Reads every row once: about a second for a million.
///
/// # Errors
/// A text that says what is wrong and what to do.
pub fn open(reader: &Reader, seal: &dyn Seal, recovery: bool, node: Id) -> Result<OpenedKeys, OpenError> {
    let installation = installation(reader).map_err(|_| OpenError::Unreadable)?.ok_or(OpenError::NotInitialised)?;
    let records = records(reader).map_err(|_| OpenError::Unreadable)?;
    let record = records
        .iter()
        .find(|record| record.kind == seal.kind() && record.recovery == recovery && record.is_for(node))
        .ok_or_else(|| OpenError::OtherSeal(records.iter().map(|r| r.kind.as_str()).collect::<Vec<_>>().join(", ")))?;
    let wrapped = STANDARD.decode(&record.wrapped).map_err(|_| OpenError::Seal(CryptoError::Malformed))?;
    let root = seal.unwrap(&wrapped, &context(installation.domain)).map_err(OpenError::Seal)?;
    open_with(reader, root)
}

/// The same with the root key itself, which another member gave.
///
/// # Errors
/// As [`open`].
pub fn open_with(reader: &Reader, root: RootKey) -> Result<OpenedKeys, OpenError> {
    let installation = installation(reader).map_err(|_| OpenError::Unreadable)?.ok_or(OpenError::NotInitialised)?;
    let row = reader.row(Table::Config, KEYRING).map_err(|_| OpenError::Unreadable)?.ok_or(OpenError::Unreadable)?;
    let keyring = Keyring::open_from(&root, installation.domain, &row.body).map_err(OpenError::Keyring)?;
    let verification = reader.verify().map_err(|_| OpenError::Unreadable)?;
    if verification.found != verification.meta.sum
        || !keyring.verify_sum(verification.meta.sum, &verification.meta.signature)
    {
        return Err(OpenError::Tampered);
    }
    Ok(OpenedKeys { keyring, root: Arc::new(root) })
}

/// Why the keyring does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing to open yet.
    #[error("not initialised yet: run `keyward operator init`")]
    NotInitialised,
    /// The state database cannot be read.
    #[error("the state database cannot be read; see the log")]
    Unreadable,
    /// This seal is not among those of the installation.
    #[error("this installation is sealed by: {0}; configure that seal")]
    OtherSeal(String),
    /// The seal does not open.
    #[error("the seal does not open: {0}")]
    Seal(CryptoError),
    /// The root key is there but the keyring does not open.
    #[error("the keyring does not open: {0}")]
    Keyring(CryptoError),
    /// Rows were changed, exchanged or put back from outside.
    #[error(
        "the state database was changed outside of Keyward: its rows do not add up to what was last signed\n\
         nothing is served from it; restore the data folder from a backup"
    )]
    Tampered,
}

impl Unsealing {
    /// Progress and nonce of the ceremony.
    pub fn progress(&self) -> (usize, String) {
        let ceremony = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (ceremony.shares.len(), ceremony.nonce.clone())
    }

    /// Ends the ceremony and wipes its shares.
    pub fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Ceremony::default();
    }

    /// Adds a share. With the last one, all are handed out and the ceremony is over. The same share twice counts once.
    pub fn add(&self, share: SecretBytes, threshold: u8, entropy: &dyn Entropy) -> Option<Vec<SecretBytes>> {
        use subtle::ConstantTimeEq as _;
        let mut ceremony = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ceremony.shares.iter().any(|known| known.expose().ct_eq(share.expose()).into());
        if !known {
            ceremony.shares.push(share);
        }
        if ceremony.nonce.is_empty() {
            ceremony.nonce = Id::random(entropy).to_uuid();
        }
        if ceremony.shares.len() < usize::from(threshold) {
            return None;
        }
        Some(std::mem::take(&mut *ceremony).shares)
    }
}

/// Gives a node that joins its own key-file seal: the root key, wrapped by the key that only that node keeps. `false`
/// where this installation is not sealed by key files: then no node unseals itself.
///
/// # Errors
/// A row cannot be read.
pub fn add_key_file(
    draft: &mut Draft<'_>,
    (root, domain): (&RootKey, Id),
    node: Id,
    key: Option<&Secret<[u8; 32]>>,
) -> Result<bool, Refusal> {
    let mut seals = draft_records(draft)?;
    if !seals.iter().any(|record| record.kind == KEY_FILE) {
        return Ok(false);
    }
    if seals.iter().any(|record| record.node.as_deref() == Some(&node.to_uuid())) {
        return Ok(true); // it asks again, with the same key
    }
    let Some(key) = key else {
        return Err(Refusal::malformed(
            "the nodes of this cluster unseal themselves by a key file: start this one with seal.kind = \"key_file\", too",
        ));
    };
    let seal = KeyFileSeal::new(Secret::new(*key.expose()));
    let record = record(&seal, root, domain, (1, 1), false, draft.entropy())?;
    seals.push(SealRecord { node: Some(node.to_uuid()), ..record });
    put_records(draft, &seals)?;
    Ok(true)
}

/// Says of the key file of a node that was alone up to now whose it is.
///
/// # Errors
/// A row cannot be read.
pub fn bind_key_file(draft: &mut Draft<'_>, node: Id) -> Result<(), Refusal> {
    let mut seals = draft_records(draft)?;
    let mut free = seals.iter_mut().filter(|record| record.kind == KEY_FILE && record.node.is_none()).peekable();
    if free.peek().is_none() {
        return Ok(());
    }
    free.for_each(|record| record.node = Some(node.to_uuid()));
    put_records(draft, &seals)
}

/// Takes away what only this node can open.
///
/// # Errors
/// A row cannot be read.
pub fn remove_node(draft: &mut Draft<'_>, node: Id) -> Result<(), Refusal> {
    let mut seals = draft_records(draft)?;
    let before = seals.len();
    seals.retain(|record| record.node.as_deref() != Some(&node.to_uuid()));
    if seals.len() == before { Ok(()) } else { put_records(draft, &seals) }
}

/// Gives the cluster another id: whoever knows it by the old one is not of it any more. The data stays what it is.
///
/// # Errors
/// The row cannot be read.
pub fn rename_cluster(draft: &mut Draft<'_>, cluster: Id) -> Result<(), Refusal> {
    let damaged = |error: serde_json::Error| Refusal::internal(format!("config row: {error}"));
    let Some(opened) = draft.get(Table::Config, INSTALLATION)? else { return Err(Refusal::Sealed) };
    let found: Installation = serde_json::from_slice(opened.body.expose()).map_err(damaged)?;
    let body = serde_json::to_vec(&Installation { cluster, ..found }).map_err(damaged)?;
    draft.put(Table::Config, INSTALLATION, Columns::default(), &body)
}

fn draft_records(draft: &mut Draft<'_>) -> Result<Vec<SealRecord>, Refusal> {
    let Some(opened) = draft.get(Table::Config, SEALS)? else { return Ok(Vec::new()) };
    serde_json::from_slice(opened.body.expose()).map_err(|error| Refusal::internal(format!("config row: {error}")))
}

fn put_records(draft: &mut Draft<'_>, seals: &[SealRecord]) -> Result<(), Refusal> {
    let body = serde_json::to_vec(seals).map_err(|error| Refusal::internal(error.to_string()))?;
    draft.put(Table::Config, SEALS, Columns::default(), &body)
}

/// The kind of a seal by a key file.
const KEY_FILE: &str = "keyfile";

/// Puts a rotated keyring in place of the stored one. The root key is needed, so the caller has unwrapped it by a seal.
///
/// # Errors
/// A row cannot be read.
pub fn store_keyring(draft: &mut Draft<'_>, sealed: &[u8]) -> Result<(), Refusal> {
    draft.put(Table::Config, KEYRING, Columns::default(), sealed)
}
