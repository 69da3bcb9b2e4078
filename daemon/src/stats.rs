//! Stats: what zcache did, counted since the last `zcache zero`. Pure; the index keeps it over restarts.

use std::collections::BTreeMap;

use zcache_proto::v1::{StatusReport, Totals};

/// Counters.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Stats {
    totals: Totals,
    by_compiler: BTreeMap<String, Totals>,
    miss_reasons: BTreeMap<String, u64>,
    bypass_reasons: BTreeMap<String, u64>,
    refusal_reasons: BTreeMap<String, u64>,
}

impl Stats {
    /// From the report that [`Stats::report`] made.
    pub fn restore(report: StatusReport) -> Self {
        Self {
            totals: report.totals.unwrap_or_default(),
            by_compiler: report.by_compiler,
            miss_reasons: report.miss_reasons,
            bypass_reasons: report.bypass_reasons,
            refusal_reasons: report.refusal_reasons,
        }
    }

    /// The counters' part of a report.
    pub fn report(&self) -> StatusReport {
        StatusReport {
            totals: Some(self.totals),
            by_compiler: self.by_compiler.clone(),
            miss_reasons: self.miss_reasons.clone(),
            bypass_reasons: self.bypass_reasons.clone(),
            refusal_reasons: self.refusal_reasons.clone(),
            ..StatusReport::default()
        }
    }

    fn both(&mut self, compiler: &str, change: impl Fn(&mut Totals)) {
        change(&mut self.totals);
        change(self.by_compiler.entry(compiler.to_owned()).or_default());
    }

    /// An invocation came, at this depth.
    pub fn invocation(&mut self, compiler: &str, depth: u32) {
        self.both(compiler, |totals| {
            totals.invocations += 1;
            totals.nested += u64::from(depth > 0);
            totals.max_depth = totals.max_depth.max(u64::from(depth));
        });
    }

    /// It was a hit.
    pub fn hit(&mut self, compiler: &str, saved_ms: u64) {
        self.both(compiler, |totals| {
            totals.hits += 1;
            totals.saved_ms = totals.saved_ms.saturating_add(saved_ms);
        });
    }

    /// It was a miss.
    pub fn miss(&mut self, compiler: &str, reason: &str) {
        self.both(compiler, |totals| totals.misses += 1);
        *self.miss_reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// It was none of zcache's business.
    pub fn bypass(&mut self, compiler: &str, reason: &str) {
        self.both(compiler, |totals| totals.bypasses += 1);
        *self.bypass_reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// So many ran without the daemon, which learnt of it later.
    pub fn unasked(&mut self, number: u64) {
        self.both("other", |totals| {
            totals.invocations = totals.invocations.saturating_add(number);
            totals.bypasses = totals.bypasses.saturating_add(number);
        });
        *self.bypass_reasons.entry("no_daemon".to_owned()).or_default() += number;
    }

    /// Its result was stored.
    pub fn stored(&mut self, compiler: &str) {
        self.both(compiler, |totals| totals.stored += 1);
    }

    /// Its result was not stored.
    pub fn refused(&mut self, reason: &str) {
        *self.refusal_reasons.entry(reason.to_owned()).or_default() += 1;
    }

    /// It should have gone otherwise.
    pub fn error(&mut self, compiler: &str) {
        self.both(compiler, |totals| totals.errors += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_back_and_add_up() {
        let mut stats = Stats::default();
        stats.invocation("rustc", 0);
        stats.invocation("rustc", 2);
        stats.hit("rustc", 7);
        stats.miss("rustc", "new");
        stats.bypass("other", "unknown_compiler");
        let mut stats = Stats::restore(stats.report());
        stats.invocation("rustc", 1);
        let totals = stats.report().totals.unwrap();
        assert_eq!((totals.invocations, totals.nested, totals.max_depth, totals.saved_ms), (3, 2, 2, 7));
        assert_eq!(stats.report().by_compiler["rustc"].invocations, 3);
        assert_eq!(stats.report().bypass_reasons["unknown_compiler"], 1);
    }
}
