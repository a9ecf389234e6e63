//! What the watcher's thread concludes from each kind of event, played by hand.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use notify::Event;
use notify::event::{DataChange, Flag, RemoveKind};

use super::*;

/// A heartbeat file, and a watcher that is played by the test.
struct Case {
    evidence: Evidence,
}

impl Case {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evidence-{}-{name}", std::process::id()));
        fs::write(&path, "old").unwrap();
        let evidence = Evidence::new(path.clone(), Arc::default());
        evidence.set_watch(Watch::On(Look::at(&path).unwrap()));
        Self { evidence }
    }

    fn path(&self) -> &Path {
        self.evidence.path()
    }

    fn is_told(&self, kind: EventKind) -> bool {
        let before = self.evidence.pulse.last();
        let event = Event::new(kind).add_path(self.path().to_owned());
        let _ = self.evidence.take_event(Ok(event));
        before != self.evidence.pulse.last()
    }

    fn touch_at(&self, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = File::options().write(true).open(self.path());
        file.unwrap().set_modified(time).unwrap();
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

const WRITTEN: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
const GONE: EventKind = EventKind::Remove(RemoveKind::File);
const TOUCHED: EventKind = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));

#[test]
fn what_was_there_before_is_no_beat() {
    let case = Case::new("before");
    case.evidence.look();
    assert_eq!(case.evidence.pulse.last(), None);
}

#[test]
fn a_write_counts_even_if_it_leaves_no_mark() {
    let case = Case::new("unmarked");
    assert!(
        case.is_told(WRITTEN),
        "same size, same tick of the file's clock"
    );
}

#[test]
fn an_event_that_has_waited_is_no_younger_than_what_it_left() {
    let case = Case::new("waited");
    let now = clock::now();
    let told_at = |after: Duration, found: io::Result<Option<Look>>, news| {
        let (mut seen, at) = (case.evidence.seen(), now + after);
        case.evidence.note(&mut seen, found, news, at);
        let _ = seen.rest.after(at, news, Some(TICK));
        case.evidence.pulse.last().unwrap() - now
    };
    let look = || Look::ask(case.path());
    let rested = |after: Duration| case.evidence.seen().rest.over(now + after);
    let _ = fs::write(case.path(), "new and longer");
    assert_eq!(told_at(TICK, look(), News::Written), TICK);
    let at = TICK * 9;
    assert_eq!(told_at(at, look(), News::Written), at, "nobody rested");
    let _ = fs::write(case.path(), "newer");
    rested(TICK * 10);
    let at = TICK * 11;
    assert_eq!(told_at(at, look(), News::Written), at, "it has a new mark");
    rested(TICK * 14);
    let as_late_as_possible = TICK * 12;
    let at = TICK * 14;
    assert_eq!(told_at(at, look(), News::Written), as_late_as_possible);
    let at = TICK * 29 / 2;
    assert_eq!(
        told_at(at, look(), News::Made),
        as_late_as_possible,
        "differs"
    );
    assert_eq!(told_at(at, look(), News::Made), at, "equals the one before");
    // It can't be told; or its times are whole seconds.
    let unknown = Err(io::ErrorKind::PermissionDenied.into());
    let at = TICK * 15;
    assert_eq!(told_at(at, unknown, News::Written), at);
    let coarse = || Ok(Look::at(case.path()).map(Look::coarse));
    let at = TICK * 31 / 2;
    assert_eq!(told_at(at, coarse(), News::Made), at);
    let at = TICK * 16;
    assert_eq!(told_at(at, coarse(), News::Written), at);
    // The one before is long past.
    let at = TICK * 40;
    assert_eq!(told_at(at, look(), News::Made), at);
    let at = TICK * 60;
    assert_eq!(told_at(at, look(), News::Written), at);
}

