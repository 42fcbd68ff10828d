//! What the kernel knows after hardening. A binary of its own, because the effect is on the whole process.

use keyward_crypto::memory::harden_process;
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

#[test]
fn the_kernel_took_it() {
    harden_process().unwrap();
    assert_eq!(getrlimit(Resource::Core).current, Some(0));
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    assert!(rustix::thread::no_new_privs().unwrap());
}
