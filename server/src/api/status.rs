//! Status of the node: `sys/health`, `sys/seal-status`, `sys/leader`, `sys/ha-status`, and other reads of an operator.

use keyward_model::Timestamp;
use keyward_policy::Operation;
use serde_json::{Value, json};

use super::Context;
use crate::app::Worker;
use crate::build;
use crate::cluster::heads;
use crate::cluster::peer_unseal::asker;
use crate::cluster::rows::{self, NodeRow};
use crate::http::answer::Answer;
use crate::refusal::Refusal;
use crate::seal;

/// Answers the family.
///
/// # Errors
/// No such path or verb, or a parameter that is none.
pub fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    let read = context.request.operation == Operation::Read;
    match context.request.path.as_str() {
        "sys/health" if read => health(context),
        "sys/seal-status" if read => Ok(Answer::bare(200, &seal_status(context.worker)?)),
        "sys/leader" if read => Ok(Answer::bare(200, &leader(context.worker)?)),
        "sys/health" | "sys/seal-status" | "sys/leader" => Err(Refusal::UnknownVerb),
        "sys/ha-status" if read => Ok(told(context, Answer::injected(&ha_status(context.worker)?))),
        "sys/audit-key" if read => Ok(Answer::injected(&audit_key(context.worker))),
        "sys/audit-heads" if read => Ok(Answer::data(&audit_heads(context.worker)?)),
        "sys/config/cors" if read => Ok(told(context, Answer::injected(&json!({ "enabled": false })))),
        "sys/host-info" if read => Ok(told(context, Answer::data(&host_info(context.worker)))),
        "sys/version-history/" if context.request.operation == Operation::List => version_history(context),
        "sys/ha-status"
        | "sys/audit-key"
        | "sys/audit-heads"
        | "sys/config/cors"
        | "sys/host-info"
        | "sys/host-info/"
        | "sys/version-history"
        | "sys/version-history/" => Err(Refusal::UnsupportedOperation),
        _ => Err(Refusal::UnsupportedPath),
    }
}

/// These paths take no parameters.
fn told(context: &Context<'_>, answer: Answer) -> Answer {
    context.with_parameter_warnings(answer, &[])
}

fn health(context: &Context<'_>) -> Result<Answer, Refusal> {
    let number = |name: &str, default: u16| match context.params.get(name) {
        None => Ok(default),
        Some(_) => {
            let code = context.params.string(name).ok().flatten().and_then(|text| text.parse::<i64>().ok());
            code.map(|code| u16::try_from(code.clamp(200, 599)).unwrap_or(default)).ok_or(Refusal::MalformedSilent)
        }
    };
    let active = number("activecode", 200)?;
    let sealed_code = number("sealedcode", 503)?;
    let uninit = number("uninitcode", 501)?;
    let standby_code = number("standbycode", 429)?;
    let standby_ok = match context.params.get("standbyok") {
        None => false,
        Some(_) => context.params.bool("standbyok").map_err(|_| Refusal::MalformedSilent)?.unwrap_or(false),
    };
    let worker = context.worker;
    let leads = worker.app.barrier.node().leads();
    let installation = seal::installation(worker.reader())?;
    let sealed = worker.app.barrier.is_sealed();
    let status = match (&installation, sealed) {
        (None, _) => uninit,
        (Some(_), true) => sealed_code,
        (Some(_), false) if leads || standby_ok => active,
        (Some(_), false) => standby_code,
    };
    let standby = sealed || !leads;
    let mode = if standby { "unknown" } else { "primary" };
    let mut body = json!({
        "initialized": installation.is_some(),
        "sealed": sealed,
        "standby": standby,
        "performance_standby": false,
        "replication_performance_mode": mode,
        "replication_dr_mode": if standby { "unknown" } else { "disabled" },
        "server_time_utc": worker.app.barrier.now().seconds(),
        "version": build::API_VERSION,
        "keyward_version": build::VERSION,
    });
    if let (Some(installation), false) = (installation, sealed) {
        body["cluster_name"] = json!(worker.app.config.cluster.name);
        body["cluster_id"] = json!(installation.cluster.to_uuid());
    }
    Ok(Answer::bare(status, &body))
}

/// `sys/seal-status`, which unseal answers, too.
///
/// # Errors
/// The state database cannot be read.
pub fn seal_status(worker: &Worker) -> Result<Value, Refusal> {
    let installation = seal::installation(worker.reader())?;
    let records = seal::records(worker.reader())?;
    let sealed = worker.app.barrier.is_sealed();
    let main = records.iter().find(|record| !record.recovery);
    let recovery = records.iter().find(|record| record.recovery);
    let shape = recovery.filter(|_| main.is_some_and(|record| record.kind != "shamir")).or(main);
    let (progress, nonce) = worker.app.unsealing.progress();
    let kind = main.map_or(worker.app.config.seal.kind.name(), |record| record.kind.as_str());
    let mut status = json!({
        "type": kind,
        "initialized": installation.is_some(),
        "sealed": sealed,
        "t": shape.map_or(0, |record| record.threshold),
        "n": shape.map_or(0, |record| record.shares),
        "progress": progress,
        "nonce": nonce,
        "version": build::API_VERSION,
        "build_date": "",
        "commit_date": "",
        "migration": false,
        "recovery_seal": recovery.is_some(),
        "storage_type": "raft",
        "keyward_version": build::VERSION,
    });
    if recovery.is_some() {
        status["recovery_seal_type"] = json!("shamir");
    }
    if worker.app.config.seal.peer_unseal {
        let stands = match sealed {
            false => "on",
            true if worker.app.cluster.hold.is_set() => "held",
            true if asker::asks(worker) => "asking",
            true => "idle",
        };
        status["keyward_peer_unseal"] = json!(stands);
    }
    if let (Some(installation), false) = (installation, sealed) {
        status["cluster_name"] = json!(worker.app.config.cluster.name);
        status["cluster_id"] = json!(installation.cluster.to_uuid());
    }
    Ok(status)
}

