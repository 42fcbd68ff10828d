//! The nodes of a cluster: who they are, how one comes in, how one goes.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::Method;
use crate::command::Session;
use crate::error::CliError;
use crate::output::{Format, cell};

/// A token that lets one node in.
#[derive(Args, Debug)]
#[command(
    after_help = "Example, on the new machine:\n  keyward server --join kwj1.… --listen 10.0.0.2:8200\n  keyward operator join-token -field=join_token | ssh node2 keyward server --join -"
)]
pub(crate) struct JoinToken {
    /// How long it can be used, at most 15m [default: 15m]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Let in only a node of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The node takes the place of this member, by id or name: it gets its vote when it has everything, and the member goes
    #[arg(long, value_name = "NODE")]
    replace: Option<String>,
}

/// A member.
#[derive(Args, Debug)]
pub(crate) struct Member {
    /// Its id or name, as `keyward operator members` shows them
    id: String,
}

/// A member that goes.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// Its id or name, as `keyward operator members` shows them
    id: String,
    /// Also if too few of the others answer for the cluster to go on
    #[arg(long)]
    force: bool,
}

/// Makes a join token and shows it.
///
/// # Errors
/// Refused, or the cluster cannot be founded.
pub(crate) fn join_token(session: &mut Session, arguments: &JoinToken) -> Result<(), CliError> {
    let mut body = Map::new();
    for (name, value) in [("ttl", &arguments.ttl), ("name", &arguments.name), ("replace", &arguments.replace)] {
        if let Some(value) = value {
            body.insert(name.into(), value.as_str().into());
        }
    }
    let answer = session.client()?.post("sys/cluster/join-token", &Value::Object(body))?.body;
    let data = &answer["data"];
    if session.output.format() != Format::Table || session.output.field().is_some() {
        return session.output.document(data);
    }
    session.output.text(&format!("{}\n", cell(&data["join_token"])))?;
    let whom = data["name"].as_str().map_or_else(|| "one node".to_owned(), |name| format!("the node `{name}`"));
    session.output.hint(&format!(
        "\nIt lets in {whom}, once, until {}. On the new machine, with an empty data folder:\n\
         \x20 keyward server --join TOKEN\n\
         Whoever has it can become a member: hand it over as you would a password.",
        cell(&data["expires"])
    ));
    Ok(())
}

/// Shows the members.
///
/// # Errors
/// Refused.
pub(crate) fn members(session: &mut Session) -> Result<(), CliError> {
    let answer = session.client()?.get("sys/cluster/members", &[])?;
    let Some(answer) = answer else {
        return Err(CliError::Absent("this server does not know members".into(), None));
    };
    let data = &answer.body["data"];
    session.output.rows(data, HEADERS, &rows(data))?;
    if let Some(phase) = data["authority_rotation"].as_str().filter(|phase| *phase != "settled") {
        session.output.hint(&format!("the node authority is being exchanged: {phase}"));
    }
    Ok(())
}

/// The table's head.
pub(crate) const HEADERS: &[&str] =
    &["Id", "Name", "Role", "Leader", "Lag", "Last Heard", "Node Address", "API Address", "Certificate Ends"];

/// The table's rows, from the answer's data.
pub(crate) fn rows(data: &Value) -> Vec<Vec<String>> {
    let members = data["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = |value: &Value| if value.is_null() { "-".to_owned() } else { cell(value) };
    let row = |member: &Value| {
        let heard = match (member["leader"].as_bool(), member["last_heard_ms"].as_u64()) {
            (_, Some(ms)) => format!("{ms} ms ago"),
            (Some(true), None) => "answers here".to_owned(),
            _ => "-".to_owned(),
        };
        let id = if member["id"].is_null() { &member["raft_id"] } else { &member["id"] };
        vec![
            shown(id),
            shown(&member["name"]),
            role(data, member),
            if member["leader"] == json!(true) { "*".to_owned() } else { String::new() },
            shown(&member["lag"]),
            heard,
            shown(&member["node_address"]),
            shown(&member["api_address"]),
            shown(&member["certificate_until"]),
        ]
    };
    members.iter().map(row).collect()
}

/// The role of a member, whose place it takes, and until when it has to come up if it did not yet.
fn role(data: &Value, member: &Value) -> String {
    let mut text = cell(&member["role"]);
    if let Some(old) = member["replaces"].as_str() {
        let members = data["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = members.iter().find(|other| other["raft_id"] == old).and_then(|other| other["name"].as_str());
        text.push_str(&format!(", for {}", named.unwrap_or(old)));
    }
    if let Some(until) = member["awaited_until"].as_str() {
        text.push_str(&format!(", never came up, goes at {until}"));
    }
    text
}

/// Removes a member.
///
/// # Errors
/// Refused, or there is no such member.
pub(crate) fn remove(session: &mut Session, arguments: &Remove) -> Result<(), CliError> {
    let client = session.client()?;
    let path = format!("sys/cluster/members/{}", arguments.id.trim());
    let force: &[(&str, &str)] = if arguments.force { &[("force", "true")] } else { &[] };
    client.send(Method::Delete, &path, force, None)?.ok_or_else(|| absent(&arguments.id))?;
    session.output.say(&format!(
        "removed {}; stop it if it still runs, and empty its data folder: it holds a copy of everything",
        arguments.id.trim()
    ))
}

/// Lets a member vote that only listens yet.
///
/// # Errors
/// Refused, or there is no such member.
pub(crate) fn promote(session: &mut Session, arguments: &Member) -> Result<(), CliError> {
    let path = format!("sys/cluster/members/{}/promote", arguments.id.trim());
    session.client()?.send(Method::Post, &path, &[], Some(&json!({})))?.ok_or_else(|| absent(&arguments.id))?;
    session.output.say(&format!("{} votes", arguments.id.trim()))
}

/// Lets another node lead.
///
/// # Errors
/// Refused, or nobody can take over.
pub(crate) fn step_down(session: &mut Session) -> Result<(), CliError> {
    session.client()?.put("sys/step-down", &json!({}))?;
    session.output.say("another node leads, if there is one; `keyward operator members` shows which")
}

/// Begins to exchange the node authority.
///
/// # Errors
/// Refused, or one is under way.
pub(crate) fn rotate_ca(session: &mut Session) -> Result<(), CliError> {
    session.client()?.post("sys/cluster/rotate-ca", &json!({}))?;
    session.output.say(
        "the node authority is being exchanged: members trust both, get new certificates, then forget the old one\n\
         `keyward operator members` says when it is done; a member that is down keeps it waiting",
    )
}

fn absent(id: &str) -> CliError {
    CliError::Absent(
        format!("there is no member `{}`", id.trim()),
        Some("those there are: `keyward operator members`".into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_every_head() {
        let data = json!({"members": [
            {"id": "a", "raft_id": "1", "name": "one", "role": "voter", "leader": true, "lag": 0,
             "last_heard_ms": null, "node_address": "h:1", "api_address": "https://h:2", "certificate_until": "t"},
            {"id": null, "raft_id": "2", "name": null, "role": "leaving", "leader": false, "lag": null,
             "last_heard_ms": 12, "node_address": "h:3", "api_address": null, "certificate_until": null},
        ]});
        let rows = rows(&data);
        assert!(rows.iter().all(|row| row.len() == HEADERS.len()));
        assert_eq!(rows[0][..6], ["a", "one", "voter", "*", "0", "answers here"]);
        assert_eq!(rows[1][..6], ["2", "-", "leaving", "", "-", "12 ms ago"]);
    }
}
