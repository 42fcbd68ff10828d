//! A small arena of locked memory, and boxes in it.

#![expect(unsafe_code, reason = "placing values in memory that the kernel locks needs raw pages")]

use std::alloc::{Layout, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use keyward_model::Entropy;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// A 256-bit key in locked memory.
pub type LockedKey = Locked<[u8; 32]>;

/// How well the kernel protects the arena.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protection {
    /// Neither locked nor hidden: the lock limit is too small. Keys may reach swap.
    Plain,
    /// Locked into RAM, left out of core files, wiped in forked children.
    Locked,
    /// As `Locked`, and unmapped from the kernel itself (`memfd_secret`, Linux 5.14).
    Hidden,
}

/// A value in locked memory; its bytes are zero after drop, whatever its own `Drop` does.
///
/// `Debug` prints nothing of it. Values must not be aligned beyond 64 bytes nor larger than 64 KiB.
pub struct Locked<T>(NonNull<T>);

// SAFETY: `Locked<T>` owns its `T` as `Box<T>` does.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above; shared access gives `&T` only.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    const FITS: () = assert!(align_of::<T>() <= UNIT && size_of::<T>() <= REGION);

    /// Moves `value` into locked memory. The stack it came from may keep a copy: for keys prefer to fill in place.
    /// Ends the process if no memory is left at all, as any allocation does.
    pub fn new(value: T) -> Self {
        let () = Self::FITS;
        let place = arena().take(units::<T>()).cast::<T>();
        // SAFETY: the arena gave this range to us alone; it is large enough and aligned (FITS, UNIT).
        unsafe { place.write(value) };
        Self(place)
    }
}

