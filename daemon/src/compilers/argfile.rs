//! Argument files: `@path` on a command line stands for the lines of that file. Pure: files come through a closure.

/// A command line with its argument files taken in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The arguments.
    pub argv: Vec<Vec<u8>>,
    /// The files' paths as given.
    pub files: Vec<Vec<u8>>,
}

/// Takes the argument files in as rustc does: one argument a line, no nesting. None where one cannot be read.
pub fn expand(argv: &[Vec<u8>], mut read: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Expanded> {
    let (mut expanded, mut files) = (Vec::with_capacity(argv.len()), Vec::new());
    for (index, argument) in argv.iter().enumerate() {
        match argument.strip_prefix(b"@") {
            Some(path) if index > 0 && !path.is_empty() => {
                let text = read(path)?;
                let text = text.strip_suffix(b"\n").unwrap_or(&text);
                let lines = text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec());
                expanded.extend(lines);
                files.push(path.to_vec());
            }
            _ => expanded.push(argument.clone()),
        }
    }
    Some(Expanded { argv: expanded, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stands_for_its_lines() {
        let argv = [b"rustc".to_vec(), b"@f".into(), b"-v".into()];
        let Expanded { argv: expanded, files } = expand(&argv, |_| Some(b"--cfg\r\na b\n@g\n".into())).unwrap();
        assert_eq!(expanded, [b"rustc".to_vec(), b"--cfg".into(), b"a b".into(), b"@g".into(), b"-v".into()]);
        assert_eq!(files, [b"f".to_vec()]);
        assert_eq!(expand(&argv, |_| None), None);
    }
}
