//! The template by which a rule hides keys of a listing that the caller may not read (`list_scan_response_keys_filter_path`).

/// A compiled template: text with `{{ .path }}` (the listed path with its trailing slash) and `{{ .key }}` (the key) in it,
/// each optionally piped through `replace "from" "to"`, `lowercase` or `uppercase`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeysFilter {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Value(Source, Vec<Step>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Path,
    Key,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Replace(String, String),
    Lower,
    Upper,
}

impl KeysFilter {
    /// Compiles `source`. The error says what is not understood.
    pub fn compile(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or("unclosed action")?;
            parts.push(Part::Text(text.to_owned()));
            parts.push(action_part(action)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self { source: source.to_owned(), parts })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether different keys lead to different paths: a filter that ignores the key decides nothing.
    pub fn uses_key(&self) -> bool {
        self.target("p/", "k1") != self.target("p/", "k2")
    }

    /// The path whose permission decides whether `key`, found when listing `path`, is shown.
    pub fn target(&self, path: &str, key: &str) -> String {
        let mut out = String::with_capacity(path.len() + key.len() + 8);
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(source, steps) => {
                    let value = match source {
                        Source::Path => path,
                        Source::Key => key,
                    };
                    if steps.is_empty() {
                        out.push_str(value);
                        continue;
                    }
                    out.push_str(&steps.iter().fold(value.to_owned(), |value, step| match step {
                        Step::Replace(from, to) => value.replace(from.as_str(), to),
                        Step::Lower => value.to_lowercase(),
                        Step::Upper => value.to_uppercase(),
                    }));
                }
            }
        }
        out
    }
}

fn action_part(action: &str) -> Result<Part, String> {
    let mut stages = vec![Vec::new()];
    let mut rest = action.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('|') {
            stages.push(Vec::new());
            rest = after.trim_start();
            continue;
        }
        let (word, after) = word(rest)?;
        if let Some(stage) = stages.last_mut() {
            stage.push(word);
        }
        rest = after.trim_start();
    }
    let mut stages = stages.iter().map(Vec::as_slice);
    let source = match stages.next() {
        Some([word]) if word == ".path" => Source::Path,
        Some([word]) if word == ".key" => Source::Key,
        _ => return Err(format!("`{}` does not begin with .path or .key", action.trim())),
    };
    let steps = stages
        .map(|stage| match stage {
            [name, from, to] if name == "replace" && !from.is_empty() => Ok(Step::Replace(from.clone(), to.clone())),
            [name] if name == "lowercase" => Ok(Step::Lower),
            [name] if name == "uppercase" => Ok(Step::Upper),
            [name, ..] => Err(format!("function \"{name}\" is not defined for such arguments")),
            [] => Err("missing value for command".to_owned()),
        })
        .collect::<Result<_, _>>()?;
    Ok(Part::Value(source, steps))
}

/// Takes the first word off `text`: a quoted string (with `\"` and `\\`), a raw string in back quotes, or a bare word.
fn word(text: &str) -> Result<(String, &str), String> {
    if let Some(rest) = text.strip_prefix('`') {
        let (raw, rest) = rest.split_once('`').ok_or("unterminated raw quoted string")?;
        return Ok((raw.to_owned(), rest));
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || matches!(c, '|' | '"' | '`')).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        return Ok((word.to_owned(), rest));
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => out.push(c),
                _ => return Err("unknown escape in quoted string".to_owned()),
            },
            c => out.push(c),
        }
    }
    Err("unterminated quoted string".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (source, expected) in [
            ("{{ .path }}{{ .key }}", "kv/metadata/Box/a"),
            ("{{.path|replace \"kv/metadata/\" \"kv/data/\"}}{{.key}}", "kv/data/Box/a"),
            ("kv/data/{{ .key | uppercase }}", "kv/data/A"),
            ("{{ .path | lowercase | replace `box` \"\\\"\" }}-{{ .key }}", "kv/metadata/\"/-a"),
        ] {
            let filter = KeysFilter::compile(source).unwrap();
            assert_eq!(filter.target("kv/metadata/Box/", "a"), expected);
            assert!(filter.uses_key());
        }
        assert!(!KeysFilter::compile("{{ .path }}").unwrap().uses_key());
        assert!(!KeysFilter::compile("").unwrap().uses_key());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in
            ["{{ .path", "{{}}", "{{ .name }}", "{{ .key | sha256 }}", "{{ .key | }}", "{{ .key \"x }}", "{{ uuid }}"]
        {
            assert!(KeysFilter::compile(bad).is_err(), "{bad}");
        }
    }
}
