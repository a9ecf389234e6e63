//! Section 3: the watch follows the file wherever its name leads, and none goes blind for good.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cost::idle_for;
use crate::harness::*;
use crate::heartbeat::{TIMEOUT, beating};

/// After the change a beat counts, and the hang that follows is found in time: neither is true of
/// a watch that went blind, for then the beat is known only from the look at the next deadline.
fn is_followed(run: &mut Run, change: impl FnOnce(&mut Run)) {
    run.ready();
    let_pass(TIMEOUT / 4);
    change(run);
    let_pass(TIMEOUT / 4);
    let done = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(done, TIMEOUT);
    assert!(late < TIMEOUT / 4, "the watch was blind for {late:?}");
}

/// The same, in a directory that is prepared before the start.
fn follows(prepare: impl Fn(&Path), change: impl Fn(&Path)) {
    let setup = beating("4", &[]);
    prepare(setup.directory().path());
    is_followed(&mut setup.start(), |run| change(run.directory.path()));
}

fn write(path: impl AsRef<Path>) {
    fs::write(path, "alive").unwrap();
}

/// Puts a link to `target` in the place of `link`, by rename.
fn relink(target: &str, link: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[test]
fn a_file_replaced_while_another_process_holds_the_old_one_open() {
    let setup = beating("4", &[]);
    let file = setup.directory().join("hb");
    write(&file);
    let held = File::open(&file).unwrap();
    is_followed(&mut setup.start(), |run| {
        run.tell("rename");
    });
    drop(held);
}

#[test]
fn a_file_moved_away_and_made_again() {
    follows(
        |dir| write(dir.join("hb")),
        |dir| {
            fs::rename(dir.join("hb"), dir.join("old")).unwrap();
            write(dir.join("hb"));
        },
    );
}

#[test]
fn a_link_whose_target_is_replaced() {
    follows(
        |dir| {
            write(dir.join("target"));
            symlink("target", dir.join("hb")).unwrap();
        },
        |dir| {
            write(dir.join("new"));
            fs::rename(dir.join("new"), dir.join("target")).unwrap();
        },
    );
}

#[test]
fn a_link_that_is_replaced_itself() {
    follows(
        |dir| {
            for name in ["one", "two"] {
                write(dir.join(name));
            }
            symlink("one", dir.join("hb")).unwrap();
        },
        |dir| relink("two", &dir.join("hb")),
    );
}

#[test]
fn a_link_that_is_removed_and_made_again() {
    follows(
        |dir| {
            for name in ["one", "two"] {
                write(dir.join(name));
            }
            symlink("one", dir.join("hb")).unwrap();
        },
        |dir| {
            fs::remove_file(dir.join("hb")).unwrap();
            let_pass(Duration::from_millis(50));
            symlink("two", dir.join("hb")).unwrap();
        },
    );
}

#[test]
fn a_link_in_the_middle_of_a_chain_that_is_replaced() {
    follows(
        |dir| {
            for name in ["one", "two"] {
                write(dir.join(name));
            }
            symlink("middle", dir.join("hb")).unwrap();
            symlink("one", dir.join("middle")).unwrap();
        },
        |dir| relink("two", &dir.join("middle")),
    );
}

#[test]
fn a_link_to_nothing_whose_target_is_made_in_another_directory() {
    follows(
        |dir| symlink("elsewhere/deep/hb", dir.join("hb")).unwrap(),
        |dir| {
            fs::create_dir_all(dir.join("elsewhere/deep")).unwrap();
            write(dir.join("elsewhere/deep/hb"));
        },
    );
}

/// A puppet with its heartbeat file at `file`, where `mounts` were made.
fn under(mounts: &str, file: &str) -> Setup {
    let options = [
        "--enable-heartbeat",
        "--timeout=4",
        "--heartbeat-file",
        file,
    ];
    Setup::inside(mounts, options.iter().chain(&[puppet().to_str().unwrap()]))
}

/// What is open in it (our own lock, at least) keeps a directory from telling that it was removed.
#[test]
fn a_directory_that_is_removed_and_made_again_while_the_file_is_missing() {
    let setup = under("mkdir d; echo > d/hb", "d/hb");
    is_followed(&mut setup.start(), |run| {
        let directory = run.directory.join("d");
        fs::remove_file(directory.join("hb")).unwrap();
        let_pass(Duration::from_millis(50));
        fs::remove_dir_all(&directory).unwrap();
        let_pass(Duration::from_millis(50));
        fs::create_dir(&directory).unwrap();
        // The first beat already has to be noticed when it comes.
        let_pass(TIMEOUT / 4);
        run.tell("beat");
        run.tell("delete");
        let_pass(TIMEOUT / 2);
        run.tell("beat");
        run.tell("delete");
    });
}

/// A directory on the way to the file.
#[test]
fn a_linked_directory_that_is_pointed_elsewhere() {
    let setup = under("mkdir one two; ln -s one way", "way/hb");
    is_followed(&mut setup.start(), |run| {
        run.tell("beat");
        relink("two", &run.directory.join("way"));
        assert!(!run.directory.join("way/hb").exists());
    });
}

#[test]
fn a_directory_that_is_removed_and_made_again() {
    let setup = under("mkdir d; echo > d/hb", "d/hb");
    is_followed(&mut setup.start(), |run| {
        let directory = run.directory.join("d");
        fs::remove_dir_all(&directory).unwrap();
        let_pass(Duration::from_millis(50));
        fs::create_dir(&directory).unwrap();
    });
}

#[test]
fn a_file_under_a_bind_mount() {
    let setup = under("mkdir a b; mount --bind a b", "b/hb");
    is_followed(&mut setup.start(), |run| write(run.directory.join("a/hb")));
}

/// The first write to a file of the lower layer copies it up, and makes another file of it.
#[test]
fn a_file_of_an_overlays_lower_layer() {
    let setup = under(
        "mkdir top; mount -t tmpfs top top; cd top; mkdir lower upper work merged; echo > lower/hb
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay merged",
        "merged/hb",
    );
    is_followed(&mut setup.start(), |run| {
        run.tell("append");
    });
}

/// A directory that is moved away takes the watched file with it, which notices nothing.
#[test]
fn a_beat_that_no_event_announced_is_found_by_the_last_look() {
    let options = ["--enable-heartbeat", "--heartbeat-file=d/hb", "--timeout=2"];
    let setup = Setup::puppet(&options);
    let dir = |name: &str| setup.directory().join(name);
    let (here, away) = (dir("d"), dir("away"));
    fs::create_dir(&here).unwrap();
    write(here.join("hb"));
    let mut run = setup.start();
    run.ready();
    let (started, _) = run.logged_at(&["started"]);
    fs::rename(&here, &away).unwrap();
    fs::create_dir(&here).unwrap();
    run.tell("beat");
    // Seen when it was to be judged; from there on it is watched as ever.
    let_pass((started + Duration::from_millis(2500)).saturating_duration_since(Instant::now()));
    let done = Instant::now();
    run.tell("beat");
    let late = run.hangs_after(done, Duration::from_secs(2));
    assert!(
        late < Duration::from_millis(500),
        "the watch was blind for {late:?}"
    );
}

/// Links of /proc do not lead where they say they do: here to a file that has no name any more.
#[test]
fn a_file_behind_a_link_of_proc_is_watched_and_leaves_us_asleep() {
    let options = [
        "--enable-heartbeat",
        "--timeout=4",
        "--heartbeat-file=/dev/fd/3",
    ];
    let (program, puppet) = (supervisor().to_str().unwrap(), puppet());
    let command = [puppet.to_str().unwrap()];
    let script = ["-c", "exec 3<>hb; rm hb; exec \"$@\"", "sh", program];
    let words = script.iter().chain(&options).chain(&command);
    let mut run = Setup::of("sh".as_ref(), words).start();
    let pid = run.pid();
    is_followed(&mut run, |run| {
        run.tell("beat");
        let [before, after] = idle_for(pid, Duration::from_millis(100));
        assert_eq!(before, after);
    });
}
