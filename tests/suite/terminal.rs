//! Section 6, in a terminal of its own: what is typed, who is stopped and continued, and how the
//! terminal is left.

use std::io::Write;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, getpgid, tcgetpgrp};

use crate::harness::*;
use crate::screen::*;

#[test]
fn the_command_reads_what_is_typed() {
    let mut screen = Screen::new(&[
        supervisor().to_str().unwrap(),
        "sh",
        "-c",
        "read line; echo \"<$line>\"",
    ]);
    screen.shows("started");
    screen.enters("typed here");
    screen.shows("<typed here>");
    assert_eq!(screen.code(), 0);
}

#[test]
fn ctrl_c_reaches_the_command_once_and_ends_both() {
    for (key, name, code) in [(CTRL_C, "SIGINT", 130), (CTRL_BACKSLASH, "SIGQUIT", 131)] {
        let mut screen = Screen::puppet(&[], &[]);
        screen.shows("ready ");
        screen.enters("trap INT QUIT TERM");
        screen.shows("did trap");
        screen.types(key);
        let lines = [format!("got {name}"), format!("name={name} action=stop")];
        let there = || lines.iter().all(|line| screen.everything().contains(line));
        assert!(eventually(there), "{}", screen.everything());
        // It gets the grace to heed it, and nothing else.
        screen.enters("exit 7");
        screen.shows("exited");
        screen.shows(&format!("finished code={code}"));
        assert_eq!(screen.code(), code);
        assert_eq!(
            screen.everything().matches("got ").count(),
            1,
            "{}",
            screen.everything()
        );
    }
}

#[test]
fn a_command_that_does_not_heed_ctrl_c_gets_sigterm_and_then_sigkill() {
    let mut screen = Screen::puppet(&["--grace-period", "0.3"], &["trap INT TERM"]);
    screen.shows("did trap");
    screen.types(CTRL_C);
    screen.shows("got SIGINT");
    screen.shows("got SIGTERM");
    screen.shows("killing");
    assert_eq!(screen.code(), 130);
    let all = screen.everything();
    assert!(
        between(stamped(&all, "stopping"), stamped(&all, "killing")) >= 0.599,
        "{all}"
    );
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    let mut screen = Screen::puppet(&["--grace-period", "1000"], &["trap INT TERM"]);
    screen.shows("did trap");
    screen.types(CTRL_C);
    screen.shows("action=stop");
    screen.types(CTRL_C);
    screen.shows("action=kill");
    assert_eq!(screen.code(), 130);
    assert!(!screen.everything().contains("got SIGTERM"));
}

#[test]
fn a_script_that_called_us_in_a_loop_stops_too() {
    for shell in ["bash", "dash"] {
        let script =
            "while :; do \"$SUPERVISOR\" sh -c 'echo here; exec sleep 1000'; echo code $?; done";
        let mut screen = Screen::new(&[shell, "-c", script]);
        screen.shows("here");
        screen.types(CTRL_C);
        // By the signal, which a shell would show as 130.
        let code = screen.code();
        assert_eq!(code, 1002, "{shell}\n{}", screen.everything());
        // (What was shown just before a Ctrl-C may be lost by it.)
        let all = screen.everything();
        assert_eq!(all.matches("finished").count(), 1, "{shell} {all}");
    }
}

#[test]
fn ctrl_c_during_the_delay_stops_the_script_too() {
    let script = "while :; do \"$SUPERVISOR\" --backoff-factor 1000 false; done";
    let mut screen = Screen::new(&["bash", "-c", script]);
    screen.shows("restarting");
    screen.types(CTRL_C);
    assert_eq!(screen.code(), 1002);
}

#[test]
fn a_loop_that_was_typed_at_the_prompt_stops_too() {
    let supervised = "\"$SUPERVISOR\" --backoff-factor 1000 sh -c 'echo he\"\"re;";
    for shell in ["bash", "dash"] {
        let mut screen = Screen::shell(shell);
        for line in [
            format!("while :; do {supervised} exec sleep 1000'; done"),
            format!("{supervised} exit 1'; echo go\"\"es on"),
        ] {
            screen.enters(&line);
            screen.shows("here");
            screen.types(CTRL_C);
            screen.shows("finished code=130");
            assert_eq!(screen.shell_tells_code(), 130, "{shell}: {line}");
        }
        assert!(!screen.everything().contains("goes on"), "{shell}");
    }
}

