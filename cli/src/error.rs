//! What can go wrong on this side of the wire, what to do next, and the exit code that a script sees.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Why a command ended without its answer.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The arguments or the input cannot be used as they are.
    Usage(String),
    /// Something on this machine does not work: a file, the terminal, the home directory.
    Local(String),
    /// The server cannot start or go on.
    Server(String),
    /// The output could not be written.
    Output(io::Error),
    /// No HTTP answer came back.
    Unreachable(Unreachable),
    /// The server refused.
    Refused(Refusal),
    /// The server answered, and there is nothing there. The text says what is absent; the second what to try.
    Absent(String, Option<String>),
    /// The answer is not one that a server of this API gives.
    Unexpected(String),
    /// All is said already; only the exit code is left.
    Quiet(u8),
}

/// An address that gave no HTTP answer.
#[derive(Debug)]
pub(crate) struct Unreachable {
    /// The address that was tried.
    pub(crate) address: String,
    /// Where that address came from.
    pub(crate) origin: String,
    /// What happened there.
    pub(crate) fault: Fault,
}

/// What happened instead of an HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody listens.
    ConnectionRefused,
    /// The name is not known.
    UnknownHost,
    /// No answer in time.
    Timeout,
    /// There is no way to the machine, or it does not answer at all.
    NoRoute,
    /// The certificate is signed by nobody we know.
    UnknownAuthority,
    /// The certificate is for another name.
    WrongName,
    /// The certificate's time is over, or has not come.
    Expired,
    /// We spoke TLS and the port does not.
    PlainHttpPort,
    /// We spoke plain HTTP and the port answered in another language, most likely TLS.
    NotHttp,
    /// Anything else, in the words of the library.
    Other(String),
}

/// An HTTP answer that is a refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The method we used.
    pub(crate) method: &'static str,
    /// The path below `/v1/`, as policies write it.
    pub(crate) path: String,
    /// The server's own words.
    pub(crate) errors: Vec<String>,
    /// Whether we sent a token.
    pub(crate) token: TokenSent,
    /// `Location`, when the server points elsewhere.
    pub(crate) location: Option<String>,
}

/// Whether a request carried a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenSent {
    /// It did.
    Yes,
    /// It did not.
    No,
}

impl CliError {
    /// A file that could not be read or written.
    pub(crate) fn file(path: &Path, what: &str, error: &io::Error) -> Self {
        Self::Local(format!("{what} `{}`: {}", path.display(), plain(error)))
    }

