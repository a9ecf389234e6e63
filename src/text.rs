//! Values in a line of text: nothing that a name contains can end the line or forge a field.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::Utf8Chunk;
use std::time::Duration;

/// The longest that a value is shown, in bytes; what is beyond is cut and marked `...`.
const LONGEST: usize = 1000;

/// The longest name of an instance, in bytes.
pub const LONGEST_NAME: usize = 64;

/// A value of a `key=value` field: as it is where that is unambiguous, else in double quotes.
/// `"` and `\` are escaped inside the quotes, control characters everywhere (`\n`, `\x1b`), and
/// bytes that are not UTF-8 show as `\xff`.
pub struct Quoted<'a>(&'a [u8]);

impl<'a> Quoted<'a> {
    /// A value that is text.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self(text.as_bytes())
    }

    /// A value that is a path, which may hold any byte but NUL.
    #[must_use]
    pub fn path(path: &'a Path) -> Self {
        Self(path.as_os_str().as_bytes())
    }

    /// A value that may hold any byte.
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

/// A command and its arguments, joined by blanks.
#[must_use]
pub fn joined(argv: &[OsString]) -> OsString {
    argv.join(OsStr::new(" "))
}

/// A duration in seconds, with three decimals, the rest cut off.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = !self.0.is_empty()
            && !self
                .0
                .iter()
                .any(|&b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\\' | b'='));
        let quote = if plain { "" } else { "\"" };
        f.write_str(quote)?;
        let mut room = LONGEST;
        for piece in self.0.utf8_chunks().flat_map(pieces) {
            if room < piece.len() {
                f.write_str("...")?;
                break;
            }
            room -= piece.len();
            f.write_str(&piece)?;
        }
        f.write_str(quote)
    }
}

/// Each character, and each byte that belongs to none, as it is shown.
fn pieces(chunk: Utf8Chunk<'_>) -> impl Iterator<Item = String> {
    let valid = chunk.valid().chars().map(|c| {
        let mut piece = String::new();
        // Writing to a String can't fail.
        let _ = match c {
            '"' | '\\' => write!(piece, "\\{c}"),
            c => escape(&mut piece, c),
        };
        piece
    });
    let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
    valid.chain(invalid)
}

/// Whether it may be an instance's name: it can't lead out of the directory, nor be hidden in it.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    (1..=LONGEST_NAME).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

/// Writes `c`, escaped if a terminal or a line-by-line reader could take it for more than a letter.
///
/// # Errors
/// Those of `out`.
pub fn escape(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if u32::from(c) < 0x20 || c == '\x7f' => write!(out, "\\x{:02x}", u32::from(c)),
        // C1 controls, line and paragraph separator, and the marks that reorder a line.
        '\u{80}'..='\u{9f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{200e}'
        | '\u{200f}' => {
            write!(out, "\\u{{{:x}}}", u32::from(c))
        }
        c => out.write_char(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        Quoted::text(text).to_string()
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for name in ["web", "a.b", "x@1", "A_b-c.9", "-", "@", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "/",
            "../x",
            "a b",
            "a\n",
            "ä",
            "a\0",
            "*",
            &"x".repeat(65),
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_plain_value_stays_as_it_is() {
        assert_eq!(quoted("/usr/bin/redis-server"), "/usr/bin/redis-server");
        assert_eq!(quoted("größe"), "größe");
    }

    #[test]
    fn a_value_with_blanks_or_nothing_is_quoted() {
        assert_eq!(quoted("python3 client.py"), "\"python3 client.py\"");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a=b"), "\"a=b\"");
    }

    #[test]
    fn no_value_can_end_the_line_or_leave_its_quotes() {
        assert_eq!(
            quoted("x\nERROR [SUPERVISOR]"),
            "\"x\\nERROR [SUPERVISOR]\""
        );
        assert_eq!(quoted("\x1b[31m"), "\\x1b[31m");
        assert_eq!(quoted("a\" b"), "\"a\\\" b\"");
        assert_eq!(quoted("a\\n"), "\"a\\\\n\"");
        assert_eq!(quoted("a\u{85}b\u{2028}c"), "a\\u{85}b\\u{2028}c");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hex() {
        let path = Path::new(OsStr::from_bytes(b"/tmp/\xff"));
        assert_eq!(Quoted::path(path).to_string(), "/tmp/\\xff");
    }

    #[test]
    fn a_long_value_is_cut_and_says_so() {
        let shown = quoted(&"a".repeat(5000));
        assert_eq!(shown.len(), LONGEST + 3);
        assert!(shown.ends_with("a..."));
        let shown = quoted(&" \x01".repeat(5000));
        assert!(
            shown.len() <= LONGEST + 5 && shown.ends_with("...\""),
            "{shown}"
        );
    }
}
