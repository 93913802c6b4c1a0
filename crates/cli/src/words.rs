//! How things are written for people and their shells: instants, ages, names from elsewhere, paths, tables.

use std::fmt::Write as _;
use std::path::Path;

use chrono::{DateTime, SecondsFormat};

/// Unix seconds as RFC 3339, or as the number where the calendar ends.
pub fn instant(unix_s: i64) -> String {
    DateTime::from_timestamp(unix_s, 0)
        .map_or_else(|| format!("{unix_s} s"), |at| at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// A time that has passed, in its largest whole unit.
pub fn ago(ms: u64) -> String {
    match ms / 1000 {
        0 => "now".to_owned(),
        s => format!("{} ago", length(s)),
    }
}

/// A length of time, in its largest whole unit.
pub fn length(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..172_800 => format!("{} h", s / 3600),
        _ => format!("{} days", s / 86_400),
    }
}

/// A number of bytes, in a unit in which it is short.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A text from elsewhere, such that it stays on its line and moves no cursor.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A path as one word of a shell.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Rows under each other, in columns as wide as their widest cell; the first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            if write!(line, "{cell:width$}  ").is_err() {
                break;
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_ages_are_written_as_people_read_them() {
        assert_eq!(instant(0), "1970-01-01T00:00:00Z");
        assert_eq!(instant(4_102_444_799), "2099-12-31T23:59:59Z");
        assert_eq!(instant(i64::MAX), "9223372036854775807 s");
        let ages = [999, 1_000, 59_999, 60_000, 3_600_000, 172_799_999, 172_800_000, u64::MAX].map(ago);
        let expected = ["now", "1 s ago", "59 s ago", "1 min ago", "1 h ago", "47 h ago", "2 days ago"];
        assert_eq!(ages[..7], expected);
    }

    #[test]
    fn bytes_are_short() {
        let counts = [0, 1023, 1024, 2150, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(counts[..5], ["0 B", "1023 B", "1.0 KiB", "2.1 KiB", "5.0 GiB"]);
    }

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        for (path, word) in
            [("/etc/a-1.pem", "/etc/a-1.pem"), ("/a b", "'/a b'"), ("/it's", r"'/it'\''s'"), ("", "''")]
        {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let rows = [["a", "b"], ["long", ""], ["ü", "c"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a     b\nlong\nü     c\n");
    }

    #[test]
    fn a_text_from_elsewhere_moves_no_cursor() {
        assert_eq!(printable("a\x1b[2J\nb"), "a\u{fffd}[2J\u{fffd}b");
    }
}
