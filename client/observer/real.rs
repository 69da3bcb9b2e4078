//! The functions that ours stand before: finds, in the objects loaded after this one, what a program would have called.
//! Reads ELF symbol tables by itself, because `dlsym` takes the loader's lock (a forked child may find it held for ever)
//! and wipes the message that `dlerror` owes the program. Does not know what the functions do.

use crate::sys;
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// A function to be found; all of them lie side by side in one section.
#[repr(C)]
pub struct Real {
    name: *const u8,
    length: usize,
    address: AtomicPtr<c_void>,
    hash: u32,
}

/// Declares a [`Real`].
macro_rules! real {
    ($id:ident = $name:expr) => {
        #[used]
        #[unsafe(link_section = "zcache_real")]
        static $id: $crate::real::Real = $crate::real::Real::new($name);
    };
}
pub(crate) use real;

// The linker would export the section's bounds.
core::arch::global_asm!(".hidden __start_zcache_real", ".hidden __stop_zcache_real");

unsafe extern "C" {
    #[link_name = "__start_zcache_real"]
    static FIRST: Real;
    #[link_name = "__stop_zcache_real"]
    static LAST: Real;
    pub fn dl_iterate_phdr(
        each: unsafe extern "C" fn(*const Object, usize, *mut c_void) -> c_int,
        data: *mut c_void,
    ) -> c_int;
}

/// `struct dl_phdr_info`.
#[repr(C)]
pub struct Object {
    pub base: usize,
    pub name: *const c_char,
    pub headers: *const Header,
    pub count: u16,
    pub adds: u64,
    pub subs: u64,
}

/// `Elf64_Phdr`.
#[repr(C)]
pub struct Header {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    physical: usize,
    file_size: usize,
    size: usize,
    align: usize,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: usize,
    size: usize,
}

impl Object {
    unsafe fn headers(&self) -> &[Header] {
        core::slice::from_raw_parts(self.headers, self.count as usize)
    }

    /// First address and one past the last.
    pub unsafe fn range(&self) -> (usize, usize) {
        let (mut low, mut high) = (usize::MAX, 0);
        for header in self.headers().iter().filter(|h| h.kind == 1) {
            low = low.min(self.base + header.address);
            high = high.max(self.base + header.address + header.size);
        }
        (low, high)
    }

    pub unsafe fn is_this(&self) -> bool {
        let (low, high) = self.range();
        (low..high).contains(&(&raw const FIRST as usize))
    }
}

// SAFETY: the name is a constant.
unsafe impl Sync for Real {}

impl Real {
    pub const fn new(name: &'static str) -> Real {
        let (mut hash, mut i) = (5381u32, 0);
        while i < name.len() {
            hash = hash.wrapping_mul(33).wrapping_add(name.as_bytes()[i] as u32);
            i += 1;
        }
        Real { name: name.as_ptr(), length: name.len(), address: AtomicPtr::new(core::ptr::null_mut()), hash }
    }

    /// Null where no loaded object has it.
    #[inline(always)]
    pub unsafe fn get(&self) -> *mut c_void {
        let address = self.address.load(Relaxed);
        if address.is_null() { self.seek() } else { address }
    }

    unsafe fn name(&self) -> &'static [u8] {
        core::slice::from_raw_parts(self.name, self.length)
    }

    unsafe fn find_in(&self, table: &Table) {
        if let Some(address) = table.find(self.name(), self.hash) {
            self.address.store(address as *mut c_void, Relaxed);
        }
    }

    #[cold]
    unsafe fn seek(&self) -> *mut c_void {
        crate::session::ready();
        if self.address.load(Relaxed).is_null() {
            find_all();
        }
        self.address.load(Relaxed)
    }
}

/// Finds every function that is still unknown.
pub unsafe fn find_all() {
    let mut walk = Walk { passed: false, everywhere: false };
    dl_iterate_phdr(visit, (&raw mut walk).cast());
    walk.everywhere = true;
    if all().iter().any(|real| real.address.load(Relaxed).is_null()) {
        dl_iterate_phdr(visit, (&raw mut walk).cast());
    }
}

struct Walk {
    passed: bool,
    /// Second round: a C library loaded before us is better than none.
    everywhere: bool,
}

unsafe fn all() -> &'static [Real] {
    let first = &raw const FIRST;
    core::slice::from_raw_parts(first, (&raw const LAST).offset_from(first) as usize)
}

unsafe extern "C" fn visit(object: *const Object, _: usize, data: *mut c_void) -> c_int {
    let (object, walk) = (&*object, &mut *data.cast::<Walk>());
    if object.is_this() {
        walk.passed = true;
        return 0;
    }
    // The kernel's own object has `clock_gettime` too, but answers otherwise than the C library's.
    let from_file = sys::contains(sys::bytes(object.name), b'/');
    if !from_file || !(walk.passed || walk.everywhere) {
        return 0;
    }
    let Some(table) = Table::of(object) else { return 0 };
    // First, since finding an indirect function may ask it.
    AUXILIARY.find_in(&table);
    for real in all().iter().filter(|real| real.address.load(Relaxed).is_null()) {
        real.find_in(&table);
    }
    0
}

