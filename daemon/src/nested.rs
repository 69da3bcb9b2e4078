//! Nested: what the compiles inside a running one have told. Their inputs are its inputs, and a client that ran below it
//! and told nothing leaves a gap. Looks at the disk for where a client's search along PATH went.

use std::collections::BTreeSet;

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
}

impl Nested {
    /// Takes in what the client `pid` tells of `inner`, which was `seen` inside of `outer`.
    pub fn take(&mut self, pid: u32, inner: &Invocation, outer: &Invocation, mut seen: Distilled) {
        // What was set on the way down follows from the outer compile's own inputs.
        let handed_down = |name: &Vec<u8>| inner.env.get(name) == outer.env.get(name);
        seen.env.retain(handed_down);
        seen.env_by_role.retain(handed_down);
        seen.env_shown.retain(handed_down);
        // Nobody saw the client search for what it was called for.
        seen.programs.insert(inner.program.clone());
        seen.absent_before.extend(passed_over(inner));
        self.reported.insert(pid);
        self.seen.fold(seen);
    }

    /// Adds all of it to what was `seen` of the compile itself.
    pub fn tell(self, seen: &mut Distilled) {
        if !seen.clients.is_subset(&self.reported) {
            // One told another daemon, or nobody.
            seen.refusals.insert(Refusal::Nested);
        }
        seen.fold(self.seen);
    }
}
