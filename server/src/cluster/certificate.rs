//! A node's own certificate: key pair, request, and the files that keep it.
//!
//! In `cluster/` of the data folder: `node.pem` (certificate and private key together, replaced as a whole) and `ca.pem`
//! (the authorities that nodes of this cluster trust: one, but for the time of a rotation). A new certificate comes with a new key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward_model::{Id, Secret};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{authority, names};
use crate::files;

/// A node that has a key and asks for a certificate.
pub struct Applicant {
    key: KeyPair,
    csr: Vec<u8>,
}

/// A certificate with its key, ready for use.
#[derive(Clone)]
pub struct Held {
    /// The certificate, its key, and the authority's certificate behind it.
    pub certified: Arc<CertifiedKey>,
    /// What it says.
    pub facts: Facts,
    /// The certificate of the authority that signed it.
    pub issuer: CertificateDer<'static>,
}

/// What the certificate of a node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The node's cluster.
    pub cluster: Id,
    /// The number that Raft knows the node by.
    pub number: u64,
    /// The incarnation of the node that it was made for.
    pub incarnation: u64,
    /// Good from this second on.
    pub from_s: i64,
    /// Good until this second.
    pub until_s: i64,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file or an answer does not hold what it should.
    #[error("{0}")]
    Content(String),
}

impl Applicant {
    /// Draws a key pair.
    ///
    /// # Errors
    /// The library refused.
    pub fn new() -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(content)?;
        let csr = authority::empty().serialize_request(&key).map_err(content)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// One that was made before, from its key in PEM and its request.
    ///
    /// # Errors
    /// The key is not one.
    pub fn resume(key: &Secret<String>, csr: Vec<u8>) -> Result<Self, CertificateError> {
        Ok(Self { key: KeyPair::from_pem(key.expose()).map_err(content)?, csr })
    }

    /// The private key, PEM.
    pub fn key(&self) -> Secret<String> {
        Secret::new(self.key.serialize_pem())
    }

    /// The request: the public key, signed with its private key, and nothing else.
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// Takes the certificate that was issued. It must be one for this key.
    ///
    /// # Errors
    /// It is for another key, or not a node's.
    pub fn receive(self, leaf: CertificateDer<'static>, ca: CertificateDer<'static>) -> Result<Held, CertificateError> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der())
            .map_err(|error| CertificateError::Content(error.to_owned()))?;
        Held::new(leaf, ca, key)
    }

    /// The file that keeps a certificate that was issued for this key.
    pub fn file(&self, leaf: &CertificateDer<'_>) -> Secret<String> {
        Secret::new(format!("{}{}", self.key().expose(), authority::pem(leaf)))
    }
}

impl std::fmt::Debug for Applicant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applicant").finish_non_exhaustive()
    }
}

impl Held {
    fn new(
        leaf: CertificateDer<'static>,
        ca: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let facts =
            Facts::of(&leaf).ok_or_else(|| CertificateError::Content("the certificate is not one of a node".into()))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(vec![leaf, ca.clone()], key, &provider).map_err(content)?;
        Ok(Self { certified: Arc::new(certified), facts, issuer: ca })
    }

    /// Reads certificate and key from the folder, and the authorities to trust; `None` if there are none.
    ///
    /// # Errors
    /// [`CertificateError`] with the file and what is wrong.
    pub fn read(folder: &Path) -> Result<Option<(Self, Vec<CertificateDer<'static>>)>, CertificateError> {
        let (leaf_file, ca_file) = (folder.join(LEAF), folder.join(CA));
        let pem = match fs::read(&leaf_file) {
            Ok(pem) => Secret::new(pem),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CertificateError::File { path: leaf_file, source }),
        };
        let wrong = |path: &Path, why: &dyn std::fmt::Display| {
            CertificateError::Content(format!(
                "{}: {why}\nput the file back from a backup, or remove this node from the cluster and let it join anew",
                path.display()
            ))
        };
        let leaf = CertificateDer::from_pem_slice(pem.expose()).map_err(|error| wrong(&leaf_file, &error))?;
        let key = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|error| wrong(&leaf_file, &error))?;
        let cas = CertificateDer::pem_file_iter(&ca_file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let cas: Vec<CertificateDer<'static>> = cas.map_err(|error| wrong(&ca_file, &error))?;
        let ca = cas.iter().find(|ca| authority::signed(ca, &leaf)).cloned();
        let ca = ca.ok_or_else(|| wrong(&ca_file, &"no authority in it signed the certificate of this node"))?;
        let held = Self::new(leaf, ca, key).map_err(|error| wrong(&leaf_file, &error))?;
        Ok(Some((held, cas)))
    }

    /// Whether a third of its time or less is left, or it is not good yet: the clock was set back.
    pub fn is_due(&self, now_s: i64) -> bool {
        let Facts { from_s, until_s, .. } = self.facts;
        let issued_s = from_s + authority::SKEW_S;
        now_s < from_s || now_s >= issued_s + (until_s - issued_s) * 2 / 3
    }

    /// Whether less than an eighth of its time is left: too little to wait for somebody else.
    pub fn is_pressing(&self, now_s: i64) -> bool {
        let Facts { from_s, until_s, .. } = self.facts;
        now_s < from_s || until_s - now_s < (until_s - from_s - authority::SKEW_S) / 8
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Facts {
    /// Reads the certificate of a node, which somebody verified before; `None` if it is none of a node.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        let alternative = parsed.subject_alternative_name().ok()??;
        let mut found = alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => names::parse(name),
            _ => None,
        });
        let (Some((cluster, number)), None) = (found.next(), found.next()) else { return None };
        let mut incarnations = alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(text) => names::incarnation(text, cluster),
            _ => None,
        });
        let (Some(incarnation), None) = (incarnations.next(), incarnations.next()) else { return None };
        let validity = parsed.validity();
        let (from_s, until_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        rest.is_empty().then_some(Self { cluster, number, incarnation, from_s, until_s })
    }
}

