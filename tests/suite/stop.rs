//! Sections 4 to 6: stopping, what is left behind, signals, and the exit codes of a stop.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::*;

#[test]
fn an_obedient_command_is_stopped_with_the_code_of_the_signal() {
    for (signal, code) in STOPS {
        let mut run = Setup::puppet(&[]).start();
        let pid = run.ready();
        run.signal(signal);
        assert_eq!(run.code(), code, "{signal}");
        gone(pid);
        let expected = ["started", "signal", "stopping", "exited", "finished"];
        assert_eq!(events(&run.log()), expected);
    }
}

#[test]
fn a_command_that_does_not_obey_is_killed_after_the_grace() {
    let rows = [
        (Signal::SIGTERM, 137),
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
    ];
    for (signal, code) in rows {
        let mut run = Setup::scripted(&["--grace-period", "0.3"], &["trap TERM"]).start();
        run.said("did trap TERM");
        run.signal(signal);
        let stopping = run.logged(&["stopping", "grace=0.300s"]);
        run.said("got SIGTERM");
        let killing = run.logged(&["killing"]);
        // It is acted before it is told of, which a busy machine may put off.
        assert!(between(&stopping, &killing) >= 0.25);
        assert_eq!(run.code(), code, "{signal}");
    }
}

#[test]
fn a_second_signal_kills_at_once() {
    let mut run = Setup::scripted(&["--grace-period", "1000"], &["trap TERM"]).start();
    run.said("did trap TERM");
    run.signal(Signal::SIGTERM);
    run.logged(&["signal name=SIGTERM action=stop"]);
    run.said("got SIGTERM");
    run.signal(Signal::SIGTERM);
    run.logged(&["signal name=SIGTERM action=kill"]);
    assert_eq!(run.code(), 137);
}

#[test]
fn without_grace_the_command_is_killed_at_once() {
    let mut run = Setup::puppet(&["--grace-period", "0"]).start();
    run.ready();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 137);
    assert!(run.log().contains("exited pid="), "{}", run.log());
    assert!(run.log().contains("signal=SIGKILL"));
}

#[test]
fn a_stop_during_the_delay_ends_at_once() {
    for (signal, code) in [(Signal::SIGTERM, 0), (Signal::SIGINT, 130)] {
        let mut run = Setup::scripted(&["--backoff-factor", "1000"], &["exit 1"]).start();
        run.logged(&["restarting"]);
        run.signal(signal);
        assert_eq!(run.code(), code);
    }
}

#[test]
fn a_closed_terminal_ends_everything() {
    // Python gives it a terminal, waits until the command runs, and closes the terminal.
    let python = "import os, pty, sys\n\
        pid, fd = pty.fork()\n\
        if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
        seen = b''\n\
        while b'ready' not in seen: seen += os.read(fd, 1000)\n\
        os.close(fd)\n\
        print('code', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
    let (program, command) = (supervisor().to_str().unwrap(), puppet());
    let words = [
        "-c",
        python,
        program,
        "--log-file",
        "log",
        command.to_str().unwrap(),
    ];
    let mut run = Setup::of("python3".as_ref(), words).start();
    assert_eq!(number_in(&run.said("code ")), 0);
    let log = fs::read_to_string(run.directory.join("log")).unwrap();
    assert!(log.contains("signal name=SIGHUP action=stop"), "{log}");
    assert!(log.contains("finished code=0"), "{log}");
}

#[test]
fn signals_for_the_command_reach_its_own_process() {
    let signals = [
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGHUP,
    ];
    // `setsid` takes the terminal away that a developer may have: SIGHUP is then a 'reload'.
    let words = [
        "--wait".into(),
        supervisor().as_os_str().to_owned(),
        puppet().into_os_string(),
    ];
    let mut run = Setup::of("setsid".as_ref(), words).start();
    run.ready();
    let line = run.logged(&["started"]);
    let command: i32 = field(&line, "pid").parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{command}/stat")).unwrap();
    let parent: i32 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    run.tell("trap USR1 USR2 WINCH HUP");
    for signal in signals {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), signal).unwrap();
        run.said(&format!("got {signal}"));
        run.logged(&[&format!("signal name={signal} action=forward")]);
    }
    run.send("exit 0");
    assert_eq!(run.code(), 0);
}

#[test]
fn signals_for_the_command_are_ignored_while_there_is_none() {
    let mut run = Setup::scripted(&["--backoff-factor", "1000"], &["exit 1"]).start();
    run.logged(&["restarting"]);
    run.signal(Signal::SIGUSR1);
    run.logged(&["signal name=SIGUSR1 action=ignore"]);
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
}

#[test]
fn a_stop_reaches_the_whole_group() {
    let mut run = Setup::puppet(&[]).start();
    let pid = run.ready();
    run.send("child");
    let child = number_in(&run.said("child "));
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 0);
    assert!(!alive(pid) && !alive(child));
}

