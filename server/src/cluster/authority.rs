//! The node authority: the certificate authority that makes a node a member of this cluster and of no other.
//!
//! Born with the installation, P-256. Its key is in the replicated state, wrapped by the root key, so that whichever node
//! leads can sign, and a sealed one cannot. It signs what it decides on itself: a request gives a public key and nothing
//! else, whoever asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_crypto::{CryptoError, RootKey};
use keyward_model::{Entropy, Id, Secret};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
    SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::names;
use super::rows::AuthorityRow;

/// How long the authority's certificate is good for.
const AUTHORITY_S: i64 = 3650 * 86_400;
/// How long a node's certificate is good for, unless the configuration says otherwise.
pub const LEAF_S: i64 = 86_400;
/// How far clocks may differ: a certificate is good from this long before it was issued.
pub const SKEW_S: i64 = 3600;
/// Length of an uncompressed point on P-256, which begins with 4.
const POINT_BYTES: usize = 65;

/// Signs certificates of nodes. In memory only while it is used.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    leaf_s: i64,
}

/// The node that a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// Its cluster.
    pub cluster: Id,
    /// Its id.
    pub node: Id,
    /// The number that Raft knows it by.
    pub number: u64,
    /// How many times it was set up anew.
    pub incarnation: u64,
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The wrapped key does not open.
    #[error("the key of the node authority does not open: {0}")]
    Key(#[from] CryptoError),
    /// The row does not hold what it should.
    #[error("the row of the node authority is damaged")]
    Damaged,
    /// The request is not one that a node makes.
    #[error("the certificate request is not accepted: {0}")]
    Request(&'static str),
    /// The library refused.
    #[error("the node authority could not sign: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Authority {
    /// A new authority for `cluster`.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`].
    pub fn generate(cluster: Id, now_s: i64) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Keyward node authority {}", cluster.to_uuid()));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (moment(now_s - SKEW_S), moment(now_s + AUTHORITY_S));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, leaf_s: LEAF_S })
    }

    /// The same, whose certificates are good for so many seconds.
    pub fn lasting(self, leaf_s: i64) -> Self {
        Self { leaf_s, ..self }
    }

    /// The row that keeps it, its key wrapped by `root`.
    pub fn to_row(&self, domain: Id, root: &RootKey, entropy: &dyn Entropy) -> AuthorityRow {
        let key = Secret::new(self.issuer.key().serialize_der());
        let wrapped = root.wrap(key.expose(), &context(domain), entropy);
        AuthorityRow { certificate: pem(&self.certificate), key: STANDARD.encode(wrapped), next: None, before: None }
    }

    /// Reads what [`Authority::to_row`] gave.
    ///
    /// # Errors
    /// [`AuthorityError::Key`] or [`AuthorityError::Damaged`].
    pub fn from_row(row: &AuthorityRow, domain: Id, root: &RootKey) -> Result<Self, AuthorityError> {
        let certificate = certificate_of(row)?;
        let wrapped = STANDARD.decode(&row.key).map_err(|_| AuthorityError::Damaged)?;
        let key = root.unwrap(&wrapped, &context(domain))?;
        let der = PrivatePkcs8KeyDer::from(key.expose().as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate, leaf_s: LEAF_S })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for `subject` over the public key in `csr`, good for a day or as long as [`Authority::lasting`] says.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] for a request that does not prove its key, has another kind of key, or asks for
    /// anything but a certificate.
    pub fn issue(&self, csr: &[u8], subject: Subject, now_s: i64) -> Result<CertificateDer<'static>, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr))
            .map_err(|_| AuthorityError::Request("it is not a PKCS #10 request that is signed with its own key"))?;
        let key = &request.public_key;
        let point = key.der_bytes();
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 || point.len() != POINT_BYTES || point.first() != Some(&4) {
            return Err(AuthorityError::Request("its key is not one on P-256"));
        }
        if request.params != empty() {
            return Err(AuthorityError::Request("it asks for names or rights: those are not the node's to choose"));
        }
        let mut params = empty();
        let Subject { cluster, node, number, incarnation } = subject;
        let text = |text: String| Ia5String::try_from(text).map_err(AuthorityError::Sign);
        params.subject_alt_names = vec![
            SanType::DnsName(text(names::of_node(cluster, number))?),
            SanType::DnsName(text(names::of_cluster(cluster))?),
            SanType::URI(text(names::uri(cluster, node, incarnation))?),
        ];
        params.distinguished_name.push(DnType::CommonName, format!("Keyward node {}", node.to_uuid()));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (moment(now_s - SKEW_S), moment(now_s + self.leaf_s));
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// The certificate in the row: what nodes trust, readable while sealed.
///
/// # Errors
/// [`AuthorityError::Damaged`].
pub fn certificate_of(row: &AuthorityRow) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(row.certificate.as_bytes()).map_err(|_| AuthorityError::Damaged)
}

