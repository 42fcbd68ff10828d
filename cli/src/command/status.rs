//! `status`: one look at the seal, and at the members where there are several. Exit code 0 unsealed, 2 sealed, 1 no answer.

use serde_json::{Value, json};

use super::Session;
use super::operator::cluster;
use crate::client::Client;
use crate::error::CliError;
use crate::output::Format;

/// No arguments of its own.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {}

/// Shows the seal status, and who leads if the server is unsealed.
///
/// # Errors
/// No answer (exit code 1, unlike elsewhere), or sealed (exit code 2, after the table).
pub(crate) fn run(session: &mut Session, _: &Arguments) -> Result<(), CliError> {
    let client = session.client()?;
    let status = match client.get("sys/seal-status", &[]) {
        Ok(Some(answer)) => answer.body,
        Ok(None) => return Err(CliError::Local("there is no seal status at this address".into())),
        Err(error) => {
            session.output.hint(error.explain().trim_end());
            return Err(CliError::Quiet(1));
        }
    };
    let sealed = status["sealed"].as_bool().unwrap_or(true);
    let leader = if sealed { Value::Null } else { leader(&client) };
    show(session, &status, &leader)?;
    let rows = cluster::rows(&leader);
    if rows.len() > 1 && session.output.format() == Format::Table && session.output.field().is_none() {
        session.output.text("\n")?;
        session.output.rows(&leader, cluster::HEADERS, &rows)?;
    }
    if sealed { Err(CliError::Quiet(2)) } else { Ok(()) }
}

/// Writes a seal status; `leader` may be null.
///
/// # Errors
/// The output cannot be written, or the asked-for field is not there.
pub(crate) fn show(session: &mut Session, status: &Value, leader: &Value) -> Result<(), CliError> {
    let mut document = status.clone();
    let mut rows = Vec::new();
    let mut row = |label: &str, value: &Value| {
        if !value.is_null() && value.as_str() != Some("") {
            rows.push(vec![label.to_owned(), crate::output::cell(value)]);
        }
    };
    row("Seal Type", &status["type"]);
    row("Initialized", &status["initialized"]);
    row("Sealed", &status["sealed"]);
    row("Total Shares", &status["n"]);
    row("Threshold", &status["t"]);
    let progress = status["progress"].as_u64().unwrap_or_default();
    if progress > 0 {
        row("Unseal Progress", &json!(format!("{progress}/{}", status["t"])));
        row("Unseal Nonce", &status["nonce"]);
    }
    row("Peer Unseal", &status["keyward_peer_unseal"]);
    row("Version", &status["version"]);
    row("Storage Type", &status["storage_type"]);
    row("Cluster Name", &status["cluster_name"]);
    row("Cluster ID", &status["cluster_id"]);
    row("HA Enabled", &leader["ha_enabled"]);
    row("HA Mode", &mode(leader));
    row("Active Node Address", &leader["leader_address"]);
    if let (Some(document), Some(leader)) = (document.as_object_mut(), leader.as_object()) {
        document.extend(leader.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    session.output.rows(&document, &["Key", "Value"], &rows)
}

/// Who leads, and the members. Best effort: the status is worth showing without it.
fn leader(client: &Client) -> Value {
    let mut leader = client.get("sys/leader", &[]).ok().flatten().map_or(Value::Null, |answer| answer.body);
    // Only for who may see them: a refusal is no reason to show nothing.
    if client.target().token.is_some()
        && let (Some(leader), Ok(Some(answer))) = (leader.as_object_mut(), client.get("sys/cluster/members", &[]))
    {
        leader.insert("members".into(), answer.body["data"]["members"].clone());
    }
    leader
}

fn mode(leader: &Value) -> Value {
    match (leader["ha_enabled"].as_bool(), leader["is_self"].as_bool()) {
        (Some(true), Some(true)) => "active".into(),
        (Some(true), _) => "standby".into(),
        _ => Value::Null,
    }
}
