//! The set of policy names that a token carries, in its one form.

/// `names` in lower case, without blanks around them, empty ones and doubles, sorted. With `root` among them the set is
/// `["root"]` and nothing else; otherwise `default` joins it if `add_default`.
pub fn sanitize_policies<S: AsRef<str>>(names: &[S], add_default: bool) -> Vec<String> {
    let mut set: Vec<String> = names.iter().map(|name| name.as_ref().trim().to_lowercase()).collect();
    if set.iter().any(|name| name == "root") {
        return vec!["root".to_owned()];
    }
    if add_default {
        set.push("default".to_owned());
    }
    set.retain(|name| !name.is_empty());
    set.sort_unstable();
    set.dedup();
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form() {
        assert_eq!(sanitize_policies(&[" B", "a", "", "b ", "A"], true), ["a", "b", "default"]);
        assert_eq!(sanitize_policies(&["b", "default"], true), ["b", "default"]);
        assert_eq!(sanitize_policies(&["b", " ROOT ", "response-wrapping"], true), ["root"]);
        assert!(sanitize_policies::<&str>(&[" "], false).is_empty());
    }
}
