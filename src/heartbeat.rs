//! The heartbeat file: who may watch it, what is watched, and what was seen (contract, section 3).
//!
//! notify's thread sees the changes and notes the time of the last beat in an atomic; the reactor
//! reads that when a deadline comes. Only where the watch itself has to be moved (the file was
//! replaced, removed, made again) is the reactor woken, for the watch can't be moved from within
//! its own thread.

mod evidence;
mod lock;
mod look;
mod trace;

use std::fs::{self, FileType};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use notify::{
    Config, ErrorKind, EventKindMask, RecommendedWatcher, RecursiveMode, WatchPathConfig,
    Watcher as _,
};

use crate::error::Error;
use crate::text::Quoted;
use evidence::Evidence;
use lock::Lock;
use look::Look;
use trace::Trace;

/// How often the watch is set again within a turn, where the file changes under our hands.
const TRIES: usize = 8;

/// A heartbeat file under watch.
pub struct Heartbeat {
    evidence: Arc<Evidence>,
    watcher: Watcher,
    lock: Option<Lock>,
}

/// The state of the watch.
enum Watcher {
    /// Not there yet, or refused by a limit that may pass; `told` once that was logged.
    Missing { told: bool },
    /// Watching `paths`: the links that lead to the file, and the file, or, while that is missing,
    /// the nearest directory.
    Watching {
        notify: RecommendedWatcher,
        paths: Vec<PathBuf>,
        told: bool,
    },
    /// Its thread could not be started. Not tried again, for each try costs a descriptor.
    Dead,
}

/// What is to be watched as things are.
struct Target {
    trace: Trace,
    /// None while the file is missing.
    file: Option<Look>,
}

impl Target {
    fn of(heartbeat_file: &Path) -> Self {
        Self {
            trace: Trace::of(heartbeat_file),
            file: Look::at(heartbeat_file),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_file = match (&self.file, &other.file) {
            (Some(one), Some(other)) => one.same_file(other),
            (None, None) => self.place() == other.place(),
            (None, Some(_)) | (Some(_), None) => false,
        };
        same_file && self.trace == other.trace
    }

    /// The file's own place, or the directory in which it, or the next one above it, will appear.
    fn place(&self) -> PathBuf {
        match self.file {
            Some(_) => self.trace.end.clone(),
            None => nearest_directory(&self.trace.end),
        }
    }
}

impl Heartbeat {
    /// Claims `path` and begins to watch it. `waker` is called when [`Heartbeat::rewatch_if_blind`] is due.
    ///
    /// # Errors
    /// [`Error::HeartbeatRefused`] where the path names something that is no regular file,
    /// [`Error::HeartbeatTaken`] where another supervisor watches it, and
    /// [`Error::HeartbeatUnplaced`] where it is relative to a directory that is gone.
    pub fn open(path: &Path, waker: Arc<mio::Waker>) -> Result<Self, Error> {
        let path = std::path::absolute(path).map_err(|source| Error::HeartbeatUnplaced {
            path: path.to_owned(),
            source,
        })?;
        if let Some(found) = what_is_wrong_with(&path) {
            return Err(Error::HeartbeatRefused { path, found });
        }
        let lock = Lock::take(&path)?;
        if !in_memory(&path) {
            log::info!(
                "heartbeat file is not in memory path={} hint=\"each beat writes to flash or disk; a path in /run or /dev/shm does not\"",
                Quoted::path(&path)
            );
        }
        let mut heartbeat = Self {
            evidence: Arc::new(Evidence::new(path, waker)),
            watcher: Watcher::Missing { told: false },
            lock,
        };
        heartbeat.rewatch();
        Ok(heartbeat)
    }

    /// The file, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.evidence.path()
    }

    /// When the last beat was noticed. Costs one atomic load.
    #[must_use]
    pub fn last_beat(&self) -> Option<Instant> {
        self.evidence.last_beat()
    }

    /// Looks at the file, so that later looks compare with how it is now.
    pub fn look(&self) {
        self.evidence.look();
    }

    /// Looks at the file before the command is judged, the evidence that no lost event can hide,
    /// and sets a watch that has gone blind again.
    pub fn last_look(&mut self) {
        let seeing = !self.evidence.is_blind() && self.is_watched();
        self.evidence.last_look(seeing);
        if self.evidence.take_blind() || !self.is_watched() {
            self.rewatch();
        }
    }

    /// Moves the watch to where it is needed, if it was reported blind.
    pub fn rewatch_if_blind(&mut self) {
        if self.evidence.take_blind() {
            self.rewatch();
        }
    }

    fn is_watched(&self) -> bool {
        match &self.watcher {
            Watcher::Missing { .. } => false,
            Watcher::Watching { paths, .. } => !paths.is_empty() && self.evidence.is_watched_file(),
            // Nothing to be done about it.
            Watcher::Dead => true,
        }
    }

