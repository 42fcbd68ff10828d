//! TLS of the API: a certificate of one's own, or one from a local CA that is made at the first start.
//!
//! TLS 1.2 and 1.3 with rustls and aws-lc-rs. Certificates are read again on demand without dropping the listener.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::{Listen, Tls};
use crate::files;

/// Days that the local CA is valid.
const CA_DAYS: i64 = 3650;
/// Days that a certificate of the local CA is valid; it is renewed with less than a third of it left.
const LEAF_DAYS: i64 = 90;

/// Accepts TLS connections with the newest certificate.
#[derive(Clone)]
pub struct Acceptor {
    loaded: Arc<ArcSwap<Loaded>>,
    certificate: PathBuf,
    key: PathBuf,
    /// What a local CA issues for; `None` where the certificate is somebody else's.
    issues: Option<Arc<Issues>>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    until_s: Option<i64>,
}

struct Issues {
    listen: Listen,
    folder: PathBuf,
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate could not be made.
    #[error("the local CA could not issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

impl Acceptor {
    /// The acceptor that the configuration asks for; `None` for plain HTTP. With a local CA, `folder` gets `ca.pem`
    /// (to be given to clients), its key, and the server's certificate.
    ///
    /// # Errors
    /// [`TlsError`] with the file and what is wrong.
    pub fn from_config(listen: &Listen, folder: &Path, now_s: i64) -> Result<Option<Self>, TlsError> {
        let (certificate, key) = match listen.tls {
            Tls::Plain | Tls::PlainAnywhere => return Ok(None),
            Tls::Files => (listen.certificate.clone().unwrap_or_default(), listen.key.clone().unwrap_or_default()),
            Tls::LocalCa => {
                issue_if_due(listen, folder, now_s)?;
                (folder.join(LEAF), folder.join(LEAF_KEY))
            }
        };
        let loaded = Arc::new(ArcSwap::from_pointee(load(&certificate, &key)?));
        let issues = (listen.tls == Tls::LocalCa)
            .then(|| Arc::new(Issues { listen: listen.clone(), folder: folder.to_owned() }));
        Ok(Some(Self { loaded, certificate, key, issues }))
    }

    /// Reads certificate and key again; connections made from now on use them.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.loaded.store(Arc::new(load(&self.certificate, &self.key)?));
        Ok(())
    }

    /// Has the local CA issue a new certificate if less than a third of the old one's time is left, and takes it into use.
    /// Says whether it did; a certificate that is not the local CA's is left alone.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays in use.
    pub fn renew_if_due(&self, now_s: i64) -> Result<bool, TlsError> {
        let Some(issues) = &self.issues else { return Ok(false) };
        let issued = issue_if_due(&issues.listen, &issues.folder, now_s)?;
        if issued {
            self.reload()?;
        }
        Ok(issued)
    }

