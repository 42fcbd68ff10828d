//! Clients of others, unmodified: hvac (Python) and OpenBao's Go client, each in a program of its own.
//!
//! A machine without Python or Go skips them and says so. `KEYWARD_CLIENTS=required`, as `.ci/run` sets it, makes a
//! missing Python a failure.

#![expect(clippy::panic, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use keyward_tests::server::{ROOT, Server};
use keyward_tests::suite;

#[test]
fn hvac() {
    match python() {
        Ok(python) => run(Command::new(python).arg("-B").arg(suite::data("clients/hvac_flow.py"))),
        Err(reason) => skip("hvac", &reason),
    }
}

#[test]
fn go() {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("skipped: the Go client, because there is no go");
        return;
    }
    let program = suite::kept("go").join("client");
    let mut build = Command::new("go");
    build.current_dir(suite::data("clients/go")).args(["build", "-mod=readonly", "-o"]).arg(&program).arg(".");
    let built = build.output().unwrap_or_else(|error| panic!("go: {error}"));
    if !built.status.success() {
        return skip("the Go client", &String::from_utf8_lossy(&built.stderr));
    }
    run(&mut Command::new(program));
}

/// Runs a client against a fresh development server.
fn run(client: &mut Command) {
    let server = Server::dev();
    client.env("KEYWARD_ADDR", &server.address).env("KEYWARD_TOKEN", ROOT);
    for name in ["VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "BAO_ADDR", "BAO_TOKEN", "BAO_NAMESPACE"] {
        client.env_remove(name);
    }
    let output = client.output().unwrap_or_else(|error| panic!("{client:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client:?} failed:\n{said}");
    assert!(said.contains("passed, 0 failed"), "{client:?} did not come to its end:\n{said}");
    eprintln!("{said}");
}

fn skip(client: &str, reason: &str) {
    assert!(std::env::var_os("KEYWARD_CLIENTS").is_none_or(|value| value != "required"), "{client}: {reason}");
    eprintln!("skipped: {client}: {reason}");
}

/// A Python with the clients in it, made once below the target folder.
fn python() -> Result<PathBuf, String> {
    let folder = suite::kept("python");
    let python = folder.join("bin/python");
    if !has_hvac(&python) {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let list = suite::data("clients/requirements.txt");
        succeed(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(list),
        )?;
    }
    Ok(python)
}

fn has_hvac(python: &Path) -> bool {
    Command::new(python).args(["-c", "import hvac"]).output().is_ok_and(|output| output.status.success())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