    /// Watches the file, or the nearest existing directory while it is missing, and each link that
    /// leads there: what is put in a link's place makes no event at the file behind it.
    fn rewatch(&mut self) {
        for _ in 0..TRIES {
            let target = Target::of(self.path());
            self.evidence.set_trace(target.trace.clone());
            let Some(watched) = self.watch(&target) else {
                continue;
            };
            // What changed between the last look and this watch was announced by nobody.
            self.evidence.look();
            self.evidence.set_watched(target.file.filter(|_| watched));
            // Nor was it if there is something else to be watched by now.
            if target.is_same(&Target::of(self.path())) {
                return;
            }
        }
        // Others wait for their turn too.
        self.evidence.raise_blind();
    }

    /// Sets the watches. Whether they could be had; None where something to be watched is gone.
    fn watch(&mut self, target: &Target) -> Option<bool> {
        if let Watcher::Missing { told } = self.watcher {
            let handler = Arc::clone(&self.evidence);
            // CORE: creation, removal, change of data and metadata, renaming. Not a mere reading.
            let config = Config::default().with_event_kinds(EventKindMask::CORE);
            let handler = move |event| handler.take_event(event);
            match RecommendedWatcher::new(handler, config) {
                Ok(notify) => {
                    self.watcher = Watcher::Watching {
                        notify,
                        paths: Vec::new(),
                        told,
                    }
                }
                Err(error) => {
                    warn_once(told, self.evidence.path(), &error);
                    self.watcher = Watcher::Missing { told: true };
                    return Some(false);
                }
            }
        }
        let Watcher::Watching {
            notify,
            paths,
            told,
        } = &mut self.watcher
        else {
            return Some(false);
        };
        for old in paths.drain(..) {
            // Refused where the kernel has dropped the watch already, with the file.
            let _ = notify.unwatch(&old);
        }
        let itself = WatchPathConfig::new(RecursiveMode::NonRecursive);
        // In this order: once the last one is watched, all are.
        let links = target.trace.links.iter().cloned();
        for path in links.chain([target.place()]) {
            // The file's own place is watched as it stands, too: a link there was made just now.
            match notify.watch_with(&path, itself.clone().with_dereference_symlinks(false)) {
                Ok(()) => paths.push(path),
                Err(error) => match error.kind {
                    // Gone between the look and the watch.
                    ErrorKind::PathNotFound => return None,
                    ErrorKind::Io(ref io) if io.kind() == io::ErrorKind::NotFound => return None,
                    // No watch left (fs.inotify.max_user_watches): there may be one later.
                    ErrorKind::MaxFilesWatch | ErrorKind::Io(_) => {
                        warn_once(*told, self.evidence.path(), &error);
                        *told = true;
                        return Some(false);
                    }
                    ErrorKind::Generic(_)
                    | ErrorKind::WatchNotFound
                    | ErrorKind::InvalidConfig(_) => {
                        warn_once(*told, self.evidence.path(), &error);
                        self.abandon();
                        return Some(false);
                    }
                },
            }
        }
        Some(true)
    }

    /// Lets go of a watcher without a thread. Its `Drop` would panic.
    fn abandon(&mut self) {
        if let Watcher::Watching { notify, .. } =
            std::mem::replace(&mut self.watcher, Watcher::Dead)
        {
            std::mem::forget(notify);
        }
    }

    /// The end: removes the file, if it ever beat (one that was named by mistake is left alone) and
    /// is a regular file or a symbolic link, and gives up the claim.
    pub fn close(mut self) {
        self.evidence.look();
        let path = self.path().to_owned();
        let ours = |kind: FileType| kind.is_file() || kind.is_symlink();
        if self.lock.as_ref().is_none_or(Lock::is_current)
            && self.evidence.has_beaten()
            && fs::symlink_metadata(&path).is_ok_and(|file| ours(file.file_type()))
            && let Err(error) = fs::remove_file(&path)
        {
            log::warn!(
                "heartbeat file not removed path={} error={}",
                Quoted::path(&path),
                Quoted::text(&error.to_string())
            );
        }
        self.lock = None;
        // The process ends here: no need to wait for the watcher's thread.
        self.abandon();
    }
}

fn warn_once(told: bool, path: &Path, error: &notify::Error) {
    if !told {
        log::warn!(
            "heartbeat events can't be had path={} error={} fallback=\"one look at the file per deadline\"",
            Quoted::path(path),
            Quoted::text(&error.to_string())
        );
    }
}

/// What stands at the path that can't be a heartbeat file. A link counts as what it points to.
fn what_is_wrong_with(path: &Path) -> Option<&'static str> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Some("a directory");
    }
    let kind = fs::metadata(path).ok()?.file_type();
    [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a FIFO"),
        (kind.is_socket(), "a socket"),
        (kind.is_block_device() || kind.is_char_device(), "a device"),
    ]
    .into_iter()
    .find_map(|(is, what)| is.then_some(what))
}

/// The nearest directory above `path` that exists.
fn nearest_directory(path: &Path) -> PathBuf {
    path.ancestors()
        .skip(1)
        .find(|above| above.is_dir())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// Whether a file at `path` costs no write to a disk: tmpfs(5) or ramfs. True where it can't be told.
#[cfg(target_os = "linux")]
fn in_memory(path: &Path) -> bool {
    use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
    /// linux/magic.h
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    let place = if path.exists() {
        path.to_owned()
    } else {
        nearest_directory(path)
    };
    statfs(&place).is_ok_and(|fs| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&fs.filesystem_type()))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &Path) -> bool {
    true
}
