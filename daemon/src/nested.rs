//! Nested: what the compiles inside a running one have told. Their inputs are its inputs, and a client that ran below it
//! and told nothing leaves a gap. Looks at the disk for where a client's search along PATH went.

use std::collections::{BTreeMap, BTreeSet};

use crate::distilled::Distilled;
use crate::facts::passed_over;
use crate::invocation::Invocation;
use crate::refusal::Refusal;

/// What is known of the compiles inside another one.
#[derive(Debug, Default)]
pub struct Nested {
    seen: Distilled,
    /// Processes of the clients that have told.
    reported: BTreeSet<u32>,
    /// What they made, with the time at which the first of them began that made it.
    made: BTreeMap<Vec<u8>, u64>,
}

impl Nested {
    /// Takes in what the client `pid` tells of `inner`, which was `seen` inside of `outer` since `began_ns`.
    pub fn take(&mut self, pid: u32, inner: &Invocation, outer: &Invocation, mut seen: Distilled, began_ns: u64) {
        // What was set on the way down follows from the outer compile's own inputs.
        let handed_down = |name: &Vec<u8>| inner.env.get(name) == outer.env.get(name);
        seen.env.retain(handed_down);
        seen.env_by_role.retain(handed_down);
        seen.env_shown.retain(handed_down);
        // Nobody saw the client search for what it was called for.
        seen.programs.insert(inner.program.clone());
        seen.absent_before.extend(passed_over(inner));
        self.reported.insert(pid);
        for path in &seen.outputs {
            let first = self.made.entry(path.clone()).or_insert(began_ns);
            *first = began_ns.min(*first);
        }
        refuse_rewritten(&mut self.seen, &self.made);
        self.seen.fold(seen);
    }

    /// Adds all of it to what was `seen` of the compile itself.
    pub fn tell(self, seen: &mut Distilled) {
        if !seen.clients.is_subset(&self.reported) {
            // One told another daemon, or nobody.
            seen.refusals.insert(Refusal::Nested);
        }
        refuse_rewritten(seen, &self.made);
        seen.fold(self.seen);
    }
}

/// What was read before a compile began that made it anew was an input, and is gone.
fn refuse_rewritten(seen: &mut Distilled, made: &BTreeMap<Vec<u8>, u64>) {
    let was_read = |path: &[u8], began_ns: u64| seen.contents.get(path).is_some_and(|read| read.time_ns < began_ns);
    let rewritten: Vec<_> = made.iter().filter(|(path, began_ns)| was_read(path, **began_ns)).collect();
    seen.refusals.extend(rewritten.into_iter().map(|(path, _)| Refusal::RewritesInput(path.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distilled::Reading;

    fn seen(reads: &[(&str, u64)], outputs: &[&str]) -> Distilled {
        let read = |(path, time_ns): &(&str, u64)| (path.as_bytes().to_vec(), Reading { time_ns: *time_ns, inode: 0 });
        let outputs = outputs.iter().map(|path| path.as_bytes().to_vec()).collect();
        Distilled { contents: reads.iter().map(read).collect(), outputs, ..Distilled::default() }
    }

    /// What becomes of nested compiles, each seen since a time, and of the one around them.
    fn refusals(inner: &[(Distilled, u64)], mut outer: Distilled) -> Vec<Refusal> {
        let (invocation, mut nested) =
            (Invocation { program: b"/cc".to_vec(), ..Invocation::default() }, Nested::default());
        for (number, (seen, began_ns)) in inner.iter().enumerate() {
            nested.take(number as u32, &invocation, &invocation, seen.clone(), *began_ns);
        }
        nested.tell(&mut outer);
        outer.refusals.into_iter().collect()
    }

    #[test]
    fn what_a_nested_compile_makes_anew_was_no_input_before() {
        let rewrites = vec![Refusal::RewritesInput(b"/f".to_vec())];
        let (reads, makes) = (|time| seen(&[("/f", time)], &[]), || seen(&[], &["/f"]));
        assert_eq!(refusals(&[(makes(), 5)], reads(3)), rewrites, "it read first");
        assert_eq!(refusals(&[(makes(), 5)], reads(7)), [], "it read what was made");
        assert_eq!(refusals(&[(reads(3), 2), (makes(), 5)], seen(&[], &[])), rewrites, "another one read first");
        assert_eq!(refusals(&[(makes(), 5), (reads(7), 6)], seen(&[], &[])), [], "another one read what was made");
    }

    #[test]
    fn a_client_that_told_nobody_leaves_a_gap() {
        let outer = Distilled { clients: [0, 1].into(), ..Distilled::default() };
        assert_eq!(refusals(&[(seen(&[], &[]), 1)], outer.clone()), [Refusal::Nested]);
        assert_eq!(refusals(&[(seen(&[], &[]), 1), (seen(&[], &[]), 2)], outer), []);
    }
}
