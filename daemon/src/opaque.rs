//! Opaque: whether a file may hold text where a search of its bytes does not find it, told by the bytes themselves. Knows
//! the formats that compilers write; what it does not know may hide anything.
//!
//! An output that names a place is right in that place only. Searching for the place's path answers that for bytes in
//! which text stands as it is: machine code and its tables, metadata of crates, text. It answers nothing for compressed
//! sections, for bitcode and link-time streams, for coverage maps, and for symbols that are made of a hash of the file's
//! name. No option says which of these a compiler writes: a specs file, a plugin or a default may ask for them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use memchr::memmem;
use object::read::archive::ArchiveFile;
use object::read::elf::{Dyn, ElfFile, FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, ReadCache, ReadRef, elf};

/// Longest text that is looked at whole, bytes.
const TEXT_MAX: u64 = 64 << 20;

/// What a look at a file's bytes tells.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// It may hold text that a search does not find.
    pub opaque: bool,
    /// It finds its libraries by a path that leads upwards from where it lies: whether that is right depends on how deep
    /// it lies.
    pub climbs: bool,
}

/// Looks at the file at `at`.
pub fn look(at: &Path) -> io::Result<Look> {
    let mut file = File::open(at)?;
    let mut head = [0; 8];
    let read = file.read(&mut head)?;
    Ok(match &head[..read] {
        b"" => Look::default(),
        [0x7f, b'E', b'L', b'F', ..] => of_elf(&ReadCache::new(file)),
        // What it names is elsewhere.
        b"!<thin>\n" => Look { opaque: true, climbs: false },
        b"!<arch>\n" => of_archive(&ReadCache::new(file)),
        // Metadata of a crate, and what gcc notes of a program's flow: paths stand in them as they are.
        [b'r', b'u', b's', b't', 0, ..] | [b'o', b'n', b'c' | b'd', b'g', ..] => Look::default(),
        _ => Look { opaque: !is_text(&mut file)?, climbs: false },
    })
}

/// A whole text in UTF-8, without control characters but those of text. Escapes in it are for who searches.
fn is_text(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() > TEXT_MAX {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let is_control = |b: &u8| *b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0x1b);
    Ok(std::str::from_utf8(&bytes).is_ok() && !bytes.iter().any(is_control))
}

/// Members are looked at where they lie: most of a library's bytes are not read.
fn of_archive(data: &ReadCache<File>) -> Look {
    let unknown = Look { opaque: true, climbs: false };
    let Ok(archive) = ArchiveFile::parse(data) else { return unknown };
    let mut found = Look::default();
    for member in archive.members() {
        let Ok((offset, size)) = member.map(|member| member.file_range()) else { return unknown };
        let bytes = data.range(offset, size);
        let look = match bytes.read_bytes_at(0, size.min(5)) {
            Ok([0x7f, b'E', b'L', b'F', ..]) => of_elf(bytes),
            Ok([] | [b'r', b'u', b's', b't', 0]) => Look::default(),
            _ => unknown,
        };
        found = Look { opaque: found.opaque || look.opaque, climbs: found.climbs || look.climbs };
    }
    found
}

fn of_elf<'a>(data: impl ReadRef<'a>) -> Look {
    let class = data.read_at::<[u8; 5]>(0).map(|head| head[4]);
    let look = match class {
        Ok(1) => of_elf_class::<elf::FileHeader32<Endianness>, _>(data),
        Ok(2) => of_elf_class::<elf::FileHeader64<Endianness>, _>(data),
        _ => None,
    };
    look.unwrap_or(Look { opaque: true, climbs: false })
}

fn of_elf_class<'a, Header: FileHeader<Endian = Endianness>, Data: ReadRef<'a>>(data: Data) -> Option<Look> {
    let file = ElfFile::<Header, Data>::parse(data).ok()?;
    let (endian, sections) = (file.endian(), file.elf_section_table());
    let mut look = Look::default();
    for section in sections.iter() {
        let flags: u64 = section.sh_flags(endian).into();
        let name = sections.section_name(endian, section).ok()?;
        look.opaque |= flags & u64::from(elf::SHF_COMPRESSED) != 0 || !is_plain_section(name);
        if name == b".strtab" {
            look.opaque |= names_a_hash(section.data(endian, data).ok()?);
        }
    }
    for segment in file.elf_program_headers() {
        let Some(entries) = segment.dynamic(endian, data).ok()? else { continue };
        let strings = sections.iter().find(|section| sections.section_name(endian, section) == Ok(b".dynstr"));
        let strings = strings.and_then(|section| section.data(endian, data).ok()).unwrap_or_default();
        let is_search = |entry: &&Header::Dyn| {
            let tag: u64 = entry.d_tag(endian).into();
            tag == u64::from(elf::DT_RPATH) || tag == u64::from(elf::DT_RUNPATH)
        };
        for entry in entries.iter().filter(is_search) {
            let start: u64 = entry.d_val(endian).into();
            let path = strings.get(start as usize..)?.split(|&b| b == 0).next()?;
            look.climbs |= memmem::find(path, b"..").is_some();
        }
    }
    Some(look)
}

