//! How much memory a piece of work takes at its peak, by counting every allocation of its thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    /// Bytes that are allocated now, and the most that were since the counting began.
    static COUNT: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

pub(crate) struct Counting;

fn count(change: isize) {
    let counted = COUNT.try_with(|count| {
        let (now, most) = count.get();
        count.set((now + change, most.max(now + change)));
    });
    // A thread that ends gives memory back when its own variables are gone: nobody measures then.
    counted.unwrap_or_default();
}

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe to write; this one calls the system's and counts"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there while the content is copied.
        count(size as isize);
        let new = unsafe { System.realloc(pointer, layout, size) };
        count(-(layout.size() as isize));
        new
    }
}

/// What the work returned, and the most bytes that it held at a time. What it returns is counted too.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = COUNT.with(|count| {
        let (now, _) = count.get();
        count.set((now, now));
        now
    });
    let result = work();
    let (_, most) = COUNT.with(Cell::get);
    (result, (most - before).unsigned_abs())
}
