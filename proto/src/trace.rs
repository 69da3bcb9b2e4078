//! The trace: the record format that the observer writes and the daemon reads.
//! Owns layout and numbers only; it is compiled into the observer too, so it is `no_std`, without dependencies,
//! and knows neither files nor processes.
//!
//! A trace is one shared memory file. Its header is [`HEADER_LEN`] bytes: [`MAGIC`], then little-endian `u64`s
//! capacity (bytes of the whole file), cursor (offset of the next free byte), lost (non-zero when a record did not fit).
//! Records follow, each a multiple of eight bytes; writers reserve space by advancing the cursor atomically, and
//! store a record's `len` last, so a zero `len` below the cursor is a record whose writer died.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | u32 | len: the whole record, padding included |
//! | 4 | u16 | kind |
//! | 6 | u16 | flags |
//! | 8 | u32 | pid |
//! | 12 | u32 | errno: 0 where the call succeeded |
//! | 16 | u64 | time: `CLOCK_REALTIME_COARSE` before the call, nanoseconds |
//! | 24 | u64 | caller: return address of the call, to be looked up among the process's modules |
//! | 32 | u64 | value: by kind |
//! | 40 | u32 | length of `a` |
//! | 44 | u32 | length of `b` |
//! | 48 | bytes | `a`, then `b`, then padding |
//!
//! Records of concurrent threads and processes stand in the order in which their calls ended. A process that was forked
//! and did not become another program writes under its own pid, without a [`START`].
//! Paths are absolute (relative ones are joined to the directory they are relative to, without resolving `..` or links);
//! one that is not is relative to a directory that is gone. Of the links that mean something else to each process, the
//! leading `/proc/self/cwd` and `/proc/self/root` are resolved, since nobody can do so afterwards.

/// First eight bytes of a trace.
pub const MAGIC: [u8; 8] = *b"ZCTRACE2";
/// Bytes before the first record.
pub const HEADER_LEN: usize = 64;
/// Most bytes of a trace. Only what is written takes memory.
pub const CAPACITY_MAX: u64 = 20 << 20;
/// Offset of the capacity in the header.
pub const CAPACITY_AT: usize = 8;
/// Offset of the cursor in the header.
pub const CURSOR_AT: usize = 16;
/// Offset of the lost flag in the header.
pub const LOST_AT: usize = 24;
/// Bytes of a record before `a`.
pub const RECORD_LEN: usize = 48;

/// A program began under observation. `a`: its executable; `b`: that file's [`Identity`]; `value`: parent's pid.
pub const START: u16 = 1;
/// An object is mapped in the process. `a`: path; `caller`: first address; `value`: one past the last.
pub const MODULE: u16 = 2;
/// Opened for reading. `a`: path; flags [`DIRECTORY`] [`DEVICE`] [`STREAM`]; `value`: number of the inode, 0 where
/// it is not known, or of the device.
pub const READ: u16 = 3;
/// Opened for writing. `a`: path; flags [`CREATE`] [`TRUNCATE`] [`EXCLUSIVE`] [`READS`] [`DEVICE`] [`STREAM`];
/// `value`: as for [`READ`].
pub const WRITE: u16 = 4;
/// Asked for existence or attributes. `a`: path; flags [`NOFOLLOW`] [`TIMELESS`]; `value`: `st_mode`, 0 where the call does not tell.
pub const STAT: u16 = 5;
/// A directory's entries were read. `a`: path.
pub const LIST: u16 = 6;
/// A link was read or a path resolved. `a`: path; `b`: answer.
pub const READLINK: u16 = 7;
/// The environment was asked. `a`: name; flag [`FOUND`]; `value`: [`hash`] of the answer.
pub const GETENV: u16 = 8;
/// This process is about to become another program. `a`: file, empty where the search found none; `b`: what is to be
/// started, as [`Target`] reads it; flags [`FOREIGN`] [`AWAY`].
pub const EXEC: u16 = 9;
/// The preceding [`EXEC`] of this pid did not happen.
pub const EXEC_FAILED: u16 = 10;
/// A child was started by `posix_spawn`, or by the C library for itself. `a`, `b` and flag as for [`EXEC`]; `value`:
/// child's pid, 0 where that is not known.
pub const SPAWN: u16 = 11;
/// `a` was renamed to `b`; `value`: flags of `renameat2`.
pub const RENAME: u16 = 12;
/// `b` became a hard link to `a`.
pub const LINK: u16 = 13;
/// `a` became a symbolic link with target `b`.
pub const SYMLINK: u16 = 14;
/// `a`, a file or directory, was removed.
pub const REMOVE: u16 = 15;
/// `a` was created as a directory; `value`: mode.
pub const MKDIR: u16 = 16;
/// Wall-clock time was read. `value`: [`TIME`], [`LOCAL`], or 0 for any other function.
pub const CLOCK: u16 = 17;
/// A socket was opened. `value`: address family.
pub const SOCKET: u16 = 18;
/// The current directory's path was asked. `a`: the answer.
pub const GETCWD: u16 = 19;
/// The process ended in an orderly way.
pub const EXIT: u16 = 20;
/// The process is a zcache client and is no longer recorded, but for programs that it starts without a trace of their
/// own: what it does is reported by itself.
pub const EXEMPT: u16 = 21;
/// The client that made the trace is about to start the first program. `a` and `b` as for [`EXEC`]; its time is 0.
pub const ENTRY: u16 = 22;
/// The machine was asked something. `value`: what, from [`HOST`] on.
pub const SYSTEM: u16 = 30;

