//! `supervisor-fleet`: one instance for each line of a file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Output};

use crate::harness::*;

/// A program in the environment of a machine whose own programs, sockets and services are in `directory`.
pub fn on_machine(directory: &Directory, program: &str) -> Command {
    let bin = directory.join("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(program);
    command
        .env("PATH", path)
        .env("SUPERVISOR_RUNTIME_DIR", directory.join("run"))
        .env("SVDIR", directory.join("services"))
        .current_dir(directory.path());
    command
}

/// A machine of its own: a file of instances, the programs, their sockets and logs.
struct Fleet {
    directory: Directory,
    /// By which the script is run.
    shell: &'static [&'static str],
    /// What keeps services up there, if there is something.
    daemon: Option<Child>,
}

impl Fleet {
    fn new(shell: &'static [&'static str], lines: &str) -> Self {
        let directory = Directory::new();
        let bin = directory.join("bin");
        fs::create_dir(&bin).unwrap();
        fs::create_dir(directory.join("services")).unwrap();
        symlink(supervisor(), bin.join("supervisor")).unwrap();
        symlink(project("scripts/fleet.sh"), bin.join("supervisor-fleet")).unwrap();
        fs::write(directory.join("fleet"), lines).unwrap();
        Self {
            directory,
            shell,
            daemon: None,
        }
    }

    fn command(&self, program: &str) -> Command {
        on_machine(&self.directory, program)
    }

    fn call(&self, words: &[&str]) -> Output {
        let mut command = self.command(self.shell[0]);
        command
            .args(&self.shell[1..])
            .arg(self.directory.join("bin/supervisor-fleet"))
            .args(["-f", "fleet", "-l", "it's $logs"])
            .args(words);
        command.output().unwrap()
    }

    /// What it says where all goes well.
    fn does(&self, words: &[&str]) -> String {
        let output = self.call(words);
        assert!(output.status.success(), "{words:?} {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says where not.
    fn refuses(&self, words: &[&str], code: i32) -> String {
        let output = self.call(words);
        assert_eq!(output.status.code(), Some(code), "{words:?} {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The instances that run, by name.
    fn running(&self) -> Vec<serde_json::Value> {
        let mut list = self.command("supervisor");
        let output = list.args(["--list", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let name = |instance: &serde_json::Value| instance["name"].as_str().unwrap().to_owned();
        self.running().iter().map(name).collect()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let names = self.names();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        if !names.is_empty() {
            self.call(&[&["-w", "plain", "stop"], &names[..]].concat());
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(daemon.id().try_into().unwrap()),
                nix::sys::signal::Signal::SIGHUP,
            );
            let _ = daemon.wait();
        }
    }
}

const LINES: &str = "\
# two of them
* --grace-period 7
web  --sd-notify --timeout 1000 sleep 1000 # for ever

db   sh -c 'echo {name} \"$0\" \"$1\"; exec sleep 1000' it\\'s \"a \\\"b\\\" \\ $HOME\"
";

#[test]
fn a_line_is_an_instance_that_is_started_listed_and_stopped_by_its_name() {
    for shell in [&["dash"][..], &["bash"], &["busybox", "sh"]] {
        if !there_is(shell[0]) {
            continue;
        }
        let fleet = Fleet::new(shell, LINES);
        assert_eq!(fleet.does(&["names"]), "web\ndb\n");
        assert!(fleet.refuses(&["list"], 1).contains("not running: web db"));
        assert!(
            fleet
                .does(&["-w", "plain", "start"])
                .contains("2 instances, plain")
        );
        let running = fleet.running();
        let command = &running[0]["command"];
        assert_eq!(command[3], "it's");
        assert_eq!(command[4], "a \"b\" \\ $HOME");
        assert!(eventually(
            || fleet.read("it's $logs/db.out") == "db it's a \"b\" \\ $HOME\n"
        ));
        assert!(fleet.read("it's $logs/web.log").contains("started"));
        // Each is its own process: one that dies takes nobody with it, and start starts only that one.
        let db = running[0]["pid"].clone();
        fleet.does(&["-w", "plain", "stop", "web"]);
        assert_eq!(fleet.names(), ["db"]);
        fleet.does(&["-w", "plain", "start"]);
        assert_eq!(fleet.names(), ["db", "web"]);
        assert_eq!(fleet.running()[0]["pid"], db);
        fleet.does(&["-w", "plain", "restart", "db"]);
        assert_ne!(fleet.running()[0]["pid"], db);
        assert!(fleet.does(&["list"]).contains("web"));
        fleet.does(&["-w", "plain", "stop"]);
        assert_eq!(fleet.names(), Vec::<String>::new());
    }
}

#[test]
fn what_is_wrong_in_the_file_is_told_with_its_line() {
    for (lines, said) in [
        ("../b sleep 9\n", "fleet:1: a name is"),
        ("--timeout 9 sleep 9\n", "fleet:1: a name is"),
        // (What a terminal would do as it says.)
        ("a\x1b[2J\u{e9} sleep 9\n", "first: a?[2J"),
        ("a\n", "fleet:1: a: no command"),
        ("a sh -c 'x\n", "fleet:1: a: the quote ' is not closed"),
        ("a x\\\n", "fleet:1: a: nothing follows the backslash"),
        (
            "#\na --timeot 3 true\n",
            "fleet:2: a: unexpected argument '--timeot'",
        ),
        ("a --log-level 'a\\nb' true\n", "fleet:1: a: invalid value"),
        ("a --list\n", "fleet:1: a: --check goes with a command"),
        ("a --grace-period 3\n", "fleet:1: a: no command given"),
        // Which the two lines below it need not tell again.
        (
            "* --timeot 3\na true\nb true\n",
            "fleet:1: *: unexpected argument",
        ),
    ] {
        let fleet = Fleet::new(&["sh"], lines);
        for (verb, code) in [("names", 2), ("start", 1), ("restart", 2)] {
            let text = fleet.refuses(&["-w", "plain", verb], code);
            assert!(text.contains(said), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert_eq!(fleet.names(), Vec::<String>::new());
    }
    let fleet = Fleet::new(&["sh"], "a sleep 9\n");
    for (words, said) in [
        (&["start", "b"][..], "fleet has no line for b"),
        (&["-w", "plain", "stop", "b"], "fleet has no line for b"),
        (&["-f", "/", "start"], "/ can't be read"),
        (&["-w", "cron", "start"], "-w takes systemd, runit or plain"),
        (&["-w", "cron", "list"], "-w takes systemd, runit or plain"),
        (&["-w"], "-w takes a value"),
        (&["-x", "list"], "there is no option -x"),
        (&["begin"], "there is no 'begin'"),
        (&[], "nothing to do"),
        (&["exec"], "exec takes one name"),
        (&["-f", "nowhere", "start"], "nowhere can't be read"),
    ] {
        let text = fleet.refuses(words, 2);
        assert!(text.contains(said), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let output = fleet.command("supervisor-fleet").arg("--all").output();
    let text = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(text.contains("there is no option --all;"), "{text}");
}

#[test]
fn a_fault_stops_its_own_start_and_any_restart_before_it_is_done_and_hinders_no_stop() {
    for shell in [&["dash"][..], &["bash", "--posix"], &["busybox", "sh"]] {
        if !there_is(shell[0]) {
            continue;
        }
        let fleet = Fleet::new(
            shell,
            "good sleep 1000\nopen sleep 1000\nwrong sleep 1000\n",
        );
        fleet.does(&["-w", "plain", "start"]);
        let running = fleet.running();
        let faulty =
            "good sleep 999\nopen sh -c 'x\nwrong --timeot 3 true\n../x true\nwrong true\n";
        fs::write(fleet.directory.join("fleet"), faulty).unwrap();
        let said = fleet.call(&["names"]);
        assert_eq!(said.status.code(), Some(2));
        assert_eq!(said.stdout, b"good\nopen\nwrong\n");
        // All at once, in the order of the file.
        let text = fleet.refuses(&["-w", "plain", "restart"], 2);
        let numbers = text.lines().filter_map(|line| line.split(':').nth(2));
        assert_eq!(numbers.collect::<String>(), "2345", "{text}");
        for (words, code) in [
            (&["restart", "open", "good"][..], 2),
            (&["start", "open"], 1),
            (&["exec", "open"], 2),
        ] {
            let text = fleet.refuses(&[&["-w", "plain"], words].concat(), code);
            assert!(text.contains("fleet:2: open: the quote"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        let text = fleet.refuses(&["exec", "wrong"], 2);
        assert!(text.contains("fleet:3: wrong: unexpected"), "{text}");
        assert!(fleet.does(&["list"]).contains("wrong"));
        for (before, now) in running.iter().zip(fleet.running()) {
            assert_eq!(before["pid"], now["pid"]);
        }
        // The others are as they were.
        fleet.does(&["-w", "plain", "restart", "good"]);
        assert_eq!(fleet.running()[0]["command"][1], "999");
        fleet.does(&["-w", "plain", "stop", "wrong"]);
        assert_eq!(fleet.names(), ["good", "open"]);
        fleet.does(&["-w", "plain", "stop", "good"]);
        let mut unit = fleet.command("supervisor-fleet");
        let mut unit = unit.args(["-f", "fleet", "exec", "good"]).spawn().unwrap();
        assert!(eventually(|| fleet.names() == ["good", "open"]));
        fleet.does(&["-w", "plain", "stop"]);
        assert_eq!(fleet.names(), Vec::<String>::new());
        assert!(unit.wait().unwrap().success());
    }
}

/// Nobody may come for long who could mend it.
#[test]
fn a_faulty_line_keeps_no_other_from_being_started() {
    for shell in [&["dash"][..], &["bash", "--posix"], &["busybox", "sh"]] {
        if !there_is(shell[0]) {
            continue;
        }
        for (lines, told, names) in [
            (
                "a sleep 1000\nb --timeot 3 true\n../c true\na sleep 8\nd sleep 1000\n",
                "234",
                &["a", "d"][..],
            ),
            (
                "a sleep 1000\n* --timeot 3\nb sleep 8\n* --grace-period 1\nc sleep 1000\n",
                "2",
                &["a", "c"],
            ),
        ] {
            let fleet = Fleet::new(shell, lines);
            let text = fleet.refuses(&["-w", "plain", "start"], 1);
            let numbers = text.lines().filter_map(|line| line.split(':').nth(2));
            assert_eq!(numbers.collect::<String>(), told, "{text}");
            assert_eq!(text.lines().count(), told.len(), "{text}");
            assert_eq!(fleet.names(), names, "{text}");
            for instance in fleet.running() {
                assert_eq!(instance["command"][1], "1000");
            }
        }
    }
}

#[test]
fn it_says_how_many_it_starts() {
    for shell in [&["dash"][..], &["bash", "--posix"], &["busybox", "sh"]] {
        if !there_is(shell[0]) {
            continue;
        }
        let fleet = Fleet::new(shell, "a sleep 1000\nb sleep 1000\nc sleep 1000\n");
        for (words, said) in [
            (&["start", "b"][..], "start 1 instance, plain"),
            (&["start", "b"], "start 1 instance, running already, plain"),
            (
                &["start"],
                "start 3 instances, 1 of them running already, plain",
            ),
            (&["start"], "start 3 instances, running already, plain"),
            (&["stop", "a"], "stop 1 instance, plain"),
        ] {
            let text = fleet.does(&[&["-w", "plain"], words].concat());
            assert_eq!(text, format!("supervisor-fleet: {said}\n"));
        }
        // A file without a line has no names, and misses nobody.
        fs::write(fleet.directory.join("fleet"), "# none\n").unwrap();
        assert_eq!(fleet.does(&["names"]), "");
        assert_eq!(fleet.does(&["start"]), "");
        assert!(fleet.does(&["list"]).contains("sleep 1000"));
    }
}

#[test]
fn one_that_does_not_start_is_named() {
    let fleet = Fleet::new(&["sh"], "good sleep 1000\nbad no-such-command-anywhere\n");
    let text = fleet.refuses(&["-w", "plain", "start"], 1);
    assert!(text.contains("bad does not run; see "), "{text}");
    assert_eq!(fleet.names(), ["good"]);
    assert!(fleet.read("it's $logs/bad.log").contains("start failed"));
}

#[test]
fn systemd_is_asked_for_an_instance_of_its_unit_each() {
    let fleet = Fleet::new(&["sh"], LINES);
    let systemctl = fleet.directory.join("bin/systemctl");
    fs::write(&systemctl, "#!/bin/sh\necho systemctl \"$@\"\n").unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let said = fleet.does(&["-w", "systemd", "restart"]);
    let units = "supervisor@web.service supervisor@db.service";
    let calls = format!("systemctl stop {units}\nsystemctl start {units}\n");
    assert!(said.ends_with(&calls), "{said}");
    // And its unit becomes the supervisor.
    let mut unit = fleet.command("supervisor-fleet");
    let mut unit = unit.args(["-f", "fleet", "exec", "web"]).spawn().unwrap();
    assert!(eventually(|| fleet.names() == ["web"]));
    assert_eq!(fleet.running()[0]["pid"], unit.id());
    fleet.does(&["-w", "plain", "stop", "web"]);
    assert!(unit.wait().unwrap().success());
}

#[test]
fn runit_has_a_service_directory_for_each() {
    if !there_is("runsvdir") {
        return;
    }
    let mut fleet = Fleet::new(&["sh"], "web sleep 1000\nonce --max-restarts 0 false\n");
    let services = fleet.directory.join("services");
    fleet.daemon = Some(fleet.command("runsvdir").arg(&services).spawn().unwrap());
    let said = fleet.does(&["start"]);
    assert!(said.contains("start 2 instances, runit"), "{said}");
    // (Both may be there, for a moment.)
    let gave_up = || {
        fleet
            .read("it's $logs/once.out")
            .contains("finished code=1")
    };
    assert!(eventually(gave_up));
    assert!(eventually(|| fleet.names() == ["web"]));
    // Killed, it is started again; told to stop, it stays away, and so does one that has given up.
    let pid: i32 = fleet.running()[0]["pid"].to_string().parse().unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let is_another = || {
        let running = fleet.running();
        running.len() == 1 && running[0]["pid"] != pid
    };
    assert!(eventually(is_another));
    fleet.does(&["-w", "runit", "stop", "web"]);
    assert_eq!(fleet.names(), Vec::<String>::new());
    let status = || {
        let sv = fleet.command("sv").args(["status", "once"]).output();
        String::from_utf8(sv.unwrap().stdout).unwrap()
    };
    assert!(
        eventually(|| status().starts_with("down: ")),
        "{}",
        status()
    );
    let runs = fleet.read("it's $logs/once.out").matches("started").count();
    fleet.does(&["-w", "runit", "start", "web"]);
    assert!(eventually(|| fleet.names() == ["web"]));
    assert_eq!(
        fleet.read("it's $logs/once.out").matches("started").count(),
        runs
    );
    assert_eq!(runs, 1);
    fleet.does(&["-w", "runit", "stop", "web"]);
    // Another's service is left alone.
    fs::write(services.join("web/run"), "#!/bin/sh\nexec true\n").unwrap();
    let text = fleet.refuses(&["-w", "runit", "start"], 1);
    assert!(text.contains("is not of supervisor-fleet"), "{text}");
}