    /// One handshake.
    ///
    /// # Errors
    /// The peer does not speak TLS, or not ours.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.loaded.load().config);
        tokio_rustls::TlsAcceptor::from(config).accept(stream).await
    }

    /// The second until which the certificate is good; `None` if it does not say so in a form that is understood.
    pub fn until_s(&self) -> Option<i64> {
        self.loaded.load().until_s
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, TlsError> {
    let content = |path: &Path, why: String| TlsError::Content { path: path.to_owned(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| content(certificate, format!("not a PEM certificate chain: {error}")))?;
    let Some(leaf) = chain.first() else {
        return Err(content(certificate, "holds no certificate".into()));
    };
    let until_s = X509Certificate::from_der(leaf).ok().map(|(_, leaf)| leaf.validity().not_after.timestamp());
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|error| content(key, format!("not a PEM private key: {error}")))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| content(certificate, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| content(key, format!("the key does not belong to {}: {error}", certificate.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 1;
    Ok(Loaded { config: Arc::new(config), until_s })
}

/// The server's certificate and its key, in the folder of the local CA.
const LEAF: &str = "server.pem";
const LEAF_KEY: &str = "server.key";
/// When the certificate was issued and for which names. It is written last: without it the certificate is issued anew.
const LEAF_FACTS: &str = "server.names";

/// Makes what is missing of CA and certificate, and a new certificate if the old one is due or for other names. Says
/// whether there is a new one.
fn issue_if_due(listen: &Listen, folder: &Path, now_s: i64) -> Result<bool, TlsError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    let write = |path: &Path, content: &str| files::write_private(path, content.as_bytes()).map_err(file(path));
    files::make_folder(folder).map_err(file(folder))?;
    let (ca_file, ca_key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
    let (leaf_file, leaf_key_file, facts_file) = (folder.join(LEAF), folder.join(LEAF_KEY), folder.join(LEAF_FACTS));
    let names = names(listen);
    let fresh = fs::read_to_string(&facts_file).is_ok_and(|facts| is_fresh(&facts, &names, now_s));
    if fresh && [&ca_file, &leaf_file, &leaf_key_file].iter().all(|path| path.exists()) {
        return Ok(false);
    }
    if !ca_file.exists() || !ca_key_file.exists() {
        let key = KeyPair::generate()?;
        let ca = ca_params(now_s).self_signed(&key)?;
        write(&ca_key_file, &key.serialize_pem())?;
        write(&ca_file, &ca.pem())?;
    }
    let ca_key_pem = fs::read_to_string(&ca_key_file).map_err(file(&ca_key_file))?;
    let ca_key = KeyPair::from_pem(&ca_key_pem)?;
    let ca_pem = fs::read_to_string(&ca_file).map_err(file(&ca_file))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key)?;
    let key = KeyPair::generate()?;
    let facts = facts(&names, now_s);
    let leaf = leaf_params(names, now_s)?.signed_by(&key, &issuer)?;
    // Not whole until the facts are there again: a stop in between must not leave the key of one certificate with another.
    write(&facts_file, "")?;
    write(&leaf_key_file, &key.serialize_pem())?;
    write(&leaf_file, &leaf.pem())?;
    write(&facts_file, &facts)?;
    Ok(true)
}

/// One line with the second of the issue, then a name on a line.
fn facts(names: &[String], now_s: i64) -> String {
    format!("{now_s}\n{}", names.join("\n"))
}

/// Whether a certificate with these facts is for these names and has more than a third of its time left.
fn is_fresh(facts: &str, names: &[String], now_s: i64) -> bool {
    let Some((issued, issued_names)) = facts.split_once('\n') else { return false };
    let age_s = issued.parse::<i64>().ok().and_then(|issued_s| now_s.checked_sub(issued_s));
    issued_names == names.join("\n") && age_s.is_some_and(|age_s| (0..=LEAF_DAYS * 86_400 * 2 / 3).contains(&age_s))
}

fn ca_params(now_s: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Keyward local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = validity(now_s, CA_DAYS);
    params
}

fn leaf_params(names: Vec<String>, now_s: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Keyward server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity(now_s, LEAF_DAYS);
    Ok(params)
}

fn validity(now_s: i64, days: i64) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    (at(now_s - 3600), at(now_s + days * 86_400))
}

/// Loopback, the listening address, this host's name, and what the configuration adds.
fn names(listen: &Listen) -> Vec<String> {
    let mut out = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.address.ip().is_unspecified() {
        out.push(listen.address.ip().to_string());
    }
    if let Ok(host) = rustix::system::uname().nodename().to_str()
        && !host.is_empty()
        && host.parse::<IpAddr>().is_err()
    {
        out.push(host.to_owned());
    }
    out.extend(listen.names.iter().cloned());
    out.sort_unstable();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_ca_is_made_once_and_reissues_for_new_names() {
        let folder = tempfile::tempdir().unwrap();
        let now = 1_800_000_000;
        let listen = Listen::default();
        assert!(Acceptor::from_config(&listen, folder.path(), now).unwrap().is_some());
        let ca = fs::read(folder.path().join("ca.pem")).unwrap();
        let leaf = fs::read(folder.path().join("server.pem")).unwrap();
        let more = Listen { names: vec!["keyward.example".into()], ..listen };
        assert!(Acceptor::from_config(&more, folder.path(), now).unwrap().is_some());
        assert_eq!(fs::read(folder.path().join("ca.pem")).unwrap(), ca);
        assert_ne!(fs::read(folder.path().join("server.pem")).unwrap(), leaf);
    }

    #[test]
    fn a_certificate_is_renewed_while_the_server_runs() {
        let folder = tempfile::tempdir().unwrap();
        let now = 1_800_000_000;
        let leaf = || fs::read(folder.path().join(LEAF)).unwrap();
        let acceptor = Acceptor::from_config(&Listen::default(), folder.path(), now).unwrap().unwrap();
        let (first, in_use) = (leaf(), acceptor.loaded.load_full());
        assert!(!acceptor.renew_if_due(now + 59 * 86_400).unwrap());
        assert_eq!(leaf(), first);
        assert!(acceptor.renew_if_due(now + 61 * 86_400).unwrap());
        assert_ne!(leaf(), first);
        assert_eq!(acceptor.until_s(), Some(now + (61 + LEAF_DAYS) * 86_400));
        assert!(!Arc::ptr_eq(&in_use, &acceptor.loaded.load_full()), "new connections get the new certificate");
        // A stop between the files: the next start issues anew instead of refusing a key that belongs to another.
        let key = fs::read(folder.path().join(LEAF_KEY)).unwrap();
        assert!(acceptor.renew_if_due(now + 122 * 86_400).unwrap());
        fs::write(folder.path().join(LEAF_KEY), key).unwrap();
        fs::write(folder.path().join(LEAF_FACTS), "").unwrap();
        assert!(Acceptor::from_config(&Listen::default(), folder.path(), now + 122 * 86_400).is_ok());
    }

    #[test]
    fn foreign_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        fs::write(&path, "nonsense").unwrap();
        let listen = Listen { tls: Tls::Files, certificate: Some(path.clone()), key: Some(path), ..Listen::default() };
        let error = Acceptor::from_config(&listen, folder.path(), 0).unwrap_err().to_string();
        assert!(error.contains("x.pem"), "{error}");
    }
}