#[test]
fn ctrl_z_stops_both_and_fg_and_bg_continue_both() {
    for shell in ["bash", "dash"] {
        let mut screen = Screen::shell(shell);
        screen.enters("\"$SUPERVISOR\" \"$PUPPET\"");
        let command = number_in(&screen.shows("ready "));
        let both = [parent(command), command];
        for _ in 0..3 {
            screen.types(CTRL_Z);
            all_become(&both, 'T');
            screen.shows(PROMPT);
            screen.enters("fg");
            all_become(&both, 'S');
            // In the foreground it reads again.
            screen.enters("group");
            screen.shows("did group");
        }
        screen.types(CTRL_C);
        screen.shows("finished code=130");
        assert_eq!(screen.shell_tells_code(), 130, "{shell}");

        screen.enters("\"$SUPERVISOR\" \"$PUPPET\" </dev/null");
        let command = number_in(&screen.shows("ready "));
        let both = [parent(command), command];
        screen.types(CTRL_Z);
        all_become(&both, 'T');
        screen.shows(PROMPT);
        screen.enters("bg; echo 'now' in the background");
        screen.shows("now in the background");
        all_become(&both, 'S');
        screen.enters("fg");
        all_become(&both, 'S');
        let foreground = Ok(getpgid(Some(Pid::from_raw(command))).unwrap());
        assert!(eventually(|| tcgetpgrp(&screen.master) == foreground));
        screen.types(CTRL_C);
        screen.shows("finished code=130");
        assert_eq!(screen.shell_tells_code(), 130, "{shell}");
    }
}

#[test]
fn ctrl_z_while_nothing_runs_stops_us_and_fg_goes_on() {
    let mut screen = Screen::shell("bash");
    screen.enters("\"$SUPERVISOR\" --backoff-factor 1000 sh -c 'echo o\"\"urs $PPID; exit 1'");
    let ours = number_in(&screen.shows("ours "));
    screen.shows("restarting");
    screen.types(CTRL_Z);
    becomes(ours, 'T');
    screen.shows(PROMPT);
    screen.enters("fg");
    becomes(ours, 'S');
    screen.types(CTRL_C);
    screen.shows("finished code=130");
}

#[test]
fn continuing_us_alone_continues_the_command_too() {
    let mut screen = Screen::shell("bash");
    screen.enters("\"$SUPERVISOR\" \"$PUPPET\" </dev/null");
    let command = number_in(&screen.shows("ready "));
    let ours = parent(command);
    // Not by the terminal: by somebody who knows but our process.
    kill(Pid::from_raw(ours), Signal::SIGTSTP).unwrap();
    all_become(&[ours, command], 'T');
    kill(Pid::from_raw(ours), Signal::SIGCONT).unwrap();
    all_become(&[ours, command], 'S');
    kill(Pid::from_raw(ours), Signal::SIGTERM).unwrap();
    gone(ours);
}

#[test]
fn time_spent_stopped_by_ctrl_z_is_not_silence() {
    let mut screen = Screen::shell("bash");
    screen.enters("\"$SUPERVISOR\" --enable-heartbeat --timeout 2 \"$PUPPET\" beat");
    let command = number_in(&screen.shows("ready "));
    screen.shows("did beat");
    // Each longer than the timeout, and only one of them is excused to who was frozen.
    for _ in 0..2 {
        screen.types(CTRL_Z);
        becomes(command, 'T');
        let_pass(std::time::Duration::from_millis(2500));
        screen.shows(PROMPT);
        screen.enters("fg");
        becomes(command, 'S');
    }
    screen.enters("beat");
    screen.shows("did beat");
    // Nor does it keep the next hang from being found.
    screen.shows("heartbeat timeout");
    screen.types(CTRL_C);
    screen.shows("finished");
}

#[test]
fn fg_continues_the_command_once() {
    for shell in ["bash", "dash"] {
        let mut screen = Screen::shell(shell);
        screen.enters("\"$SUPERVISOR\" \"$PUPPET\"");
        let command = number_in(&screen.shows("ready "));
        screen.enters("trap CONT");
        screen.shows("did trap");
        screen.types(CTRL_Z);
        becomes(command, 'T');
        screen.shows(PROMPT);
        screen.enters("fg");
        screen.shows("got SIGCONT");
        screen.enters("group");
        screen.shows("did group");
        assert_eq!(screen.everything().matches("got SIGCONT").count(), 1);
    }
}