impl LockedKey {
    /// A fresh random key, drawn straight into locked memory.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut key = Self::new([0; 32]);
        entropy.fill(&mut *key);
        key
    }

    /// A copy of `bytes` in locked memory.
    pub fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut key = Self::new([0; 32]);
        key.copy_from_slice(bytes);
        key
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the place holds a valid `T` from `new` until `drop`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` makes it the only access.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is valid and never used again; its units are ours until they are given back.
        unsafe {
            ptr::drop_in_place(self.0.as_ptr());
            wipe(self.0.cast(), units::<T>() * UNIT);
        }
        arena().give_back(self.0.cast(), units::<T>());
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(…)")
    }
}

/// How well the arena is protected here and now: the weakest of its regions. A server that wants locked keys asks at start.
pub fn protection() -> Protection {
    let mut arena = arena();
    if arena.regions.is_empty() {
        arena.grow();
    }
    arena.regions.iter().map(|region| region.protection).min().unwrap_or(Protection::Plain)
}

/// Zeroes `length` bytes at `start` so that the compiler cannot leave it out.
///
/// # Safety
/// The range must be writable memory that nothing else uses.
pub(super) unsafe fn wipe(start: NonNull<u8>, length: usize) {
    // SAFETY: by the caller's promise; after the write the bytes are initialised, so they may be viewed as a slice.
    unsafe {
        ptr::write_bytes(start.as_ptr(), 0, length);
        zeroize::optimization_barrier(std::slice::from_raw_parts(start.as_ptr(), length));
    }
}

/// The arena hands out multiples of this many bytes, aligned to it.
const UNIT: usize = 64;

/// Bytes of one region: 16 pages, far below the usual lock limit of 8 MiB.
const REGION: usize = 64 * 1024;

const UNITS: usize = REGION / UNIT;

const fn units<T>() -> usize {
    let units = size_of::<T>().div_ceil(UNIT);
    if units == 0 { 1 } else { units }
}

/// Regions are never unmapped: keys come and go with unseal and seal, the pages stay.
struct Arena {
    regions: Vec<Region>,
}

struct Region {
    start: NonNull<u8>,
    used: [bool; UNITS],
    protection: Protection,
}

// SAFETY: the pointer is to pages that only the arena's lock hands out.
unsafe impl Send for Region {}

static ARENA: Mutex<Arena> = Mutex::new(Arena { regions: Vec::new() });

fn arena() -> std::sync::MutexGuard<'static, Arena> {
    // The bitmap is consistent between any two statements, so a panic elsewhere does not spoil it.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    fn take(&mut self, count: usize) -> NonNull<u8> {
        loop {
            if let Some(found) = self.regions.iter_mut().find_map(|region| region.take(count)) {
                return found;
            }
            self.grow();
        }
    }

    fn give_back(&mut self, place: NonNull<u8>, count: usize) {
        for region in &mut self.regions {
            let offset = place.as_ptr().addr().wrapping_sub(region.start.as_ptr().addr());
            if offset < REGION {
                let first = offset / UNIT;
                region.used[first..first + count].fill(false);
            }
        }
    }

    fn grow(&mut self) {
        match map_hidden().or_else(map_locked) {
            Some((start, protection)) => self.regions.push(Region { start, used: [false; UNITS], protection }),
            None => handle_alloc_error(Layout::new::<[u8; REGION]>()),
        }
    }
}

impl Region {
    fn take(&mut self, count: usize) -> Option<NonNull<u8>> {
        let mut run = 0;
        for unit in 0..UNITS {
            run = if self.used[unit] { 0 } else { run + 1 };
            if run == count {
                let first = unit + 1 - count;
                self.used[first..=unit].fill(true);
                // SAFETY: `first` units of the region's pages are within the mapping.
                return Some(unsafe { self.start.add(first * UNIT) });
            }
        }
        None
    }
}

/// Pages that even the kernel does not map. Locked by their nature; children do not inherit them.
fn map_hidden() -> Option<(NonNull<u8>, Protection)> {
    // SAFETY: the system call takes flags and gives a descriptor or an error; it touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::ftruncate(&fd, REGION as u64).ok()?;
    // SAFETY: a new mapping at a place of the kernel's choice overlaps nothing.
    let start = unsafe {
        rustix::mm::mmap(ptr::null_mut(), REGION, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &fd, 0).ok()?
    };
    // SAFETY: the advice is about the mapping just made. Its failure leaves a child with access, as any fork has.
    let _best_effort = unsafe { rustix::mm::madvise(start, REGION, Advice::LinuxDontFork) };
    NonNull::new(start.cast()).map(|start| (start, Protection::Hidden))
}

/// Private pages, locked if the limit allows it.
fn map_locked() -> Option<(NonNull<u8>, Protection)> {
    let (access, kind) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a new mapping at a place of the kernel's choice overlaps nothing; lock and advice are about that mapping.
    unsafe {
        let start = rustix::mm::mmap_anonymous(ptr::null_mut(), REGION, access, kind).ok()?;
        let locked = rustix::mm::mlock(start, REGION).is_ok();
        let undumped = rustix::mm::madvise(start, REGION, Advice::LinuxDontDump).is_ok();
        let wiped = rustix::mm::madvise(start, REGION, Advice::LinuxWipeOnFork).is_ok();
        let protection = if locked && undumped && wiped { Protection::Locked } else { Protection::Plain };
        NonNull::new(start.cast()).map(|start| (start, protection))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn values_are_apart_and_aligned() {
        let boxes: Vec<Locked<[u8; 100]>> = (0..2000u32).map(|i| Locked::new([(i % 251) as u8; 100])).collect();
        for (i, held) in boxes.iter().enumerate() {
            assert_eq!(**held, [(i % 251) as u8; 100]);
            assert_eq!(held.0.as_ptr().addr() % UNIT, 0);
        }
        assert_eq!(format!("{:?}", boxes[0]), "Locked(…)");
    }

    #[test]
    fn both_kinds_of_pages_hold_what_is_written() {
        for (start, _) in [map_hidden(), map_locked()].into_iter().flatten() {
            // SAFETY: the pages were mapped for this test alone.
            unsafe {
                start.write_bytes(0xa5, REGION);
                assert_eq!(start.add(REGION - 1).read(), 0xa5);
                wipe(start, REGION);
                assert_eq!(start.add(REGION - 1).read(), 0);
                rustix::mm::munmap(start.as_ptr().cast(), REGION).unwrap();
            }
        }
        assert!(protection() >= Protection::Plain);
    }

    #[test]
    fn hidden_pages_cannot_be_read_through_the_kernel() {
        let key = LockedKey::copy_of(&[0x5a; 32]);
        let mut seen = [0; 32];
        let read = File::open("/proc/self/mem").unwrap().read_at(&mut seen, key.0.as_ptr().addr() as u64);
        if protection() == Protection::Hidden {
            assert!(read.is_err());
        } else {
            assert_eq!(seen, [0x5a; 32], "plain and locked pages are readable: the test can tell the difference");
        }
        assert_eq!(*key, [0x5a; 32]);
    }

    #[test]
    fn drop_runs_once_and_wipes() {
        let mut arena = Arena { regions: Vec::new() };
        let place = arena.take(2);
        // SAFETY: the two units are ours; wiped before they are given back, as `Locked` does.
        unsafe {
            place.write_bytes(1, 128);
            wipe(place, 128);
            assert_eq!(*place.cast::<[u8; 128]>().as_ref(), [0; 128]);
        }
        arena.give_back(place, 2);
        assert_eq!(arena.take(2), place, "freed units are used again");

        let counted = std::sync::Arc::new(());
        let held = Locked::new(counted.clone());
        assert_eq!(std::sync::Arc::strong_count(&counted), 2);
        drop(held);
        assert_eq!(std::sync::Arc::strong_count(&counted), 1);
    }
}
