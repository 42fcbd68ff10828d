//! A request of the native face, understood: what is to be done, where, and what policies are asked.

use std::sync::Arc;

use keyward_model::event::EventKind;
use keyward_model::{Id, Table};
use keyward_policy::{Operation, Parameters};
use serde_json::{Value, json};

use super::route::{self, Action, Named, Pick};
use super::uri;
use crate::app::{Tables, Worker};
use crate::engine::kv::{Scope, Status};
use crate::http::fields::Params;
use crate::http::request::Request;
use crate::mounts::{Kind, Mount};
use crate::record::Facts;
use crate::refusal::{Problem, Refusal};

/// A call, checked as far as text goes.
#[derive(Debug)]
pub struct Call {
    /// What is to be done.
    pub(super) action: Action,
    /// Where.
    pub place: Place,
    /// What policies decide about.
    pub asked: Asked,
}

/// The place of a secret, or of a folder.
#[derive(Debug)]
pub struct Place {
    /// The mount; `None` if there is no KV v2 mount of that name, which only a permitted caller is told.
    pub mount: Option<Arc<Mount>>,
    /// The mount's name.
    pub(super) name: String,
    /// The path below it, as the store has it.
    pub(super) path: String,
    /// The id that the secret must have, where the request named it by its id.
    pub(super) secret: Option<Id>,
}

/// The path and the operation of the KV v2 mount that mean what the call means.
#[derive(Debug)]
pub struct Asked {
    /// As in `secret/data/prod/db`.
    pub path: String,
    /// What is done there.
    pub operation: Operation,
}

impl Call {
    /// Understands a request: text first, then the table of mounts, and for an id the path it stands for. What the
    /// record will say goes into `facts` as soon as it is known.
    ///
    /// # Errors
    /// A problem of the text; [`Refusal::Denied`] for an id that stands for nothing.
    pub fn read(worker: &Worker, request: &Request, params: &Params<'_>, facts: &mut Facts) -> Result<Self, Refusal> {
        facts.kind = EventKind::UriRejected;
        let (action, named) = route::read(request, params)?;
        describe(&action, facts);
        let tables = worker.tables()?;
        let place = match named {
            Named::Id(id) => place_of(worker, &tables, id, facts)?,
            Named::Path { mount, path } => {
                uri::mount(&mount).map_err(Refusal::Problem)?;
                if !path.is_empty() && uri::of(&mount, &path).is_none() {
                    return Err(Refusal::Problem(Problem::URI_TOO_LONG));
                }
                let found = tables.mounts.get(&format!("{mount}/")).filter(|mount| mount.kind == Kind::Kv2);
                Place { mount: found.cloned(), name: mount, path, secret: None }
            }
        };
        let keys = worker.app.barrier.keyring()?;
        facts.resource_ref =
            Some(keys.references.resource_ref(&format!("keyward+kv2://{}/{}", place.name, place.path)));
        let asked = asked(&action, &place);
        Ok(Self { action, place, asked })
    }

    /// What the same call has for parameters on the compatible face, for policies that look at them.
    pub fn parameters<'a>(&'a self, params: &'a Params<'a>) -> impl Parameters + 'a {
        KvParameters { call: self, params }
    }
}

/// The place that an id stands for.
fn place_of(worker: &Worker, tables: &Tables, id: Id, facts: &mut Facts) -> Result<Place, Refusal> {
    let found = worker.app.barrier.read(worker.reader(), Table::SecretIds, &id.0)?.and_then(|opened| {
        let (mount, path) = opened.body.expose().split_at_checked(16)?;
        let mount = tables.mounts.iter().find(|known| known.id.0 == mount && known.kind == Kind::Kv2)?;
        let (name, path) = (mount.path.strip_suffix('/')?, std::str::from_utf8(path).ok()?);
        uri::of(name, path)?; // a secret that has no URI is not on this face
        let (name, path) = (name.to_owned(), path.to_owned());
        Some(Place { mount: Some(Arc::clone(mount)), name, path, secret: Some(id) })
    });
    found.ok_or_else(|| {
        facts.kind = EventKind::SecretDeny;
        Refusal::Denied
    })
}

