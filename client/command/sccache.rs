//! Sccache: zcache's numbers in the shape of `sccache --show-stats --stats-format=json`, for scripts that read that. What
//! zcache does not count is 0. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zcache_proto::v1::{StatusReport, Totals};

/// The whole of it.
pub fn server_info(report: &StatusReport) -> Value {
    let cache = report.cache.clone().unwrap_or_default();
    json!({
        "stats": stats(report),
        "cache_location": format!("Local disk: {:?}", cache.dir),
        "cache_size": cache.bytes,
        "max_cache_size": cache.max_bytes,
        "use_preprocessor_cache_mode": false,
        "version": env!("CARGO_PKG_VERSION"),
        "basedirs": [],
    })
}

fn stats(report: &StatusReport) -> Value {
    let totals = report.totals.unwrap_or_default();
    let bypassed = |reason: &str| report.bypass_reasons.get(reason).copied().unwrap_or(0);
    let refused = |reason: &str| report.refusal_reasons.get(reason).copied().unwrap_or(0);
    let (unsupported, links) = (bypassed("unknown_compiler"), bypassed("link"));
    let write_errors = refused("store_failed") + refused("store_full") + refused("store_read_only");
    let kept_out: u64 = report.refusal_reasons.values().sum();
    let none = json!({"secs": 0, "nanos": 0});
    json!({
        "compile_requests": totals.invocations,
        "requests_unsupported_compiler": unsupported,
        "requests_not_compile": links,
        "requests_not_cacheable": totals.bypasses.saturating_sub(unsupported + links),
        "requests_executed": totals.hits + totals.misses,
        "cache_errors": by_language(report, |totals| totals.errors),
        "cache_hits": by_language(report, |totals| totals.hits),
        "cache_misses": by_language(report, |totals| totals.misses),
        "cache_timeouts": 0,
        "cache_read_errors": 0,
        "non_cacheable_compilations": kept_out.saturating_sub(refused("compile_failed") + write_errors),
        "forced_recaches": 0,
        "cache_write_errors": write_errors,
        "cache_writes": totals.stored,
        "cache_write_duration": none,
        "cache_read_hit_duration": none,
        "compilations": totals.misses,
        "compiler_write_duration": none,
        "compile_fails": refused("compile_failed"),
        "not_cached": report.bypass_reasons,
        "dist_compiles": {},
        "dist_errors": 0,
        "multi_level": null,
    })
}

/// A counter by language, and by language and compiler. What is nothing does not appear.
fn by_language(report: &StatusReport, of: impl Fn(&Totals) -> u64) -> Value {
    let (mut counts, mut finer) = (BTreeMap::<&str, u64>::new(), BTreeMap::<String, u64>::new());
    for (compiler, totals) in report.by_compiler.iter().filter(|(_, totals)| of(totals) > 0) {
        let (language, name) = match compiler.as_str() {
            "rustc" => ("Rust", "rust".to_owned()),
            other => ("C/C++", format!("c [{other}]")),
        };
        *counts.entry(language).or_default() += of(totals);
        *finer.entry(name).or_default() += of(totals);
    }
    json!({"counts": counts, "adv_counts": finer})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_find_their_places() {
        let totals = |hits, misses| Totals { hits, misses, ..Totals::default() };
        let report = StatusReport {
            totals: Some(Totals { invocations: 20, bypasses: 6, stored: 4, ..totals(8, 6) }),
            by_compiler: [("rustc", totals(3, 1)), ("gcc", totals(4, 5)), ("clang", totals(1, 0))]
                .map(|(name, totals)| (name.to_owned(), totals))
                .into(),
            bypass_reasons: [("unknown_compiler", 1), ("link", 2), ("modules", 3)]
                .map(|(w, n)| (w.to_owned(), n))
                .into(),
            refusal_reasons: [("compile_failed", 1), ("read_clock", 1)].map(|(w, n)| (w.to_owned(), n)).into(),
            ..StatusReport::default()
        };
        let info = server_info(&report);
        let stats = &info["stats"];
        for (name, number) in [
            ("compile_requests", 20),
            ("requests_executed", 14),
            ("requests_unsupported_compiler", 1),
            ("requests_not_compile", 2),
            ("requests_not_cacheable", 3),
            ("cache_writes", 4),
            ("compilations", 6),
            ("compile_fails", 1),
            ("non_cacheable_compilations", 1),
        ] {
            assert_eq!(stats[name], number, "{name}");
        }
        assert_eq!(stats["cache_hits"]["counts"], json!({"Rust": 3, "C/C++": 5}));
        assert_eq!(stats["cache_hits"]["adv_counts"], json!({"rust": 3, "c [gcc]": 4, "c [clang]": 1}));
        assert_eq!(stats["cache_misses"]["counts"], json!({"Rust": 1, "C/C++": 5}));
        assert_eq!(stats["cache_errors"], json!({"counts": {}, "adv_counts": {}}));
        assert_eq!(stats["not_cached"]["modules"], 3);
    }
}
