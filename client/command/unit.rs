//! Unit: the text of the systemd units, from `deploy/`. Pure.

/// The socket's unit.
pub const SOCKET: &str = include_str!("../../deploy/zcached.socket");
/// The daemon's unit, without the daemon's path.
const SERVICE: &str = include_str!("../../deploy/zcached.service");
/// What stands for the path: where a system-wide install has it.
const PROGRAM: &str = "/usr/bin/zcached";

/// The daemon's unit for the daemon at this absolute path; none where systemd could not read the path.
pub fn service(program: &str) -> Option<String> {
    Some(SERVICE.replace(&format!("ExecStart={PROGRAM}"), &format!("ExecStart={}", escape(program)?)))
}

/// A program's path as `ExecStart=` reads it: specifiers doubled, quoted where need be.
fn escape(path: &str) -> Option<String> {
    if path.chars().any(char::is_control) {
        return None;
    }
    let text = path.replace('%', "%%");
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+%@:,=".contains(c);
    if text.chars().all(is_plain) {
        return Some(text);
    }
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_arrive_as_they_are() {
        for (path, escaped) in [
            ("/home/me/.cargo/bin/zcached", "/home/me/.cargo/bin/zcached"),
            ("/a b/zcached", "\"/a b/zcached\""),
            ("/100%/zcached", "/100%%/zcached"),
            (r#"/a"b\c/zcached"#, r#""/a\"b\\c/zcached""#),
        ] {
            assert_eq!(escape(path).as_deref(), Some(escaped));
        }
        assert_eq!(escape("/a\nExecStartPre=/bin/evil"), None);
    }

    #[test]
    fn the_unit_starts_this_daemon() {
        let text = service("/opt/z/zcached").unwrap();
        assert_eq!(
            text.lines().filter(|line| line.starts_with("ExecStart=")).collect::<Vec<_>>(),
            ["ExecStart=/opt/z/zcached"]
        );
        assert!(!text.contains(PROGRAM));
    }
}
