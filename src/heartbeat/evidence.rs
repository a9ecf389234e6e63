//! What is known of the file, shared by notify's thread, which sees it change, and the reactor,
//! which judges.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{EventKind, MetadataKind, ModifyKind};

use super::look::Look;
use crate::clock;

/// The kernel's file times may move in steps as coarse as this (a tick at `HZ=100`): two touches
/// within one step leave the same time behind.
const TICK: Duration = Duration::from_millis(10);

pub struct Evidence {
    path: PathBuf,
    /// From which `last_beat` counts.
    base: Instant,
    /// Nanoseconds from `base` to the last beat; 0: none yet.
    last_beat: AtomicU64,
    seen: Mutex<Seen>,
    /// The watch has to be set again.
    alarm: AtomicBool,
    waker: Arc<mio::Waker>,
}

/// The last look, against which the next one is compared.
struct Seen {
    look: Option<Look>,
    /// When it last differed from the one before.
    changed_at: Option<Instant>,
    /// The file that the watch stands on; None while it is missing or can't be watched.
    watched: Option<Look>,
}

impl Evidence {
    /// What stands at `path` now was left by an earlier run: no sign of life.
    pub fn new(path: PathBuf, waker: Arc<mio::Waker>) -> Self {
        let look = Look::at(&path);
        Self {
            path,
            base: clock::now(),
            last_beat: AtomicU64::new(0),
            seen: Mutex::new(Seen {
                look,
                changed_at: None,
                watched: None,
            }),
            alarm: AtomicBool::new(false),
            waker,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn last_beat(&self) -> Option<Instant> {
        match self.last_beat.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(self.base + Duration::from_nanos(nanos)),
        }
    }

    /// Whether the watch was reported blind since the last call.
    pub fn take_alarm(&self) -> bool {
        self.alarm.swap(false, Ordering::AcqRel)
    }

    pub fn set_watched(&self, look: Option<Look>) {
        self.seen().watched = look;
    }

    /// Whether the file that was seen last is the one that the watch stands on.
    pub fn is_watched_file(&self) -> bool {
        let seen = self.seen();
        match (&seen.look, &seen.watched) {
            (Some(look), Some(watched)) => look.same_file(watched),
            (None, None) => true,
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// A look that no event asked for: any difference at all is a change that was not announced.
    pub fn look(&self) {
        let now = clock::now();
        let found = Look::at(&self.path);
        let mut seen = self.seen();
        if found.is_some() && found != seen.look {
            self.beat(now);
            seen.changed_at = Some(now);
        }
        seen.look = found;
    }

    /// Takes one event, in notify's thread: it must not move the watch, and must not panic.
    pub fn take_event(&self, event: notify::Result<notify::Event>) {
        let now = clock::now();
        let Ok(event) = event else {
            return self.raise_alarm();
        };
        if event.need_rescan() {
            return self.raise_alarm();
        }
        // The file itself, or a directory above it that came or went. The rest are neighbours.
        if !event.paths.iter().any(|path| self.path.starts_with(path)) {
            return;
        }
        let is_file = event.paths.contains(&self.path);
        let (written, touched) = match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => (is_file, false),
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)) => (false, is_file),
            EventKind::Any
            | EventKind::Access(_)
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Remove(_)
            | EventKind::Other => (false, false),
        };
        self.compare(now, written, touched);
    }

    /// Compares the file with the last look. `written`: the kernel says that it was written to;
    /// `touched`: that its times, mode, owner or links were changed.
    fn compare(&self, now: Instant, written: bool, touched: bool) {
        let found = Look::at(&self.path);
        let mut seen = self.seen();
        let changed = match (&seen.look, &found) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(found)) => !found.same_content(before),
        };
        // Within a tick of a change a second touch is not to be told from a chmod.
        let again = touched && seen.changed_at.is_some_and(|at| now - at < TICK);
        if changed || written || again {
            self.beat(now);
        }
        if changed {
            seen.changed_at = Some(now);
        }
        let moved = match (&found, &seen.watched) {
            (Some(found), Some(watched)) => !found.same_file(watched),
            // A missing file: the directory that came or went decides what to watch.
            (None, _) | (Some(_), None) => true,
        };
        seen.look = found;
        drop(seen);
        if moved {
            self.raise_alarm();
        }
    }

    fn beat(&self, at: Instant) {
        let nanos = u64::try_from((at - self.base).as_nanos()).unwrap_or(u64::MAX);
        // Two threads may note a beat; the later one counts.
        self.last_beat.fetch_max(nanos.max(1), Ordering::AcqRel);
    }

    fn raise_alarm(&self) {
        self.alarm.store(true, Ordering::Release);
        // If it fails, the look at the next deadline finds the alarm.
        let _ = self.waker.wake();
    }

    /// A panic in either thread ends the process, so the lock can't be poisoned; nothing to mend.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
