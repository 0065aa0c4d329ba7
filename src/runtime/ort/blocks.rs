//! Tensors in host memory: counted, and with a limit that no gaps take from.
//!
//! The library's arena cuts tensors from regions that it never gives back in part. A graph needs up to 1.4 times what it has in use,
//! and how much is not known in advance. Here, too, a tensor is cut from the smallest free pages that it fits in, and free neighbours
//! are joined. But any free pages can be given back to the system, and are as soon as the limit asks for it. So a tensor fits
//! whenever the limit minus what is in use has room for it.

use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::AsPointer as _;
use ort::memory::MemoryInfo;
use ort::session::{NoSelectedOutputs, RunOptions};
use ort::sys;

/// Tensors from this size on are whole pages. Smaller ones come from the process's allocator: a page for every scalar would be most
/// of what a small model holds.
const LARGE: usize = 64 << 10;

/// Sizes of large tensors are multiples of this: the system's page, or the largest page of systems on other processors.
const PAGE: usize = if cfg!(target_arch = "x86_64") {
    4096
} else {
    64 << 10
};

/// The same for small ones, and what they are aligned to.
const UNIT: usize = 256;

/// What kernels of the library may read past a tensor's end.
const OVERRUN: usize = if cfg!(target_arch = "aarch64") { 64 } else { 0 };

/// Without a limit, what is held may be half more than the most that was in use, and this many bytes.
const SPARE: u64 = 16 << 20;

/// Bytes that a tensor takes.
fn size_of(bytes: usize) -> usize {
    let unit = if bytes + OVERRUN < LARGE { UNIT } else { PAGE };
    (bytes.max(1) + OVERRUN).next_multiple_of(unit)
}

fn layout_of(size: usize) -> Layout {
    // The alignment is a power of two and no size comes near the largest.
    Layout::from_size_align(size, UNIT).unwrap_or(Layout::new::<[u8; LARGE]>())
}

/// Pages of the system. Ends the process as a failed allocation of Rust does if there are none, since the library would
/// write to what it is not given.
fn map(size: usize) -> usize {
    // SAFETY: new private pages without a file touch no memory that is in use.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        std::alloc::handle_alloc_error(layout_of(size));
    }
    start as usize
}

/// Stretches of pages that no tensor uses, by place and by size.
#[derive(Default)]
struct Free {
    by_start: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
}

impl Free {
    fn put(&mut self, mut start: usize, mut size: usize) {
        if let Some((&before, &length)) = self.by_start.range(..start).next_back()
            && before + length == start
        {
            self.remove(before, length);
            (start, size) = (before, length + size);
        }
        if let Some(&length) = self.by_start.get(&(start + size)) {
            self.remove(start + size, length);
            size += length;
        }
        self.by_start.insert(start, size);
        self.by_size.insert((size, start));
    }

    fn remove(&mut self, start: usize, size: usize) {
        self.by_start.remove(&start);
        self.by_size.remove(&(size, start));
    }

    /// The start of `size` bytes out of the smallest stretch that has them.
    fn cut(&mut self, size: usize) -> Option<usize> {
        let &(length, start) = self.by_size.range((size, 0)..).next()?;
        self.remove(start, length);
        if length > size {
            self.put(start + size, length - size);
        }
        Some(start)
    }

    /// Gives up to `size` bytes of the largest stretch back to the system; how many, 0 if there is none.
    fn release(&mut self, size: usize) -> usize {
        let Some(&(length, start)) = self.by_size.last() else {
            return 0;
        };
        let released = length.min(size);
        // SAFETY: no tensor uses these pages, and nothing here refers to them after what follows.
        if unsafe { libc::munmap(start as *mut c_void, released) } != 0 {
            return 0;
        }
        self.remove(start, length);
        if length > released {
            self.put(start + released, length - released);
        }
        released
    }
}

/// What is held, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub in_use: u64,
    pub peak_in_use: u64,
    pub held: u64,
    pub peak_held: u64,
}

/// Memory of tensors, and what is free.
struct Shelf {
    limit: Option<u64>,
    /// Start to size.
    used: HashMap<usize, usize>,
    free: Free,
    count: Count,
    /// The first tensor that did not fit, in bytes.
    refused: Option<u64>,
    closed: bool,
}

impl Shelf {
    /// Memory for a tensor.
    ///
    /// A tensor that does not fit gets memory all the same, because the library writes to the pointer without looking at it. But it
    /// is noted, and the run that asked for it ends after the current operator.
    fn take(&mut self, bytes: usize) -> *mut c_void {
        let size = size_of(bytes);
        let cut = if size < LARGE {
            None
        } else {
            self.free.cut(size)
        };
        let start = cut.unwrap_or_else(|| self.grow(size, bytes));
        self.used.insert(start, size);
        self.count.in_use += size as u64;
        self.count.peak_in_use = self.count.peak_in_use.max(self.count.in_use);
        self.count.peak_held = self.count.peak_held.max(self.count.held);
        start as *mut c_void
    }

    /// New memory of the system.
    fn grow(&mut self, size: usize, bytes: usize) -> usize {
        let peak = self.count.peak_in_use.max(self.count.in_use + size as u64);
        let most = self.limit.unwrap_or(peak + peak / 2 + SPARE);
        self.shrink_to(most.saturating_sub(size as u64));
        self.count.held += size as u64;
        if self.limit.is_some_and(|limit| self.count.held > limit) {
            self.refused.get_or_insert(bytes as u64);
        }
        if size >= LARGE {
            return map(size);
        }
        let layout = layout_of(size);
        // SAFETY: the layout is not empty.
        let start = unsafe { std::alloc::alloc(layout) };
        if start.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        start as usize
    }