#[test]
fn a_foreground_that_died_is_taken_back() {
    // The first run takes the foreground for a group of its own and dies of SIGKILL; the second reads.
    let take = "import os, signal, sys\n\
        if os.path.exists('again'): print('<' + input() + '>'); sys.exit()\n\
        open('again', 'w'); signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n\
        os.setpgid(0, 0); os.tcsetpgrp(0, os.getpgrp()); os.kill(os.getpid(), 9)";
    let program = supervisor().to_str().unwrap();
    let mut screen = Screen::new(&[program, "--backoff-factor", "0", "python3", "-c", take]);
    screen.shows("run=2");
    screen.enters("typed here");
    screen.shows("<typed here>");
    assert_eq!(screen.code(), 0);
}

#[test]
fn the_terminal_is_left_as_it_was_however_the_command_left_it() {
    // It sets the terminal raw and dies of it; or it takes the foreground for a group of its own.
    let rows = [
        ("stty raw -echo; kill -9 $$", 137),
        ("stty raw -echo; exit 3", 3),
        ("stty -echo; exit 0", 0),
        (
            "set -m; bash --norc -c 'stty -echo -icanon; kill -9 0'; exit 4",
            4,
        ),
    ];
    for (script, code) in rows {
        let program = supervisor().to_str().unwrap();
        // It waits until it is told, so that the modes can be seen before.
        let script = format!("read line; {script}");
        let mut screen = Screen::new(&[program, "--max-restarts", "0", "bash", "-c", &script]);
        screen.shows("started");
        let before = tcgetattr(&screen.slave).unwrap();
        assert!(before.local_flags.contains(LocalFlags::ECHO));
        screen.enters("");
        assert_eq!(screen.code(), code, "{script}\n{}", screen.everything());
        let after = tcgetattr(&screen.slave).unwrap();
        assert!(before == after, "{script}: {before:?} {after:?}");
    }
}

#[test]
fn the_foreground_is_the_shells_again_after_an_interactive_shell_was_killed() {
    let mut screen = Screen::shell("bash");
    let inner = "PS1='inner> ' \"$SUPERVISOR\" --grace-period 0.1 bash --norc --noprofile -i";
    screen.enters(inner);
    screen.shows("inner> ");
    screen.enters("echo 'numbers' are $$ $PPID .");
    let line = screen.shows("numbers are ");
    let numbers: Vec<i32> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let foreground = tcgetpgrp(&screen.master).unwrap();
    assert_eq!(foreground.as_raw(), numbers[0], "it has the foreground now");
    kill(Pid::from_raw(numbers[1]), Signal::SIGTERM).unwrap();
    screen.shows("finished code=137");
    // The outer one reads again.
    assert_eq!(screen.shell_tells_code(), 137);
}

#[test]
fn the_neighbours_in_a_pipeline_are_left_alone() {
    let mut screen = Screen::shell("bash");
    let tell = "\"$SUPERVISOR\" --grace-period 0.1 sh -c 'trap \"\" TERM; echo in; sleep 1000 & wait; wait'";
    screen.enters(&format!(
        "{tell} 2>log | sh -c 'read x; echo neighbour $$ $x; cat; echo still here'"
    ));
    screen.shows("$x;");
    let neighbour = screen.shows("neighbour ");
    assert!(neighbour.ends_with(" in"), "{neighbour}");
    let log = || std::fs::read_to_string(screen.directory.join("log")).unwrap();
    assert!(eventually(|| log().contains("started")));
    let command: i32 = field(log().lines().next().unwrap(), "pid").parse().unwrap();
    kill(Pid::from_raw(parent(command)), Signal::SIGTERM).unwrap();
    screen.shows("still here");
    assert!(eventually(|| !alive(command)));
}

