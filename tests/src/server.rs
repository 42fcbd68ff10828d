//! A `keyward` process under test.

use std::io::{BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;
use crate::disk::Disk;
use crate::suite;

/// How long a start may take before the test gives up. A start takes milliseconds; the rest is for a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// The root token of every development server that this harness starts.
pub const ROOT: &str = "root";

/// The `keyward` binary: `KEYWARD_BIN` if it is set, else the one beside this test's own executable, which is built once
/// if it is missing. A workspace-wide `cargo test` has built it; a test of this package alone uses what is there.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("KEYWARD_BIN") {
            return PathBuf::from(path);
        }
        let path = suite::profile_folder().join("keyward");
        if !path.exists() {
            suite::build("keyward-cli");
        }
        assert!(path.exists(), "{} was not built", path.display());
        path
    })
}

/// A running node. It is killed when this goes out of scope.
pub struct Server {
    child: Child,
    /// `http://host:port`, as the node itself printed it.
    pub address: String,
    greeting: String,
    lines: Receiver<String>,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// A development server: in memory, unsealed, root token [`ROOT`], `secret/` a KV v2 mount.
    pub fn dev() -> Self {
        Self::start(&["--dev", "--dev-root-token-id", ROOT, "--dev-listen-address", "127.0.0.1:0"])
    }

    /// A durable server on `data`, plain HTTP on a free port of loopback. A new folder is left uninitialised; one that
    /// was initialised with a key file is unsealed when this returns.
    pub fn durable(data: &Path) -> Self {
        Self::start(&["--data", &data.to_string_lossy(), "--listen", "127.0.0.1:0", "--plain"])
    }

    /// As [`Server::durable`], in the folder `data` of `disk`.
    pub fn on_disk(disk: &Disk) -> Self {
        let data = disk.folder().join("data");
        let arguments = ["--data", &data.to_string_lossy(), "--listen", "127.0.0.1:0", "--plain"];
        Self::launch(disk.command(binary()).arg("server").args(arguments))
            .unwrap_or_else(|failure| panic!("keyward server: {failure}"))
    }

    /// `keyward server` with these arguments, when it says that it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::try_start(arguments).unwrap_or_else(|failure| panic!("keyward server {arguments:?}: {failure}"))
    }

    /// As [`Server::start`].
    ///
    /// # Errors
    /// What the process printed, where it ended instead of getting ready.
    pub fn try_start(arguments: &[&str]) -> Result<Self, String> {
        Self::launch(Command::new(binary()).arg("server").args(arguments))
    }

    /// As [`Server::try_start`], by a command of the caller's own that ends in `keyward server …`.
    ///
    /// # Errors
    /// What the process printed, where it ended instead of getting ready.
    pub fn launch(command: &mut Command) -> Result<Self, String> {
        let home = &suite::kept("home");
        let mut child = command
            .env_remove("RUST_LOG")
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let lines = lines_of(BufReader::new(child.stdout.take().unwrap()));
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let mut pipe = child.stderr.take().unwrap();
        let kept = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let mut server =
            Self { child, address: String::new(), greeting: String::new(), lines, stderr, reader: Some(reader) };
        server.await_greeting()?;
        let Ok(health) = server.client().try_call("GET", "sys/health", &[], None) else {
            // A node may listen and then learn what it cannot go on with.
            suite::wait_for("the node ends that answers nobody", START_MAX, || (!server.is_alive()).then_some(()));
            return Err(server.failure());
        };
        // 429 is what a node says that follows another.
        assert!([200, 429, 501, 503].contains(&health.status), "sys/health answers {}", health.status);
        Ok(server)
    }

    /// The node prints its address when it listens.
    fn await_greeting(&mut self) -> Result<(), String> {
        loop {
            let Ok(line) = self.lines.recv_timeout(START_MAX) else {
                return Err(self.failure());
            };
            self.greeting += &line;
            self.greeting.push('\n');
            if let Some(at) = line.find("http://") {
                self.address = line[at..].trim().to_owned();
                return Ok(());
            }
        }
    }

    /// Ends a start that failed: how the process ended, and what it printed.
    fn failure(&mut self) -> String {
        let ended = self.kill();
        format!("it did not get ready ({ended}):\n{}{}", self.greeting, self.stderr())
    }

    /// A client of its own connection, with the root token of development servers.
    pub fn client(&self) -> Client {
        Client::new(&self.address, ROOT)
    }

    /// Initialises a new durable server by its key file and leaves it unsealed; comes back with the root token.
    pub fn initialise(&self) -> String {
        let answer = self.client().without_token().put("sys/init", &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["root_token"].as_str().unwrap().to_owned()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process has written to its standard output and standard error.
    pub fn output(&mut self) -> Vec<u8> {
        self.greeting.extend(self.lines.try_iter().map(|line| line + "\n"));
        let mut all = self.greeting.clone().into_bytes();
        all.extend_from_slice(&self.stderr.lock().unwrap());
        all
    }

    /// What the process has written to standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Ends it as `kill -9` does, at once, and waits until it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().ok();
        self.reap()
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.reap()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{name} of {}", self.child.id());
    }

    /// The state that the kernel tells of it: `S`, `R`, `T` when it is stopped, `Z` when it is dead.
    pub fn state(&self) -> char {
        let stat = suite::read(format!("/proc/{}/stat", self.child.id()));
        stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next()).unwrap()
    }

    fn reap(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        if status.signal() == Some(6) {
            eprintln!("the server aborted:\n{}", self.stderr());
        }
        status
    }

    /// The seal status that everybody may ask for.
    pub fn seal_status(&self) -> Value {
        self.client().get("sys/seal-status").json()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the server's standard error\n{}", self.stderr());
        }
    }
}

fn lines_of(reader: impl std::io::BufRead + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
