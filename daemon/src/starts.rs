//! Starts: which program that began answers which call for one, and which programs of a tree were not watched. Pure.
//!
//! A process keeps its number when it becomes another program, and a program that cannot be watched may start one that
//! can. So a number proves nothing: a program is the one that was asked for if it is the same file. Whoever starts
//! another program says beforehand which file that is, and each program says which file it is when it begins. Whatever
//! is not proven so counts as not watched: what was asked for and did not begin, what began in its place, and what began
//! without having been asked for.

use std::collections::{HashMap, HashSet};

use zcache_proto::trace;

use crate::observation::Record;

/// The starts of one observation. Records are meant by their number.
#[derive(Debug, Default)]
pub struct Starts {
    /// For each start, the record that asked for it.
    asked_by: HashMap<usize, usize>,
    /// For each `exec` that did not happen, its error.
    failed: HashMap<usize, u32>,
    /// Programs that were asked for and did not begin, or were not seen to their end.
    pub unseen: Vec<Vec<u8>>,
    /// Programs that were asked for, and in whose place another one began.
    pub displaced: Vec<Vec<u8>>,
    /// Programs that began without having been asked for.
    pub strangers: Vec<Vec<u8>>,
}

/// What is going on in the processes, by their numbers.
#[derive(Default)]
struct Going<'a> {
    /// An `exec` that has not been answered yet.
    awaited: HashMap<u32, usize>,
    /// The program that runs, and the one that ran before the `exec` that is awaited.
    running: HashMap<u32, &'a [u8]>,
    before: HashMap<u32, &'a [u8]>,
    /// Programs that began in a process of their own, in order.
    begun: HashMap<u32, Vec<usize>>,
    /// Children that were started.
    spawned: Vec<usize>,
}

