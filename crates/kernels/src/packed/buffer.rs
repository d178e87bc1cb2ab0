//! Memory for packed weights: zeroed, aligned to a cache line, cut from large slabs that the system may back with huge
//! pages. A model's matrices lie behind one another in the order in which they are packed.
//!
//! A token reads every weight once. With pages of 4 KiB the translation of addresses costs a third of the bandwidth
//! (measured on one thread: 12.5 GB/s against 18.4 with huge pages).
//!
//! With `--cfg ounce_asan` every buffer is an allocation of its own and of its exact length, so that the address
//! sanitizer sees a kernel that reads beyond its matrix (`tools/sanitize.sh`).

use std::sync::{Arc, Mutex, Weak};

#[cfg(not(ounce_asan))]
use memmap2::{Advice, MmapMut, MmapOptions};

/// Size and alignment of a huge page.
#[cfg(not(ounce_asan))]
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a slab that several matrices share. What stays unused of the last one is never touched.
const SLAB: usize = 64 << 20;
const CACHE_LINE: usize = 64;

/// A run of huge pages.
struct Slab {
    /// Keeps the memory; reached only through `base`.
    #[cfg(not(ounce_asan))]
    _map: MmapMut,
    #[cfg(ounce_asan)]
    layout: std::alloc::Layout,
    base: *mut u8,
}

// SAFETY: a slab is only an address range; who may touch which bytes is for the buffers to say.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

/// The slab that is being filled, and how far.
static CURRENT: Mutex<(Weak<Slab>, usize)> = Mutex::new((Weak::new(), 0));

/// An aligned block of bytes of its own.
pub(crate) struct Buffer {
    _slab: Arc<Slab>,
    pointer: *mut u8,
    length: usize,
}

// SAFETY: the buffer is the only owner of its bytes; shared access is read-only through `as_slice`.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Zeroed memory of this many bytes.
    ///
    /// # Errors
    /// If the system has no such memory.
    pub(crate) fn zeroed(length: usize) -> std::io::Result<Buffer> {
        let taken = length.max(1);
        let taken = if cfg!(ounce_asan) { taken } else { taken.next_multiple_of(CACHE_LINE) };
        let (slab, at) = place(taken)?;
        // SAFETY: `at + taken` is at most the slab's size.
        let pointer = unsafe { slab.base.add(at) };
        Ok(Buffer { _slab: slab, pointer, length })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: these bytes of the slab are this buffer's alone, mapped and zeroed.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.length) }
    }
}

/// Finds room for this many bytes: in the slab that is being filled, in a new one, or, for a large matrix, in a slab
/// of its own.
fn place(bytes: usize) -> std::io::Result<(Arc<Slab>, usize)> {
    if bytes > SLAB / 2 || cfg!(ounce_asan) {
        return Ok((Arc::new(Slab::new(bytes)?), 0));
    }
    let mut current = CURRENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (slab, at) = match current.0.upgrade() {
        Some(slab) if current.1 + bytes <= SLAB => (slab, current.1),
        _ => (Arc::new(Slab::new(SLAB)?), 0),
    };
    *current = (Arc::downgrade(&slab), at + bytes);
    Ok((slab, at))
}

/// Bytes in use when buffers of these sizes have been filled one after the other, as [`place`] cuts them from slabs.
pub(crate) fn resident_bytes(sizes: &[usize]) -> usize {
    const PAGE: usize = 2 << 20;
    let (mut shared, mut own) = (0usize, 0usize);
    let mut filled = 0;
    for bytes in sizes.iter().map(|bytes| bytes.max(&1).next_multiple_of(CACHE_LINE)) {
        if bytes > SLAB / 2 {
            own += bytes.next_multiple_of(PAGE);
        } else {
            if filled + bytes > SLAB {
                shared += filled.next_multiple_of(PAGE);
                filled = 0;
            }
            filled += bytes;
        }
    }
    own + shared + filled.next_multiple_of(PAGE)
}

#[cfg(not(ounce_asan))]
impl Slab {
    fn new(bytes: usize) -> std::io::Result<Slab> {
        let mut map = MmapOptions::new().len(bytes + HUGE_PAGE).map_anon()?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(Advice::HugePage) {
            // A kernel without huge pages is slower, not wrong.
            tracing::debug!("no huge pages for packed weights: {error}");
        }
        let skip = map.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
        let base = map[skip..].as_mut_ptr();
        Ok(Slab { _map: map, base })
    }
}

#[cfg(ounce_asan)]
impl Slab {
    fn new(bytes: usize) -> std::io::Result<Slab> {
        let layout = std::alloc::Layout::from_size_align(bytes, CACHE_LINE).map_err(std::io::Error::other)?;
        // SAFETY: `place` asks for at least one byte.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        if base.is_null() {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        Ok(Slab { layout, base })
    }
}

#[cfg(ounce_asan)]
impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and the last buffer in it is gone.
        unsafe { std::alloc::dealloc(self.base, self.layout) }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_zeroed_aligned_and_apart() {
        let mut buffers: Vec<Buffer> =
            [1, 100, 64, 4096, 0].map(|length| Buffer::zeroed(length).unwrap()).into();
        for (index, buffer) in buffers.iter_mut().enumerate() {
            assert!(buffer.as_slice().iter().all(|&byte| byte == 0));
            assert!(buffer.as_slice().as_ptr().is_aligned_to_line());
            buffer.as_mut_slice().fill(index as u8 + 1);
        }
        for (index, buffer) in buffers.iter().enumerate() {
            assert!(buffer.as_slice().iter().all(|&byte| byte == index as u8 + 1));
        }
    }

    #[test]
    fn a_matrix_larger_than_a_slab_has_one_of_its_own() {
        let large = Buffer::zeroed(SLAB + 5).unwrap();
        assert_eq!(large.as_slice().len(), SLAB + 5);
        let small = Buffer::zeroed(10).unwrap();
        assert!(!large.as_slice().as_ptr_range().contains(&small.as_slice().as_ptr()));
    }

    trait Line {
        fn is_aligned_to_line(&self) -> bool;
    }

    impl Line for *const u8 {
        fn is_aligned_to_line(&self) -> bool {
            (*self as usize).is_multiple_of(CACHE_LINE)
        }
    }
}
