//! Templates in rule paths: `{{identity.entity.name}}` and its kind, resolved against what is known of the caller.

use std::collections::BTreeMap;

/// What is known of a caller beyond the token. The default knows nothing, so that every templated rule is skipped.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// The entity that the token belongs to.
    pub entity: Option<Entity>,
    /// The groups that the entity is in.
    pub groups: Vec<Group>,
}

/// A caller as one person or machine, whichever way it logged in.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What an administrator noted about it.
    pub metadata: BTreeMap<String, String>,
    /// Its names at the login methods.
    pub aliases: Vec<Alias>,
}

/// The name of an entity at one login method.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Alias {
    /// The accessor of the login method's mount.
    pub mount_accessor: String,
    /// The alias's id.
    pub id: String,
    /// The name at that login method.
    pub name: String,
    /// What the login method said about it.
    pub metadata: BTreeMap<String, String>,
    /// What an administrator noted about it.
    pub custom_metadata: BTreeMap<String, String>,
}

/// A group of entities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What an administrator noted about it.
    pub metadata: BTreeMap<String, String>,
}

/// Whether every `{{` in `path` has its `}}` and the other way round.
pub(crate) fn is_balanced(path: &str) -> bool {
    let mut pieces = path.split("{{");
    pieces.next().is_some_and(|first| !first.contains("}}")) && pieces.all(|piece| piece.matches("}}").count() == 1)
}

/// `path` with every template replaced by what `subject` gives for it. `None` if one has no value, or one with a character
/// of `forbidden` in it.
pub(crate) fn resolve(path: &str, subject: &Subject, forbidden: &[char]) -> Option<String> {
    let mut out = String::with_capacity(path.len() * 2);
    let mut pieces = path.split("{{");
    out.push_str(pieces.next()?);
    for piece in pieces {
        let (directive, text) = piece.split_once("}}")?;
        let value = subject.value(directive.trim())?;
        if value.contains(forbidden) {
            return None;
        }
        out.push_str(value);
        out.push_str(text);
    }
    Some(out)
}

impl Subject {
    fn value(&self, directive: &str) -> Option<&str> {
        let directive = directive.strip_prefix("identity.")?;
        if let Some(of_entity) = directive.strip_prefix("entity.") {
            let entity = self.entity.as_ref()?;
            return match of_entity.split_once('.') {
                None if of_entity == "id" => filled(&entity.id),
                None if of_entity == "name" => filled(&entity.name),
                Some(("metadata", key)) => entity.metadata.get(key).map(String::as_str),
                Some(("aliases", rest)) => {
                    let (accessor, of_alias) = rest.split_once('.')?;
                    entity.aliases.iter().find(|alias| alias.mount_accessor == accessor)?.value(of_alias)
                }
                _ => None,
            };
        }
        let (by, rest) = directive.strip_prefix("groups.")?.split_once('.')?;
        let (wanted, of_group) = rest.split_once('.')?;
        let group = self.groups.iter().find(|group| match by {
            "ids" => group.id == wanted,
            "names" => group.name == wanted,
            _ => false,
        })?;
        match of_group.split_once('.') {
            None if of_group == "id" => filled(&group.id),
            None if of_group == "name" => filled(&group.name),
            Some(("metadata", key)) => group.metadata.get(key).map(String::as_str),
            _ => None,
        }
    }
}

impl Alias {
    fn value(&self, of_alias: &str) -> Option<&str> {
        match of_alias.split_once('.') {
            None if of_alias == "id" => filled(&self.id),
            None if of_alias == "name" => filled(&self.name),
            Some(("metadata", key)) => self.metadata.get(key).map(String::as_str),
            Some(("custom_metadata", key)) => self.custom_metadata.get(key).map(String::as_str),
            _ => None,
        }
    }
}

/// An id or a name that is empty is none; an empty note is a value.
fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn every_documented_form() {
        let subject = Subject {
            entity: Some(Entity {
                id: "e1".into(),
                name: "ada".into(),
                metadata: BTreeMap::from([("team".into(), "blue".into()), ("none".into(), String::new())]),
                aliases: vec![Alias {
                    mount_accessor: "auth_userpass_1".into(),
                    id: "a1".into(),
                    name: "a/da".into(),
                    metadata: note("k.v", "m"),
                    custom_metadata: note("c", "n"),
                }],
            }),
            groups: vec![Group { id: "g1".into(), name: "ops".into(), metadata: note("floor", "3") }],
        };
        for (path, expected) in [
            ("a/{{identity.entity.id}}/b", Some("a/e1/b")),
            ("a/{{ identity.entity.name\t}}", Some("a/ada")),
            ("{{identity.entity.metadata.team}}", Some("blue")),
            ("a/{{identity.entity.metadata.none}}/b", Some("a//b")),
            ("{{identity.entity.metadata.x}}", None),
            ("{{identity.entity.aliases.auth_userpass_1.id}}", Some("a1")),
            ("{{identity.entity.aliases.auth_userpass_1.name}}", None), // holds a slash
            ("{{identity.entity.aliases.auth_userpass_1.metadata.k.v}}", Some("m")),
            ("{{identity.entity.aliases.auth_userpass_1.custom_metadata.c}}", Some("n")),
            ("{{identity.entity.aliases.other.id}}", None),
            ("{{identity.groups.ids.g1.name}}", Some("ops")),
            ("{{identity.groups.names.ops.id}}-{{identity.groups.names.ops.metadata.floor}}", Some("g1-3")),
            ("{{identity.groups.names.dev.id}}", None),
            ("{{identity.entity}}", None),
            ("{{}}", None),
        ] {
            assert!(is_balanced(path));
            assert_eq!(resolve(path, &subject, &['*', '+', '/']).as_deref(), expected, "{path}");
            assert_eq!(resolve(path, &Subject::default(), &[]), None, "{path}");
        }
        assert_eq!(
            resolve("{{identity.entity.aliases.auth_userpass_1.name}}", &subject, &['*']).as_deref(),
            Some("a/da")
        );
    }

    #[test]
    fn balance() {
        for (path, expected) in [
            ("", true),
            ("a{b}", true),
            ("{{a}}", true),
            ("}}", false),
            ("{{", false),
            ("{{a}}}}", false),
            ("{{{{a}}", false),
        ] {
            assert_eq!(is_balanced(path), expected, "{path}");
        }
    }
}
