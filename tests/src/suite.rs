//! Where a suite finds its data, its build and a place of its own; and chance that can be repeated.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// A folder or file below `tests/`.
pub fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Reads a text file of the repository.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `target/<profile>`, found from the place of the test's own executable.
pub fn profile_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let executable = std::env::current_exe().expect("a test knows its executable");
        let folder = executable.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
        folder.to_owned()
    })
}

/// Builds a package in the profile and target folder of this test.
pub fn build(package: &str) {
    let folder = profile_folder();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["build", "-p", package, "--target-dir"]).arg(folder.parent().expect("target/"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo starts").success(), "cargo build -p {package} failed");
}

/// A folder below the target folder that stays between runs: for what is slow to make (a Python environment).
pub fn kept(name: &str) -> PathBuf {
    let folder = profile_folder().parent().expect("target/").join("suites").join(name);
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// How often something is looked at that announces nothing.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until there is something, for at most `limit`; comes back with it and how long that took.
pub fn wait_for<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> (T, Duration) {
    try_wait(limit, look).unwrap_or_else(|| panic!("{what}: not within {limit:?}"))
}

/// As [`wait_for`]; `None` where there was nothing in time.
pub fn try_wait<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<(T, Duration)> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some((found, start.elapsed()));
        }
        if start.elapsed() >= limit {
            return None;
        }
        rest(GLANCE);
    }
}

/// Lets time pass, where a fault is to last for a while or a client is to think.
#[expect(clippy::disallowed_methods, reason = "the passing of time is what is wanted")]
pub fn rest(pause: Duration) {
    std::thread::sleep(pause);
}

/// Whether the long form of a suite is asked for.
pub fn long() -> bool {
    std::env::var_os("KEYWARD_LONG").is_some_and(|value| value == "1")
}

/// Whether we are root.
pub fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Chance that a printed seed repeats (SplitMix64).
pub struct Chance(u64);

impl Chance {
    /// From `KEYWARD_SEED` if it is set, else from the process id; printed, so that a failure can be repeated.
    pub fn announced(suite: &str) -> Self {
        let seed = match std::env::var("KEYWARD_SEED") {
            Ok(text) => text.parse().expect("KEYWARD_SEED is a number"),
            Err(_) => u64::from(std::process::id()).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        };
        eprintln!("{suite}: KEYWARD_SEED={seed} repeats this run's choices");
        Self(seed)
    }

    /// From a seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound
    }
}