real!(AUXILIARY = "getauxval");

/// What the kernel told the program at its start; 0 where unknown.
pub unsafe fn auxiliary(kind: usize) -> u64 {
    let address = AUXILIARY.address.load(Relaxed);
    if address.is_null() {
        return 0;
    }
    core::mem::transmute::<*mut c_void, unsafe extern "C" fn(usize) -> u64>(address)(kind)
}

/// Finds `name` in the object at `base`, the kernel's.
pub unsafe fn find_in_kernel(base: usize, name: &'static str) -> Option<usize> {
    // An ELF header: where the program headers are, and how many.
    let headers = base + ((base + 32) as *const usize).read();
    let count = ((base + 56) as *const u16).read();
    let object = Object { base, name: core::ptr::null(), headers: headers as *const Header, count, adds: 0, subs: 0 };
    Table::of(&object)?.find(name.as_bytes(), Real::new(name).hash)
}

struct Table {
    base: usize,
    symbols: *const Symbol,
    strings: *const c_char,
    versions: *const u16,
    /// `DT_GNU_HASH`, or null.
    gnu: *const u32,
    /// `DT_HASH`, or null.
    sysv: *const u32,
}

impl Table {
    unsafe fn of(object: &Object) -> Option<Table> {
        let dynamic = object.headers().iter().find(|header| header.kind == 2)?;
        let base = object.base;
        let mut entry = (base + dynamic.address) as *const [usize; 2];
        let (mut symbols, mut strings, mut versions, mut gnu, mut sysv) = (0, 0, 0, 0, 0);
        while (*entry)[0] != 0 {
            let [tag, value] = *entry;
            // glibc's loader has made these absolute, musl's and the kernel have not.
            let at = if value < base { base + value } else { value };
            match tag {
                4 => sysv = at,
                5 => strings = at,
                6 => symbols = at,
                0x6fff_fef5 => gnu = at,
                0x6fff_fff0 => versions = at,
                _ => {}
            }
            entry = entry.add(1);
        }
        if symbols == 0 || strings == 0 || (gnu == 0 && sysv == 0) {
            return None;
        }
        Some(Table {
            base,
            symbols: symbols as *const Symbol,
            strings: strings as *const c_char,
            versions: versions as *const u16,
            gnu: gnu as *const u32,
            sysv: sysv as *const u32,
        })
    }

    unsafe fn find(&self, name: &[u8], hash: u32) -> Option<usize> {
        let index = if self.gnu.is_null() { self.scan(name) } else { self.look_up(name, hash) }?;
        let symbol = &*self.symbols.add(index);
        let address = self.base + symbol.value;
        // An indirect function: its value answers which one to call.
        Some(if symbol.info & 15 == 10 { crate::arch::choose(address) } else { address })
    }

    unsafe fn look_up(&self, name: &[u8], hash: u32) -> Option<usize> {
        let [buckets, first, blooms, shift] = *self.gnu.cast::<[u32; 4]>();
        if buckets == 0 {
            return None;
        }
        let bloom = self.gnu.add(4).cast::<u64>();
        let word = *bloom.add((hash / 64 & (blooms - 1)) as usize);
        if word >> (hash % 64) & word >> ((hash >> shift) % 64) & 1 == 0 {
            return None;
        }
        let bucket = bloom.add(blooms as usize).cast::<u32>();
        let chain = bucket.add(buckets as usize);
        let mut index = *bucket.add((hash % buckets) as usize);
        let mut old = None;
        while index >= first {
            let next = *chain.add((index - first) as usize);
            if next | 1 == hash | 1 && self.is(index as usize, name) {
                if self.is_current(index as usize) {
                    return Some(index as usize);
                }
                old = old.or(Some(index as usize));
            }
            if next & 1 == 1 {
                break;
            }
            index += 1;
        }
        old
    }

    unsafe fn scan(&self, name: &[u8]) -> Option<usize> {
        let count = *self.sysv.add(1) as usize;
        (1..count).find(|&index| self.is(index, name) && self.is_current(index))
    }

    /// Whether the symbol is defined under this name.
    unsafe fn is(&self, index: usize, name: &[u8]) -> bool {
        let symbol = &*self.symbols.add(index);
        let text = self.strings.add(symbol.name as usize);
        symbol.section != 0
            && matches!(symbol.info >> 4, 1 | 2)
            && name.iter().enumerate().all(|(i, &byte)| *text.add(i) as u8 == byte)
            && *text.add(name.len()) == 0
    }

    /// Whether it is the default version: what a program linked today would get.
    unsafe fn is_current(&self, index: usize) -> bool {
        self.versions.is_null() || *self.versions.add(index) & 0x8000 == 0
    }
}
