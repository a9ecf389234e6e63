//! Whole lines, and what becomes of those that can't be written.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a pipe takes in one piece (`PIPE_BUF`, pipe(7)): longer lines of two writers may mix.
const LONGEST_LINE: usize = 4096;

/// `2026-11-23T10:00:00.123Z`.
const STAMP_LENGTH: usize = 24;

/// Where whole lines go.
pub trait Lines {
    /// Takes what there is room for, at once. The line stands for so many that are told or lost with
    /// it: one, or those that it counts.
    ///
    /// # Errors
    /// Where nothing can be taken.
    fn put(&mut self, line: &[u8], stands_for: u64) -> io::Result<usize>;

    /// Gives what was taken and not written yet a moment.
    fn finish(&mut self) {}
}

/// Collects a line and writes it at once. What can't be written is dropped and counted, and the
/// count is the first thing written when the log flows again.
pub struct LineWriter<W> {
    sink: W,
    line: Vec<u8>,
    /// Lines that were lost elsewhere, to be told of here.
    lost: &'static AtomicU64,
    dropped: u64,
    /// The last write ended inside a line (a disk that filled up).
    torn: bool,
}

impl<W: Lines> LineWriter<W> {
    /// Counts what can't be written together with the lines in `lost`.
    pub fn new(sink: W, lost: &'static AtomicU64) -> Self {
        Self {
            sink,
            lost,
            line: Vec::new(),
            dropped: 0,
            torn: false,
        }
    }

    fn finish_line(&mut self) {
        if self.line.len() > LONGEST_LINE {
            self.line.truncate(LONGEST_LINE - 4);
            self.line.extend_from_slice(b"...\n");
        }
        let line = std::mem::take(&mut self.line);
        self.dropped += self.lost.swap(0, Ordering::Relaxed);
        if self.dropped > 0 {
            let stamp = String::from_utf8_lossy(&line[..line.len().min(STAMP_LENGTH)]);
            let count = self.dropped;
            let notice = format!("{stamp} WARN [SUPERVISOR] log lines dropped count={count}\n");
            if self.write_whole(notice.as_bytes(), count) {
                self.dropped = 0;
            }
        }
        if self.dropped > 0 || !self.write_whole(&line, 1) {
            self.dropped += 1;
        }
        self.line = line;
        self.line.clear();
    }

    /// One `write(2)`; whether all of it went through.
    fn write_whole(&mut self, line: &[u8], stands_for: u64) -> bool {
        let mended;
        let whole = if self.torn {
            mended = [b"\n", line].concat();
            &mended
        } else {
            line
        };
        let written = loop {
            match self.sink.put(whole, stands_for) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
                Ok(written) => break written,
            }
        };
        if written > 0 {
            self.torn = written < whole.len();
        }
        written == whole.len()
    }
}

impl<W: Lines> Write for LineWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.ends_with(b"\n") {
            self.finish_line();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.finish();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with `room` bytes left.
    struct Disk {
        writes: Vec<String>,
        room: usize,
    }

    impl Lines for Disk {
        fn put(&mut self, bytes: &[u8], _: u64) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let fits = &bytes[..bytes.len().min(self.room)];
            self.room -= fits.len();
            self.writes.push(String::from_utf8(fits.to_vec()).unwrap());
            Ok(fits.len())
        }
    }

    fn writer(room: usize) -> LineWriter<Disk> {
        let disk = Disk {
            writes: Vec::new(),
            room,
        };
        LineWriter::new(disk, Box::leak(Box::default()))
    }

    const STAMP: &str = "2026-11-23T10:00:00.123Z";

    fn log(writer: &mut LineWriter<Disk>, text: &str) {
        // In pieces, as simplelog does.
        for piece in [STAMP, " ", text, "\n"] {
            writer.write_all(piece.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_line_is_one_write() {
        let mut writer = writer(10_000);
        log(&mut writer, "one");
        log(&mut writer, "two");
        let lines = [format!("{STAMP} one\n"), format!("{STAMP} two\n")];
        assert_eq!(writer.sink.writes, lines);
    }

    #[test]
    fn lines_that_find_no_room_are_dropped_and_counted_when_there_is_room_again() {
        let mut writer = writer(0);
        for _ in 0..3 {
            log(&mut writer, "lost");
        }
        writer.sink.room = 10_000;
        log(&mut writer, "found");
        log(&mut writer, "next");
        let expected = [
            format!("{STAMP} WARN [SUPERVISOR] log lines dropped count=3\n"),
            format!("{STAMP} found\n"),
            format!("{STAMP} next\n"),
        ];
        assert_eq!(writer.sink.writes, expected);
    }

    #[test]
    fn lines_that_were_lost_elsewhere_are_counted_with_them() {
        let mut writer = writer(0);
        writer.lost.store(500, Ordering::Relaxed);
        log(&mut writer, "lost");
        writer.sink.room = 10_000;
        log(&mut writer, "found");
        assert!(writer.sink.writes[0].ends_with("log lines dropped count=501\n"));
    }

    #[test]
    fn a_torn_line_does_not_swallow_the_next() {
        let mut writer = writer(10);
        log(&mut writer, "torn");
        writer.sink.room = 10_000;
        log(&mut writer, "whole");
        let all = writer.sink.writes.concat();
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines[0], &STAMP[..10]);
        assert!(lines[1].ends_with("log lines dropped count=1"), "{all}");
        assert!(lines[2].ends_with("whole"), "{all}");
    }

    #[test]
    fn a_line_never_exceeds_what_a_pipe_takes_in_one_piece() {
        let mut writer = writer(10_000);
        log(&mut writer, &"x".repeat(9000));
        assert_eq!(writer.sink.writes[0].len(), LONGEST_LINE);
        assert!(writer.sink.writes[0].ends_with("x...\n"));
    }
}
