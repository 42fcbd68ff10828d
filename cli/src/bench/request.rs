//! Requests as bytes, rendered once. Only the digits of the key change.

use serde_json::json;

use crate::client::{Client, encode_path};

/// Digits of a folder's number.
const FOLDER_DIGITS: usize = 7;
/// Secrets in a folder.
const FOLDER_SIZE: u64 = 10;

/// What is done to a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Read its current version.
    Read,
    /// Write a version.
    Write,
    /// List the folder it is in.
    List,
    /// Remove all versions and their metadata.
    Remove,
}

/// The requests for one server, one of each kind.
#[derive(Clone)]
pub(crate) struct Requests {
    read: Template,
    write: Template,
    list: Template,
    remove: Template,
}

/// A request with a key in it.
#[derive(Clone)]
struct Template {
    bytes: Vec<u8>,
    /// Where the digits of the folder begin.
    folder: usize,
    /// Where the digit of the secret is, if it names one.
    leaf: Option<usize>,
}

impl Requests {
    /// Renders the requests that `client` would send for the secrets below `prefix`.
    pub(crate) fn new(client: &Client, mount: &str, prefix: &str, value_bytes: usize) -> Self {
        // Letters and digits of no meaning, different at every place, so that nothing can be compressed away.
        let value: String = (0..value_bytes).map(|place| char::from(b'a' + (place * 7 % 26) as u8)).collect();
        let body = json!({"data": {"value": value}, "options": {}}).to_string();
        let render = |method: &str, part: &str, body: &str| {
            Template::new(client, method, &format!("{mount}/{part}/{prefix}"), body)
        };
        Self {
            read: render("GET", "data", ""),
            write: render("PUT", "data", &body),
            list: render("LIST", "metadata", ""),
            remove: render("DELETE", "metadata", ""),
        }
    }

    /// The bytes of one request, for the key of this number.
    pub(crate) fn bytes(&mut self, operation: Operation, key: u64) -> &[u8] {
        let template = match operation {
            Operation::Read => &mut self.read,
            Operation::Write => &mut self.write,
            Operation::List => &mut self.list,
            Operation::Remove => &mut self.remove,
        };
        template.set(key);
        &template.bytes
    }
}

impl Template {
    fn new(client: &Client, method: &str, path: &str, body: &str) -> Self {
        let base = client.base();
        let host = base.host_str().unwrap_or_default();
        let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
        let base_path = base.path().trim_end_matches('/');
        let target = &client.target();
        // LIST goes as a read with a question, as the other commands send it.
        let (verb, leaf_and_query) = if method == "LIST" { ("GET", "?list=true") } else { (method, "/k0") };
        let mut head = format!("{verb} {base_path}/v1/{}/f", encode_path(path));
        let folder = head.len();
        head.push_str(&"0".repeat(FOLDER_DIGITS));
        head.push_str(leaf_and_query);
        let leaf = (method != "LIST").then(|| head.len() - 1);
        head.push_str(&format!(" HTTP/1.1\r\nhost: {host}{port}\r\n"));
        if let Some(token) = &target.token {
            head.push_str(&format!("x-vault-token: {}\r\n", token.expose()));
        }
        if let Some(namespace) = &target.namespace {
            head.push_str(&format!("x-vault-namespace: {namespace}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.push_str(body);
        Self { bytes: head.into_bytes(), folder, leaf }
    }

    fn set(&mut self, key: u64) {
        let mut rest = key / FOLDER_SIZE;
        for digit in self.bytes[self.folder..self.folder + FOLDER_DIGITS].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        if let Some(leaf) = self.leaf {
            self.bytes[leaf] = b'0' + (key % FOLDER_SIZE) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyward_model::Secret;

    use super::*;
    use crate::client::Target;
    use crate::env::Found;
    use crate::tls::Trust;

    #[test]
    fn a_key_is_set_in_place() {
        let client = Client::new(Target {
            address: Found { value: "http://127.0.0.1:8200".into(), origin: String::new() },
            trust: Trust::Anyone,
            identity: None,
            token: Some(Secret::new("t".into())),
            namespace: None,
            wrap_ttl: None,
            timeout: Duration::from_secs(1),
        })
        .unwrap();
        let mut requests = Requests::new(&client, "secret", "a b", 3);
        assert_eq!(
            requests.bytes(Operation::Read, 12_345),
            b"GET /v1/secret/data/a%20b/f0001234/k5 HTTP/1.1\r\nhost: 127.0.0.1:8200\r\nx-vault-token: t\r\n\r\n"
        );
        let write = String::from_utf8(requests.bytes(Operation::Write, 7).to_vec()).unwrap();
        assert!(write.starts_with("PUT /v1/secret/data/a%20b/f0000000/k7 HTTP/1.1\r\n"), "{write}");
        assert!(write.contains("\"aho\""), "{write}");
        let (head, body) = write.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{write}");
        let list = String::from_utf8(requests.bytes(Operation::List, 12_345).to_vec()).unwrap();
        assert!(list.starts_with("GET /v1/secret/metadata/a%20b/f0001234?list=true HTTP/1.1\r\n"), "{list}");
        assert!(requests.bytes(Operation::Remove, 0).starts_with(b"DELETE /v1/secret/metadata/a%20b/f0000000/k0 "));
    }
}
