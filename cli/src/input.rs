//! Values from arguments, files, standard input and the keyboard.
//!
//! `name=value` gives the value at once, `name=@file` reads it from a file, `name=-` from standard input (or asks, if
//! that is a terminal), `@file` and `-` give a whole JSON object. `name=\@text` is the text `@text`.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::error::CliError;

/// Text that is wiped when dropped.
type Text = Result<Zeroizing<String>, CliError>;

/// What a list of `name=value` arguments came to.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The members, later ones over earlier ones.
    pub(crate) members: Map<String, Value>,
    /// The names whose values stood in the arguments themselves, where `ps` and the shell's history can see them.
    pub(crate) exposed: Vec<String>,
}

/// Reads the arguments in order. A name that occurs twice keeps the last value.
///
/// # Errors
/// An argument without `=`, a file that cannot be read or is no UTF-8, standard input asked for twice, JSON that is no
/// object.
pub(crate) fn members(arguments: &[String]) -> Result<Given, CliError> {
    members_from(arguments, &mut read_stdin)
}

fn members_from(arguments: &[String], stdin: &mut dyn FnMut(Option<&str>) -> Text) -> Result<Given, CliError> {
    let mut given = Given::default();
    let mut stdin_used = false;
    let mut once = |name: Option<&str>| {
        if std::mem::replace(&mut stdin_used, true) {
            return Err(CliError::Usage("standard input can be read once: `-` is there twice".into()));
        }
        stdin(name)
    };
    for argument in arguments {
        if argument == "-" {
            merge(&mut given.members, &once(None)?, "standard input")?;
        } else if let Some(file) = argument.strip_prefix('@') {
            merge(&mut given.members, &read_file(file)?, file)?;
        } else {
            let Some((name, value)) = argument.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(CliError::Usage(format!(
                    "`{argument}` is not `name=value`, `name=@file`, `name=-`, `@file.json` or `-`"
                )));
            };
            let text = if value == "-" {
                once(Some(name))?.to_string()
            } else if let Some(file) = value.strip_prefix('@') {
                read_file(file)?.to_string()
            } else {
                given.exposed.push(name.to_owned());
                value.strip_prefix('\\').filter(|rest| rest.starts_with('@')).unwrap_or(value).to_owned()
            };
            given.members.insert(name.to_owned(), Value::String(text));
        }
    }
    Ok(given)
}

/// `name=value` pairs of plain text, for options and labels.
///
/// # Errors
/// A pair without `=`.
pub(crate) fn labels(pairs: &[String]) -> Result<Map<String, Value>, CliError> {
    pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Value::String(value.to_owned()))),
            _ => Err(CliError::Usage(format!("`{pair}` is not `name=value`"))),
        })
        .collect()
}

/// A secret that is not in the arguments: typed without echo at a terminal, else the first line of standard input.
///
/// # Errors
/// Nothing was given.
pub(crate) fn secret(prompt: &str) -> Text {
    let text = if io::stdin().is_terminal() { ask(prompt)? } else { read_stdin(None)? };
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(CliError::Usage(format!("nothing was given for the {prompt}")));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A secret that is being chosen: as [`secret`], but typed twice at a terminal, since nobody sees a slip.
///
/// # Errors
/// Nothing was given, or the second is not the first.
pub(crate) fn new_secret(prompt: &str) -> Text {
    let first = secret(prompt)?;
    if io::stdin().is_terminal() && *secret(&format!("{prompt}, again"))? != *first {
        return Err(CliError::Usage(format!("the two are not the same; no {prompt} was set")));
    }
    Ok(first)
}

/// Whether somebody at the terminal answers `question` with `expected`. Without a terminal nobody does.
///
/// # Errors
/// The terminal cannot be read.
pub(crate) fn agreed(question: &str, expected: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question}: ").and_then(|()| io::stdin().read_line(&mut answer));
    asked.map_err(|error| CliError::Local(format!("cannot read from the terminal: {error}")))?;
    Ok(answer.trim() == expected)
}

/// A whole file, or standard input for `-`.
///
/// # Errors
/// It cannot be read or is no UTF-8.
pub(crate) fn document(name: &str) -> Text {
    if name == "-" { read_stdin(None) } else { read_file(name.strip_prefix('@').unwrap_or(name)) }
}

fn merge(members: &mut Map<String, Value>, text: &str, origin: &str) -> Result<(), CliError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => {
            members.extend(object);
            Ok(())
        }
        Ok(_) => Err(CliError::Usage(format!("`{origin}` holds JSON, but no object"))),
        // The position says enough; the text around it may be secret.
        Err(error) => {
            Err(CliError::Usage(format!("`{origin}` is not JSON: line {}, column {}", error.line(), error.column())))
        }
    }
}

fn read_file(name: &str) -> Text {
    let path = Path::new(name);
    fs::read_to_string(path).map(Zeroizing::new).map_err(|error| CliError::file(path, "cannot read", &error))
}

/// All of standard input, byte for byte. A value for `name` at a terminal is asked for without echo.
fn read_stdin(name: Option<&str>) -> Text {
    if let Some(name) = name
        && io::stdin().is_terminal()
    {
        return ask(name);
    }
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| CliError::Local(format!("cannot read standard input: {error}")))?;
    Ok(text)
}

fn ask(prompt: &str) -> Text {
    rpassword::prompt_password(format!("{prompt}: "))
        .map(Zeroizing::new)
        .map_err(|error| CliError::Local(format!("cannot read from the terminal: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(arguments: &[&str], stdin: &str) -> Result<Given, CliError> {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        members_from(&arguments, &mut |_| Ok(Zeroizing::new(stdin.to_owned())))
    }

    #[test]
    fn every_form_of_a_value() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "from file\n").unwrap();
        let name = file.path().to_str().unwrap();
        let from_file = format!("a=@{name}");
        for (arguments, stdin, json) in [
            (&["a=b"][..], "", r#"{"a":"b"}"#),
            (&["a=b=c", "d="][..], "", r#"{"a":"b=c","d":""}"#),
            (&["a=-", "b=x"][..], "secret\n", r#"{"a":"secret\n","b":"x"}"#),
            (&[from_file.as_str()][..], "", r#"{"a":"from file\n"}"#),
            (&[r"a=\@b", r"c=\d"][..], "", r#"{"a":"@b","c":"\\d"}"#),
            (&["-", "n=x"][..], r#"{"n":1,"big":12345678901234567890}"#, r#"{"big":12345678901234567890,"n":"x"}"#),
        ] {
            let given = read(arguments, stdin).unwrap();
            assert_eq!(Value::Object(given.members).to_string(), json, "{arguments:?}");
        }
        assert_eq!(read(&["a=b", "c=-"], "").unwrap().exposed, ["a"]);
    }

    #[test]
    fn what_is_no_value_is_refused_without_echoing_secrets() {
        for arguments in [&["a"][..], &["=b"][..], &["a=-", "-"][..], &["a=@/does/not/exist"][..]] {
            assert!(read(arguments, "{}").is_err(), "{arguments:?}");
        }
        for stdin in ["[1]", "hunter2", r#"{"a":"hunter2"#] {
            let error = read(&["-"], stdin).unwrap_err().explain();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_kept_to_the_letter(name in "[a-z]{1,8}", value in "[^@\\\\-].*") {
            let given = read(&[&format!("{name}={value}")], "").unwrap();
            prop_assert_eq!(&given.members[&name], &Value::String(value));
        }
    }
}
