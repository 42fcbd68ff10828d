//! The decision written a second time, slowly and straight from the description, to hold the fast one against.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

/// Whether `pattern` matches `path`, character by character and segment by segment.
fn matches(pattern: &str, path: &str) -> bool {
    let (body, open) = pattern.strip_suffix('*').map_or((pattern, false), |body| (body, true));
    if !has_plus(pattern) {
        return if open { path.starts_with(body) } else { path == body };
    }
    let parts: Vec<_> = body.split('/').collect();
    let segments: Vec<_> = path.split('/').collect();
    if segments.len() < parts.len() || (!open && segments.len() != parts.len()) {
        return false;
    }
    let last = parts.len() - 1;
    parts
        .iter()
        .zip(&segments)
        .enumerate()
        .all(|(i, (part, segment))| *part == "+" || part == segment || (open && i == last && segment.starts_with(part)))
}

fn has_plus(pattern: &str) -> bool {
    pattern.split('/').any(|part| part == "+")
}

/// Which of two patterns is more specific, in the five steps of the description.
fn compare(a: &str, b: &str) -> Ordering {
    let first = |p: &str| p.find('+').filter(|_| has_plus(p)).unwrap_or(p.trim_end_matches('*').len());
    let open = |p: &str| p.ends_with('*');
    let plus = |p: &str| p.split('/').filter(|part| *part == "+").count();
    let body = |p: &str| p.strip_suffix('*').unwrap_or(p).to_owned();
    first(a)
        .cmp(&first(b))
        .then(open(b).cmp(&open(a)))
        .then(plus(b).cmp(&plus(a)))
        .then(body(a).len().cmp(&body(b).len()))
        .then(body(a).cmp(&body(b)))
}

fn chosen<'p>(patterns: &'p [String], path: &str, operation: Operation) -> Option<&'p String> {
    let exact = |p: &&String| !p.ends_with('*') && !has_plus(p);
    let bare = operation.is_listing().then(|| path.strip_suffix('/')).flatten();
    let same = |wanted: &str| patterns.iter().filter(exact).find(|p| *p == wanted);
    let best = |path: &str| patterns.iter().filter(|p| !exact(p) && matches(p, path)).max_by(|a, b| compare(a, b));
    same(path).or_else(|| same(bare?)).or_else(|| best(path)).or_else(|| best(bare?))
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => "[ab]{0,2}", 2 => Just("+".to_owned())];
    (prop::collection::vec(part, 1..5), any::<bool>())
        .prop_map(|(parts, open)| format!("{}{}", parts.join("/"), if open { "*" } else { "" }))
        .prop_filter("`+*` is refused, a leading slash is taken off", |p| !p.contains("+*") && !p.starts_with('/'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_same_rule_decides(
        patterns in prop::collection::hash_set(pattern(), 0..12),
        path in "[ab]{0,2}(/[ab]{0,2}){0,4}",
        operation in prop::sample::select(&[Operation::Read, Operation::List][..]),
    ) {
        let path = path.trim_start_matches('/');
        let patterns: Vec<String> = patterns.into_iter().collect();
        let text: String = patterns.iter().map(|p| format!("path \"{p}\" {{ capabilities = [\"read\"] }}\n")).collect();
        let acl = Acl::new(&[Arc::new(crate::parse(&text).unwrap())], Timestamp(0), &Subject::default());
        let found = acl.entry(path, operation).map(|entry| match &entry.pattern {
            Pattern::Exact(path) | Pattern::Plus(path) => path.clone(),
            Pattern::Prefix(path) => format!("{path}*"),
        });
        prop_assert_eq!(found.as_ref(), chosen(&patterns, path, operation));
    }
}
