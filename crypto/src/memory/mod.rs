//! Where keys live in memory, and how little of it can leave the process. The only `unsafe` of Keyward is here.
//!
//! | measure | covers | does not cover |
//! |---|---|---|
//! | [`Locked`] | raw keys and keyed HMAC states at rest: not swapped, not in a core file, not in a forked child; with `memfd_secret` not readable through the kernel either | copies on the stack and in registers while a key is used; cipher schedules of the operation under way (wiped after it) |
//! | [`WipingAllocator`] | every heap buffer is zero once freed: HTTP, JSON, TLS, SQL temporaries | buffers still in use; the stack; memory that C libraries allocate by themselves |
//! | [`harden_process`] | no core file, no tracing by the same user | root, and the kernel's socket buffers |

mod arena;

mod hardening;

mod wiping;

pub use arena::{Locked, LockedKey, Protection, protection};
pub use hardening::harden_process;
pub use wiping::WipingAllocator;
