//! What is known of the file, shared by notify's thread, which sees it change, the keeper, which
//! moves the watch, and the reactor, which judges.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use notify::event::{CreateKind, EventKind, MetadataKind, ModifyKind, RenameMode};

use super::look::Look;
use super::rest::Rest;
use super::trace::Trace;
use crate::clock;
use crate::pulse::Pulse;
use crate::text::Quoted;

/// The kernel's file times may move in steps as coarse as this (a tick at `HZ=100`): two touches
/// within one step leave the same time behind.
const TICK: Duration = Duration::from_millis(10);

/// A look in doubt is repeated within this time.
const DOUBT: Duration = Duration::from_millis(100);

pub struct Evidence {
    path: PathBuf,
    pulse: Arc<Pulse>,
    seen: Mutex<Seen>,
    /// The watch has to be set again.
    blind: AtomicBool,
    /// Who sets it again; nobody where no thread could be had.
    keeper: OnceLock<Thread>,
    /// Whether it was said that there are no events, or is too late for that.
    warned: Mutex<bool>,
}

/// The last look, against which the next one is compared.
struct Seen {
    look: Option<Look>,
    /// When its content last differed from that of the one before.
    changed_at: Option<Instant>,
    /// When any of its marks last did.
    marked_at: Option<Instant>,
    /// Whether its content ever changed: a file that was named by mistake is not ours to remove.
    has_beaten: bool,
    /// The way to the file, as it was when the watch was set.
    trace: Trace,
    watch: Watch,
    /// Changes of the watched file in a row that no event had told when they were looked for. One
    /// may be told yet: the reactor was quicker than notify's thread.
    untold: u32,
    rest: Rest<News>,
    /// When the last look found a mark that may be that of a beat or of a chmod, and of which no event told.
    doubted: Option<Instant>,
}

/// Where the watch stands.
#[derive(Clone, Copy, Debug)]
pub enum Watch {
    /// It is being moved, perhaps from this file, and what is there will be compared when that is
    /// done.
    Moving(Option<Look>),
    /// On this file.
    On(Look),
    /// On a directory, for the file is missing; or nowhere, for it can't be had.
    Elsewhere,
}

impl Seen {
    /// Whether the file that was seen last is the one that the watch stands on; not if it is missing.
    fn is_watched(&self) -> bool {
        match (&self.look, &self.watch) {
            (Some(look), Watch::On(watched)) => look.same_file(watched),
            (None, _) | (Some(_), Watch::Moving(_) | Watch::Elsewhere) => false,
        }
    }

    /// When a change was at the latest that is told at `now` and has left the marks `found`; None: they are not
    /// known. Where the event may have waited: what left no new mark was in the same tick of the clock as what
    /// left this one, which was seen then.
    fn latest(&self, news: News, found: Option<&Look>, now: Instant) -> Instant {
        let has_waited = self.rest.has_waited(now, news);
        match self.marked_at {
            Some(seen) if has_waited && found.is_some_and(Look::is_fine) => now.min(seen + TICK),
            Some(_) | None => now,
        }
    }

    /// Whether a write that was told was one to `found`: the watch may stand, for as long as it can't
    /// be moved, on a file that has been replaced.
    fn is_written(&self, found: Option<&Look>) -> bool {
        match (found, &self.watch) {
            (Some(found), Watch::On(old) | Watch::Moving(Some(old))) => found.same_file(old),
            (None, _) | (Some(_), Watch::Moving(None) | Watch::Elsewhere) => true,
        }
    }
}

impl Trace {
    /// What an event says of the file; None where it is about a neighbour.
    fn news_in(&self, event: &notify::Event) -> Option<News> {
        let names = |place: &PathBuf| event.paths.contains(place);
        if self.links.iter().any(names) {
            return Some(News::Gone);
        }
        if !names(&self.end) {
            // A directory above it that came or went.
            let above = event.paths.iter().any(|path| self.end.starts_with(path));
            return above.then_some(News::Other);
        }
        Some(match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => News::Written,
            EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any)) => News::Touched,
            EventKind::Create(CreateKind::File)
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => News::Made,
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => News::Gone,
            EventKind::Any
            | EventKind::Access(_)
            | EventKind::Create(_)
            | EventKind::Modify(_)
            | EventKind::Other => News::Other,
        })
    }
}