    fn give_back(&mut self, start: *mut c_void) {
        let start = start as usize;
        let Some(size) = self.used.remove(&start) else {
            return;
        };
        self.count.in_use -= size as u64;
        if size < LARGE {
            self.count.held -= size as u64;
            // SAFETY: it came from the same allocator with the same layout, and the library no longer uses it.
            unsafe { std::alloc::dealloc(start as *mut u8, layout_of(size)) };
            return;
        }
        self.free.put(start, size);
        if self.closed {
            self.shrink_to(0);
        }
    }

    /// Gives free pages to the system until no more than `bytes` are held or none are free.
    fn shrink_to(&mut self, bytes: u64) {
        while self.count.held > bytes {
            let excess = usize::try_from(self.count.held - bytes).unwrap_or(usize::MAX);
            match self.free.release(excess.next_multiple_of(PAGE)) {
                0 => return,
                released => self.count.held -= released as u64,
            }
        }
    }
}

/// An allocator for the library.
pub(super) struct Blocks {
    shelf: Arc<Mutex<Shelf>>,
    stop: Arc<RunOptions<NoSelectedOutputs>>,
    /// Address of a [`Table`] that is never freed: sessions keep the pointer as long as they live, which nothing here can see.
    table: usize,
}

/// What the library gets a pointer to: its table of functions, then what they need.
#[repr(C)]
struct Table {
    functions: sys::OrtAllocator,
    memory: MemoryInfo<'static>,
    shelf: Arc<Mutex<Shelf>>,
    stop: Arc<RunOptions<NoSelectedOutputs>>,
}

impl Table {
    fn take(&self, bytes: usize) -> *mut c_void {
        let (start, over) = {
            let mut shelf = locked(&self.shelf);
            (shelf.take(bytes), shelf.refused.is_some())
        };
        if over {
            // Not under the lock: the library may allocate or free in it. If it fails, the run ends later.
            let _ = self.stop.terminate();
        }
        start
    }
}

fn locked(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The table behind the library's pointer.
///
/// # Safety
/// `this` comes from [`Blocks::table`].
unsafe fn table<'a>(this: *const sys::OrtAllocator) -> &'a Table {
    // SAFETY: the functions are the table's first field and the table lives as long as the process.
    unsafe { &*this.cast::<Table>() }
}

unsafe extern "system" fn alloc(this: *mut sys::OrtAllocator, bytes: usize) -> *mut c_void {
    // SAFETY: the library passes the pointer that it was given.
    unsafe { table(this) }.take(bytes)
}

unsafe extern "system" fn reserve(this: *const sys::OrtAllocator, bytes: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { table(this) }.take(bytes)
}

unsafe extern "system" fn free(this: *mut sys::OrtAllocator, start: *mut c_void) {
    // SAFETY: as above.
    locked(unsafe { &table(this).shelf }).give_back(start);
}

unsafe extern "system" fn info(this: *const sys::OrtAllocator) -> *const sys::OrtMemoryInfo {
    // SAFETY: as above.
    unsafe { table(this) }.memory.ptr()
}

impl Blocks {
    /// An allocator that holds at most `limit` bytes of the memory that `memory` describes.
    pub(super) fn new(limit: Option<u64>, memory: MemoryInfo<'static>) -> ort::Result<Self> {
        let stop = Arc::new(RunOptions::new()?);
        let shelf = Arc::new(Mutex::new(Shelf {
            limit,
            used: HashMap::new(),
            free: Free::default(),
            count: Count::default(),
            refused: None,
            closed: false,
        }));
        // SAFETY: all that this does is fill the table with nothing.
        let mut functions = unsafe { sys::OrtAllocator::default() };
        functions.Alloc = Some(alloc);
        functions.Free = Some(free);
        functions.Info = Some(info);
        functions.Reserve = Some(reserve);
        let table = Table {
            functions,
            memory,
            shelf: Arc::clone(&shelf),
            stop: Arc::clone(&stop),
        };
        Ok(Self {
            shelf,
            stop,
            table: ptr::from_mut(Box::leak(Box::new(table))).expose_provenance(),
        })
    }

    /// The table to register with the library.
    pub(super) fn table(&self) -> *mut sys::OrtAllocator {
        ptr::with_exposed_provenance_mut(self.table)
    }

    /// Options for every run, through which the allocator ends one that goes over the limit.
    pub(super) fn options(&self) -> &RunOptions<NoSelectedOutputs> {
        &self.stop
    }

    pub(super) fn count(&self) -> Count {
        locked(&self.shelf).count
    }

    /// The size of a tensor that did not fit since the last call.
    pub(super) fn refused(&self) -> Option<u64> {
        let refused = locked(&self.shelf).refused.take();
        if refused.is_some() {
            let _ = self.stop.unterminate();
        }
        refused
    }

    /// Gives free pages to the system, now and whenever some come back.
    pub(super) fn close(&self) {
        let mut shelf = locked(&self.shelf);
        shelf.closed = true;
        shelf.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_neighbours_are_joined_and_the_smallest_that_fits_is_cut() {
        let mut free = Free::default();
        free.put(0x1000, 0x1000);
        free.put(0x3000, 0x4000);
        free.put(0x2000, 0x1000);
        assert_eq!(
            free.by_size.iter().copied().collect::<Vec<_>>(),
            [(0x6000, 0x1000)]
        );
        free.put(0x9000, 0x2000);
        assert_eq!(free.cut(0x2000), Some(0x9000));
        assert_eq!(free.cut(0x5000), Some(0x1000));
        assert_eq!(free.cut(0x2000), None);
        assert_eq!(free.cut(0x1000), Some(0x6000));
        assert!(free.by_start.is_empty());
    }
}
