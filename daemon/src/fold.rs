//! Fold: how gcc and clang break the lines of the rules that they write for make. Where a line ends depends on how long
//! the names are, so a rule that is kept with its paths by role is folded anew for each place. Pure.

use serde::{Deserialize, Serialize};

use crate::compilers::toolchain::plain_name;

/// Whose way of breaking lines a text shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Fold {
    /// No known way: the text stays as it is.
    #[default]
    Kept,
    /// gcc's.
    Gcc,
    /// clang's.
    Clang,
    /// It is so short that it shows both.
    Either,
}

/// gcc ends a line before the name that would go past this column.
const GCC_COLUMNS: usize = 72;
/// clang's, which leaves room for the backslash.
const CLANG_COLUMNS: usize = 75;

/// The way of a compile in which these programs ran.
pub fn of_programs<'a>(mut programs: impl Iterator<Item = &'a [u8]>) -> Fold {
    let way = |path| match plain_name(path) {
        b"cc1" | b"cc1plus" | b"cc1obj" | b"cc1objplus" => Some(Fold::Gcc),
        b"clang" | b"clang++" | b"zig" => Some(Fold::Clang),
        _ => None,
    };
    programs.find_map(way).unwrap_or(Fold::Either)
}

/// `text` with the first rule in one line, and the way in which it was folded: one of those that `way` allows.
pub fn unfolded(text: &[u8], way: Fold) -> (Vec<u8>, Fold) {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, b"\\\n") {
        plain.extend_from_slice(rest[..at].strip_suffix(b" ").unwrap_or(&rest[..at]));
        rest = rest[at + 2..].trim_ascii_start();
        plain.push(b' ');
    }
    plain.extend_from_slice(rest);
    let is = |fold| (way == fold || way == Fold::Either) && folded(&plain, fold).is_some_and(|folded| folded == text);
    match (is(Fold::Gcc), is(Fold::Clang)) {
        (true, true) => (plain, Fold::Either),
        (true, false) => (plain, Fold::Gcc),
        (false, true) => (plain, Fold::Clang),
        (false, false) => (text.to_vec(), Fold::Kept),
    }
}

/// `text` with its first rule folded; none where the ways differ of which one would have been taken.
pub fn folded(text: &[u8], fold: Fold) -> Option<Vec<u8>> {
    let (rule, rest) = text.split_at(text.iter().position(|&b| b == b'\n').unwrap_or(text.len()));
    let rule = match fold {
        Fold::Kept => return Some(text.to_vec()),
        Fold::Gcc => by_gcc(rule),
        Fold::Clang => by_clang(rule),
        Fold::Either => Some(by_gcc(rule)).filter(|gcc| *gcc == by_clang(rule))?,
    };
    Some([&rule, rest].concat())
}

fn by_gcc(rule: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(rule.len());
    let mut column = 0;
    for (number, word) in words(rule).enumerate() {
        // The colon ends the targets and belongs to no name.
        let size = word.len() - usize::from(word.ends_with(b":"));
        if number > 0 {
            if column + size > GCC_COLUMNS {
                folded.extend(b" \\\n");
                column = 0;
            }
            folded.push(b' ');
            column += 1;
        }
        folded.extend(word);
        column += word.len();
    }
    folded
}

fn by_clang(rule: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(rule.len());
    let (mut column, mut in_targets) = (0, true);
    for (number, word) in words(rule).enumerate() {
        // It counts a name without the signs that are put before spaces, if it is a file's.
        let name = word.iter().zip(word.iter().skip(1)).filter(|pair| *pair == (&b'\\', &b' ')).count();
        let size = word.len() - usize::from(in_targets && word.ends_with(b":"));
        if in_targets {
            if number > 0 && column + size + 2 > CLANG_COLUMNS {
                folded.extend(b" \\\n  ");
                column = 2;
            } else if number > 0 {
                folded.push(b' ');
                column += 1;
            }
            in_targets = !word.ends_with(b":");
            column += word.len();
        } else {
            let size = size - name;
            if column + size + 1 + 2 > CLANG_COLUMNS {
                folded.extend(b" \\\n ");
                column = 2;
            }
            folded.push(b' ');
            column += size + 1;
        }
        folded.extend(word);
    }
    folded
}

/// The words of a rule, at single spaces that no backslash stands before.
fn words(rule: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(rule);
    std::iter::from_fn(move || {
        let all = rest?;
        let end = (0..all.len()).find(|&at| all[at] == b' ' && (at == 0 || all[at - 1] != b'\\'));
        let (word, left) = end.map_or((all, None), |end| (&all[..end], Some(&all[end + 1..])));
        rest = left;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_folded_as_compilers_do() {
        let gcc =
            b"/tmp/zc/other/and/deeper/ws/out/x.o: /tmp/zc/other/and/deeper/ws/x.c \\\n /usr/include/stdio.h\n\nh:\n";
        let clang =
            b"/tmp/zc/other/and/deeper/ws/out/x.o: /tmp/zc/other/and/deeper/ws/x.c \\\n  /usr/include/stdio.h\n";
        for (text, fold) in [
            (&gcc[..], Fold::Gcc),
            (&clang[..], Fold::Clang),
            (b"x.o: x.c\n", Fold::Either),
            (b"", Fold::Either),
            (b"x.o: x.c \\\n x.h\n", Fold::Kept),
        ] {
            let (plain, found) = unfolded(text, Fold::Either);
            assert_eq!(found, fold, "{}", String::from_utf8_lossy(text));
            assert_eq!(folded(&plain, fold).unwrap(), text);
        }
    }

    #[test]
    fn what_is_too_long_for_one_way_alone_is_not_folded() {
        let long = [b"x.o: ".as_slice(), &[b'x'; 66], b" yy\n"].concat();
        assert_eq!(folded(&long, Fold::Either), None);
    }
}