/// Puts certificate and key in place of the old ones.
///
/// # Errors
/// The file cannot be written; the old content is in place.
pub fn keep(folder: &Path, file: &Secret<String>) -> Result<(), CertificateError> {
    write(&folder.join(LEAF), file.expose().as_bytes())
}

/// Puts certificate and key, and the authorities to trust, in place of those before; `issuer` signed the certificate before,
/// if there was one. Wherever it is cut off, the folder holds a certificate and the authority that signed it.
///
/// # Errors
/// A file cannot be written.
pub fn exchange(
    folder: &Path,
    issuer: Option<CertificateDer<'static>>,
    cas: &[CertificateDer<'static>],
    file: &Secret<String>,
) -> Result<(), CertificateError> {
    let between: Vec<_> = cas.iter().cloned().chain(issuer.filter(|issuer| !cas.contains(issuer))).collect();
    keep_authorities(folder, &between)?;
    keep(folder, file)?;
    if between.len() > cas.len() { keep_authorities(folder, cas) } else { Ok(()) }
}

/// Puts the certificates of the authorities to trust in place.
///
/// # Errors
/// The file cannot be written.
pub fn keep_authorities(folder: &Path, cas: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    let text: String = cas.iter().map(|ca| authority::pem(ca)).collect();
    write(&folder.join(CA), text.as_bytes())
}

fn write(path: &Path, text: &[u8]) -> Result<(), CertificateError> {
    files::write_private(path, text).map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

fn content(error: impl std::fmt::Display) -> CertificateError {
    CertificateError::Content(error.to_string())
}

/// Certificate and private key of this node.
const LEAF: &str = "node.pem";
/// The authority of this cluster's nodes.
const CA: &str = "ca.pem";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::authority::{Authority, LEAF_S, Subject};

    const NOW: i64 = 1_800_000_000;
    const SUBJECT: Subject = Subject { cluster: Id([1; 16]), node: Id([2; 16]), number: 7, incarnation: 1 };

    #[test]
    fn a_certificate_is_kept_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Held::read(folder.path()).unwrap().is_none());
        let authority = Authority::generate(SUBJECT.cluster, NOW).unwrap();
        let applicant = Applicant::new().unwrap();
        let leaf = authority.issue(applicant.csr(), SUBJECT, NOW).unwrap();
        keep_authorities(folder.path(), std::slice::from_ref(authority.certificate())).unwrap();
        keep(folder.path(), &applicant.file(&leaf)).unwrap();
        let held = applicant.receive(leaf, authority.certificate().clone()).unwrap();
        let (again, ca) = Held::read(folder.path()).unwrap().unwrap();
        assert_eq!((again.facts, &ca[..]), (held.facts, std::slice::from_ref(authority.certificate())));
        assert_eq!(again.certified.cert, held.certified.cert);
    }

    #[test]
    fn an_exchange_that_is_cut_off_leaves_a_certificate_with_its_authority() {
        let folder = tempfile::tempdir().unwrap();
        let made = || {
            let (authority, applicant) =
                (Authority::generate(SUBJECT.cluster, NOW).unwrap(), Applicant::new().unwrap());
            let leaf = authority.issue(applicant.csr(), SUBJECT, NOW).unwrap();
            (authority.certificate().clone(), applicant.file(&leaf))
        };
        let ((old, old_file), (new, new_file)) = (made(), made());
        let read = || Held::read(folder.path()).unwrap().unwrap();
        exchange(folder.path(), None, std::slice::from_ref(&old), &old_file).unwrap();
        // The certificate cannot be written: as if it had stopped before.
        let obstacle = folder.path().join("node.pem.new");
        fs::create_dir(&obstacle).unwrap();
        exchange(folder.path(), Some(old.clone()), std::slice::from_ref(&new), &new_file).unwrap_err();
        assert_eq!(read().0.issuer, old);
        fs::remove_dir(obstacle).unwrap();
        exchange(folder.path(), Some(old), std::slice::from_ref(&new), &new_file).unwrap();
        let (held, cas) = read();
        assert_eq!((held.issuer, cas), (new.clone(), vec![new]));
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let authority = Authority::generate(SUBJECT.cluster, NOW).unwrap();
        let leaf = authority.issue(Applicant::new().unwrap().csr(), SUBJECT, NOW).unwrap();
        assert!(Applicant::new().unwrap().receive(leaf, authority.certificate().clone()).is_err());
    }

    #[test]
    fn it_is_due_at_two_thirds_and_pressing_near_its_end() {
        let authority = Authority::generate(SUBJECT.cluster, NOW).unwrap();
        let applicant = Applicant::new().unwrap();
        let leaf = authority.issue(applicant.csr(), SUBJECT, NOW).unwrap();
        let held = applicant.receive(leaf, authority.certificate().clone()).unwrap();
        for (after_s, due, pressing) in [
            (0, false, false),
            (LEAF_S * 2 / 3 - 1, false, false),
            (LEAF_S * 2 / 3, true, false),
            (LEAF_S * 7 / 8 + 1, true, true),
            (LEAF_S + 1, true, true),
            (-2 * authority::SKEW_S, true, true),
        ] {
            assert_eq!((held.is_due(NOW + after_s), held.is_pressing(NOW + after_s)), (due, pressing), "{after_s}");
        }
    }

    #[test]
    fn a_file_that_holds_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(LEAF), "nonsense").unwrap();
        let error = Held::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(LEAF), "{error}");
    }
}