/// Who leads, and where clients and nodes reach it; without one, empty addresses.
fn leader(worker: &Worker) -> Result<Value, Refusal> {
    let node = worker.app.barrier.node();
    let (status, leadership) = (node.status(), *node.leadership().borrow());
    // Not the leader that was heard last: one that fell silent is none.
    let row = leadership.leader.map(|leader| rows::node(worker.reader(), leader)).transpose()?.flatten();
    let is_self = leadership.leads;
    let own = || if is_self { worker.app.address() } else { String::new() };
    let (address, node_address) = row.map_or_else(|| (own(), own()), |row| (row.api_address, row.node_address));
    Ok(json!({
        "ha_enabled": true,
        "is_self": is_self,
        "active_time": worker.app.started.rfc3339(),
        "leader_address": address,
        "leader_cluster_address": node_address,
        "performance_standby": false,
        "performance_standby_last_remote_wal": 0,
        "raft_committed_index": status.committed.unwrap_or(0),
        "raft_applied_index": status.applied.unwrap_or(0),
    }))
}

/// What a verifier of the audit trail needs: the stream of this node and the public key that its checkpoints are signed with.
fn audit_key(worker: &Worker) -> Value {
    let journal = worker.app.journal();
    json!({ "stream": journal.stream(), "key": worker.app.audit_key(), "algorithm": "ed25519" })
}

/// Where the audit streams of all nodes stand, as each of them signed it.
fn audit_heads(worker: &Worker) -> Result<Value, Refusal> {
    let names = rows::nodes(worker.reader())?;
    let shown = heads::all(worker.reader())?.into_iter().map(|(head, row)| {
        let of_stream = |node: &NodeRow| head.stream.starts_with(&node.node.to_uuid());
        let name = names.iter().find(|(_, node)| of_stream(node)).map(|(_, node)| node.name.clone());
        json!({
            "stream": head.stream,
            "name": name,
            "seq": head.seq,
            "hash": hex::encode(head.hash),
            "key": hex::encode(head.key),
            "taken": row.taken.rfc3339(),
            "checkpoint": head.text,
        })
    });
    Ok(json!({ "heads": shown.collect::<Vec<_>>() }))
}

fn host_info(worker: &Worker) -> Value {
    let (system, load) = (rustix::system::uname(), rustix::system::sysinfo());
    let unit = u64::from(load.mem_unit);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    json!({
        "timestamp": worker.app.barrier.now().rfc3339(),
        "host": {
            "hostname": system.nodename().to_string_lossy(),
            "os": system.sysname().to_string_lossy().to_lowercase(),
            "kernelVersion": system.release().to_string_lossy(),
            "kernelArch": system.machine().to_string_lossy(),
            "uptime": load.uptime,
        },
        "cpu": (0..cores).map(|number| json!({ "cpu": number })).collect::<Vec<_>>(),
        "memory": { "total": load.totalram * unit, "free": load.freeram * unit },
    })
}

/// There was no other version yet.
fn version_history(context: &Context<'_>) -> Result<Answer, Refusal> {
    let installed = seal::installation(context.reader())?.map(|installation| installation.created.rfc3339());
    let facts = json!({ "commit_date": "", "previous_version": null, "timestamp_installed": installed });
    let answer = Answer::data(&json!({ "keys": [build::VERSION], "key_info": { build::VERSION: facts } }));
    Ok(told(context, answer))
}

/// All members, as the leader knows them. A node that was never one of several shows itself.
fn ha_status(worker: &Worker) -> Result<Value, Refusal> {
    let node = worker.app.barrier.node();
    let (status, members, now) = (node.status(), node.members(), worker.app.barrier.now());
    let mut nodes: Vec<Value> = Vec::new();
    for (number, row) in rows::nodes(worker.reader())? {
        let heard_ms = members.iter().find(|member| member.node == number).and_then(|member| member.heard_ms);
        let heard = heard_ms.filter(|_| number != status.node_id).map(|ms| {
            Timestamp(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000))).rfc3339()
        });
        nodes.push(json!({
            "hostname": row.name,
            "api_address": row.api_address,
            "cluster_address": row.node_address,
            "active_node": status.leader == Some(number),
            "last_echo": heard,
            "version": build::API_VERSION,
        }));
    }
    if nodes.is_empty() {
        nodes.push(json!({
            "hostname": rustix::system::uname().nodename().to_string_lossy(),
            "api_address": worker.app.address(),
            "cluster_address": worker.app.address(),
            "active_node": true,
            "last_echo": null,
            "version": build::API_VERSION,
        }));
    }
    Ok(json!({ "nodes": nodes }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{ask, on_a_node};

    #[test]
    fn what_is_told_of_the_machine_stands_in_data_only() {
        on_a_node(async |worker, _| {
            for (method, path, member) in [("GET", "sys/host-info", "host"), ("LIST", "sys/version-history", "keys")] {
                let (status, told) = ask(worker, "root", method, path, "").await;
                assert_eq!(status, 200, "{told}");
                assert!(!told["data"][member].is_null() && told.get(member).is_none(), "{told}");
            }
        });
    }
}