#[test]
fn a_removal_between_equal_events_is_not_forgotten_when_it_comes_to_a_rest() {
    let case = Case::new("rest");
    let waiting = Duration::from_secs(100);
    case.evidence.pulse.wait_from(Some((clock::now(), waiting)));
    let rests = |kind| {
        let event = Event::new(kind).add_path(case.path().to_owned());
        case.evidence.take_event(Ok(event)).is_some()
    };
    for _ in 0..10 {
        assert_eq!([WRITTEN; 3].map(rests), [false; 3]);
        assert!(!rests(GONE));
    }
    assert_eq!([WRITTEN; 4].map(rests), [false, false, false, true]);
    // Somebody waits for the watcher.
    case.evidence.set_moving(Trace::of(case.path()));
    assert_eq!([WRITTEN; 4].map(rests), [false; 4]);
}

#[test]
fn a_creation_counts_even_if_the_file_is_gone_again() {
    let case = Case::new("gone");
    fs::remove_file(case.path()).unwrap();
    assert!(!case.is_told(GONE));
    assert!(case.is_told(EventKind::Create(CreateKind::File)));
    let renamed = ModifyKind::Name(RenameMode::To);
    assert!(case.is_told(EventKind::Modify(renamed)));
}

#[test]
fn a_touch_counts_and_a_chmod_does_not() {
    let case = Case::new("chmod");
    fs::set_permissions(case.path(), Permissions::from_mode(0o600)).unwrap();
    assert!(!case.is_told(TOUCHED));
    case.touch_at(1000);
    assert!(case.is_told(TOUCHED));
}

fn note_touch(case: &Case, now: Instant) -> Option<Instant> {
    let found = Look::ask(case.path());
    case.evidence
        .note(&mut case.evidence.seen(), found, News::Touched, now);
    case.evidence.pulse.last()
}

#[test]
fn a_second_touch_within_a_tick_counts_and_a_chmod_after_it_does_not() {
    let case = Case::new("tick");
    let now = clock::now();
    case.touch_at(1000);
    let first = note_touch(&case, now);
    let second = note_touch(&case, now + TICK / 2);
    assert!(second > first);
    let mode = Permissions::from_mode(0o600);
    fs::set_permissions(case.path(), mode).unwrap();
    let third = note_touch(&case, now + TICK * 3 / 4);
    assert_eq!(third, second, "a mark that is not of the content");
    assert_eq!(note_touch(&case, now + TICK), second, "later");
}

#[test]
fn a_chmod_counts_only_before_a_verdict_and_where_no_event_tells_and_makes_nothing_ours() {
    let case = Case::new("doubt");
    let chmod = |mode| fs::set_permissions(case.path(), Permissions::from_mode(mode)).unwrap();
    let last = || case.evidence.pulse.last();
    chmod(0o600);
    assert!(!case.is_told(TOUCHED));
    assert!(!case.evidence.last_look());
    assert_eq!(last(), None);
    chmod(0o640);
    assert!(case.evidence.last_look());
    assert_eq!(last(), None);
    assert!(!case.evidence.last_look());
    assert!(last().is_some());
    assert!(!case.evidence.has_beaten());
    // Nor is what comes within a tick of that one a touch that left no mark.
    chmod(0o600);
    assert!(!case.is_told(TOUCHED));
}

#[test]
fn a_look_counts_a_change_once() {
    let case = Case::new("look");
    case.touch_at(1000);
    case.evidence.look();
    let first = case.evidence.pulse.last();
    assert!(first.is_some());
    case.evidence.look();
    assert_eq!(case.evidence.pulse.last(), first);
}

#[test]
fn a_look_after_a_noticed_write_finds_nothing_new() {
    let case = Case::new("noticed");
    fs::write(case.path(), "beat").unwrap();
    assert!(case.is_told(WRITTEN));
    let noticed = case.evidence.pulse.last();
    case.evidence.look();
    assert_eq!(case.evidence.pulse.last(), noticed);
}

