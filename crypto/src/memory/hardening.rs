//! What the process asks of the kernel before it holds a key.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core file (`RLIMIT_CORE` 0), not dumpable (`PR_SET_DUMPABLE` 0: no core, no tracing by processes of the same user),
/// and no new privileges through `exec`. Call it before the first key is read: threads that run already keep their
/// privileges.
///
/// # Errors
/// The kernel's first refusal; what comes after it in this order is not asked for. Keys are less protected then, and it is
/// the caller who decides whether to go on.
pub fn harden_process() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
