//! Handshakes between nodes of one cluster, of two, and with certificates of other kinds.

use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::clock::SystemClock;
use crate::cluster::authority::{Authority, LEAF_S, Subject};
use crate::cluster::certificate::Applicant;
use keyward_model::Clock as _;

const CLUSTER: Id = Id([1; 16]);

fn subject(number: u64) -> Subject {
    Subject { cluster: CLUSTER, node: Id([9; 16]), number, incarnation: 1 }
}

fn now_s() -> i64 {
    SystemClock.now().seconds()
}

fn trust_at(authority: &Authority, number: u64, now_s: i64) -> Trust {
    let applicant = Applicant::new().unwrap();
    let leaf = authority.issue(applicant.csr(), subject(number), now_s).unwrap();
    let held = applicant.receive(leaf, authority.certificate().clone()).unwrap();
    Trust::new(held, std::slice::from_ref(authority.certificate())).unwrap()
}

fn trust(authority: &Authority, number: u64) -> Trust {
    trust_at(authority, number, now_s())
}

/// What each side got: the lane and the peer that the server saw, or why not.
fn shake(
    server: &Trust,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(Option<Lane>, Option<u64>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(1 << 16);
        let accepting = TlsAcceptor::from(Arc::clone(server.server())).accept(far);
        let dialling = async {
            use tokio::io::AsyncReadExt as _;
            let mut stream = TlsConnector::from(client).connect(name, near).await?;
            // The server judges the client's certificate after the client is done: its verdict comes as the first bytes.
            stream.read(&mut [0]).await
        };
        let accepted = async {
            let stream = accepting.await?;
            let connection = stream.get_ref().1;
            let lane = connection.alpn_protocol().and_then(Lane::of);
            Ok::<_, io::Error>((lane, server.peer(connection.peer_certificates())))
        };
        let (accepted, dialled) = tokio::join!(accepted, dialling);
        match (accepted, dialled) {
            (Ok(accepted), _) => Ok(accepted),
            (Err(server), Err(client)) => Err(format!("server: {server}; client: {client}")),
            (Err(server), Ok(_)) => Err(format!("server: {server}")),
        }
    })
}

#[test]
fn members_know_each_other_by_number_and_lane() {
    let authority = Authority::generate(CLUSTER, now_s()).unwrap();
    let (one, two) = (trust(&authority, 1), trust(&authority, 2));
    assert!(two.client(Lane::Join, 1).is_err());
    for lane in [Lane::Raft, Lane::Api, Lane::Renew, Lane::Unseal] {
        let (config, name) = two.client(lane, 1).unwrap();
        assert_eq!(shake(&one, config, name), Ok((Some(lane), Some(2))));
    }
    // Another member answers than the one that was meant.
    let (config, name) = two.client(Lane::Raft, 3).unwrap();
    let error = shake(&one, config, name).unwrap_err();
    assert!(error.contains("not valid for name") || error.contains("NotValidForName"), "{error}");
}

#[test]
fn another_cluster_and_an_ended_certificate_are_refused() {
    let (ours, theirs) =
        (Authority::generate(CLUSTER, now_s()).unwrap(), Authority::generate(CLUSTER, now_s()).unwrap());
    let (one, stranger) = (trust(&ours, 1), trust(&theirs, 2));
    let (config, name) = stranger.client(Lane::Raft, 1).unwrap();
    assert!(shake(&one, config, name).is_err());
    let ended = trust_at(&ours, 2, now_s() - LEAF_S - 60);
    let (config, name) = ended.client(Lane::Raft, 1).unwrap();
    let error = shake(&one, config, name).unwrap_err();
    assert!(error.contains("expired"), "{error}");
    ended.show((*trust(&ours, 2).held()).clone());
    let (config, name) = ended.client(Lane::Raft, 1).unwrap();
    assert_eq!(shake(&one, config, name), Ok((Some(Lane::Raft), Some(2))), "a renewed certificate is in use at once");
}

#[test]
fn a_node_that_joins_finds_the_authority_of_its_token_and_no_other() {
    let authority = Authority::generate(CLUSTER, now_s()).unwrap();
    let one = trust(&authority, 1);
    let hash = authority::fingerprint(authority.certificate());
    let (config, name) = pinned(CLUSTER, hash).unwrap();
    assert_eq!(shake(&one, config, name), Ok((Some(Lane::Join), None)), "without a certificate, on the join lane only");
    for (cluster, hash) in [(CLUSTER, [7; 32]), (Id([2; 16]), hash)] {
        let (config, name) = pinned(cluster, hash).unwrap();
        assert!(shake(&one, config, name).is_err());
    }
    // The hash of the leaf is not that of an authority.
    let leaf = authority::fingerprint(one.held().certified.cert.first().unwrap());
    let (config, name) = pinned(CLUSTER, leaf).unwrap();
    assert!(shake(&one, config, name).is_err());
}

#[test]
fn certificates_of_the_api_are_not_taken() {
    let authority = Authority::generate(CLUSTER, now_s()).unwrap();
    let one = trust(&authority, 1);
    let api = rcgen::generate_simple_self_signed(vec![names::of_node(CLUSTER, 2)]).unwrap();
    let key = PrivateKeyDer::try_from(api.signing_key.serialize_der()).unwrap();
    let mut config = client_builder()
        .unwrap()
        .with_root_certificates(roots(std::slice::from_ref(authority.certificate())).unwrap())
        .with_client_auth_cert(vec![api.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![Lane::Api.name().to_vec()];
    let name = ServerName::try_from(names::of_node(CLUSTER, 1)).unwrap();
    assert!(shake(&one, Arc::new(config), name).is_err());
}

#[test]
fn tls_1_2_and_unknown_protocols_are_refused() {
    let authority = Authority::generate(CLUSTER, now_s()).unwrap();
    let one = trust(&authority, 1);
    let name = || ServerName::try_from(names::of_node(CLUSTER, 1)).unwrap();
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots(std::slice::from_ref(authority.certificate())).unwrap())
        .with_no_client_auth();
    assert!(shake(&one, Arc::new(old), name()).is_err());
    for (alpn, taken) in [(vec![b"h2".to_vec()], false), (vec![], true)] {
        let builder = client_builder()
            .unwrap()
            .with_root_certificates(roots(std::slice::from_ref(authority.certificate())).unwrap());
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn;
        // Without ALPN there is a connection, but no lane that it could take.
        assert_eq!(shake(&one, Arc::new(config), name()).ok(), taken.then_some((None, None)));
    }
}