/// [`READ`]: opened as a directory.
pub const DIRECTORY: u16 = 1;
/// [`WRITE`]: may create the file.
pub const CREATE: u16 = 2;
/// [`WRITE`]: empties the file.
pub const TRUNCATE: u16 = 4;
/// [`WRITE`]: fails where the file exists.
pub const EXCLUSIVE: u16 = 8;
/// [`WRITE`]: open for reading as well.
pub const READS: u16 = 16;
/// [`STAT`]: of the link itself.
pub const NOFOLLOW: u16 = 32;
/// [`GETENV`]: the variable is set.
pub const FOUND: u16 = 64;
/// [`EXEC`], [`SPAWN`]: a program the observer cannot enter (another architecture or word size).
pub const FOREIGN: u16 = 128;
/// [`EXEC`], [`SPAWN`]: a program whose paths lead to other files than those before (another root or mount namespace).
/// The observer does not enter it.
pub const AWAY: u16 = 256;
/// [`READ`], [`WRITE`]: what was opened is a device; `value` is its number, [`device`].
pub const DEVICE: u16 = 512;
/// [`READ`], [`WRITE`]: what was opened is a pipe or socket.
pub const STREAM: u16 = 1024;

/// [`STAT`]: neither times nor the length were asked for.
pub const TIMELESS: u16 = 2048;

/// A device's number, as one.
pub const fn device(major: u32, minor: u32) -> u64 {
    (major as u64) << 32 | minor as u64
}

/// [`CLOCK`]: by `time`, as compilers do for a date, rather than by one of the finer clocks, as they do for a random seed.
pub const TIME: u64 = 1;

/// [`CLOCK`]: a time, of a file perhaps, was turned into a date of the local zone.
pub const LOCAL: u64 = 2;

/// [`SYSTEM`]: the host's name and kernel.
pub const HOST: u64 = 1;
/// [`SYSTEM`]: the number of processors.
pub const PROCESSORS: u64 = 2;
/// [`SYSTEM`]: limits on resources.
pub const LIMITS: u64 = 3;
/// [`SYSTEM`]: the user and its groups, by number.
pub const USER: u64 = 4;
/// [`SYSTEM`]: users and groups by name.
pub const USERS: u64 = 5;
/// [`SYSTEM`]: how much memory there is.
pub const MEMORY: u64 = 6;
/// [`SYSTEM`]: the number of a process.
pub const PROCESS: u64 = 7;
/// [`SYSTEM`]: what is another answer each time: load, free memory, times used.
pub const MOMENT: u64 = 8;
/// [`SYSTEM`]: the locale.
pub const LOCALE: u64 = 9;
/// Which file it is: device and inode, as the kernel numbers them. All zeros is no file.
pub type Identity = [u64; 2];

/// Bytes of an [`Identity`] in a record, each number little-endian.
pub const IDENTITY_LEN: usize = 16;

/// What [`EXEC`], [`SPAWN`] and [`ENTRY`] are to start. Whatever begins with another executable is not that program.
///
/// In the record: the file's identity, that of its executable, then the three texts with a zero byte between them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// The file that is named.
    pub file: Identity,
    /// The file whose code will run: the same one, or a script's interpreter. Unknown where nothing can be said.
    pub executable: Identity,
    /// The interpreter, as a script names it; empty where the file is no script.
    pub interpreter: &'a [u8],
    /// The name, where it was searched in PATH.
    pub name: &'a [u8],
    /// The argument that is the script to read, if the program is an interpreter: the first behind
    /// nothing but plain options ([`is_plain_option`]).
    pub argument: &'a [u8],
}

impl<'a> Target<'a> {
    /// From the record.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (file, executable) = (identity(bytes)?, identity(bytes.get(IDENTITY_LEN..)?)?);
        let mut texts = bytes.get(2 * IDENTITY_LEN..)?.splitn(3, |&byte| byte == 0);
        let (interpreter, name, argument) = (texts.next()?, texts.next()?, texts.next()?);
        Some(Self { file, executable, interpreter, name, argument })
    }
}

/// The parts of a [`Target`] in a record, identities as bytes.
pub const fn target_parts<'a>(
    file: &'a [u8; IDENTITY_LEN],
    executable: &'a [u8; IDENTITY_LEN],
    texts: [&'a [u8]; 3],
) -> [&'a [u8]; 7] {
    let [interpreter, name, argument] = texts;
    [file, executable, interpreter, &[0], name, &[0], argument]
}

/// Whether `argument` cannot be, hold or announce a piece of code: a word of letters, or a few letters that a dash joins.
pub fn is_plain_option(argument: &[u8]) -> bool {
    let [b'-', rest @ ..] = argument else { return false };
    match rest {
        [b'-', word @ ..] => word.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'-')),
        _ => (1..=2).contains(&rest.len()),
    }
}

/// The identity at the start of `bytes`.
pub fn identity(bytes: &[u8]) -> Option<Identity> {
    let both = u128::from_le_bytes(*bytes.first_chunk()?);
    Some([both as u64, (both >> 64) as u64])
}

/// An identity as it stands in a record.
pub const fn identity_bytes(identity: Identity) -> [u8; IDENTITY_LEN] {
    (identity[0] as u128 | (identity[1] as u128) << 64).to_le_bytes()
}

/// How much of a file the kernel looks at to see what it is.
pub const HEAD_LEN: usize = 256;

/// The interpreter that `head`, the first [`HEAD_LEN`] bytes of a file, names; none where it is no script.
pub fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let [b'#', b'!', line @ ..] = head else { return None };
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let line = &line[start..];
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0));
    match end {
        Some(end) => Some(&line[..end]),
        // The kernel gives up on a name that it sees no end of.
        None if head.len() >= HEAD_LEN => None,
        None => Some(line),
    }
}

/// FNV-1a, 64 bits: tells an environment value that a process saw from the one the build gave it, without keeping it.
pub const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x100_0000_01b3);
        i += 1;
    }
    hash
}