fn describe(action: &Action, facts: &mut Facts) {
    let (kind, name) = match action {
        Action::Create(_) => (EventKind::SecretCreated, "write"),
        Action::Write { .. } => (EventKind::VersionCreated, "write"),
        Action::Read { .. } => (EventKind::SecretPermit, "read"),
        Action::Show(_) => (EventKind::MetadataRead, "read_metadata"),
        Action::List { .. } => (EventKind::Listed, "list"),
        Action::Point { .. } | Action::Unpoint { .. } => (EventKind::AliasMoved, "promote"),
        Action::Disable(..) | Action::Enable(_) => (EventKind::VersionStatusChanged, "administer"),
        Action::Destroy(_) => (EventKind::VersionDestroyed, "destroy"),
        Action::Delete(_) => (EventKind::SecretDeleted, "delete"),
        Action::Undelete(_) => (EventKind::SecretUndeleted, "undelete"),
    };
    facts.set(kind, name, "kv2");
    match action {
        Action::Write { status, .. } => facts.version_status = Some(status.name()),
        Action::Read { pick: Pick::Version(number), .. } => facts.version = Some(*number),
        Action::Read { pick: Pick::Alias(name), .. } | Action::Unpoint { name, .. } => facts.alias = Some(name.clone()),
        Action::Point { name, version, .. } => {
            facts.alias = Some(name.clone());
            facts.version = Some(*version);
            facts.version_status = (name == "current").then_some(Status::Current.name());
        }
        Action::Disable(number, _) => (facts.version, facts.version_status) = (Some(*number), Some("DISABLED")),
        Action::Destroy(number) => (facts.version, facts.version_status) = (Some(*number), Some("DESTROYED")),
        Action::Enable(number) | Action::Delete(Scope::Version(number)) | Action::Undelete(Scope::Version(number)) => {
            facts.version = Some(*number)
        }
        _ => {}
    }
}

/// The KV v2 path and operation of the same meaning.
fn asked(action: &Action, place: &Place) -> Asked {
    let (family, operation) = match action {
        Action::Create(_) => ("data", Operation::Create),
        Action::Write { .. } => ("data", Operation::Update),
        Action::Read { .. } => ("data", Operation::Read),
        Action::Show(_) => ("metadata", Operation::Read),
        Action::List { .. } => ("metadata", Operation::List),
        Action::Point { .. } | Action::Unpoint { .. } => ("aliases", Operation::Update),
        Action::Disable(..) | Action::Enable(_) => ("metadata", Operation::Update),
        Action::Destroy(_) => ("destroy", Operation::Update),
        Action::Delete(_) => ("data", Operation::Delete),
        Action::Undelete(_) => ("undelete", Operation::Update),
    };
    let slash = if operation == Operation::List && !place.path.is_empty() { "/" } else { "" };
    Asked { path: format!("{}/{family}/{}{slash}", place.name, place.path), operation }
}

/// The parameters of a call under the names that they have on the compatible face.
struct KvParameters<'a> {
    call: &'a Call,
    params: &'a Params<'a>,
}

impl Parameters for KvParameters<'_> {
    fn each(&self, visit: &mut dyn FnMut(&str, &Value) -> bool) {
        let all = match &self.call.action {
            Action::Read { pick: Pick::Version(number), .. } => vec![("version", json!(number.to_string()))],
            Action::Read { pick: Pick::Alias(name), .. } => vec![("alias", json!(name))],
            Action::Write { expected, .. } => {
                let value = self.params.body().and_then(|body| body.get("value"));
                let value = value.and_then(|raw| serde_json::from_str::<Value>(raw.text()).ok()).unwrap_or_default();
                let data = if value.is_object() { value } else { json!({ "value": value }) };
                let options = expected.map(|cas| ("options", json!({ "cas": cas })));
                [("data", data)].into_iter().chain(options).collect()
            }
            Action::Point { name, version, expected, .. } => vec![
                ("alias", json!(name)),
                ("version", json!(version)),
                ("expected_previous_version", json!(expected.version)),
            ],
            Action::Unpoint { name, expected } => {
                vec![("alias", json!(name)), ("expected_previous_version", json!(expected.version))]
            }
            Action::Destroy(number) | Action::Undelete(Scope::Version(number)) => vec![("versions", json!([number]))],
            _ => Vec::new(),
        };
        for (name, value) in &all {
            if !visit(name, value) {
                return;
            }
        }
    }
}
