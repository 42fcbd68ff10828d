//! Where answers go: tables for people, JSON or YAML for programs, one bare field for pipes. Hints go to standard error.

mod yaml;

use std::io::{self, IsTerminal as _, Write};

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::error::CliError;

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for the eye; not made for parsing.
    Table,
    /// The server's JSON, or a JSON document.
    Json,
    /// The same document as YAML.
    Yaml,
}

/// Whether standard output or error is a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Somebody reads along.
    Terminal,
    /// A pipe or a file.
    Pipe,
}

/// The two output streams and how to write to them.
pub(crate) struct Output {
    format: Format,
    field: Option<String>,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    out_sink: Sink,
    err_sink: Sink,
}

type Done = Result<(), CliError>;

impl Output {
    /// Standard output and standard error.
    pub(crate) fn standard(format: Format, field: Option<String>) -> Self {
        let sink = |terminal| if terminal { Sink::Terminal } else { Sink::Pipe };
        Self {
            format,
            field,
            out_sink: sink(io::stdout().is_terminal()),
            err_sink: sink(io::stderr().is_terminal()),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
        }
    }

    /// The format in force.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether standard error is a terminal.
    pub(crate) fn err_sink(&self) -> Sink {
        self.err_sink
    }

    /// What goes into a pipe is written in `format` from now on.
    pub(crate) fn prefer_in_pipes(&mut self, format: Format) {
        if self.out_sink == Sink::Pipe {
            self.format = format;
        }
    }

