//! The bare responder as a process of its own, so that its processor time can be told from the client's.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::endpoint::Endpoint;
use super::load::{Node, Sizes};
use crate::error::CliError;

/// A running bare responder. It ends when this is dropped, or with this process, however that ends.
pub(crate) struct Bare {
    child: Child,
    node: [Node; 1],
}

impl Bare {
    /// Starts one that takes the same requests as `server`, answers as long, and over TLS if `server` does.
    ///
    /// # Errors
    /// This program cannot be started again, or does not say where it listens.
    pub(crate) fn start(server: &Node, sizes: Sizes) -> Result<Self, CliError> {
        let failed = |what: &str| CliError::Local(format!("cannot start the bare responder: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(&error.to_string()))?;
        let mut command = Command::new(program);
        command.arg("bench-responder");
        for (flag, size) in [("--read-bytes", sizes.read), ("--write-bytes", sizes.write), ("--list-bytes", sizes.list)]
        {
            command.arg(flag).arg(size.to_string());
        }
        if server.endpoint.is_tls() {
            command.arg("--tls");
        }
        // The pipe's other end closes with this process: that is the responder's sign to end.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
        let endpoint = child.stdout.take().ok_or_else(|| failed("it has no output")).and_then(|stdout| {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map_err(|error| failed(&error.to_string()))?;
            let said: Value = serde_json::from_str(&line).map_err(|_| failed("it did not say where it listens"))?;
            let port = said["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            Endpoint::bare(port.ok_or_else(|| failed("it named no port"))?, said["certificate"].as_str())
        });
        match endpoint {
            Ok(endpoint) => Ok(Self { child, node: [Node { endpoint, requests: server.requests.clone() }] }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// It as what a load is put on.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.node
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    drop(child.stdin.take());
    // It may have ended already; then there is nothing to end.
    child.kill().ok();
    child.wait().ok();
}
