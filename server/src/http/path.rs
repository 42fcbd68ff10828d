//! The shortest way to write a path, by the rules of Go's `path.Clean`: redirects and the places of mounts follow it.

/// The shortest path of the same meaning, without a trailing slash.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if segments.last().is_some_and(|last| *last != "..") => drop(segments.pop()),
            ".." if rooted => {}
            other => segments.push(other),
        }
    }
    match (rooted, segments.is_empty()) {
        (true, _) => format!("/{}", segments.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => segments.join("/"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, clean) in [
            ("a/b/", "a/b"),
            ("a//b/", "a/b"),
            ("x/../z/", "z"),
            ("./x/", "x"),
            ("../x/", "../x"),
            ("./", "."),
            ("a/../", "."),
            ("a/../../b/", "../b"),
            ("/", "/"),
            ("/../x/", "/x"),
        ] {
            assert_eq!(super::clean(path), clean, "{path}");
        }
    }
}
