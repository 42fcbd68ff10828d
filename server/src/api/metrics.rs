//! The node's numbers, for Prometheus and as JSON: `sys/metrics`, which is `/metrics`, too.
//!
//! They are looked at and written down when somebody asks. Labels are names of nodes and words of ours: nothing that a
//! caller can invent, and no path. Every node tells of itself; only the leader knows how far the others are.

mod json;

use std::sync::atomic::AtomicU64;

use keyward_policy::Operation;
use keyward_raft::Status;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeCounterValue, EncodeGaugeValue};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Context;
use crate::app::{App, Worker};
use crate::build;
use crate::cluster::rows;
use crate::http::answer::{Answer, Form};
use crate::refusal::Refusal;

/// What the text is.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What every name begins with.
const PREFIX: &str = "keyward";

type Labels = Vec<(&'static str, String)>;
type Level = Gauge<u64, AtomicU64>;

/// Answers the family.
///
/// # Errors
/// No such path or verb, or another format.
pub fn act(context: &Context<'_>) -> Result<Answer, Refusal> {
    if context.request.path != "sys/metrics" {
        return Err(Refusal::UnsupportedPath);
    }
    if context.request.operation != Operation::Read {
        return Err(Refusal::UnknownVerb);
    }
    let text = text(context.worker)?;
    match context.params.string("format")?.as_deref() {
        Some("prometheus") => Ok(Answer { status: 200, form: Form::Text(CONTENT_TYPE, text.into_bytes()) }),
        None | Some("") => Ok(Answer::bare(200, &json::of_text(&text, context.worker.app.barrier.now()))),
        Some(_) => Err(Refusal::malformed("`format` is `prometheus`, or not given, for JSON")),
    }
}

/// All numbers as they are now.
fn text(worker: &Worker) -> Result<String, Refusal> {
    let app = &worker.app;
    let status = app.barrier.node().status();
    let mut page = Page(Registry::with_prefix(PREFIX));
    page.node(app, &status);
    page.log(&status);
    page.members(worker, &status)?;
    page.traffic(app);
    page.limits(app);
    page.certificates(app);
    let mut text = String::new();
    encode(&mut text, &page.0).map_err(|error| Refusal::internal(error.to_string()))?;
    Ok(text)
}

/// What is being written down.
struct Page(Registry);

impl Page {
    fn level<N: EncodeGaugeValue + std::fmt::Debug + Send + Sync + 'static>(&mut self, name: &str, help: &str, now: N) {
        self.0.register(name, help, ConstGauge::new(now));
    }

    fn count<N: EncodeCounterValue + std::fmt::Debug + Send + Sync + 'static>(&mut self, name: &str, help: &str, n: N) {
        self.0.register(name, help, ConstCounter::new(n));
    }

    fn node(&mut self, app: &App, status: &Status) {
        let build = vec![("version", build::VERSION), ("api_version", build::API_VERSION)];
        self.0.register("build", "The version that runs", Info::new(build));
        self.level("sealed", "Whether the node is sealed", u64::from(app.barrier.is_sealed()));
        self.level("leads", "Whether this node leads", u64::from(status.leader == Some(status.node_id)));
        self.level("leader_known", "Whether this node knows who leads", u64::from(status.leader.is_some()));
        self.level("term", "The term of Raft that the node is in", status.term);
        self.level("voters", "Nodes that vote", status.voters.len());
        self.level("incarnation", "How many times the log was opened", status.incarnation);
        self.level("audit_late", "Whether records of writes wait for the audit file", u64::from(app.audit_is_late()));
    }

    fn log(&mut self, status: &Status) {
        let index = |index: Option<u64>| index.unwrap_or(0);
        self.level("committed_index", "The last entry known to be committed", index(status.committed));
        self.level("applied_index", "The last entry applied to the state", index(status.applied));
        self.level("durable_index", "The last entry durable in the state itself", index(status.durable));
        self.level("purged_index", "The last entry that the log let go", index(status.purged));
        let bytes = ConstGauge::new(status.log_bytes);
        self.0.register_with_unit("log", "The log on the disk", Unit::Bytes, bytes);
        self.level("commands_waiting", "Commands that wait to be proposed", status.waiting);
        self.level("disk_full", "Whether writes are refused for want of space", u64::from(status.disk_full));
    }

    /// The others, as the leader sees them.
    fn members(&mut self, worker: &Worker, status: &Status) -> Result<(), Refusal> {
        let (lag, silence) = (Family::<Labels, Level>::default(), Family::<Labels, Gauge<f64, AtomicU64>>::default());
        if status.leader == Some(status.node_id) {
            let nodes = rows::nodes(worker.reader())?;
            for member in status.members.iter().filter(|member| member.node != status.node_id) {
                let name = nodes.iter().find(|(number, _)| *number == member.node).map(|(_, row)| row.name.clone());
                let labels = vec![("member", format!("{:016x}", member.node)), ("name", name.unwrap_or_default())];
                if let Some((committed, matched)) = status.committed.zip(member.matched) {
                    lag.get_or_create(&labels).set(committed.saturating_sub(matched));
                }
                if let Some(heard_ms) = member.heard_ms {
                    silence.get_or_create(&labels).set(heard_ms as f64 / 1000.0);
                }
            }
        }
        self.0.register("member_lag_entries", "Committed entries that a member is not known to have", lag);
        self.0.register_with_unit("member_silence", "Since a member last answered", Unit::Seconds, silence);
        Ok(())
    }

    fn traffic(&mut self, app: &App) {
        let traffic = &app.traffic;
        self.count("requests_passed_on", "Requests handed to the leader", traffic.passed_on.get());
        self.count("requests_taken", "Requests that other nodes handed to this one", traffic.taken.get());
        self.count("link_failures", "Requests for which the leader could not be had", traffic.link_failures.get());
        self.count("read_points", "Requests that waited for the newest state", traffic.read_points.get());
        self.count("read_points_missed", "Those that waited in vain", traffic.read_points_missed.get());
        self.count("node_connections_refused", "Connections closed at the node port", app.cluster.closed());
    }

    fn limits(&mut self, app: &App) {
        self.level("connections", "Connections of clients", app.gate.connections());
        let refused = &app.gate.refused;
        self.count("connections_refused", "Connections closed: too many at once", refused.connections.get());
        self.count("requests_over_rate", "Requests of sources over their rate", refused.rate.get());
        self.count("bodies_refused", "Requests for whose body there was no room", refused.bodies.get());
    }

    fn certificates(&mut self, app: &App) {
        let ends = Family::<Labels, Gauge>::default();
        let node = app.cluster.trust().map(|trust| trust.held().facts.until_s);
        let api = app.tls.as_ref().and_then(|tls| tls.until_s());
        for (of, until_s) in [("api", api), ("node", node)] {
            if let Some(until_s) = until_s {
                ends.get_or_create(&vec![("of", of.to_owned())]).set(until_s);
            }
        }
        self.0.register_with_unit("certificate_end", "When a certificate of this node ends", Unit::Seconds, ends);
    }
}

#[cfg(test)]
mod tests;