/// Whether text in a section of this name stands as it is. A name that C can spell is the program's own; of those that
/// begin with a dot the ones known to hold code, data, tables and uncompressed debug information are.
fn is_plain_section(name: &[u8]) -> bool {
    const PLAIN: &[&str] = &[
        "bss",
        "comment",
        "ctors",
        "data",
        "data1",
        "debug",
        "dtors",
        "dynamic",
        "dynstr",
        "dynsym",
        "eh_frame",
        "eh_frame_hdr",
        "fini",
        "fini_array",
        "gcc_except_table",
        "gnu_debuglink",
        "got",
        "group",
        "hash",
        "init",
        "init_array",
        "interp",
        "jcr",
        "lbss",
        "ldata",
        "line",
        "llvmcmd",
        "llvm_addrsig",
        "lrodata",
        "note",
        "plt",
        "preinit_array",
        "rel",
        "rela",
        "relr",
        "relro_padding",
        "rmeta",
        "rodata",
        "rodata1",
        "rustc",
        "sbss",
        "sdata",
        "shstrtab",
        "stab",
        "stabstr",
        "stack",
        "stack_sizes",
        "strtab",
        "symtab",
        "symtab_shndx",
        "tbss",
        "tdata",
        "text",
        "tm_clone_table",
        "ARM",
        "riscv",
        "altinstructions",
        "discard",
        "smp_locks",
    ];
    const GNU: &[&str] = &["attributes", "build", "hash", "liblist", "linkonce", "version", "version_d", "version_r"];
    let Some(dotted) = name.strip_prefix(b".") else { return !name.starts_with(b"__llvm") };
    let mut parts = dotted.split(|&b| b == b'.');
    let first = parts.next().unwrap_or_default();
    let is = |list: &[&str], word: &[u8]| list.iter().any(|known| known.as_bytes() == word);
    match first {
        b"gnu" => is(GNU, parts.next().unwrap_or_default()),
        // Of a relocation table, what it belongs to is another section.
        _ => is(PLAIN, first) || first.starts_with(b"debug_"),
    }
}

/// Whether a symbol is made of a hash of the source's name: clang's unique names of internal functions, and what gcc calls
/// the constructors of a file that defines nothing else.
fn names_a_hash(symbols: &[u8]) -> bool {
    let is_hash = |bytes: &[u8]| bytes.len() >= 8 && bytes[..8].iter().all(u8::is_ascii_hexdigit);
    let is_made_of_one = |symbol: &[u8]| {
        let mut parts = symbol.rsplit(|&b| b == b'_').filter(|part| !part.is_empty());
        let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        is_hash(before) && (is_hash(last) || last.starts_with(b"0x") || last == b"0")
    };
    let of = |at: usize| symbols[at..].split(|&b| b == 0).next().unwrap_or_default();
    memmem::find(symbols, b".__uniq.").is_some()
        || memmem::find_iter(symbols, b"_GLOBAL__").any(|at| is_made_of_one(of(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_judged_by_name() {
        for name in
            [".text.f", ".rela.debug_info", ".note.GNU-stack", ".gnu.hash", "__ksymtab", ".data.rel.ro", ".rmeta"]
        {
            assert!(is_plain_section(name.as_bytes()), "{name}");
        }
        for name in [".gnu.lto_main", ".llvmbc", "__llvm_covmap", ".zdebug_info", ".unheard_of", ".gnu.debuglto_x"] {
            assert!(!is_plain_section(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn symbols_that_hold_a_hash_are_told() {
        assert!(names_a_hash(b"\0f.__uniq.123\0"));
        assert!(names_a_hash(b"\0_GLOBAL__sub_I__w_x.cc_0BADF00D_0xdeadbeef\0"));
        assert!(!names_a_hash(b"\0_GLOBAL__sub_I_main\0_GLOBAL__N_1\0_GLOBAL_OFFSET_TABLE_\0"));
    }

    #[test]
    fn what_is_not_known_may_hide_anything() {
        let dir = tempfile::tempdir().unwrap();
        let opaque = |bytes: &[u8]| {
            let at = dir.path().join("f");
            std::fs::write(&at, bytes).unwrap();
            look(&at).unwrap().opaque
        };
        for plain in [b"".as_slice(), b"x.o: x.c\n", b"rust\0\0\0\x0a...", b"oncg*21B", "\u{e9}\n".as_bytes()] {
            assert!(!opaque(plain), "{plain:?}");
        }
        for hidden in [b"BC\xc0\xde".as_slice(), b"\x1f\x8b\x08", b"\x7fELF", b"!<arch>\nx", b"a\0b", b"!<thin>\n"] {
            assert!(opaque(hidden), "{hidden:?}");
        }
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(!opaque(&own));
    }
}
