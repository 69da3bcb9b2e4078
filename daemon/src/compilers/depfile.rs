//! Depfile: the make rules in which a compiler lists what it read. Pure.

/// The prerequisites of all rules in `text`.
pub fn prerequisites(text: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for rule in rules(text) {
        let Some(colon) = colon(&rule) else { continue };
        all.extend(names(&rule[colon + 1..]));
    }
    all
}

/// Lines, with those that a backslash continues joined.
fn rules(text: &[u8]) -> Vec<Vec<u8>> {
    let mut rules = vec![Vec::new()];
    for line in text.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let rule = rules.last_mut().expect("there is always one");
        match line.strip_suffix(b"\\") {
            Some(part) => rule.extend(part.iter().chain(b" ")),
            None => {
                rule.extend(line);
                rules.push(Vec::new());
            }
        }
    }
    rules
}

/// Where the targets end: at a colon before a space or the line's end, since names may hold colons.
fn colon(rule: &[u8]) -> Option<usize> {
    (0..rule.len()).find(|&at| {
        rule[at] == b':' && rule.get(at + 1).is_none_or(u8::is_ascii_whitespace) && (at == 0 || rule[at - 1] != b'\\')
    })
}

fn names(list: &[u8]) -> Vec<Vec<u8>> {
    let (mut names, mut name) = (Vec::new(), Vec::new());
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (b'\\', Some(b' ' | b'\t' | b'#')) => name.extend(bytes.next()),
            (b'$', Some(b'$')) => name.extend(bytes.next()),
            _ if byte.is_ascii_whitespace() => names.extend((!name.is_empty()).then(|| std::mem::take(&mut name))),
            _ => name.push(byte),
        }
    }
    names.extend((!name.is_empty()).then_some(name));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_out_as_files() {
        let text = b"a\\ b.o x:y.o: src/a\\ b.c \\\n  inc/$$x.h \\\r\n c:d.h\n\ninc/$$x.h:\n\nq: \\#h\\\ti\n";
        let names = prerequisites(text);
        assert_eq!(names, [&b"src/a b.c"[..], b"inc/$x.h", b"c:d.h", b"#h\ti"]);
        assert!(prerequisites(b"").is_empty() && prerequisites(b"\\\n:").is_empty());
    }
}
