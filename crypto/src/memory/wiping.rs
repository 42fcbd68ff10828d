//! An allocator that leaves nothing behind.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;

use super::arena::wipe;

/// The system's allocator, but for one thing: memory is zeroed before it is freed or outgrown.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: keyward_crypto::memory::WipingAllocator = keyward_crypto::memory::WipingAllocator;
/// # let held = vec![1u8; 100];
/// # drop(held);
/// ```
#[derive(Debug)]
pub struct WipingAllocator;

// SAFETY: every method keeps the contract by passing it on to `System`; wiping touches only the caller's own block, at
// a moment when the contract says that the caller has given it up.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on unchanged.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of this layout; it is wiped while it is still allocated.
        unsafe {
            if let Some(start) = NonNull::new(block) {
                wipe(start, layout.size());
            }
            System.dealloc(block, layout);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // WHY: the system's realloc may move the block and free the old one unwiped, so it always moves here, by hand.
        // SAFETY: the contract of `realloc` says that `size`, rounded up to the alignment, does not overflow; the new
        // block does not overlap the old one, and the smaller length is within both.
        unsafe {
            let fresh = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !fresh.is_null() {
                fresh.copy_from_nonoverlapping(block, layout.size().min(size));
                self.dealloc(block, layout);
            }
            fresh
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn growing_and_shrinking_keeps_the_content() {
        let layout = Layout::array::<u8>(100).unwrap();
        // SAFETY: each block is used within its layout and given back with it.
        unsafe {
            let block = WipingAllocator.alloc(layout);
            block.write_bytes(7, 100);
            let grown = WipingAllocator.realloc(block, layout, 5000);
            assert_eq!(std::slice::from_raw_parts(grown, 100), [7; 100]);
            let shrunk = WipingAllocator.realloc(grown, Layout::array::<u8>(5000).unwrap(), 10);
            assert_eq!(std::slice::from_raw_parts(shrunk, 10), [7; 10]);
            WipingAllocator.dealloc(shrunk, Layout::array::<u8>(10).unwrap());
            let zeroed = WipingAllocator.alloc_zeroed(layout);
            assert_eq!(std::slice::from_raw_parts(zeroed, 100), [0; 100]);
            WipingAllocator.dealloc(zeroed, layout);
        }
    }

    /// Reads memory as the kernel sees it: freed blocks, too, which Rust must not touch.
    fn peek(address: usize, out: &mut [u8]) {
        let read = File::open("/proc/self/mem").unwrap().read_at(out, address as u64);
        assert_eq!(read.unwrap(), out.len());
    }

    #[test]
    fn freed_and_outgrown_blocks_hold_nothing() {
        // Small enough for the allocator's cache of this thread, so that no other test is given the block meanwhile.
        let (layout, larger) = (Layout::array::<u8>(500).unwrap(), Layout::array::<u8>(1000).unwrap());
        let mut seen = [0; 500];
        // SAFETY: each block is used within its layout and given back with it.
        unsafe {
            let block = WipingAllocator.alloc(layout);
            block.write_bytes(0xa7, 500);
            peek(block.addr(), &mut seen);
            assert_eq!(seen, [0xa7; 500]);
            let grown = WipingAllocator.realloc(block, layout, 1000);
            // The system's allocator writes its own list pointers into a free block: a few bytes at its start.
            peek(block.addr(), &mut seen);
            assert_eq!(seen[64..], [0; 436], "outgrown");
            WipingAllocator.dealloc(grown, larger);
            peek(grown.addr(), &mut seen);
            assert_eq!(seen[64..], [0; 436], "freed");
        }
    }
}
