//! Sccache settings: sccache's variables, none of which zcache reads. Who sets one expects something of it, so that it is
//! said what does the same here, or that nothing does. Pure.

use std::ffi::OsString;

/// What sccache's variables begin with.
const PREFIX: &str = "SCCACHE_";

/// What stands for variables whose names begin like this, after the prefix. The first that fits counts.
const INSTEAD: &[(&str, &str)] = &[
    ("DIRECT", "zcache runs no preprocessor anyway"),
    ("DIR", "set ZCACHE_DIR"),
    ("CACHE_SIZE", "set ZCACHE_MAX_SIZE"),
    ("LOG", "set ZCACHE_LOG"),
    ("ERROR_LOG", "the daemon's log is beside its socket"),
    ("SERVER_", "set ZCACHE_SOCKET"),
    ("CONF", "`zcache help config` describes zcache's file"),
    ("CACHED_CONF", "`zcache help config` describes zcache's file"),
    ("IDLE_TIMEOUT", "a daemon that a compile started leaves after 30 minutes without work"),
    ("NO_CACHE", "set ZCACHE_DISABLE=1"),
    ("NO_DAEMON", "run zcached itself"),
    ("IGNORE_SERVER_IO_ERROR", "no build fails because of zcache anyway"),
    ("BASEDIRS", "checkouts share what does not name them by itself"),
    ("EXTRAFILES", "what a compiler reads is seen"),
];

/// Where results are kept elsewhere.
const REMOTE: &[&str] = &[
    "AZURE_",
    "BUCKET",
    "COS_",
    "DIST_",
    "ENDPOINT",
    "GCS_",
    "GHA_",
    "MEMCACHED",
    "MULTILEVEL_",
    "OSS_",
    "REDIS",
    "REGION",
    "S3_",
    "SCHEDULER_URL",
    "WEBDAV_",
];

const NO_SUCH: &str = "zcache has no such setting";

/// One remark on those of `variables` that are sccache's and say something; none where there are none.
pub fn remark(variables: impl Iterator<Item = (OsString, OsString)>) -> Option<String> {
    let mut names: Vec<String> = variables
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| name.to_str()?.strip_prefix(PREFIX).map(str::to_owned))
        .collect();
    names.sort();
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for name in names {
        let (instead, name) = (instead(&name), format!("{PREFIX}{name}"));
        match groups.iter_mut().find(|(words, _)| *words == instead) {
            Some((_, names)) => names.push(name),
            None => groups.push((instead, vec![name])),
        }
    }
    let group = |(instead, names): (&str, Vec<String>)| format!("{} ({instead})", names.join(", "));
    let groups: Vec<String> = groups.into_iter().map(group).collect();
    (!groups.is_empty()).then(|| format!("zcache does not read sccache's variables: {}", groups.join("; ")))
}

fn instead(name: &str) -> &'static str {
    let begins = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| is_whole(prefix, rest));
    if REMOTE.iter().any(|prefix| begins(prefix)) {
        return "results stay on this machine";
    }
    INSTEAD.iter().find(|(prefix, _)| begins(prefix)).map_or(NO_SUCH, |(_, words)| words)
}

/// Whether a name that goes on with `rest` after `prefix` is still of its kind.
fn is_whole(prefix: &str, rest: &str) -> bool {
    rest.is_empty() || prefix.ends_with('_') || rest.starts_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> String {
        remark(variables.iter().map(|(name, value)| (name.into(), value.into()))).unwrap_or_default()
    }

    #[test]
    fn each_is_named_with_what_stands_for_it() {
        for (name, words) in [
            ("DIR", "ZCACHE_DIR"),
            ("DIRECT", "no preprocessor"),
            ("CACHE_SIZE", "ZCACHE_MAX_SIZE"),
            ("LOG", "ZCACHE_LOG"),
            ("LOG_MILLIS", "ZCACHE_LOG"),
            ("SERVER_UDS", "ZCACHE_SOCKET"),
            ("SERVER_PORT", "ZCACHE_SOCKET"),
            ("CONF", "help config"),
            ("IDLE_TIMEOUT", "30 minutes"),
            ("BUCKET", "this machine"),
            ("S3_USE_SSL", "this machine"),
            ("GHA_ENABLED", "this machine"),
            ("REDIS", "this machine"),
            ("REDIS_ENDPOINT", "this machine"),
            ("REDISTRIBUTE", "no such setting"),
            ("NOBODY_KNOWS", "no such setting"),
        ] {
            let said = said(&[(&format!("SCCACHE_{name}"), "x")]);
            assert!(said.contains(&format!("SCCACHE_{name} (")) && said.contains(words), "{name}: {said}");
        }
    }

    #[test]
    fn what_says_nothing_is_passed_over() {
        assert_eq!(said(&[("SCCACHE_DIR", ""), ("NOT_SCCACHE_DIR", "x"), ("SCCACHEDIR", "x"), ("PATH", "x")]), "");
        let said = said(&[("SCCACHE_REGION", "r"), ("SCCACHE_DIR", "d"), ("SCCACHE_BUCKET", "b")]);
        assert!(
            said.ends_with(
                "SCCACHE_BUCKET, SCCACHE_REGION (results stay on this machine); SCCACHE_DIR (set ZCACHE_DIR)"
            ),
            "{said}"
        );
    }
}