/// The certificates of all authorities that members trust, the one that signs first. Readable while sealed.
///
/// # Errors
/// [`AuthorityError::Damaged`].
pub fn trusted(row: &AuthorityRow) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let others = row.next.iter().map(|next| &next.certificate).chain(&row.before);
    std::iter::once(&row.certificate)
        .chain(others)
        .map(|text| CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| AuthorityError::Damaged))
        .collect()
}

/// The same as a member's row notes them, where `issuer` signed the member's certificate: hashes in hex, its own first.
pub fn names_of(issuer: &CertificateDer<'_>, trusted: &[CertificateDer<'_>]) -> Vec<String> {
    let name = |certificate: &CertificateDer<'_>| hex::encode(fingerprint(certificate));
    let mut names = vec![name(issuer)];
    names.extend(trusted.iter().map(name).filter(|other| *other != names[0]).collect::<Vec<_>>());
    names
}

/// What a join token pins the authority by.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Whether `leaf` names the key of `ca` as the one that signed it. Says nothing of the signature.
pub fn signed(ca: &CertificateDer<'_>, leaf: &CertificateDer<'_>) -> bool {
    let (Ok((_, ca)), Ok((_, leaf))) = (X509Certificate::from_der(ca), X509Certificate::from_der(leaf)) else {
        return false;
    };
    let own = ca.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    });
    let named = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref().map(|key| key.0),
        _ => None,
    });
    own.is_some() && own == named
}

/// A certificate as PEM.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

/// A request, or a certificate, that says nothing but a public key.
pub(super) fn empty() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
}

/// What the authority's key is bound to when it is wrapped.
fn context(domain: Id) -> Vec<u8> {
    [&domain.0[..], b"node authority"].concat()
}

fn moment(seconds: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use keyward_model::SeededEntropy;
    use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;
    use crate::cluster::certificate::{self, Applicant};

    const NOW: i64 = 1_800_000_000;
    const SUBJECT: Subject = Subject { cluster: Id([1; 16]), node: Id([2; 16]), number: 7, incarnation: 1 };

    #[test]
    fn it_signs_what_it_decides_for_a_key_that_is_proven() {
        let authority = Authority::generate(SUBJECT.cluster, NOW).unwrap();
        let applicant = Applicant::new().unwrap();
        let issued = authority.issue(applicant.csr(), SUBJECT, NOW).unwrap();
        let facts = certificate::Facts::of(&issued).unwrap();
        assert_eq!((facts.cluster, facts.number), (SUBJECT.cluster, SUBJECT.number));
        assert_eq!((facts.from_s, facts.until_s), (NOW - SKEW_S, NOW + LEAF_S));
        // Every bit of a request is signed by its key.
        let csr = applicant.csr();
        for at in [10, csr.len() / 2, csr.len() - 5] {
            let mut changed = csr.to_vec();
            changed[at] ^= 1;
            assert!(authority.issue(&changed, SUBJECT, NOW).is_err(), "{at}");
        }
        for length in [0, 1, csr.len() - 1] {
            assert!(authority.issue(&csr[..length], SUBJECT, NOW).is_err());
        }
    }

    #[test]
    fn a_request_that_asks_for_more_is_refused() {
        let authority = Authority::generate(SUBJECT.cluster, NOW).unwrap();
        let request = |params: &CertificateParams, key: &KeyPair| params.serialize_request(key).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut named = empty();
        named.subject_alt_names = vec![SanType::DnsName("other.node.keyward".try_into().unwrap())];
        let mut titled = empty();
        titled.distinguished_name.push(DnType::CommonName, "root");
        let mut authority_too = empty();
        authority_too.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut signs = empty();
        signs.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        for params in [named, titled, authority_too, signs] {
            let error = authority.issue(request(&params, &key).der(), SUBJECT, NOW).unwrap_err();
            assert!(matches!(error, AuthorityError::Request(_)), "{error}");
        }
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let error = authority.issue(request(&empty(), &key).der(), SUBJECT, NOW).unwrap_err();
            assert!(error.to_string().contains("P-256"), "{error}");
        }
    }

    #[test]
    fn it_reads_back_with_its_own_root_key_only() {
        let entropy = SeededEntropy::new(1);
        let (root, other) = (RootKey::generate(&entropy), RootKey::generate(&entropy));
        let domain = Id([3; 16]);
        let authority = Authority::generate(SUBJECT.cluster, NOW).unwrap();
        let row = authority.to_row(domain, &root, &entropy);
        let again = Authority::from_row(&row, domain, &root).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        assert!(again.issue(Applicant::new().unwrap().csr(), SUBJECT, NOW).is_ok());
        assert!(matches!(Authority::from_row(&row, domain, &other), Err(AuthorityError::Key(_))));
        assert!(matches!(Authority::from_row(&row, Id([4; 16]), &root), Err(AuthorityError::Key(_))));
    }
}
