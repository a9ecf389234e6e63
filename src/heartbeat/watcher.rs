//! What is watched, and the thread that moves the watch.
//!
//! notify answers a request only when its thread has nothing else to do: where a file is written to
//! faster than its events can be read, that is never. Nor may its own thread ask it. So a thread
//! beside both waits for it, the keeper: parked, until something has to be watched elsewhere.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::libc;
use notify::{
    Config, ErrorKind, EventKindMask, RecommendedWatcher, RecursiveMode, WatchPathConfig,
    Watcher as _,
};

use super::evidence::{Evidence, Watch};
use super::look::Look;
use super::trace::Trace;
use crate::threads::without_signals;

/// How often the watch is set again at a time, where the file changes under our hands. There has to be
/// an end for a file system whose inode numbers do not last.
const TRIES: usize = 1000;

/// What is to be watched as things are.
struct Target {
    trace: Trace,
    /// In the order in which they have to be watched, each with the inode that stands there or behind
    /// it: the links that lead to the file, and the file; or, while that is missing, the nearest
    /// directory above it and before it the one above that. For a directory that is removed while
    /// something in it is open, as our lock is, says nothing of it itself.
    places: Vec<(PathBuf, Option<Inode>)>,
    file: Option<Look>,
}

/// Device and number.
type Inode = (u64, u64);

impl Target {
    fn of(heartbeat_file: &Path) -> Self {
        let (mut trace, file) = (Trace::of(heartbeat_file), Look::at(heartbeat_file));
        let there = Look::at(&trace.end);
        if file.is_some_and(|file| there.is_none_or(|there| !there.same_file(&file))) {
            // Replaced just now; or a link of /proc, which does not lead where it says it does.
            trace = Trace {
                links: Vec::new(),
                end: heartbeat_file.to_owned(),
            };
        }
        let mut places = trace.links.clone();
        match file {
            Some(_) => places.push(trace.end.clone()),
            None => {
                let nearest = nearest_directory(&trace.end);
                places.extend(nearest.parent().map(Path::to_owned));
                places.push(nearest);
            }
        }
        let places = places.into_iter().map(|place| {
            let there = inode(&place);
            (place, there)
        });
        Self {
            places: places.collect(),
            trace,
            file,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.trace, &self.places) == (&other.trace, &other.places)
    }
}

/// What stands at `path`, or behind the link there; None where nothing does.
fn inode(path: &Path) -> Option<Inode> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// The watches, and who sets them.
pub struct Watcher {
    evidence: Arc<Evidence>,
    /// None where the kernel refuses an instance, which may pass.
    notify: Option<RecommendedWatcher>,
    /// Those of the last target.
    paths: Vec<PathBuf>,
}

/// Why there is no watch.
enum Failure {
    /// What was to be watched is gone.
    Gone,
    /// A limit, which may pass.
    Refused(notify::Error),
    /// notify's thread could not be started. Not tried again, for each try costs a descriptor.
    Dead,
}

