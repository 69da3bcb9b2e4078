//! Report: what `zcache status` shows to people, from the message that `--json` prints. Pure.

use std::collections::BTreeMap;

use zcache_proto::v1::{Build, Daemon, Running, StatusReport, Store, Totals};

use crate::text::{clip, count, duration, percent, size, wrap};

/// Columns of a terminal.
const WIDTH: usize = 80;
/// Builds of the past that are shown.
const PAST: usize = 5;

/// The whole text. `absence` says what it means that no daemon answered; `notes` are remarks on the state of things.
pub fn render(report: &StatusReport, absence: &str, notes: &[String]) -> String {
    let mut lines = daemon(report.daemon.as_ref(), absence);
    lines.extend(notes.iter().flat_map(|note| wrap(note, WIDTH - 10)).map(|line| format!("          {line}")));
    lines.extend(report.cache.iter().flat_map(store));
    lines.extend(report.totals.iter().flat_map(totals));
    lines.extend(compilers(&report.by_compiler));
    for (title, reasons) in [
        ("Why it missed", &report.miss_reasons),
        ("Why it was bypassed", &report.bypass_reasons),
        ("Why it was not stored", &report.refusal_reasons),
    ] {
        lines.extend(self::reasons(title, reasons));
    }
    lines.extend(active(&report.builds));
    lines.extend(past(&report.builds));
    lines.into_iter().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn daemon(daemon: Option<&Daemon>, absence: &str) -> Vec<String> {
    let Some(daemon) = daemon else { return vec![format!("daemon    {absence}")] };
    let by = match daemon.activation.as_str() {
        "systemd" => "started by systemd",
        "client" => "started by a compile",
        "manual" => "started by hand",
        _ => "running",
    };
    let Daemon { version, pid, socket, uptime_s, .. } = daemon;
    let up = match uptime_s {
        0..60 => format!("{uptime_s} s"),
        _ => duration(uptime_s.saturating_mul(1000)),
    };
    vec![format!("daemon    {version}, pid {pid}, {by}, up {up}"), format!("socket    {socket}")]
}

fn store(store: &Store) -> Vec<String> {
    let part = percent(store.bytes, store.max_bytes).map(|part| format!(" ({part})")).unwrap_or_default();
    // A store that another daemon has open does not tell its number of results.
    let results = (store.results > 0).then(|| format!(", {}", count(store.results, "result", "results")));
    let (bytes, limit, blobs) = (size(store.bytes), size(store.max_bytes), count(store.blobs, "blob", "blobs"));
    let mut lines = vec![
        format!("store     {}", store.dir),
        format!("          {bytes} of {limit}{part}, {blobs}{}", results.unwrap_or_default()),
    ];
    if store.evicted_bytes > 0 {
        lines.push(format!("          {} evicted since the daemon started", size(store.evicted_bytes)));
    }
    if store.quarantined > 0 {
        lines.push(format!(
            "          {} moved to quarantine",
            count(store.quarantined, "damaged blob", "damaged blobs")
        ));
    }
    lines.extend(problem(&store.problem).map(|problem| format!("          {problem}")));
    lines
}

/// That nothing is stored, where there is a word for why not.
pub fn problem(word: &str) -> Option<String> {
    let why = match word {
        "" => return None,
        "store_full" => "its disk is full",
        "store_read_only" => "it is read-only",
        other => other,
    };
    Some(format!("nothing is stored now: {why}"))
}

fn totals(totals: &Totals) -> Vec<String> {
    let rate = percent(totals.hits, totals.hits + totals.misses).map(|rate| format!(" ({rate})")).unwrap_or_default();
    let mut lines = vec![
        format!("requests  {}", totals.invocations),
        format!(
            "          {}{rate}, {}, {} bypassed, {} stored",
            count(totals.hits, "hit", "hits"),
            count(totals.misses, "miss", "misses"),
            totals.bypasses,
            totals.stored
        ),
    ];
    if totals.nested > 0 {
        lines.push(format!("          {} nested, up to {} deep", totals.nested, totals.max_depth));
    }
    if totals.errors > 0 {
        lines.push(format!("          {}: the daemon's log says more", count(totals.errors, "error", "errors")));
    }
    lines.push(format!("saved     {} of compiling", duration(totals.saved_ms)));
    lines
}

fn compilers(by_compiler: &BTreeMap<String, Totals>) -> Vec<String> {
    if by_compiler.is_empty() {
        return Vec::new();
    }
    let head = format!("{:>8} {:>8} {:>10} {:>13}   ", "hits", "misses", "bypassed", "saved");
    let rows = by_compiler.iter().map(|(name, totals)| {
        let Totals { hits, misses, bypasses, saved_ms, .. } = totals;
        format!("{hits:>8} {misses:>8} {bypasses:>10} {:>13}   {}", duration(*saved_ms), clip(name, WIDTH - 45))
    });
    [String::new(), head + "compiler"].into_iter().chain(rows).collect()
}

fn reasons(title: &str, reasons: &BTreeMap<String, u64>) -> Vec<String> {
    if reasons.is_empty() {
        return Vec::new();
    }
    let mut sorted: Vec<_> = reasons.iter().collect();
    sorted.sort_by_key(|(name, number)| (u64::MAX - **number, *name));
    let rows = sorted.into_iter().map(|(name, number)| format!("{number:>8}  {}", clip(name, WIDTH - 10)));
    [String::new(), title.to_owned()].into_iter().chain(rows).collect()
}

fn active(builds: &[Build]) -> Vec<String> {
    let mut lines = Vec::new();
    for build in builds.iter().filter(|build| build.active) {
        if lines.is_empty() {
            lines = vec![String::new(), "Active builds".to_owned()];
        }
        lines.push(format!("  {}", clip(short(&build.command), WIDTH - 2)));
        lines.push(format!("    {}", counts(build)));
        tree(&mut lines, &build.running, 0, "    ");
    }
    lines
}

/// A command without its program's directory.
fn short(command: &str) -> &str {
    let program = command.split(' ').next().unwrap_or_default();
    program.rfind('/').map_or(command, |slash| &command[slash + 1..])
}

/// What a build came to, as in the line that ends `zcache run`.
pub fn counts(build: &Build) -> String {
    let (hits, misses) = (count(build.hits, "hit", "hits"), count(build.misses, "miss", "misses"));
    // Always in seconds: easy to compare from run to run.
    let saved = format!("{}.{} s", build.saved_ms / 1000, build.saved_ms % 1000 / 100);
    format!("{hits}, {misses}, {} bypassed, {} nested; {saved} of compiling saved", build.bypasses, build.nested)
}

/// The invocations below `parent`, each before those inside of it. One whose parent is gone stands at the top.
fn tree(lines: &mut Vec<String>, running: &[Running], parent: u64, indent: &str) {
    let is_known = |id: u64| running.iter().any(|other| other.id == id);
    // Ids grow downwards, whatever a damaged report says: no circle is walked.
    let is_below = |child: &&Running| match parent {
        0 => !is_known(child.parent),
        _ => child.parent == parent && child.id > parent,
    };
    let mut children = running.iter().filter(is_below).peekable();
    while let Some(child) = children.next() {
        let (branch, below) = if children.peek().is_some() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
        let depth = if child.depth > 0 { format!("  (depth {})", child.depth) } else { String::new() };
        let room = WIDTH.saturating_sub(indent.chars().count() + branch.chars().count() + depth.len()).max(16);
        lines.push(format!("{indent}{branch}{}{depth}", clip(&child.command, room)));
        tree(lines, running, child.id, &format!("{indent}{below}"));
    }
}

fn past(builds: &[Build]) -> Vec<String> {
    let past: Vec<&Build> =
        builds.iter().rev().filter(|build| !build.active && build.invocations > 0).take(PAST).collect();
    if past.is_empty() {
        return Vec::new();
    }
    let head =
        format!("{:>8} {:>8} {:>10} {:>13}   recent builds, newest first", "hits", "misses", "bypassed", "saved");
    let rows = past.into_iter().map(|build| {
        let Build { hits, misses, bypasses, saved_ms, .. } = build;
        format!(
            "{hits:>8} {misses:>8} {bypasses:>10} {:>13}   {}",
            duration(*saved_ms),
            clip(short(&build.command), WIDTH - 45)
        )
    });
    [String::new(), head].into_iter().chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(id: u64, parent: u64, depth: u32, command: &str) -> Running {
        Running { id, parent, depth, command: command.into() }
    }

    fn build() -> Build {
        let running = vec![
            running(10, 0, 0, "serde lib"),
            running(11, 10, 1, "rustc -vV"),
            running(12, 11, 2, "probe"),
            running(13, 10, 1, "zig cc"),
            running(14, 9, 1, "its parent is gone"),
        ];
        Build {
            command: "cargo build".into(),
            active: true,
            invocations: 5,
            hits: 1,
            saved_ms: 58_190,
            running,
            ..Build::default()
        }
    }

    #[test]
    fn the_line_that_ends_a_run() {
        let build = Build { hits: 231, misses: 4, bypasses: 3, nested: 2, saved_ms: 58_123, ..Build::default() };
        assert_eq!(counts(&build), "231 hits, 4 misses, 3 bypassed, 2 nested; 58.1 s of compiling saved");
    }

    #[test]
    fn commands_lose_their_directory_only() {
        assert_eq!(short("/usr/bin/cargo build -p ./x"), "cargo build -p ./x");
        assert_eq!((short("make a/b"), short("")), ("make a/b", ""));
    }

    #[test]
    fn what_runs_is_a_tree() {
        let expected = "
Active builds
  cargo build
    1 hit, 0 misses, 0 bypassed, 0 nested; 58.1 s of compiling saved
    ├─ serde lib
    │  ├─ rustc -vV  (depth 1)
    │  │  └─ probe  (depth 2)
    │  └─ zig cc  (depth 1)
    └─ its parent is gone  (depth 1)";
        assert_eq!(active(&[build()]).join("\n"), expected);
    }

    #[test]
    fn a_damaged_tree_ends() {
        let mut lines = Vec::new();
        let circle = [running(1, 2, 0, "a"), running(2, 1, 0, "b"), running(3, 3, 0, "c"), running(4, 0, 0, "d")];
        tree(&mut lines, &circle, 0, "");
        assert_eq!(lines, ["└─ d"]);
    }

    #[test]
    fn every_line_fits_the_terminal() {
        let long = "x".repeat(300);
        let totals = Totals {
            invocations: 99_999_999,
            hits: 99_999_999,
            misses: 9_999_999,
            saved_ms: 1 << 42,
            nested: 3,
            ..Totals::default()
        };
        let mut deep = build();
        deep.command = long.clone();
        deep.running.iter_mut().for_each(|running| running.command.clone_from(&long));
        let report = StatusReport {
            cache: Some(Store {
                bytes: 1 << 40,
                max_bytes: 1 << 50,
                blobs: 9_999_999,
                results: 9_999_999,
                ..Store::default()
            }),
            totals: Some(totals),
            by_compiler: [(long.clone(), totals)].into(),
            miss_reasons: [(long.clone(), 7)].into(),
            builds: vec![deep, Build { command: long, invocations: 1, ..Build::default() }],
            ..StatusReport::default()
        };
        let text = render(&report, "not running", &[]);
        let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
        assert!(widest.chars().count() <= WIDTH, "{widest}");
        assert!(text.starts_with("daemon    not running\n"), "{text}");
    }

    #[test]
    fn the_names_of_the_json_are_a_contract() {
        let report = StatusReport {
            cache: Some(Store::default()),
            totals: Some(Totals::default()),
            by_compiler: [("rustc".to_owned(), Totals::default())].into(),
            builds: vec![Build::default()],
            ..StatusReport::default()
        };
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["daemon"].is_null());
        let keys = |pointer: &str, names: &str| {
            let object =
                json.pointer(pointer).and_then(|value| value.as_object()).unwrap_or_else(|| panic!("{pointer}"));
            names.split(' ').for_each(|name| assert!(object.contains_key(name), "{pointer}/{name}"));
        };
        keys("", "daemon cache totals by_compiler miss_reasons bypass_reasons refusal_reasons builds");
        keys("/cache", "dir bytes max_bytes blobs results");
        let totals = "invocations hits misses bypasses errors stored nested max_depth saved_ms";
        keys("/totals", totals);
        keys("/by_compiler/rustc", totals);
        keys("/builds/0", "id command active invocations hits misses bypasses nested max_depth saved_ms running");
        let daemon = serde_json::to_value(Daemon::default()).unwrap();
        let names = daemon.as_object().unwrap().keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names, ["version", "pid", "uptime_s", "socket", "activation", "log"].into());
    }
}