#[test]
fn in_the_background_the_command_is_stopped_when_it_reads_and_fg_lets_it_read() {
    let mut screen = Screen::shell("bash");
    screen.enters(
        "\"$SUPERVISOR\" --enable-heartbeat --timeout 1 sh -c 'read line; echo \"<$line>\"' &",
    );
    let line = screen.shows("started");
    let command: i32 = field(&line, "pid").parse().unwrap();
    all_become(&[command, parent(command)], 'T');
    // Only when it knows that does the shell continue it; and it tells with the next prompt.
    assert!(eventually(|| {
        screen.enters("");
        screen.everything().contains("Stopped")
    }));
    screen.enters("fg");
    becomes(command, 'S');
    screen.enters("typed here");
    screen.shows("<typed here>");
    screen.shows("finished code=0");
}

#[test]
fn a_command_that_signals_its_own_group_does_not_stop_us() {
    let program = supervisor().to_str().unwrap();
    // By itself; or two of it at once.
    let rows = [
        ("trap 'kill 0' EXIT; exit 3", 143),
        (
            "trap '' TERM; bash -c 'kill 0; sleep 0.3' & kill 0; wait; exit 3",
            3,
        ),
    ];
    for (script, expected) in rows {
        let options = [program, "--backoff-factor", "0", "--max-restarts", "2"];
        let words = options.into_iter().chain(["bash", "-c", script]);
        let mut screen = Screen::new(&words.collect::<Vec<_>>());
        let code = screen.code();
        let all = screen.everything();
        assert_eq!(code, expected, "{all}");
        assert!(
            all.contains(&format!("finished code={expected} runs=3")),
            "{all}"
        );
    }
}

#[test]
fn a_shell_in_it_may_stop_us() {
    let mut screen = Screen::shell("bash");
    let inner = "PS1='inner> ' \"$SUPERVISOR\" --grace-period 0.1 bash --norc --noprofile -i";
    screen.enters(inner);
    screen.shows("inner> ");
    screen.enters("kill $PPID");
    screen.shows("finished code=137");
}

#[test]
fn a_program_that_answers_ctrl_z_by_stopping_itself_is_followed() {
    let mut screen = Screen::shell("bash");
    let top = "import os, signal\nsignal.signal(signal.SIGTSTP, lambda *_: os.kill(os.getpid(), signal.SIGSTOP))\nprint('rea' + 'dy', os.getpid(), flush=True)\nwhile True: signal.pause()";
    std::fs::write(screen.directory.join("top.py"), top).unwrap();
    screen.enters("\"$SUPERVISOR\" python3 top.py");
    let command = number_in(&screen.shows("ready "));
    screen.types(CTRL_Z);
    screen.shows(PROMPT);
    all_become(&[command, parent(command)], 'T');
    screen.enters("fg");
    all_become(&[command, parent(command)], 'S');
    screen.types(CTRL_C);
    screen.shows("finished code=130");
}

#[test]
fn what_an_earlier_run_was_allowed_to_leave_is_not_the_next_runs() {
    let mut screen = Screen::shell("bash");
    // Each has a child in our group.
    let child = "echo listens $$; while :; do sleep 0.05; done";
    let script = "sh child & [ -e again ] && wait; sleep 0.2; : > again; exit 1";
    for (name, text) in [("child", child), ("script", script)] {
        std::fs::write(screen.directory.join(name), text).unwrap();
    }
    screen.enters("\"$SUPERVISOR\" --keep-descendants --backoff-factor 0 sh script");
    let first = number_in(&screen.shows("listens "));
    let second = number_in(&screen.shows("listens "));
    kill(Pid::from_raw(parent(parent(second))), Signal::SIGTERM).unwrap();
    screen.shows("finished code=0");
    gone(second);
    assert!(alive(first));
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
}

#[test]
fn ctrl_z_in_the_midst_of_restarts_hangs_nobody() {
    let mut screen = Screen::shell("bash");
    screen.enters("\"$SUPERVISOR\" --log-file log --backoff-factor 0 false");
    let path = screen.directory.join("log");
    let log = || std::fs::read_to_string(&path).unwrap_or_default();
    // What is typed before is the shell's, and Ctrl-Z takes the rest of it away.
    assert!(eventually(|| log().contains("started")));
    for _ in 0..10 {
        let_pass(std::time::Duration::from_millis(20));
        screen.types(CTRL_Z);
        screen.shows(PROMPT);
        screen.enters("fg");
        screen.shows("SUPERVISOR");
    }
    // (One that is typed before the shell has given us the terminal back is the shell's.)
    let mut master = screen.master.try_clone().unwrap();
    assert!(eventually(|| {
        master.write_all(CTRL_C.as_bytes()).unwrap();
        let_pass(std::time::Duration::from_millis(100));
        log().contains("finished code=130")
    }));
}