    /// 1 for what is wrong on this side, 2 for what the server says (or that there is none), as `bao` has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Local(_) | Self::Server(_) | Self::Output(_) => 1,
            Self::Unreachable(_) | Self::Refused(_) | Self::Absent(..) | Self::Unexpected(_) => 2,
            Self::Quiet(code) => *code,
        }
    }

    /// The text for the reader: one line that says what happened, then one line for each thing to do. Empty if silent.
    pub(crate) fn explain(&self) -> String {
        let (message, hints) = match self {
            Self::Quiet(_) => return String::new(),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return String::new(),
            Self::Output(error) => (format!("cannot write the output: {}", plain(error)), Vec::new()),
            Self::Usage(message) | Self::Local(message) => (message.clone(), Vec::new()),
            Self::Server(message) => {
                let mut lines = message.lines().map(str::to_owned);
                (lines.next().unwrap_or_default(), lines.collect())
            }
            Self::Unreachable(unreachable) => unreachable.explain(),
            Self::Refused(refusal) => refusal.explain(),
            Self::Absent(message, hint) => (message.clone(), hint.iter().cloned().collect()),
            Self::Unexpected(message) => {
                (format!("unexpected answer: {message}"), vec!["is this address a Keyward, OpenBao or Vault?".into()])
            }
        };
        let mut text = format!("error: {message}\n");
        for hint in hints {
            writeln!(text, "  {hint}").ok();
        }
        text
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Unreachable {
    fn explain(&self) -> (String, Vec<String>) {
        let Self { address, origin, fault } = self;
        let from = format!("the address comes from {origin}; change it with --address or KEYWARD_ADDR");
        let swapped = |scheme: &str| match address.split_once("://") {
            Some((_, rest)) => format!("{scheme}://{rest}"),
            None => address.clone(),
        };
        let ca = "name the authority's certificate with --ca-cert FILE or KEYWARD_CACERT".to_owned();
        match fault {
            Fault::ConnectionRefused => (
                format!("nothing answers at {address}: connection refused"),
                vec!["is the server running? `keyward server --dev` starts one to try".into(), from],
            ),
            Fault::UnknownHost => (format!("cannot find the host of {address}"), vec![from]),
            Fault::Timeout => (format!("{address} gave no answer in time"), vec![from]),
            Fault::NoRoute => (format!("there is no way to the machine of {address}"), vec![from]),
            Fault::UnknownAuthority => {
                (format!("the certificate of {address} is signed by an authority that is not known here"), vec![ca])
            }
            Fault::WrongName => (
                format!("the certificate of {address} is for another name"),
                vec!["use the name that stands in the certificate".into(), from],
            ),
            Fault::Expired => (
                format!("the certificate of {address} is not valid at this time"),
                vec!["check this machine's clock, then the certificate's dates".into()],
            ),
            Fault::PlainHttpPort => (
                format!("{address} does not speak TLS"),
                vec![format!("that port speaks plain HTTP; you probably mean --address {}", swapped("http")), from],
            ),
            Fault::NotHttp => (
                format!("{address} does not speak plain HTTP"),
                vec![format!("that port may speak TLS; you probably mean --address {}", swapped("https")), from],
            ),
            Fault::Other(text) => (format!("no answer from {address}: {text}"), vec![from]),
        }
    }
}

impl Refusal {
    fn explain(&self) -> (String, Vec<String>) {
        let said = self.errors.iter().map(|error| flatten(error)).collect::<Vec<_>>().join("; ");
        let path = &self.path;
        let said_or = |text: &str| if said.is_empty() { text.to_owned() } else { said.clone() };
        match self.status {
            403 => self.explain_denied(&said),
            503 if said.contains("sealed") => (
                "the server is sealed: it holds its data but not the key".into(),
                vec![
                    "unseal it: `keyward operator unseal`".into(),
                    "a server that was never initialised: `keyward operator init`".into(),
                ],
            ),
            404 if said.contains("no handler for route") => {
                (format!("nothing is mounted at `{path}`"), vec!["see what is mounted: `keyward secrets list`".into()])
            }
            404 => (said_or(&format!("there is nothing at `{path}`")), Vec::new()),
            405 => (format!("`{path}` does not take {}", self.method), Vec::new()),
            400 if said.contains("check-and-set parameter did not match") => (
                format!("`{path}` is at another version than --cas says; nothing was written"),
                vec!["see the current version: `keyward kv metadata get`, then decide again".into()],
            ),
            400 if said.contains("check-and-set parameter required") => (
                format!("`{path}` demands --cas, the version that the write replaces; nothing was written"),
                vec!["--cas 0 writes only if there is nothing yet".into()],
            ),
            400 if said.contains("failed to decrypt keys from storage") => (
                "what was given does not open this server; the shares given so far are forgotten".into(),
                vec!["begin again with the first share: `keyward operator unseal`".into()],
            ),
            413 => ("the request is larger than the server takes".into(), Vec::new()),
            429 => ("the server asks to slow down".into(), vec!["wait a little, then try again".into()]),
            300..=399 => (
                format!("the server sends us elsewhere for `{path}`"),
                self.location.iter().map(|to| format!("it names {to}: use that with --address")).collect(),
            ),
            500..=599 => (
                format!("the server failed ({}): {}", self.status, said_or("it does not say why")),
                vec!["its log has the reason; `keyward status` shows its state".into()],
            ),
            status => (format!("refused ({status}): {}", said_or("the server does not say why")), Vec::new()),
        }
    }

    fn explain_denied(&self, said: &str) -> (String, Vec<String>) {
        if self.token == TokenSent::No {
            return (
                format!("`{}` needs a token, and none was sent", self.path),
                vec!["log in: `keyward login`, or set KEYWARD_TOKEN".into()],
            );
        }
        if let Some(path) = self.path.strip_prefix("sys/internal/ui/mounts/") {
            if said.contains("preflight") {
                return (
                    format!("no mount for `{path}`, or the token may do nothing there"),
                    vec![
                        "see what is mounted: `keyward secrets list`".into(),
                        "see whose token it is: `keyward token lookup`".into(),
                    ],
                );
            }
            return stale_token(path);
        }
        // The server wraps what a policy denies, and only that, into a list of one.
        if said == "permission denied" && !self.errors.iter().any(|error| error.contains("error occurred")) {
            return stale_token(&self.path);
        }
        if said.contains("permission denied") && !said.contains("invalid token") {
            let (verb, capabilities) = self.capability();
            return (
                format!("the token may not {verb} `{}`", self.path),
                vec![
                    format!("what it may do there: `keyward token capabilities {}`", self.path),
                    format!("a policy that allows it: path \"{}\" {{ capabilities = [{capabilities}] }}", self.path),
                ],
            );
        }
        if said.contains("bad token") || said.contains("invalid token") {
            return stale_token(&self.path);
        }
        (if said.is_empty() { "permission denied".into() } else { said.to_owned() }, Vec::new())
    }

    /// What was tried, and the capabilities that a policy must give for it. A first write needs `create`, later ones
    /// `update`; which of them it was the caller must not learn, so both are named.
    fn capability(&self) -> (&'static str, &'static str) {
        match self.method {
            "GET" => ("read", "\"read\""),
            "LIST" => ("list", "\"list\""),
            "DELETE" => ("delete", "\"delete\""),
            "PATCH" => ("patch", "\"patch\""),
            _ => ("write to", "\"create\", \"update\""),
        }
    }
}

fn stale_token(path: &str) -> (String, Vec<String>) {
    (
        format!("the token is unknown, expired or revoked; `{path}` was not touched"),
        vec!["log in again: `keyward login`, or set KEYWARD_TOKEN".into()],
    )
}

/// A server's list-of-errors text on one line.
fn flatten(error: &str) -> String {
    match error.split_once("occurred:") {
        Some((_, list)) => list
            .lines()
            .map(|line| line.trim().trim_start_matches("* "))
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
        None => error.trim().to_owned(),
    }
}

/// An I/O error without the code of the operating system.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, method: &'static str, path: &str, error: &str, token: TokenSent) -> String {
        let errors = if error.is_empty() { Vec::new() } else { vec![error.to_owned()] };
        CliError::Refused(Refusal { status, method, path: path.into(), errors, token, location: None }).explain()
    }

    #[test]
    fn a_denial_names_path_and_capability() {
        let denied = "1 error occurred:\n\t* permission denied\n\n";
        let text = refused(403, "GET", "secret/data/app", denied, TokenSent::Yes);
        assert!(text.starts_with("error: the token may not read `secret/data/app`\n"), "{text}");
        assert!(text.contains("keyward token capabilities secret/data/app"), "{text}");
        let text = refused(403, "PUT", "secret/data/app", denied, TokenSent::Yes);
        assert!(text.contains(r#"capabilities = ["create", "update"]"#), "{text}");
        let text = refused(403, "GET", "secret/data/app", "permission denied", TokenSent::Yes);
        assert!(text.contains("unknown, expired or revoked"), "{text}");
        let text = refused(403, "GET", "secret/data/app", "permission denied", TokenSent::No);
        assert!(text.contains("keyward login"), "{text}");
    }

    #[test]
    fn every_refusal_says_something() {
        for (status, error, needle) in [
            (400, "check-and-set parameter did not match the current version", "--cas"),
            (400, "no data provided", "no data provided"),
            (400, "invalid key: failed to decrypt keys from storage: cipher: x", "first share"),
            (404, "no handler for route \"x/y\". route entry not found.", "secrets list"),
            (405, "", "does not take PUT"),
            (413, "", "larger"),
            (429, "", "slow down"),
            (500, "1 error occurred:\n\t* internal error\n\n", "internal error"),
            (503, "Vault is sealed", "operator unseal"),
        ] {
            let text = refused(status, "PUT", "x/y", error, TokenSent::Yes);
            assert!(text.contains(needle), "{status}: {text}");
        }
    }

    #[test]
    fn an_unreachable_server_names_the_way_out() {
        for (fault, needle) in [
            (Fault::ConnectionRefused, "keyward server"),
            (Fault::UnknownAuthority, "--ca-cert"),
            (Fault::PlainHttpPort, "--address http://host:8200"),
            (Fault::Timeout, "KEYWARD_ADDR"),
        ] {
            let unreachable = Unreachable { address: "https://host:8200".into(), origin: "BAO_ADDR".into(), fault };
            let error = CliError::Unreachable(unreachable);
            assert!(error.explain().contains(needle), "{}", error.explain());
            assert_eq!(error.exit_code(), 2);
        }
    }
}
