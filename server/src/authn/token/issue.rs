//! What a new token may be: its policies, its name, its chosen id.

use std::borrow::Cow;

use keyward_policy::sanitize_policies;

/// The policy that only the server gives, to the tokens of wrapped responses.
const RESPONSE_WRAPPING: &str = "response-wrapping";

/// What decides on the policies of a new token.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// As asked for; nothing: those of the parent.
    pub given: &'a [String],
    /// Those of the parent.
    pub parent: &'a [String],
    /// Whether the caller has `sudo` where it called.
    pub sudo: bool,
    /// Whether `default` is not wanted.
    pub no_default: bool,
}

/// The policies of a new token, in their one form.
///
/// # Errors
/// The text of the refusal.
pub fn policies(wish: &Wish<'_>) -> Result<Vec<String>, Cow<'static, str>> {
    let add_default = match (wish.given, wish.sudo) {
        ([], _) => false,
        (given, false) => {
            let held = sanitize_policies(wish.parent, false);
            if !sanitize_policies(given, false).iter().all(|name| held.contains(name)) {
                return Err("child policies must be subset of parent".into());
            }
            !wish.no_default && held.iter().any(|name| name == "default")
        }
        (_, true) => !wish.no_default,
    };
    let mut policies = sanitize_policies(if wish.given.is_empty() { wish.parent } else { wish.given }, add_default);
    if wish.no_default {
        policies.retain(|name| name != "default");
    }
    if policies.iter().any(|name| name == RESPONSE_WRAPPING) {
        return Err(format!("cannot assign policy \"{RESPONSE_WRAPPING}\"").into());
    }
    let is_root = |names: &[String]| names.iter().any(|name| name == "root");
    if is_root(&policies) && !is_root(wish.parent) {
        return Err("root tokens may not be created without parent token being root".into());
    }
    Ok(policies)
}

/// The name by which a token is shown: `token`, or `token-` and the name asked for, in letters, digits and hyphens.
pub fn display_name(given: &str) -> String {
    if given.is_empty() {
        return "token".to_owned();
    }
    let plain: String = given.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let full = format!("token-{plain}");
    full.strip_suffix('-').map_or_else(|| full.clone(), str::to_owned)
}

/// Whether a token may be the one that the caller chose. Forms of drawn tokens are kept for those.
///
/// # Errors
/// The text of the refusal.
pub fn check_chosen(id: &str) -> Result<(), &'static str> {
    if id.starts_with("hvs.") {
        Err("custom token ID cannot have the 'hvs.' prefix")
    } else if id.starts_with("s.") {
        Err("custom token ID cannot have the 's.' prefix")
    } else if id.contains('.') {
        Err("custom token ID cannot have a '.' in the value")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_a_child() {
        const SUBSET: &str = "child policies must be subset of parent";
        const ROOT: &str = "root tokens may not be created without parent token being root";
        const WRAPPING: &str = "cannot assign policy \"response-wrapping\"";
        type Names = &'static [&'static str];
        type Case = (&'static str, Names, Names, bool, bool, Result<Names, &'static str>);
        #[rustfmt::skip]
        let cases: &[Case] = &[
            // what                   given                  parent                sudo   no default
            ("all of the parent's",   &[],                   &["b", "default"],    false, false, Ok(&["b", "default"])),
            ("no default added",      &[],                   &["b"],               true,  false, Ok(&["b"])),
            ("default taken away",    &[],                   &["b", "default"],    false, true,  Ok(&["b"])),
            ("a subset",              &["b"],                &["a", "b"],          false, false, Ok(&["b"])),
            ("default comes along",   &["b"],                &["a", "b", "default"], false, false, Ok(&["b", "default"])),
            ("default suppressed",    &["b", "default"],     &["b", "default"],    false, true,  Ok(&["b"])),
            ("not a subset",          &["b", "c"],           &["b"],               false, false, Err(SUBSET)),
            ("root is not a subset",  &["root"],             &["b", "default"],    false, false, Err(SUBSET)),
            ("names tidied",          &["A", " a ", "default", "a"], &["root"],    true,  false, Ok(&["a", "default"])),
            ("an empty name",         &[""],                 &["root"],            true,  false, Ok(&["default"])),
            ("nothing at all",        &[""],                 &["root"],            true,  true,  Ok(&[])),
            ("root swallows",         &["a", "root"],        &["root"],            true,  false, Ok(&["root"])),
            ("sudo is not root",      &["root"],             &["a"],               true,  false, Err(ROOT)),
            ("sudo gives anything",   &["z"],                &["a"],               true,  false, Ok(&["default", "z"])),
            ("reserved",              &["response-wrapping"], &["root"],           true,  false, Err(WRAPPING)),
        ];
        let owned = |names: Names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for &(what, given, parent, sudo, no_default, answer) in cases {
            let (given, parent) = (owned(given), owned(parent));
            let resolved = policies(&Wish { given: &given, parent: &parent, sudo, no_default });
            assert_eq!(resolved, answer.map(owned).map_err(Cow::Borrowed), "{what}");
        }
    }

    #[test]
    fn display_names() {
        for (given, shown) in [
            ("", "token"),
            ("build agent 7", "token-build-agent-7"),
            ("a_b.c d/e!", "token-a-b-c-d-e"),
            ("a--", "token-a-"),
            ("é", "token-"),
            ("!", "token-"),
        ] {
            assert_eq!(display_name(given), shown, "{given}");
        }
    }

    #[test]
    fn chosen_ids() {
        for (id, fine) in
            [("given-1", true), ("a b/c", true), ("s.x", false), ("hvs.x", false), ("a.b", false), ("hvs", true)]
        {
            assert_eq!(check_chosen(id).is_ok(), fine, "{id}");
        }
    }
}
