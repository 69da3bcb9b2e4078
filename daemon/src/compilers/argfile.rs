//! Argument files: `@path` on a command line stands for the contents of that file. Pure: files come through a closure.

/// Most argument files of one command: one that names itself would never end. gcc has the same limit.
const FILES_MAX: usize = 2000;
/// Longest text of all argument files of one command, bytes. No command line is near it.
pub const BYTES_MAX: usize = 4 << 20;

/// How a compiler reads its argument files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// rustc: one argument a line, no nesting, and a file that cannot be read is an error.
    Lines,
    /// gcc and clang: words with quotes and backslashes, nested, and what cannot be read is an argument like any other.
    Words,
}

/// A command line with its argument files taken in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The arguments.
    pub argv: Vec<Vec<u8>>,
    /// The files' paths as given.
    pub files: Vec<Vec<u8>>,
}

/// Takes the argument files in. None where one cannot be read that has to be, or where there is no end of them.
pub fn expand(argv: &[Vec<u8>], style: Style, mut read: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Expanded> {
    let mut expanded = Expanded::default();
    let mut left = BYTES_MAX;
    let mut pending: Vec<Vec<u8>> = argv.iter().rev().cloned().collect();
    expanded.argv.extend(pending.pop());
    while let Some(argument) = pending.pop() {
        let path = argument.strip_prefix(b"@").filter(|path| !path.is_empty());
        let Some(path) = path.map(<[u8]>::to_vec) else {
            expanded.argv.push(argument);
            continue;
        };
        if expanded.files.len() == FILES_MAX {
            return None;
        }
        let text = read(&path);
        left = left.checked_sub(text.as_ref().map_or(0, Vec::len))?;
        match (text, style) {
            (Some(text), Style::Lines) => expanded.argv.extend(lines(&text)),
            (Some(text), Style::Words) => pending.extend(words(&text).into_iter().rev()),
            (None, Style::Lines) => return None,
            (None, Style::Words) => {
                expanded.argv.push(argument);
                continue;
            }
        }
        expanded.files.push(path);
    }
    Some(expanded)
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&b| b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Vec<u8>>, None);
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            (b'\\', _) => word.get_or_insert_default().extend(bytes.next()),
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (_, Some(open)) if byte == open => quote = None,
            (_, None) if byte.is_ascii_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_file_stands_for_its_lines() {
        let argv = list(&["rustc", "@f", "-v"]);
        let read = |_: &[u8]| Some(b"--cfg\r\na b\n@g\n".into());
        let Expanded { argv: expanded, files } = expand(&argv, Style::Lines, read).unwrap();
        assert_eq!(expanded, list(&["rustc", "--cfg", "a b", "@g", "-v"]));
        assert_eq!(files, list(&["f"]));
        assert_eq!(expand(&argv, Style::Lines, |_| None), None);
    }

    #[test]
    fn a_file_stands_for_its_words() {
        let read = |path: &[u8]| match path {
            b"f" => Some(b"-DA='x y' \"q\\\"\"\n  a\\ b @g ''".to_vec()),
            b"g" => Some(b"-c".to_vec()),
            _ => None,
        };
        let expanded = expand(&list(&["gcc", "@f", "@none", "-v"]), Style::Words, read).unwrap();
        assert_eq!(expanded.argv, list(&["gcc", "-DA=x y", "q\"", "a b", "-c", "", "@none", "-v"]));
        assert_eq!(expanded.files, list(&["f", "g"]));
    }

    #[test]
    fn files_without_end_are_given_up() {
        let argv = list(&["gcc", "@f"]);
        let mut read = 0;
        for text in [b"@f -c".to_vec(), b"@f ".repeat(1000), b"@f ".repeat(BYTES_MAX / 8)] {
            let counted = |_: &[u8]| {
                read += text.len();
                Some(text.clone())
            };
            assert_eq!(expand(&argv, Style::Words, counted), None);
        }
        assert!(read <= 3 * 2 * BYTES_MAX, "{read}");
        let long = |_: &[u8]| Some(vec![b'x'; BYTES_MAX + 1]);
        assert_eq!(expand(&argv, Style::Lines, long), None);
    }
}