#[test]
fn whatever_may_blind_the_watch_is_known_to_blind_the_watch_and_a_write_does_not() {
    let case = Case::new("alarm");
    assert!(case.is_told(WRITTEN));
    assert!(!case.evidence.take_blind());

    let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
    let _ = case.evidence.take_event(Ok(overflow));
    assert!(case.evidence.take_blind(), "queue overflow");

    let _ = case
        .evidence
        .take_event(Err(notify::Error::generic("broken")));
    assert!(case.evidence.take_blind(), "error");

    fs::remove_file(case.path()).unwrap();
    assert!(!case.is_told(GONE));
    assert!(case.evidence.take_blind(), "removal");
}

/// A file system may give a number out again at once; the mark of the old file went with it.
#[test]
fn a_file_made_again_with_the_inode_number_of_the_old_one_is_known_to_blind_the_watch() {
    let case = Case::new("again");
    case.touch_at(1000);
    assert!(case.is_told(GONE), "the same number, another content");
    assert!(case.evidence.take_blind());
}

#[test]
fn a_neighbours_event_is_not_even_looked_at() {
    let case = Case::new("neighbour");
    case.touch_at(1000);
    let neighbour = case.path().with_extension("neighbour");
    let event = Event::new(WRITTEN).add_path(neighbour);
    let _ = case.evidence.take_event(Ok(event));
    assert_eq!(case.evidence.pulse.last(), None);
    assert!(!case.evidence.take_blind());
}

#[test]
fn a_file_system_that_tells_nothing_is_found_out_and_a_late_event_is_not() {
    let case = Case::new("deaf");
    let has_warned = || *lock(&case.evidence.warned);
    for seconds in [1000, 2000] {
        case.touch_at(seconds);
        // The reactor was quicker.
        assert!(!case.evidence.last_look());
        assert!(!has_warned());
        case.is_told(TOUCHED);
    }
    for (seconds, warned) in [(3000, false), (4000, true)] {
        case.touch_at(seconds);
        assert!(!case.evidence.last_look());
        assert_eq!(has_warned(), warned);
    }
}

#[test]
fn a_mark_that_was_made_while_the_watch_was_moved_counts() {
    let case = Case::new("moving");
    // As `cp -p` does: only the time of the last change of any kind is new.
    let times = fs::metadata(case.path()).unwrap().modified().unwrap();
    fs::write(case.path(), "new").unwrap();
    let file = File::options().write(true).open(case.path());
    file.unwrap().set_modified(times).unwrap();
    case.evidence.look_after_moving();
    assert!(case.evidence.pulse.last().is_some());
}

#[test]
fn a_mode_that_changes_all_the_time_is_no_beat_where_events_tell_of_it() {
    let case = Case::new("storm");
    let mut modes = [0o600, 0o640].into_iter().cycle();
    let mut chmod = || {
        let mode = Permissions::from_mode(modes.next().unwrap());
        fs::set_permissions(case.path(), mode).unwrap();
    };
    for _ in 0..3 {
        chmod();
        assert!(case.evidence.last_look());
        assert!(!case.is_told(TOUCHED));
        chmod();
        assert!(!case.evidence.last_look(), "once in doubt, and not again");
        assert!(!case.is_told(TOUCHED));
    }
    assert_eq!(case.evidence.pulse.last(), None);
    assert!(!*lock(&case.evidence.warned));
}

#[test]
fn a_write_to_a_file_that_was_replaced_is_no_beat() {
    let case = Case::new("replaced");
    let fresh = case.path().with_extension("fresh");
    // Held, so that its inode number is not given out again.
    let _old = File::open(case.path()).unwrap();
    for moving in [false, true] {
        fs::write(&fresh, "new").unwrap();
        fs::rename(&fresh, case.path()).unwrap();
        if moving {
            case.evidence.set_moving(Trace::of(case.path()));
        }
        assert!(case.is_told(WRITTEN), "the replacement itself");
        assert!(
            !case.is_told(WRITTEN),
            "the watch still stands on the old one"
        );
    }
    let there = Look::at(case.path()).unwrap();
    case.evidence.set_watch(Watch::On(there));
    assert!(case.is_told(WRITTEN));
}
