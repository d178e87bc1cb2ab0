//! Memory for packed weights: zeroed, aligned to a page, and marked for huge pages where the system has them.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

/// Alignment: a huge page, so that the system can use them; small buffers take a cache line.
const HUGE_PAGE: usize = 2 << 20;
const CACHE_LINE: usize = 64;

/// An aligned block of bytes.
pub(crate) struct Buffer {
    pointer: *mut u8,
    layout: Layout,
}

// SAFETY: the buffer owns its memory; shared access is read-only through `as_slice`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Zeroed memory of this many bytes.
    pub(crate) fn zeroed(bytes: usize) -> Buffer {
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { CACHE_LINE };
        let layout = Layout::from_size_align(bytes.max(1), align)
            .expect("packed weights are smaller than the address space");
        // SAFETY: the layout's size is not 0.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            handle_alloc_error(layout);
        }
        Buffer { pointer, layout }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the pointer owns as many initialised bytes as the layout says.
        unsafe { std::slice::from_raw_parts(self.pointer, self.layout.size()) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.layout.size()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `zeroed`.
        unsafe { dealloc(self.pointer, self.layout) };
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.layout.size())
    }
}
