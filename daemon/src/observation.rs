//! Observation: a trace as a sequence of typed records. Trusts nothing in it: what does not parse is an error.
//! Pure; what the records mean is for `distill`.

use zcache_proto::trace::{self, Identity, Target};

/// Longest path or name, bytes: many times as long as any that the kernel takes.
const TEXT_MAX: usize = 64 << 10;

/// One call that the observer saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// A kind of `zcache_proto::trace`.
    pub kind: u16,
    /// Flags, by kind.
    pub flags: u16,
    /// The process.
    pub pid: u32,
    /// 0 where the call succeeded.
    pub errno: u32,
    /// When the call began, nanoseconds since 1970.
    pub time_ns: u64,
    /// Address that the call came from.
    pub caller: u64,
    /// A number, by kind.
    pub value: u64,
    /// First operand.
    pub a: &'a [u8],
    /// Second operand.
    pub b: &'a [u8],
}

impl Record<'_> {
    /// Whether `flag` is set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// What it is about to start. What does not say so is to start nothing that can be known again.
    pub fn target(&self) -> Target<'_> {
        Target::read(self.b).unwrap_or_default()
    }

    /// Which executable it is that began.
    pub fn identity(&self) -> Identity {
        trace::identity(self.b).unwrap_or_default()
    }

    /// Whether it names a path and could not name it from the root.
    pub fn is_relative(&self) -> bool {
        let names_path = !matches!(
            self.kind,
            trace::GETENV | trace::EXIT | trace::EXEMPT | trace::CLOCK | trace::SOCKET | trace::SYSTEM
        );
        names_path && self.a.first().is_some_and(|&first| first != b'/')
    }
}

/// Why a trace tells nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum TraceError {
    /// It is not there, or cannot be read.
    #[error("the trace cannot be read")]
    Unreadable,
    /// It is not a trace, or one of another version.
    #[error("not a trace")]
    Magic,
    /// More happened than it holds.
    #[error("the trace overflowed")]
    Lost,
    /// A writer died inside a record.
    #[error("the trace has an unfinished record")]
    Unfinished,
    /// Its numbers contradict each other.
    #[error("the trace is malformed")]
    Malformed,
}

/// All records of `trace`, in the order in which their calls ended.
pub fn records(trace: &[u8]) -> Result<Vec<Record<'_>>, TraceError> {
    if trace.len() < trace::HEADER_LEN || trace[..8] != trace::MAGIC {
        return Err(TraceError::Magic);
    }
    if number::<8>(trace, trace::LOST_AT) != Some(0) {
        return Err(TraceError::Lost);
    }
    let end = number::<8>(trace, trace::CURSOR_AT).and_then(|end| usize::try_from(end).ok());
    let end = end.filter(|&end| end <= trace.len()).ok_or(TraceError::Malformed)?;
    let mut records = Vec::new();
    let mut at = trace::HEADER_LEN;
    while at < end {
        let len = number::<4>(trace, at).ok_or(TraceError::Malformed)? as usize;
        if len == 0 {
            return Err(TraceError::Unfinished);
        }
        let body = at.checked_add(len).filter(|&next| next <= end).map(|next| &trace[at..next]);
        records.push(body.and_then(record).ok_or(TraceError::Malformed)?);
        at += len;
    }
    Ok(records)
}

fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let length = |at| number::<4>(bytes, at).map(|length| length as usize).filter(|length| *length <= TEXT_MAX);
    let (a_len, b_len) = (length(40)?, length(44)?);
    let texts = bytes.get(trace::RECORD_LEN..)?;
    let a = texts.get(..a_len)?;
    Some(Record {
        kind: number::<2>(bytes, 4)? as u16,
        flags: number::<2>(bytes, 6)? as u16,
        pid: number::<4>(bytes, 8)? as u32,
        errno: number::<4>(bytes, 12)? as u32,
        time_ns: number::<8>(bytes, 16)?,
        caller: number::<8>(bytes, 24)?,
        value: number::<8>(bytes, 32)?,
        a,
        b: texts[a_len..].get(..b_len)?,
    })
}

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

#[cfg(test)]
pub mod tests {
    //! Traces as a test writes them.
    use super::*;

    /// A trace of `records`.
    pub fn written(records: &[Record<'_>]) -> Vec<u8> {
        let mut trace = vec![0; trace::HEADER_LEN];
        trace[..8].copy_from_slice(&trace::MAGIC);
        for r in records {
            let len = (trace::RECORD_LEN + r.a.len() + r.b.len()).next_multiple_of(8);
            let at = trace.len();
            trace.extend((len as u32).to_le_bytes());
            trace.extend([r.kind, r.flags].iter().flat_map(|n| n.to_le_bytes()));
            trace.extend([r.pid, r.errno].iter().flat_map(|n| n.to_le_bytes()));
            trace.extend([r.time_ns, r.caller, r.value].iter().flat_map(|n| n.to_le_bytes()));
            trace.extend([r.a.len() as u32, r.b.len() as u32].iter().flat_map(|n| n.to_le_bytes()));
            trace.extend(r.a);
            trace.extend(r.b);
            trace.resize(at + len, 0);
        }
        let end = trace.len() as u64;
        trace[trace::CURSOR_AT..][..8].copy_from_slice(&end.to_le_bytes());
        trace
    }

    fn sample() -> Record<'static> {
        Record { kind: trace::READ, flags: 1, pid: 7, errno: 2, time_ns: 3, caller: 4, value: 5, a: b"/x", b: b"yz" }
    }

    #[test]
    fn records_come_back_as_written() {
        let all = [sample(), Record { a: b"", b: b"", ..sample() }];
        assert_eq!(records(&written(&all)).unwrap(), all);
        assert_eq!(records(&written(&[])).unwrap(), []);
    }

    #[test]
    fn damage_is_an_error_never_a_panic() {
        let good = written(&[sample(), sample()]);
        assert_eq!(records(b""), Err(TraceError::Magic));
        for cut in 0..good.len() {
            assert!(records(&good[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = records(&bad);
        }
        let mut unfinished = good.clone();
        unfinished[trace::HEADER_LEN..][..4].fill(0);
        assert_eq!(records(&unfinished), Err(TraceError::Unfinished));
        let mut lost = good;
        lost[trace::LOST_AT] = 1;
        assert_eq!(records(&lost), Err(TraceError::Lost));
    }
}
