//! Whom to believe: the client's TLS configuration, one for the commands and for the load generator.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::error::CliError;

/// Which certificates to accept.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those of the operating system.
    System,
    /// Those signed by an authority in this PEM file, and no others.
    File(String),
    /// These authorities, as PEM text.
    Text(String),
    /// Any: the connection is private from those who only listen, and open to whoever can answer in the server's place.
    Anyone,
}

/// A client certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The certificate, followed by its chain.
    pub(crate) certificate: String,
    /// Its private key.
    pub(crate) key: String,
}

/// Makes the configuration.
///
/// # Errors
/// A file that cannot be read or holds no PEM of its kind.
pub(crate) fn configure(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, CliError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::Local(format!("cannot set up TLS: {error}")))?;
    let builder = match trust {
        Trust::System => builder
            .with_platform_verifier()
            .map_err(|error| CliError::Local(format!("cannot read this machine's certificate authorities: {error}")))?,
        Trust::File(path) => {
            let pem =
                fs::read(path).map_err(|error| CliError::file(Path::new(path), "cannot read the authority", &error))?;
            builder.with_root_certificates(roots(&pem, path)?)
        }
        Trust::Text(pem) => builder.with_root_certificates(roots(pem.as_bytes(), "the given authority")?),
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyone(provider))),
    };
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let unreadable = |path: &str, error: &dyn std::fmt::Display| {
        CliError::Local(format!("cannot use the client certificate in `{path}`: {error}"))
    };
    let chain = CertificateDer::pem_file_iter(&identity.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&identity.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| unreadable(&identity.key, &error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unreadable(&identity.certificate, &error))
}

fn roots(pem: &[u8], name: &str) -> Result<RootCertStore, CliError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| store.add(certificate).map_err(|error| error.to_string()))
            .map_err(|error| CliError::Local(format!("`{name}` holds a certificate that cannot be read: {error}")))?;
    }
    if store.is_empty() {
        return Err(CliError::Local(format!("`{name}` holds no certificate in PEM form")));
    }
    Ok(store)
}

/// `--tls-skip-verify`: the signature of the handshake is still checked, the certificate is not.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
