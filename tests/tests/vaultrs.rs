//! vaultrs, a Rust client of others, unmodified: KV version 2, tokens, wrapping, system calls.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use keyward_tests::server::{ROOT, Server};
use vaultrs::api::ResponseWrapper as _;
use vaultrs::api::kv2::requests::{ReadSecretRequest, SetSecretMetadataRequest, SetSecretRequestOptions};
use vaultrs::api::sys::requests::ListMountsRequest;
use vaultrs::api::token::requests::CreateTokenRequest;
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use vaultrs::error::ClientError;
use vaultrs::sys::ServerStatus;
use vaultrs::{kv1, kv2, sys, token};

type Secret = BTreeMap<String, String>;

fn client(server: &Server, token: &str) -> VaultClient {
    let settings = VaultClientSettingsBuilder::default().address(&server.address).token(token).build().unwrap();
    VaultClient::new(settings).unwrap()
}

fn secret(pass: &str) -> Secret {
    Secret::from([("pass".to_owned(), pass.to_owned())])
}

#[track_caller]
fn refused<T: Debug>(result: Result<T, ClientError>, status: u16) {
    match result {
        Err(ClientError::APIError { code, .. }) if code == status => {}
        other => panic!("{status} was due, {other:?} came"),
    }
}

#[tokio::test]
async fn kv_version_2() {
    let server = Server::dev();
    let root = client(&server, ROOT);
    let (mount, path) = ("secret", "rust/app");
    let made =
        kv2::set_with_options(&root, mount, path, &secret("p1"), SetSecretRequestOptions { cas: 0 }).await.unwrap();
    assert_eq!(made.version, 1);
    refused(kv2::set_with_options(&root, mount, path, &secret("p"), SetSecretRequestOptions { cas: 0 }).await, 400);
    assert_eq!(kv2::set(&root, mount, path, &secret("p2")).await.unwrap().version, 2);
    assert_eq!(kv2::read::<Secret>(&root, mount, path).await.unwrap(), secret("p2"));
    assert_eq!(kv2::read_version::<Secret>(&root, mount, path, 1).await.unwrap(), secret("p1"));

    kv2::delete_latest(&root, mount, path).await.unwrap();
    assert!(kv2::read::<Secret>(&root, mount, path).await.is_err());
    kv2::undelete_versions(&root, mount, path, vec![2]).await.unwrap();
    assert_eq!(kv2::read::<Secret>(&root, mount, path).await.unwrap(), secret("p2"));
    kv2::delete_versions(&root, mount, path, vec![2]).await.unwrap();
    kv2::destroy_versions(&root, mount, path, vec![1]).await.unwrap();

    let mut settings = SetSecretMetadataRequest::builder();
    settings.max_versions(3_u64);
    kv2::set_metadata(&root, mount, path, Some(&mut settings)).await.unwrap();
    let metadata = kv2::read_metadata(&root, mount, path).await.unwrap();
    assert_eq!((metadata.max_versions, metadata.current_version), (3, 2));
    assert!(metadata.versions["1"].destroyed && !metadata.versions["2"].deletion_time.is_empty());
    assert_eq!(kv2::list(&root, mount, "rust").await.unwrap(), ["app"]);
    kv2::delete_metadata(&root, mount, path).await.unwrap();
    refused(kv2::read_metadata(&root, mount, path).await, 404);
}

#[tokio::test]
async fn kv_version_1_and_mounts() {
    let server = Server::dev();
    let root = client(&server, ROOT);
    sys::mount::enable(&root, "old", "kv", None).await.unwrap();
    let value = std::collections::HashMap::from([("pass", "p1")]);
    kv1::set(&root, "old", "app", &value).await.unwrap();
    assert_eq!(kv1::get::<Secret>(&root, "old", "app").await.unwrap(), secret("p1"));
    assert_eq!(kv1::list(&root, "old", "").await.unwrap().data.keys, ["app"]);
    kv1::delete(&root, "old", "app").await.unwrap();
    assert!(sys::mount::list(&root).await.unwrap().contains_key("old/"));
    sys::mount::disable(&root, "old").await.unwrap();
    assert!(!sys::mount::list(&root).await.unwrap().contains_key("old/"));
}

#[tokio::test]
async fn tokens_and_policies() {
    let server = Server::dev();
    let root = client(&server, ROOT);
    let text = r#"path "secret/data/mine" { capabilities = ["read"] }"#;
    sys::policy::set(&root, "mine", text).await.unwrap();
    assert_eq!(sys::policy::read(&root, "mine").await.unwrap().rules, text);
    assert!(sys::policy::list(&root).await.unwrap().policies.contains(&"mine".to_owned()));
    kv2::set(&root, "secret", "mine", &secret("p")).await.unwrap();

    let mut wish = CreateTokenRequest::builder();
    wish.policies(vec!["mine".to_owned()]).ttl("1h");
    let made = token::new(&root, Some(&mut wish)).await.unwrap();
    assert_eq!(
        (made.policies, made.lease_duration, made.renewable),
        (vec!["default".into(), "mine".into()], 3600, true)
    );
    let limited = client(&server, &made.client_token);
    assert_eq!(kv2::read::<Secret>(&limited, "secret", "mine").await.unwrap(), secret("p"));
    refused(kv2::read::<Secret>(&limited, "secret", "other").await, 403);
    assert_eq!(token::lookup_self(&limited).await.unwrap().policies, ["default", "mine"]);
    assert_eq!(token::lookup_accessor(&root, &made.accessor).await.unwrap().id, "");
    assert_eq!(token::renew_self(&limited, Some("10m")).await.unwrap().client_token, made.client_token);
    token::revoke_accessor(&root, &made.accessor).await.unwrap();
    refused(token::lookup_self(&limited).await, 403);
    sys::policy::delete(&root, "mine").await.unwrap();
}

#[tokio::test]
async fn wrapping() {
    let server = Server::dev();
    let root = client(&server, ROOT);
    kv2::set(&root, "secret", "wrapped", &secret("4711")).await.unwrap();
    let read = ReadSecretRequest::builder().mount("secret").path("wrapped").build().unwrap();
    let wrapped = read.wrap(&root).await.unwrap();
    wrapped.lookup(&root).await.unwrap();
    let opened = wrapped.unwrap(&root).await.unwrap();
    assert_eq!(serde_json::from_value::<Secret>(opened.data).unwrap(), secret("4711"));
    refused(wrapped.unwrap(&root).await, 400);
    let mounts = ListMountsRequest::builder().build().unwrap().wrap(&root).await.unwrap();
    assert!(mounts.unwrap(&root).await.unwrap().contains_key("secret/"));
}

#[tokio::test]
async fn status() {
    let server = Server::dev();
    let root = client(&server, ROOT);
    assert!(matches!(sys::status(&root).await.unwrap(), ServerStatus::OK));
    assert!(sys::health(&root).await.unwrap().initialized);
    sys::seal(&root).await.unwrap();
    assert!(matches!(sys::status(&root).await.unwrap(), ServerStatus::SEALED));
    refused(kv2::read::<Secret>(&root, "secret", "any").await, 503);
}