    /// The field that was asked for alone.
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// A sentence about what was done. For people only: programs get an empty output and the exit code.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn say(&mut self, text: &str) -> Done {
        if self.format == Format::Table {
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    /// A hint on standard error.
    pub(crate) fn hint(&mut self, text: &str) {
        // A hint that cannot be written changes nothing.
        writeln!(self.err, "{text}").ok();
    }

    /// Text as it is, whatever the format.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(crate) fn text(&mut self, text: &str) -> Done {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// A document: as it is for programs, as keys and values for people.
    ///
    /// # Errors
    /// The output cannot be written, or the asked-for field is not there.
    pub(crate) fn document(&mut self, document: &Value) -> Done {
        match self.field.clone() {
            Some(field) => self.only(&field, document.get(&field)),
            None if self.format == Format::Table => self.pairs(document),
            None => self.serialise(document),
        }
    }

    /// A document for programs, `rows` under `headers` for people.
    ///
    /// # Errors
    /// As [`Output::document`].
    pub(crate) fn rows(&mut self, document: &Value, headers: &[&str], rows: &[Vec<String>]) -> Done {
        if self.field.is_some() || self.format != Format::Table {
            return self.document(document);
        }
        self.table(headers, rows)
    }

    /// An answer in Vault's envelope. `shown` is the part that people came for, and the place where `-field` looks
    /// first; programs get the whole envelope.
    ///
    /// # Errors
    /// As [`Output::document`].
    pub(crate) fn envelope(&mut self, body: &Value, shown: &Value) -> Done {
        self.warnings(body);
        if let Some(field) = self.field.clone() {
            let value = shown.get(&field).cloned().or_else(|| envelope_field(body, &field));
            return self.only(&field, value.as_ref());
        }
        if self.format != Format::Table {
            return self.serialise(body);
        }
        if body["wrap_info"].is_object() {
            return self.pairs(&wrapping_rows(&body["wrap_info"]));
        }
        if body["auth"].is_object() {
            return self.pairs(&token_rows(&body["auth"]));
        }
        if shown.as_object().is_some_and(|shown| !shown.is_empty()) {
            self.pairs(shown)?;
        }
        Ok(())
    }

    /// The server's warnings, on standard error.
    pub(crate) fn warnings(&mut self, body: &Value) {
        for warning in body["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.hint(&format!("warning: {}", printable(warning)));
        }
    }

    /// One value with nothing around it; a terminal gets a line end so that the prompt stands alone.
    fn only(&mut self, field: &str, value: Option<&Value>) -> Done {
        let Some(value) = value else {
            return Err(CliError::Usage(format!("there is no field `{field}` in the answer")));
        };
        match (self.format, value) {
            (Format::Table, Value::String(text)) => self.out.write_all(text.as_bytes())?,
            (Format::Table, value) => write!(self.out, "{value}")?,
            (_, value) => return self.serialise(value),
        }
        if self.out_sink == Sink::Terminal {
            writeln!(self.out)?;
        }
        Ok(self.out.flush()?)
    }

    fn serialise(&mut self, document: &Value) -> Done {
        match self.format {
            Format::Yaml => self.out.write_all(yaml::render(document).as_bytes())?,
            Format::Json | Format::Table => {
                serde_json::to_writer_pretty(&mut self.out, document).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn pairs(&mut self, document: &Value) -> Done {
        let rows: Vec<_> = match document {
            Value::Object(map) => map.iter().map(|(key, value)| vec![printable(key), cell(value)]).collect(),
            // An array of pairs keeps its order.
            Value::Array(pairs) => {
                pairs.iter().map(|pair| vec![pair[0].as_str().unwrap_or_default().to_owned(), cell(&pair[1])]).collect()
            }
            other => vec![vec![cell(other)]],
        };
        self.table(&["Key", "Value"], &rows)
    }

    fn table(&mut self, headers: &[&str], rows: &[Vec<String>]) -> Done {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.add_row(headers.to_vec());
        table.add_row(headers.iter().map(|header| "-".repeat(header.len())).collect::<Vec<_>>());
        table.add_rows(rows.iter().cloned());
        for column in table.column_iter_mut() {
            column.set_padding((0, 4));
        }
        writeln!(self.out, "{}", table.trim_fmt())?;
        Ok(self.out.flush()?)
    }
}

/// A value in a cell: text as it is, lists of text with commas, the rest as JSON.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "n/a".into(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<_> = items.iter().filter_map(Value::as_str).map(printable).collect();
            format!("[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

/// `text` without the control characters through which a stored value could steer the reader's terminal.
pub(crate) fn printable(text: &str) -> String {
    if !text.contains(|c: char| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The names under which `-field` finds tokens.
fn envelope_field(body: &Value, field: &str) -> Option<Value> {
    let (auth, wrap) = (&body["auth"], &body["wrap_info"]);
    let value = match field {
        "token" => &auth["client_token"],
        "token_accessor" => &auth["accessor"],
        "token_duration" => &auth["lease_duration"],
        "token_renewable" => &auth["renewable"],
        "token_policies" => &auth["token_policies"],
        "policies" => &auth["policies"],
        "wrapping_token" => &wrap["token"],
        "wrapping_accessor" => &wrap["accessor"],
        "wrapping_token_ttl" => &wrap["ttl"],
        "wrapping_token_creation_time" => &wrap["creation_time"],
        "wrapping_token_creation_path" => &wrap["creation_path"],
        "wrapped_accessor" => &wrap["wrapped_accessor"],
        "data" => &body["data"],
        other => body["data"].get(other).unwrap_or(&Value::Null),
    };
    (!value.is_null()).then(|| value.clone())
}

fn token_rows(auth: &Value) -> Value {
    let mut rows = vec![
        json!(["token", auth["client_token"]]),
        json!(["token_accessor", auth["accessor"]]),
        json!(["token_duration", duration(auth["lease_duration"].as_u64().unwrap_or_default())]),
        json!(["token_renewable", auth["renewable"]]),
        json!(["token_policies", auth["token_policies"]]),
        json!(["policies", auth["policies"]]),
    ];
    for (name, value) in auth["metadata"].as_object().into_iter().flatten() {
        rows.push(json!([format!("token_meta_{name}"), value]));
    }
    Value::Array(rows)
}

fn wrapping_rows(wrap: &Value) -> Value {
    let mut rows = vec![
        json!(["wrapping_token", wrap["token"]]),
        json!(["wrapping_accessor", wrap["accessor"]]),
        json!(["wrapping_token_ttl", duration(wrap["ttl"].as_u64().unwrap_or_default())]),
        json!(["wrapping_token_creation_time", wrap["creation_time"]]),
        json!(["wrapping_token_creation_path", wrap["creation_path"]]),
    ];
    if let Some(accessor) = wrap.get("wrapped_accessor") {
        rows.push(json!(["wrapped_accessor", accessor]));
    }
    Value::Array(rows)
}

/// Seconds as people read them: `768h`, `1h30m`, `45s`; no end is `∞`.
pub(crate) fn duration(seconds: u64) -> String {
    if seconds == 0 {
        return "∞".into();
    }
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    parts.iter().filter(|(amount, _)| *amount > 0).map(|(amount, unit)| format!("{amount}{unit}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rendered(format: Format, field: Option<&str>, sink: Sink, body: &Value) -> (Result<(), CliError>, String) {
        let out = Shared::default();
        let mut output = Output {
            format,
            field: field.map(str::to_owned),
            out: Box::new(out.clone()),
            err: Box::new(io::sink()),
            out_sink: sink,
            err_sink: Sink::Pipe,
        };
        let done = output.envelope(body, &body["data"]);
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        (done, text)
    }

    #[test]
    fn one_answer_in_every_form() {
        let body = json!({"data": {"user": "app", "port": 5432}, "auth": null, "wrap_info": null, "warnings": null});
        let (_, table) = rendered(Format::Table, None, Sink::Pipe, &body);
        assert_eq!(table, "Key     Value\n---     -----\nport    5432\nuser    app\n");
        assert_eq!(rendered(Format::Table, Some("user"), Sink::Pipe, &body).1, "app");
        assert_eq!(rendered(Format::Table, Some("user"), Sink::Terminal, &body).1, "app\n");
        assert_eq!(rendered(Format::Json, Some("user"), Sink::Pipe, &body).1, "\"app\"\n");
        assert!(rendered(Format::Json, None, Sink::Pipe, &body).1.contains("\"port\": 5432"));
        assert!(rendered(Format::Yaml, None, Sink::Pipe, &body).1.contains("  port: 5432\n"));
        assert!(rendered(Format::Table, Some("absent"), Sink::Pipe, &body).0.is_err());
    }

    #[test]
    fn a_token_is_found_by_its_usual_names() {
        let body = json!({"data": null, "auth": {"client_token": "t", "lease_duration": 5400, "policies": ["a", "b"]}});
        assert_eq!(rendered(Format::Table, Some("token"), Sink::Pipe, &body).1, "t");
        let (_, table) = rendered(Format::Table, None, Sink::Pipe, &body);
        assert!(table.contains("1h30m") && table.contains("[a b]"), "{table}");
    }

    #[test]
    fn a_stored_value_cannot_steer_the_terminal() {
        assert_eq!(cell(&json!("\u{1b}[2Jx\ny")), "\\u{1b}[2Jx\ny");
    }
}
