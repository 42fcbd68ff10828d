//! `keyward`: one binary. This file reads the surroundings and ends with the exit code; everything between is `command`.

mod args;

mod command;

mod client;

mod tls;

mod env;

mod input;

mod output;

mod error;

mod bench;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;
use crate::command::Session;
use crate::env::Environment;

/// Everything that is freed is wiped first: buffers of HTTP, TLS and JSON hold secrets, and none of them wipes by itself.
#[global_allocator]
static ALLOCATOR: keyward_crypto::memory::WipingAllocator = keyward_crypto::memory::WipingAllocator;

fn main() -> ExitCode {
    // One TLS provider for the whole process, chosen before anything can ask for it; a second call would be ours, too.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let arguments = args::normalise(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()));
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            let code = match (refusal.use_stderr(), arguments.get(1).map(String::as_str)) {
                (false, _) => 0,
                (true, Some("audit")) => command::audit::USAGE,
                (true, _) => 1,
            };
            refusal.print().ok();
            return ExitCode::from(code);
        }
    };
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let environment = Environment::from_variables(variables);
    match Session::new(environment, cli.global).and_then(|mut session| command::run(&mut session, cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            std::io::stderr().write_all(error.explain().as_bytes()).ok();
            ExitCode::from(error.exit_code())
        }
    }
}