#[test]
fn what_does_not_obey_in_the_group_is_killed_before_we_end_and_does_not_change_the_code() {
    let mut run = Setup::puppet(&["--grace-period", "0.3"]).start();
    run.ready();
    run.send("stubborn-child");
    let child = number_in(&run.said("deaf "));
    run.signal(Signal::SIGTERM);
    run.logged(&["exited", "signal=SIGTERM"]);
    run.logged(&["killing", "processes=1"]);
    assert_eq!(run.code(), 0);
    assert!(!alive(child));
}

#[test]
fn leftovers_of_a_crash_are_cleared_before_the_restart() {
    let options = ["--grace-period", "0.3", "--backoff-factor", "0.01"];
    let mut run = Setup::puppet(&options).start();
    run.ready();
    run.send("stubborn-child");
    let other = number_in(&run.said("deaf "));
    run.send("stubborn-child");
    let child = number_in(&run.said("deaf "));
    run.send("exit 1");
    run.logged(&["exited", "code=1"]);
    run.logged(&["stopping", "reason=leftovers grace=0.300s"]);
    run.logged(&["killing", "processes=2"]);
    run.logged(&["started", "run=2"]);
    assert!(!alive(child) && !alive(other));
}

#[test]
fn leftovers_of_a_finished_command_are_cleared_too() {
    let mut run = Setup::puppet(&[]).start();
    run.ready();
    run.send("child");
    let child = number_in(&run.said("child "));
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    assert!(!alive(child));
}

#[test]
fn with_keep_descendants_leftovers_are_left_alone() {
    let mut run = Setup::puppet(&["--keep-descendants", "--log-file", "log"]).start();
    run.ready();
    run.send("child");
    let child = number_in(&run.said("child "));
    run.send("exit 0");
    assert_eq!(run.code(), 0);
    assert!(alive(child));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), Signal::SIGKILL).unwrap();
}

#[test]
fn a_killed_supervisor_leaves_no_orphan() {
    let mut run = Setup::puppet(&[]).start();
    let pid = run.ready();
    run.signal(Signal::SIGKILL);
    assert_eq!(run.code(), 1009);
    gone(pid);
}

#[test]
fn orphans_are_ours_and_are_reaped_while_the_command_runs() {
    let script = "(sleep 1000 & echo orphan $!); read line";
    let mut run = Setup::new(["sh", "-c", script]).start();
    let orphan = number_in(&run.said("orphan "));
    let parent = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
    };
    let ours = Some(run.pid());
    assert!(eventually(|| parent(orphan) == ours));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan), Signal::SIGKILL).unwrap();
    // Not even a zombie is left.
    assert!(eventually(|| parent(orphan).is_none()));
    run.send("go on");
    assert_eq!(run.code(), 0);
}

#[test]
fn a_leftover_that_leaves_the_group_meanwhile_is_killed_all_the_same() {
    // It leaves the group during the grace, and nothing announces that.
    let script = "(trap '' TERM; echo left $(exec sh -c 'echo $PPID'); sleep 0.2
        exec setsid sleep 60) & read line; exit 1";
    let options = ["--grace-period", "1", "--max-restarts", "0"];
    let words = options.into_iter().chain(["sh", "-c", script]);
    let mut run = Setup::new(words).start();
    let left = number_in(&run.said("left "));
    run.send("go on");
    run.logged(&["reason=leftovers"]);
    run.logged(&["killing", "processes=1"]);
    assert_eq!(run.code(), 1);
    assert!(!alive(left));
}

/// In a pid namespace of its own, where a process id can be given out again on purpose.
#[test]
fn a_stranger_with_the_number_of_a_group_that_is_gone_gets_no_signal() {
    let leftover = "(trap '' TERM; sleep 0.2; exec setsid sleep 60) & sleep 0.1; exit 1";
    let python = "import os, re, subprocess, sys, time\n\
        log = lambda: open('log').read()\n\
        supervisor = subprocess.Popen(sys.argv[1:], stderr=open('log', 'w'))\n\
        while 'leftovers' not in log(): time.sleep(0.01)\n\
        pid = int(re.search('started pid=([0-9]+)', log()).group(1))\n\
        try:\n    while True: os.killpg(pid, 0); time.sleep(0.01)\n\
        except ProcessLookupError: pass\n\
        open('/proc/sys/kernel/ns_last_pid', 'w').write(str(pid - 1))\n\
        stranger = subprocess.Popen(['sleep', '60'], start_new_session=True)\n\
        print('number', stranger.pid - pid)\n\
        supervisor.wait()\n\
        print('killed' if stranger.poll() else 'lives')\n\
        sys.stderr.write(log())";
    let namespace = [
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        "python3",
        "-c",
    ];
    let program = supervisor().to_str().unwrap();
    let command = [
        python,
        program,
        "--grace-period",
        "2",
        "--max-restarts",
        "0",
        "sh",
        "-c",
        leftover,
    ];
    let mut run = Setup::of("unshare".as_ref(), namespace.iter().chain(&command)).start();
    assert_eq!(run.said("number "), "number 0");
    run.said("lives");
    run.code();
    // It was the leftover that was killed.
    assert!(run.log().contains("killing"));
}