impl From<notify::Error> for Failure {
    fn from(error: notify::Error) -> Self {
        match &error.kind {
            ErrorKind::PathNotFound => Self::Gone,
            ErrorKind::Io(io) if is_gone(io) => Self::Gone,
            ErrorKind::MaxFilesWatch | ErrorKind::Io(_) => Self::Refused(error),
            ErrorKind::Generic(_) | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
                Self::Dead
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

impl Watcher {
    /// Watches the file of `evidence`, and goes on doing so in a thread of its own.
    pub fn start(evidence: &Arc<Evidence>) {
        without_signals(|| Self::start_threads(evidence));
    }

    fn start_threads(evidence: &Arc<Evidence>) {
        let mut watcher = Self {
            evidence: Arc::clone(evidence),
            notify: None,
            paths: Vec::new(),
        };
        if watcher.rewatch().is_err() {
            return;
        }
        let keeper = thread::Builder::new().name("keeper".to_owned());
        match keeper.spawn(move || watcher.keep()) {
            Ok(keeper) => evidence.set_keeper(keeper.thread().clone()),
            Err(error) => {
                evidence.warn_of_no_events(&error.to_string());
                evidence.set_watch(Watch::Elsewhere);
            }
        }
    }

    fn keep(mut self) {
        loop {
            if !self.evidence.take_blind() {
                thread::park();
            } else if self.rewatch().is_err() {
                return;
            }
        }
    }

    /// Watches the file, or the nearest existing directory while it is missing, and each link that
    /// leads there: what is put in a link's place makes no event at the file behind it.
    fn rewatch(&mut self) -> Result<(), Dead> {
        for _ in 0..TRIES {
            let target = Target::of(self.evidence.path());
            self.evidence.set_moving(target.trace.clone());
            let watch = match self.watch(&target) {
                Ok(()) => target.file.map_or(Watch::Elsewhere, Watch::On),
                Err(Failure::Gone) => continue,
                Err(Failure::Refused(error)) => {
                    self.evidence.warn_of_no_events(&error.to_string());
                    Watch::Elsewhere
                }
                Err(Failure::Dead) => {
                    // What notify says is that nobody answers it.
                    self.evidence
                        .warn_of_no_events("no thread can be had for them");
                    self.evidence.set_watch(Watch::Elsewhere);
                    // Its `Drop` would panic.
                    std::mem::forget(self.notify.take());
                    return Err(Dead);
                }
            };
            self.evidence.look_after_moving();
            self.evidence.set_watch(watch);
            // What has been put there since then, on no watch of ours, would be announced by nobody.
            if target.is_same(&Target::of(self.evidence.path())) {
                return Ok(());
            }
        }
        // The next event tells, or the look at the deadline.
        self.evidence.set_watch(Watch::Elsewhere);
        Ok(())
    }

    fn watch(&mut self, target: &Target) -> Result<(), Failure> {
        let notify = match &mut self.notify {
            Some(notify) => notify,
            missing => {
                let handler = Arc::clone(&self.evidence);
                // CORE: creation, removal, change of data and metadata, renaming. Not a mere reading.
                let config = Config::default().with_event_kinds(EventKindMask::CORE);
                let handler = move |event| {
                    if let Some(rest) = handler.take_event(event) {
                        sleep(rest);
                        handler.rested();
                    }
                };
                match RecommendedWatcher::new(handler, config) {
                    Ok(notify) => missing.insert(notify),
                    Err(error) => return Err(Failure::Refused(error)),
                }
            }
        };
        for old in self.paths.drain(..) {
            // Refused where the kernel has dropped the watch already, with the file.
            let _ = notify.unwatch(&old);
        }
        let mut refused = None;
        for (place, _) in &target.places {
            let itself = WatchPathConfig::new(RecursiveMode::NonRecursive);
            let is_link = target.trace.links.contains(place);
            refused = None;
            match notify.watch_with(place, itself.with_dereference_symlinks(!is_link)) {
                Ok(()) => self.paths.push(place.clone()),
                Err(error) => match Failure::from(error) {
                    // Only the last one is indispensable. (A directory above may not be readable.)
                    Failure::Refused(error) => refused = Some(error),
                    failure @ (Failure::Gone | Failure::Dead) => return Err(failure),
                },
            }
        }
        refused.map_or(Ok(()), |error| Err(Failure::Refused(error)))
    }
}

/// In notify's own thread, which nobody waits for but the keeper, in a thread of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "measured: a beat at 1000 Hz costs 17 us without a rest after some of them, and less than 1 us with it"
)]
fn sleep(rest: Duration) {
    thread::sleep(rest);
}

/// There will be no watch.
struct Dead;

/// The nearest directory above `path` that exists.
pub fn nearest_directory(path: &Path) -> PathBuf {
    path.ancestors()
        .skip(1)
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}