impl Starts {
    /// Those in `records`. `client` started the first program, `program`.
    pub fn of(records: &[Record<'_>], client: u32, program: &[u8]) -> Self {
        let mut starts = Self::default();
        let mut going = Going::default();
        for (index, record) in records.iter().enumerate() {
            starts.take(index, record, records, &mut going);
        }
        starts.spawned(records, &mut going);
        let first = records.iter().position(|record| record.kind == trace::ENTRY);
        match (first, going.begun_by(client, records)) {
            (Some(entry), Some(start)) => starts.pair(entry, start, records),
            _ => starts.unseen.push(program.to_vec()),
        }
        let strangers = going.begun.into_values().flatten();
        starts.strangers.extend(strangers.map(|start| records[start].a.to_vec()));
        starts.unseen.extend(going.awaited.into_values().map(|exec| records[exec].a.to_vec()));
        starts.unseen.extend(going.running.into_values().map(<[u8]>::to_vec));
        starts
    }

    fn take<'a>(&mut self, index: usize, record: &Record<'a>, records: &[Record<'_>], going: &mut Going<'a>) {
        let pid = record.pid;
        match record.kind {
            trace::START => {
                match going.awaited.remove(&pid) {
                    Some(exec) => self.pair(exec, index, records),
                    None => going.begun.entry(pid).or_default().push(index),
                }
                going.before.remove(&pid);
                going.running.insert(pid, record.a);
            }
            trace::EXEC | trace::SPAWN if record.has(trace::FOREIGN | trace::AWAY) => {
                self.unseen.push(record.a.to_vec());
            }
            trace::EXEC => {
                going.awaited.insert(pid, index);
                going.before.extend(going.running.remove(&pid).map(|program| (pid, program)));
            }
            trace::EXEC_FAILED => {
                self.failed.extend(going.awaited.remove(&pid).map(|exec| (exec, record.errno)));
                going.running.extend(going.before.remove(&pid).map(|program| (pid, program)));
            }
            trace::SPAWN => going.spawned.push(index),
            trace::EXIT | trace::EXEMPT => drop(going.running.remove(&pid)),
            _ => {}
        }
    }

    /// Finds the children that were started. One may have begun before the call that started it ended.
    fn spawned(&mut self, records: &[Record<'_>], going: &mut Going<'_>) {
        for spawn in std::mem::take(&mut going.spawned) {
            let child = u32::try_from(records[spawn].value).unwrap_or(0);
            let start = match child {
                0 => going.begun_for(spawn, records),
                child => going.begun.get_mut(&child).filter(|begun| !begun.is_empty()).map(|begun| begun.remove(0)),
            };
            match start {
                Some(start) => self.pair(spawn, start, records),
                None => self.unseen.push(records[spawn].a.to_vec()),
            }
        }
    }

    fn pair(&mut self, asked: usize, start: usize, records: &[Record<'_>]) {
        let executable = records[asked].target().executable;
        if executable != [0; 2] && executable == records[start].identity() {
            self.asked_by.insert(start, asked);
        } else {
            self.displaced.push(records[asked].a.to_vec());
        }
    }

    /// The record that asked for the start at `index`.
    pub fn asked_by(&self, index: usize) -> Option<usize> {
        self.asked_by.get(&index).copied()
    }

    /// The error of the `exec` at `index`, where it failed.
    pub fn failure(&self, index: usize) -> Option<u32> {
        self.failed.get(&index).copied()
    }

    /// Records that ask for a program and are answered by a start for which `is_meant` holds.
    pub fn asking_for(&self, is_meant: impl Fn(usize) -> bool) -> HashSet<usize> {
        self.asked_by.iter().filter(|(start, _)| is_meant(**start)).map(|(_, asked)| *asked).collect()
    }
}

impl Going<'_> {
    /// The first program that the process `parent` started.
    fn begun_by(&mut self, parent: u32, records: &[Record<'_>]) -> Option<usize> {
        self.take_begun(|start| records[start].value == u64::from(parent))
    }

    /// The program that the C library started for the call at `spawn`, without saying in which process.
    fn begun_for(&mut self, spawn: usize, records: &[Record<'_>]) -> Option<usize> {
        let (parent, wanted) = (u64::from(records[spawn].pid), records[spawn].target().executable);
        self.take_begun(|start| records[start].value == parent && records[start].identity() == wanted)
    }

    fn take_begun(&mut self, is_meant: impl Fn(usize) -> bool) -> Option<usize> {
        let (pid, start) = self
            .begun
            .iter()
            .flat_map(|(pid, begun)| begun.iter().map(|start| (*pid, *start)))
            .filter(|(_, start)| is_meant(*start))
            .min_by_key(|(_, start)| *start)?;
        self.begun.get_mut(&pid)?.retain(|known| *known != start);
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: u32 = 7;
    /// Which executable a program is: told by its first letter.
    fn file(program: &str) -> [u8; trace::IDENTITY_LEN] {
        trace::identity_bytes([1, program.bytes().next().map_or(0, u64::from)])
    }

    /// A record by a word: `10 entry cc`, `10<7 start cc`, `10 exec ld`, `10 spawn 11 as`, `10 exit`.
    fn record(words: &'static str) -> Record<'static> {
        let words: Vec<&str> = words.split(' ').collect();
        let (pid, parent) = words[0].split_once('<').unwrap_or((words[0], "0"));
        let number = |text: &str| text.parse::<u64>().unwrap();
        let program = words.last().copied().unwrap();
        let target = trace::target_parts(&file(program), &file(program), [b""; 3]).concat().leak();
        let (kind, value, b): (u16, u64, &[u8]) = match words[1] {
            "entry" => (trace::ENTRY, 0, target),
            "exec" => (trace::EXEC, 0, target),
            "failed" => (trace::EXEC_FAILED, 0, b""),
            "spawn" => (trace::SPAWN, number(words[2]), target),
            "start" => (trace::START, number(parent), file(program).to_vec().leak()),
            "exempt" => (trace::EXEMPT, 0, b""),
            _ => (trace::EXIT, 0, b""),
        };
        let (pid, a) = (number(pid) as u32, program.as_bytes());
        Record { kind, flags: 0, pid, errno: 0, time_ns: 0, caller: 0, value, a, b }
    }

    /// What was not watched of a compiler `cc`, between its start and its end, in which `middle` happened.
    fn gaps(middle: &[&'static str]) -> [Vec<String>; 3] {
        let all = ["7 entry cc", "10<7 start cc"].iter().chain(middle).chain(&["10 exit"]);
        gaps_of(all.map(|words| record(words)).collect())
    }

    fn gaps_of(records: Vec<Record<'static>>) -> [Vec<String>; 3] {
        let starts = Starts::of(&records, CLIENT, b"cc");
        let texts = |list: &[Vec<u8>]| list.iter().map(|at| String::from_utf8_lossy(at).into_owned()).collect();
        [texts(&starts.unseen), texts(&starts.displaced), texts(&starts.strangers)]
    }

    #[test]
    fn what_was_asked_for_and_began_was_watched() {
        for middle in [
            &[][..],
            &["11 exec as", "11<10 start as", "11 exit"],
            &["10 spawn 11 as", "11<10 start as", "11 exit"],
            &["11<10 start as", "11 exit", "10 spawn 11 as"],
            &["10 exec ld", "10<7 start ld"],
            &["10 exec none", "10 failed", "10 exec ld", "10<7 start ld"],
            // By the C library, which does not say in which process.
            &["10 spawn 0 sh", "11<10 start sh", "11 exit"],
            // A number that is used again.
            &["11<10 start as", "11 exit", "10 spawn 11 as", "11<10 start ld", "11 exit", "10 spawn 11 ld"],
            // A client reports by itself what it starts, and is watched again in what it becomes.
            &["11<10 start zc", "11 exempt", "10 spawn 11 zc"],
            &["11 exec zc", "11<10 start zc", "11 exempt", "11 exec ld", "11<10 start ld", "11 exit"],
        ] {
            assert_eq!(gaps(middle).concat(), [""; 0], "{middle:?}");
        }
    }

    #[test]
    fn what_is_not_proven_to_be_what_was_asked_for_was_not_watched() {
        for (middle, unseen, displaced, strangers) in [
            (&["10 spawn 11 static"][..], "static", "", ""),
            (&["11 exec static"], "static", "", ""),
            (&["11<10 start as", "10 spawn 11 as"], "as", "", ""),
            // It keeps its number and becomes something that can be watched.
            (&["11 exec static", "11<10 start as", "11 exit"], "", "static", ""),
            (&["10 spawn 11 static", "11<10 start as", "11 exit"], "", "static", ""),
            (&["11 exec static", "11<10 start as", "11 exec ld", "11<10 start ld", "11 exit"], "", "static", ""),
            // It starts another process.
            (&["10 spawn 11 static", "12<11 start as", "12 exit"], "static", "", "as"),
            (&["12<10 start as", "12 exit"], "", "", "as"),
            (&["10 spawn 0 sh", "12<10 start as", "12 exit"], "sh", "", "as"),
        ] {
            let found = gaps(middle).map(|list| list.join(" "));
            assert_eq!(found, [unseen, displaced, strangers], "{middle:?}");
        }
    }

    #[test]
    fn the_first_program_is_the_one_that_the_client_started() {
        for (all, unseen, displaced, strangers) in [
            (&["7 entry cc"][..], "cc", "", ""),
            (&["7 entry static", "10<7 start cc", "10 exit"], "", "static", ""),
            (&["7 entry static", "11<10 start cc", "11 exit"], "cc", "", "cc"),
            (&["10<7 start cc", "10 exit"], "cc", "", ""),
        ] {
            let found = gaps_of(all.iter().map(|words| record(words)).collect()).map(|list| list.join(" "));
            assert_eq!(found, [unseen, displaced, strangers], "{all:?}");
        }
    }
}
