//! Text: numbers in words for people, and the way out to the terminal. Knows no messages and no daemon.

use std::io::{self, Write};

use crate::failure::Failure;

/// Prints to standard output. A reader that has seen enough, as `head` has, is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// The same for what need not be UTF-8.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::new(format!("standard output: {error}"))),
    }
}

/// Prints one remark on standard error, where nobody need be listening.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "zcache: {}", text.trim_end());
}

/// What a longer explanation begins and ends with.
pub fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines[..] {
        [first, .., last] => format!("{first}: {last}"),
        _ => lines.concat(),
    }
}

/// Bytes in the largest binary unit that fits: `512 B`, `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would be shown as 1024.0 belongs to the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span of time with its two leading units: `340 ms`, `58.1 s`, `12 min 5 s`, `3 h 20 min`, `2 d 4 h`.
pub fn duration(ms: u64) -> String {
    let pair = |high: u64, unit: &str, low: u64, part: &str| match low {
        0 => format!("{high} {unit}"),
        _ => format!("{high} {unit} {low} {part}"),
    };
    let s = ms / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{s}.{} s", ms % 1000 / 100),
        60_000..3_600_000 => pair(s / 60, "min", s % 60, "s"),
        3_600_000..86_400_000 => pair(s / 3600, "h", s % 3600 / 60, "min"),
        _ => pair(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

/// A part of a whole in per cent; none of nothing.
pub fn percent(part: u64, whole: u64) -> Option<String> {
    // 100 % is for all of it, and nothing less.
    (whole > 0).then(|| format!("{:.1} %", (part as u128 * 1000 / whole as u128) as f64 / 10.0))
}

/// A number and the thing counted: `1 miss`, `2 misses`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Fits a foreign text on one line of `width` columns, and keeps what it holds from steering the terminal.
pub fn clip(text: &str, width: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    if text.chars().count() <= width {
        return text.chars().map(plain).collect();
    }
    text.chars().map(plain).take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Breaks a remark into lines of `width` columns. Words stay whole: a path can be copied.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_one_line() {
        assert_eq!(one_line("error at line 1\n  |\n1 | x\nunknown field\n"), "error at line 1: unknown field");
        assert_eq!(one_line("plain"), "plain");
    }

    #[test]
    fn sizes() {
        let shown = [0, 1023, 1024, 1536, (1 << 20) - 1, 20 << 30, u64::MAX].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "20.0 GiB", "16384.0 PiB"]);
    }

    #[test]
    fn durations() {
        let shown = [0, 999, 1000, 58_190, 60_000, 725_000, 7_200_000, 12_000_000, 187_200_000].map(duration);
        let words = ["0 ms", "999 ms", "1.0 s", "58.1 s", "1 min", "12 min 5 s", "2 h", "3 h 20 min", "2 d 4 h"];
        assert_eq!(shown, words);
    }

    #[test]
    fn parts_and_counts() {
        assert_eq!(percent(1, 0), None);
        assert_eq!(percent(9999, 10_000).unwrap(), "99.9 %");
        assert_eq!(percent(5, 5).unwrap(), "100.0 %");
        assert_eq!((count(1, "miss", "misses"), count(0, "miss", "misses")), ("1 miss".into(), "0 misses".into()));
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("äöüß", 3), "äö…");
        assert_eq!(clip("a\x1b[2J\nb", 80), "a [2J b");
    }

    #[test]
    fn remarks_are_broken_between_words() {
        assert_eq!(wrap("a bc  def\n/long/path g", 4), ["a bc", "def", "/long/path", "g"]);
        assert!(wrap(" ", 4).is_empty());
    }
}
