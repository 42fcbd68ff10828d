//! TLS between nodes: 1.3 only, both sides prove that the cluster's own authority made them members.
//!
//! All checks of certificates are rustls' own. What is ours: the names (a node that is dialled must be the node that was
//! meant), the lane (what the connection is for, agreed by ALPN), and for a node that joins, which has no authority to
//! trust yet, the search for the one that its token names by hash. Certificates of the API are from another authority,
//! so neither port takes the other's.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use keyward_model::Id;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use subtle::ConstantTimeEq as _;

use super::certificate::{Facts, Held};
use super::{authority, names};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Consensus between members.
    Raft,
    /// Requests of clients that another member forwards.
    Api,
    /// A node that wants to become a member.
    Join,
    /// A member that wants a new certificate. Not the lane of those who are none yet: they could keep it from its turn.
    Renew,
    /// A member that wants to be unsealed.
    Unseal,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 5] = [Self::Raft, Self::Api, Self::Join, Self::Renew, Self::Unseal];

    /// Its name in ALPN.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Raft => b"keyward-raft/1",
            Self::Api => b"keyward-api/1",
            Self::Join => b"keyward-join/1",
            Self::Renew => b"keyward-renew/1",
            Self::Unseal => b"keyward-unseal/1",
        }
    }

    /// The lane of this name.
    pub fn of(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.name() == name)
    }
}

/// What this node shows and whom it believes. Certificate and key can be exchanged while it is in use.
#[derive(Debug, Clone)]
pub struct Trust {
    cluster: Id,
    trusted: Vec<CertificateDer<'static>>,
    own: Arc<Own>,
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 4],
}

/// The certificate in use, for connections made from now on.
#[derive(Debug)]
struct Own(ArcSwap<Held>);

impl Trust {
    /// Trust in these authorities and no others, showing `held`.
    ///
    /// # Errors
    /// An authority's certificate is not one.
    pub fn new(held: Held, trusted: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let cluster = held.facts.cluster;
        let own = Arc::new(Own(ArcSwap::from_pointee(held)));
        let roots = roots(trusted)?;
        let server = server_config(&roots, Arc::clone(&own) as Arc<dyn ResolvesServerCert>)?;
        let client = |lane: Lane| {
            let resolver = Arc::clone(&own) as Arc<dyn ResolvesClientCert>;
            let builder = client_builder()?.with_root_certificates(Arc::clone(&roots));
            Ok::<_, rustls::Error>(finish(builder.with_client_cert_resolver(resolver), lane))
        };
        let clients = [client(Lane::Raft)?, client(Lane::Api)?, client(Lane::Renew)?, client(Lane::Unseal)?];
        Ok(Self { cluster, trusted: trusted.to_vec(), own, server, clients })
    }

    /// The cluster whose members are trusted.
    pub fn cluster(&self) -> Id {
        self.cluster
    }

    /// The authorities that are trusted.
    pub fn trusted(&self) -> &[CertificateDer<'static>] {
        &self.trusted
    }

    /// The one that signed what is shown now.
    pub fn issuer(&self) -> CertificateDer<'static> {
        self.held().issuer.clone()
    }

    /// The certificate that is shown now.
    pub fn held(&self) -> Arc<Held> {
        self.own.0.load_full()
    }

    /// Shows another certificate from now on.
    pub fn show(&self, held: Held) {
        self.own.0.store(Arc::new(held));
    }

    /// For accepting.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// For dialling: what to present, and the name that the member `number` must prove.
    ///
    /// # Errors
    /// The lane is that of nodes which are no members yet.
    pub fn client(&self, lane: Lane, number: u64) -> io::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        let config = match lane {
            Lane::Raft => &self.clients[0],
            Lane::Api => &self.clients[1],
            Lane::Renew => &self.clients[2],
            Lane::Unseal => &self.clients[3],
            Lane::Join => return Err(io::Error::other("who joins has no certificate to show")),
        };
        let name = ServerName::try_from(names::of_node(self.cluster, number)).map_err(io::Error::other)?;
        Ok((Arc::clone(config), name))
    }

    /// The member that presented this chain, which the handshake verified; `None` if it is of another cluster.
    pub fn peer(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<u64> {
        self.shown(chain).map(|facts| facts.number)
    }

    /// What the certificate of that member says.
    pub fn shown(&self, chain: Option<&[CertificateDer<'_>]>) -> Option<Facts> {
        Facts::of(chain?.first()?).filter(|facts| facts.cluster == self.cluster)
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// For a node that joins: believes whoever shows a chain that ends in the authority of this hash, for this cluster.
///
/// # Errors
/// The provider lacks TLS 1.3; it does not.
pub fn pinned(cluster: Id, authority: [u8; 32]) -> Result<(Arc<ClientConfig>, ServerName<'static>), rustls::Error> {
    let verifier = Arc::new(Pinned { authority, provider: provider() });
    let builder = client_builder()?.dangerous().with_custom_certificate_verifier(verifier);
    let name = ServerName::try_from(names::of_cluster(cluster))
        .map_err(|_| rustls::Error::General("the cluster has no name".into()))?;
    Ok((finish(builder.with_no_client_auth(), Lane::Join), name))
}

/// Looks for the pinned authority among the certificates that were presented; everything else is rustls' verifier's.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned =
            |certificate: &&CertificateDer<'_>| bool::from(authority::fingerprint(certificate).ct_eq(&self.authority));
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let ca = intermediates.iter().take(CHAIN_MAX).find(is_pinned).ok_or(unknown)?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots(&[ca.clone().into_owned()])?, Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("nodes speak TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a handshake failed because whoever answered is of another cluster, by its own certificate.
pub fn is_of_another(error: &io::Error) -> bool {
    use CertificateError::{NotValidForName, NotValidForNameContext, UnknownIssuer};
    let shown = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        shown,
        Some(rustls::Error::InvalidCertificate(UnknownIssuer | NotValidForName | NotValidForNameContext { .. }))
    )
}

/// Whether a handshake failed because whoever answered is of an authority that this node does not know.
pub fn is_of_another_authority(error: &io::Error) -> bool {
    let shown = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(shown, Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)))
}

/// Certificates of a chain that are looked at for the pinned authority. Ours have one.
const CHAIN_MAX: usize = 4;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(trusted: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    trusted.iter().try_for_each(|ca| roots.add(ca.clone()))?;
    Ok(Arc::new(roots))
}

fn server_config(
    roots: &Arc<RootCertStore>,
    own: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    // Without a certificate one comes as far as the join lane; see `listener`.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = Lane::ALL.map(|lane| lane.name().to_vec()).to_vec();
    // No resumption: a certificate that has ended must not live on in a ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])
}

fn finish(mut config: ClientConfig, lane: Lane) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![lane.name().to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[cfg(test)]
mod tests;
