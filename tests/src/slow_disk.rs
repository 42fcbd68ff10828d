//! A disk whose flushes take their time: `strace` holds a process after each `fsync` and `fdatasync`, and at no other call.
//!
//! What the process writes is the same, and so is what it learns of it, later. Needs `strace`, and the right to trace.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Whether this machine can do that.
///
/// # Errors
/// Why not.
pub fn available() -> Result<(), String> {
    let probe = Duration::from_millis(200);
    let start = Instant::now();
    let output = command(Path::new("sync"), probe).arg("-d").arg(std::env::temp_dir().join(".")).output();
    let output = output.map_err(|error| format!("strace: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match (output.status.success(), start.elapsed()) {
        (true, took) if took >= probe => Ok(()),
        (true, took) => Err(format!("strace held nobody: {took:?}")),
        (false, _) => Err(format!("strace: {said}")),
    }
}

/// A command that runs `program`, as the process that this command starts, and lets each flush of it take `flush` longer.
pub fn command(program: &Path, flush: Duration) -> Command {
    let mut command = Command::new("strace");
    // The tracer is a grandchild (-D), so that the program is our child, and stops it at these calls only (--seccomp-bpf).
    command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    command.arg("-e").arg(format!("inject=fsync,fdatasync:delay_exit={}", flush.as_micros())).arg(program);
    command
}