#[test]
fn the_modes_that_a_neighbour_in_the_pipeline_sets_are_left_to_it() {
    let mut screen = Screen::shell("dash");
    let left = "\"$SUPERVISOR\" --log-file log sh -c 'echo in; read line < go'";
    let right =
        "sh -c 'read line; stty -echo < /dev/tty; echo > go; cat; echo modes; read line < go'";
    screen.enters(&format!("mkfifo go; {left} | {right}; echo 'all' over"));
    screen.shows("modes");
    let log = || std::fs::read_to_string(screen.directory.join("log")).unwrap_or_default();
    assert!(eventually(|| log().contains("finished")));
    let modes = tcgetattr(&screen.slave).unwrap();
    assert!(!modes.local_flags.contains(LocalFlags::ECHO));
    std::fs::write(screen.directory.join("go"), "go\n").unwrap();
    screen.shows("all over");
}

#[test]
fn where_no_shell_could_continue_it_ctrl_z_stops_nobody_for_long() {
    // As the leader of a session: our group is orphaned, and the kernel lets nobody in it stop. The
    // command has the foreground for a group of its own, which is not.
    let take = "import os, signal, time\n\
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n\
        os.setpgid(0, 0); os.tcsetpgrp(0, os.getpgrp())\n\
        signal.signal(signal.SIGCONT, lambda *_: print('goes on', flush=True))\n\
        print('ready', os.getpid(), flush=True)\n\
        while True: signal.pause()";
    let program = supervisor().to_str().unwrap();
    let mut screen = Screen::new(&[program, "python3", "-c", take]);
    screen.shows("ready ");
    screen.types(CTRL_Z);
    screen.shows("action=suspend");
    screen.shows("goes on");
    screen.types(CTRL_C);
}

#[test]
fn continuing_us_continues_a_command_that_was_stopped_with_us() {
    let mut screen = Screen::shell("bash");
    screen.enters("\"$SUPERVISOR\" \"$PUPPET\" </dev/null");
    let command = number_in(&screen.shows("ready "));
    let ours = parent(command);
    let group = getpgid(Some(Pid::from_raw(command))).unwrap();
    // Not by the terminal, so that we do not follow it.
    killpg(group, Signal::SIGSTOP).unwrap();
    all_become(&[ours, command], 'T');
    kill(Pid::from_raw(ours), Signal::SIGCONT).unwrap();
    all_become(&[ours, command], 'S');
    kill(Pid::from_raw(ours), Signal::SIGTERM).unwrap();
    gone(ours);
}

#[test]
fn a_closed_terminal_ends_everything_in_it() {
    let mut screen = Screen::shell("bash");
    screen.enters("\"$SUPERVISOR\" --log-file log \"$PUPPET\" child");
    let command = number_in(&screen.shows("ready "));
    let child = number_in(&screen.shows("child "));
    let ours = parent(command);
    let log = screen.directory.join("log");
    screen.closes();
    for pid in [command, child, ours] {
        gone(pid);
    }
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("signal name=SIGHUP action=stop"), "{log}");
    assert!(log.contains("finished code=0"), "{log}");
}

#[test]
fn in_a_terminal_too_the_command_has_the_callers_descriptors_and_signals() {
    let look =
        "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ls /proc/self/fd | tr '\n' ' '; echo .";
    let script = format!("{look}; echo; echo ---; \"$SUPERVISOR\" sh -c \"{look}\" 2>/dev/null");
    let mut screen = Screen::new(&["sh", "-c", &script]);
    assert_eq!(screen.code(), 0);
    let all = screen.everything().replace('\r', "");
    let (bare, supervised) = all.split_once("\n---\n").unwrap();
    let [bare, supervised] = [bare, supervised].map(|text| {
        let lines = text
            .lines()
            .filter(|line| line.contains("Sig") || line.ends_with('.'));
        lines.collect::<Vec<_>>()
    });
    assert_eq!(bare.len(), 4, "{all}");
    assert_eq!(bare, supervised, "{all}");
}
