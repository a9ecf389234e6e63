//! Everything that a run printed, with the time at which it was seen.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Log,
    Command,
}

#[derive(Default)]
pub struct Transcript {
    pub lines: Mutex<Lines>,
    pub changed: Condvar,
}

#[derive(Default)]
pub struct Lines {
    pub lines: Vec<(Source, Instant, String)>,
    pub open: usize,
}

impl Transcript {
    pub fn follow(self: &Arc<Self>, source: Source, stream: impl Read + Send + 'static) {
        self.lines.lock().unwrap().open += 1;
        let here = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut lines = here.lines.lock().unwrap();
                lines.lines.push((source, Instant::now(), line));
                here.changed.notify_all();
            }
            here.lines.lock().unwrap().open -= 1;
            here.changed.notify_all();
        });
    }
}

impl Lines {
    pub fn of(&self, wanted: Source) -> String {
        let from_it = self.lines.iter().filter(|(source, ..)| *source == wanted);
        from_it.map(|(.., line)| format!("{line}\n")).collect()
    }

    pub fn show(&self) -> String {
        let start = self.lines.first().map(|(_, at, _)| *at);
        self.lines
            .iter()
            .map(|(source, at, line)| {
                let who = if *source == Source::Log { "log" } else { "cmd" };
                let after = start.map_or(0.0, |start| (*at - start).as_secs_f64());
                format!("{after:8.3} {who}: {line}\n")
            })
            .collect()
    }
}