/// What an event says of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It was written to.
    Written,
    /// It was made, or another file was given its name.
    Made,
    /// Its times, mode, owner or links were changed.
    Touched,
    /// The watched file, or a link that leads to it, was removed or renamed: whatever has the name
    /// now is another.
    Gone,
    /// Something else, or something of a directory above it.
    Other,
}

impl Evidence {
    /// What stands at `path` now was left by an earlier run: no sign of life.
    pub fn new(path: PathBuf, pulse: Arc<Pulse>) -> Self {
        let look = Look::at(&path);
        let trace = Trace::of(&path);
        Self {
            path,
            pulse,
            seen: Mutex::new(Seen {
                look,
                changed_at: None,
                marked_at: None,
                has_beaten: false,
                trace,
                watch: Watch::Elsewhere,
                untold: 0,
                rest: Rest::default(),
                doubted: None,
            }),
            blind: AtomicBool::new(false),
            keeper: OnceLock::new(),
            warned: Mutex::new(false),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file's content ever changed.
    pub fn has_beaten(&self) -> bool {
        self.seen().has_beaten
    }

    /// Whether the watch was reported blind since the last call.
    pub fn take_blind(&self) -> bool {
        self.blind.swap(false, Ordering::AcqRel)
    }

    /// Whom to call when the watch has to be set again. Call it once.
    pub fn set_keeper(&self, keeper: Thread) {
        let _ = self.keeper.set(keeper);
        // It may have been called in vain.
        self.wake_keeper();
    }

    /// The watch is about to be moved to where `trace` leads.
    pub fn set_moving(&self, trace: Trace) {
        let mut seen = self.seen();
        seen.trace = trace;
        seen.watch = match seen.watch {
            Watch::On(old) => Watch::Moving(Some(old)),
            Watch::Moving(old) => Watch::Moving(old),
            Watch::Elsewhere => Watch::Moving(None),
        };
    }

    /// Says how the watch stands.
    pub fn set_watch(&self, watch: Watch) {
        self.seen().watch = watch;
    }

    /// From here on there is nothing to warn of any more.
    pub fn finish(&self) {
        *lock(&self.warned) = true;
    }

    /// One warning, whatever the reasons.
    pub fn warn_of_no_events(&self, reason: &str) {
        let mut warned = lock(&self.warned);
        if !*warned {
            *warned = true;
            // EMFILE sends its reader to ulimit(1), and mostly in vain.
            let hint = if reason.ends_with("(os error 24)") {
                " hint=\"all programs of a user share fs.inotify.max_user_instances\""
            } else {
                ""
            };
            log::warn!(
                "heartbeat events can't be had path={} error={} fallback=\"one look at the file per deadline\"{hint}",
                Quoted::path(&self.path),
                Quoted::text(reason)
            );
        }
    }

    /// A look that no event asked for: what changed and was not announced is a beat.
    pub fn look(&self) {
        self.examine(&mut self.seen(), |before, found| {
            !found.same_content(before)
        });
    }

    /// The look after the watch was moved: nobody was told of what changed meanwhile.
    pub fn look_after_moving(&self) {
        self.examine(&mut self.seen(), |before, found| found != before);
    }

    /// The look before a verdict, which has the watch set again where that is not on the file. Whether it has to
    /// be repeated in a moment.
    ///
    /// A mark that is new, and not of the content, may be that of a chmod, or of a write that set the times
    /// back. Where no events come it counts, in doubt for the command. Where they come one of them tells, and may
    /// wait to be read at this moment: so it counts only if none has come until the next look.
    #[must_use]
    pub fn last_look(&self) -> bool {
        let mut seen = self.seen();
        let (before, watched) = (seen.look, seen.is_watched());
        let now = clock::now();
        // A longer time ago it was another deadline's.
        let doubted = seen.doubted.take().is_some_and(|at| now - at < DOUBT);
        let is_untold = seen.untold > 0;
        self.examine(&mut seen, |before, found| {
            !found.same_content(before) || !watched && found != before
        });
        if let (true, Some(before), Some(found)) = (watched, before, seen.look) {
            let is_marked = found.same_file(&before) && found != before;
            seen.untold += u32::from(is_marked && !doubted);
            let is_doubtful = is_marked && found.same_content(&before) && !doubted;
            seen.doubted = is_doubtful.then_some(now);
        }
        if doubted && is_untold {
            self.pulse.beat(clock::now());
        }
        let in_doubt = seen.doubted.is_some();
        let (deaf, watched) = (seen.untold >= 2, seen.is_watched());
        drop(seen);
        if deaf {
            self.warn_of_no_events("the file changes and no event tells");
        }
        if !watched {
            self.raise_blind();
        }
        in_doubt
    }

    fn examine(&self, seen: &mut Seen, differs: impl Fn(&Look, &Look) -> bool) {
        let found = Look::again(&self.path, seen.look);
        // After the look: a beat may be taken for younger than it is, never for older.
        let now = clock::now();
        if let Some(found) = &found {
            if seen.look.is_none_or(|before| differs(&before, found)) {
                self.pulse.beat(now);
            }
            if seen.look.is_none_or(|before| before != *found) {
                seen.marked_at = Some(now);
            }
            if seen.look.is_none_or(|before| !before.same_content(found)) {
                seen.changed_at = Some(now);
                seen.has_beaten = true;
                seen.doubted = None;
            }
        }
        seen.look = found;
    }

    /// Takes one event, in notify's thread: it must not move the watch, and must not panic. How long
    /// that thread may rest now; [`Evidence::rested`] is to be told.
    #[must_use]
    pub fn take_event(&self, event: notify::Result<notify::Event>) -> Option<Duration> {
        let Some(event) = event.ok().filter(|event| !event.need_rescan()) else {
            self.raise_blind();
            return None;
        };
        let mut seen = self.seen();
        let news = seen.trace.news_in(&event)?;
        seen.untold = 0;
        let found = Look::ask(&self.path);
        // After the look: a beat may be taken for younger than it is, never for older.
        let now = clock::now();
        let is_beat = self.note(&mut seen, found, news, now);
        let is_moved = self.is_moved(&seen, news);
        // While the watch is being moved, somebody waits for this thread; and on a directory there are events
        // between, of others.
        let may_rest = is_beat && !is_moved && matches!(seen.watch, Watch::On(_));
        let timeout = self.pulse.timeout().filter(|_| may_rest);
        let rest = seen.rest.after(now, news, timeout);
        drop(seen);
        if is_moved {
            self.raise_blind();
        }
        rest
    }

    /// The rest is over.
    pub fn rested(&self) {
        self.seen().rest.over(clock::now());
    }

    /// Notes what an event told. Whether that was a beat.
    fn note(
        &self,
        seen: &mut Seen,
        found: io::Result<Option<Look>>,
        news: News,
        now: Instant,
    ) -> bool {
        let is_known = found.is_ok();
        let found = found.unwrap_or(seen.look);
        let changed = match (&seen.look, &found) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(found)) => !found.same_content(before),
        };
        // Within a tick of a change a second touch leaves no mark; nor does a chmod.
        let again = news == News::Touched
            && seen.look == found
            && seen.changed_at.is_some_and(|at| now - at < TICK);
        // What the kernel says counts even if it is gone again by now, or left no mark.
        let announced = match news {
            News::Written => seen.is_written(found.as_ref()),
            News::Made => true,
            News::Touched | News::Gone | News::Other => false,
        };
        if seen.look != found {
            seen.marked_at = Some(now);
        }
        let is_beat = changed || announced || again;
        if is_beat {
            let known = found.as_ref().filter(|_| is_known);
            self.pulse.beat(seen.latest(news, known, now));
            seen.has_beaten = true;
            seen.doubted = None;
        }
        if changed {
            seen.changed_at = Some(now);
        }
        seen.look = found;
        is_beat
    }

    /// Whether the watch is no longer on the file.
    fn is_moved(&self, seen: &Seen, news: News) -> bool {
        match (&seen.look, &seen.watch) {
            // A new file may have been given the number of the old one, or a directory its name: the
            // end of the old one says more than a comparison will.
            (_, Watch::Moving(_)) => matches!(news, News::Gone | News::Other),
            (Some(found), Watch::On(watched)) => news == News::Gone || !found.same_file(watched),
            // A missing file: the directory that came or went decides what to watch.
            (None, _) | (Some(_), Watch::Elsewhere) => true,
        }
    }

    /// Has the watch set again.
    pub fn raise_blind(&self) {
        self.blind.store(true, Ordering::Release);
        self.wake_keeper();
    }

    fn wake_keeper(&self) {
        if let Some(keeper) = self.keeper.get() {
            keeper.unpark();
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

/// A panic in any thread ends the process, so the lock can't be poisoned; nothing to mend.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
