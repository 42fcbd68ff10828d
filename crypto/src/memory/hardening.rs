//! What the process asks of the kernel before it holds a key.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core file (`RLIMIT_CORE` 0), not dumpable (`PR_SET_DUMPABLE` 0: no core, no tracing by processes of the same user),
/// and no new privileges through `exec`. Call it first of all in `main`.
///
/// # Errors
/// The kernel's refusal. The caller should not go on to hold keys then.
pub fn harden_process() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
