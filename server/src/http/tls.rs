//! TLS of the API: a certificate of one's own, or one from a local CA that is made at the first start.
//!
//! TLS 1.2 and 1.3 with rustls and aws-lc-rs. Certificates are read again on demand without dropping the listener.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
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

use crate::config::{Listen, Tls};

/// Days that the local CA is valid.
const CA_DAYS: i64 = 3650;
/// Days that a certificate of the local CA is valid; it is renewed at a start with less than a third of it left.
const LEAF_DAYS: i64 = 90;

/// Accepts TLS connections with the newest certificate.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ArcSwap<ServerConfig>>,
    certificate: PathBuf,
    key: PathBuf,
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
            Tls::LocalCa => local_ca(listen, folder, now_s)?,
        };
        let config = Arc::new(ArcSwap::from(load(&certificate, &key)?));
        Ok(Some(Self { config, certificate, key }))
    }

    /// Reads certificate and key again; connections made from now on use them.
    ///
    /// # Errors
    /// [`TlsError`]; the old certificate stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(load(&self.certificate, &self.key)?);
        Ok(())
    }

    /// One handshake.
    ///
    /// # Errors
    /// The peer does not speak TLS, or not ours.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        tokio_rustls::TlsAcceptor::from(self.config.load_full()).accept(stream).await
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let content = |path: &Path, why: String| TlsError::Content { path: path.to_owned(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| content(certificate, format!("not a PEM certificate chain: {error}")))?;
    if chain.is_empty() {
        return Err(content(certificate, "holds no certificate".into()));
    }
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
    Ok(Arc::new(config))
}

/// Makes what is missing of CA and certificate, and names the server's two files.
fn local_ca(listen: &Listen, folder: &Path, now_s: i64) -> Result<(PathBuf, PathBuf), TlsError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { path, source }
    };
    fs::create_dir_all(folder).map_err(file(folder))?;
    let (ca_file, ca_key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
    let (leaf_file, leaf_key_file) = (folder.join("server.pem"), folder.join("server.key"));
    let names_file = folder.join("server.names");
    let names = names(listen);
    let wanted = names.join("\n");
    let fresh = fs::read_to_string(&names_file).is_ok_and(|have| have == wanted) && !is_old(&leaf_file, now_s);
    if ca_file.exists() && leaf_key_file.exists() && fresh {
        return Ok((leaf_file, leaf_key_file));
    }
    if !ca_file.exists() || !ca_key_file.exists() {
        let key = KeyPair::generate()?;
        let ca = ca_params(now_s).self_signed(&key)?;
        write_private(&ca_key_file, key.serialize_pem().as_bytes())?;
        fs::write(&ca_file, ca.pem()).map_err(file(&ca_file))?;
    }
    let ca_key_pem = fs::read_to_string(&ca_key_file).map_err(file(&ca_key_file))?;
    let ca_key = KeyPair::from_pem(&ca_key_pem)?;
    let ca_pem = fs::read_to_string(&ca_file).map_err(file(&ca_file))?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key)?;
    let key = KeyPair::generate()?;
    let leaf = leaf_params(names, now_s)?.signed_by(&key, &issuer)?;
    write_private(&leaf_key_file, key.serialize_pem().as_bytes())?;
    fs::write(&leaf_file, leaf.pem()).map_err(file(&leaf_file))?;
    fs::write(&names_file, wanted).map_err(file(&names_file))?;
    Ok((leaf_file, leaf_key_file))
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

/// Whether less than a third of the certificate's life is left, by the file's age: it is written when issued.
fn is_old(certificate: &Path, now_s: i64) -> bool {
    let written = fs::metadata(certificate).and_then(|meta| meta.modified()).ok();
    let written_s = written
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_secs()).ok());
    written_s.is_none_or(|written_s| now_s - written_s > LEAF_DAYS * 86_400 * 2 / 3)
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// [`TlsError::File`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), TlsError> {
    let write = || {
        drop(fs::remove_file(path));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| TlsError::File { path: path.to_owned(), source })
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
    fn foreign_files_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        fs::write(&path, "nonsense").unwrap();
        let listen = Listen { tls: Tls::Files, certificate: Some(path.clone()), key: Some(path), ..Listen::default() };
        let error = Acceptor::from_config(&listen, folder.path(), 0).unwrap_err().to_string();
        assert!(error.contains("x.pem"), "{error}");
    }
}
