//! Export: the surroundings in a shell's words. Knows how a POSIX shell quotes, not what the variables are for.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::failure::Failure;
use crate::surroundings::{self, Surroundings, client};
use crate::text;

/// `zcache env`. No daemon is started: that is the first compile's business.
pub fn show() -> Result<(), Failure> {
    let client = client()?;
    let variables = Surroundings::prepare(&client)?.variables();
    surroundings::note_replaced(&variables, &client);
    let lines: Vec<u8> = variables.iter().flat_map(|(name, value)| line(name, value)).collect();
    text::print_bytes(&lines)
}

fn line(name: &str, value: &OsStr) -> Vec<u8> {
    let mut line = format!("export {name}='").into_bytes();
    for &byte in value.as_bytes() {
        match byte {
            // Nothing else ends a quoted text, and nothing inside has a meaning.
            b'\'' => line.extend(br"'\''"),
            _ => line.push(byte),
        }
    }
    line.extend(b"'\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_back_what_was_written() {
        for value in [&b""[..], b"/a b", b"it's", b"''", b"\\'$(x)`y`\"*~", b"a\nb\n", b"\xff\xfe:/\xc3"] {
            let mut script = line("ZC", OsStr::from_bytes(value));
            script.extend(b"printf %s \"$ZC\"");
            let output = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
            assert_eq!(output.stdout, value, "{:?}", String::from_utf8_lossy(value));
        }
    }
}
