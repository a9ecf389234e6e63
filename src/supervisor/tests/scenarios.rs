//! Each rule of the contract's sections 2 to 5 that the machine decides, as a scenario.

use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};

use super::super::SETTLE;
use super::*;

#[test]
fn a_command_that_exits_0_is_finished() {
    let mut sim = Sim::new(policy());
    sim.exits(0);
    assert_eq!(sim.exit, Some(Exit(0)));
    assert_eq!(sim.take(), ["spawn"]);
    assert_eq!(sim.deadline(), None);
}

#[test]
fn without_a_heartbeat_there_is_nothing_to_wait_for() {
    let sim = Sim::new(policy());
    assert_eq!(sim.deadline(), None);
}

#[test]
fn failures_are_restarted_after_1_2_4_8_seconds() {
    let mut sim = Sim::new(policy());
    for (restart, delay) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        sim.take();
        sim.exits(1);
        let line = format!("restarting restart={restart}/unlimited delay={delay}.000s");
        assert_eq!(sim.take(), [line]);
        sim.pass(seconds(delay) - Duration::from_nanos(1));
        assert_eq!(sim.take(), [""; 0]);
        sim.pass(Duration::from_nanos(1));
        assert_eq!(sim.take(), ["spawn"]);
    }
}

#[test]
fn a_death_by_a_signal_nobody_asked_for_is_a_failure() {
    let mut sim = Sim::new(policy());
    sim.dies_of(9);
    sim.pass(seconds(1));
    assert_eq!(sim.take().last().unwrap(), "spawn");
}

#[test]
fn giving_up_answers_with_the_last_failure() {
    type Failure = fn(&mut Sim);
    let rows: [(Failure, u8); 5] = [
        (|sim| sim.exits(1), 1),
        (|sim| sim.exits(77), 77),
        (|sim| sim.exits(255), 255),
        (|sim| sim.dies_of(11), 139),
        (|sim| sim.dies_of(64), 192),
    ];
    for (fail, code) in rows {
        let limited = Policy {
            max_restarts: Some(2),
            ..policy()
        };
        let mut sim = Sim::new(limited);
        for _ in 0..2 {
            sim.exits(3);
            sim.pass(seconds(4));
        }
        assert_eq!(sim.exit, None);
        sim.take();
        fail(&mut sim);
        let line = format!("giving up restarts=2 code={code}");
        assert_eq!(sim.take(), [line]);
        assert_eq!(sim.exit, Some(Exit(code)));
    }
}

#[test]
fn no_restarts_means_one_run() {
    let mut sim = Sim::new(Policy {
        max_restarts: Some(0),
        ..policy()
    });
    sim.exits(9);
    assert_eq!(sim.exit, Some(Exit(9)));
    assert_eq!(sim.take(), ["spawn", "giving up restarts=0 code=9"]);
}

#[test]
fn a_long_run_starts_the_count_again() {
    for (uptime, second) in [
        (59, "2/5 delay=2"),
        (60, "1/5 delay=1"),
        (61, "1/5 delay=1"),
    ] {
        let mut sim = Sim::new(Policy {
            max_restarts: Some(5),
            ..policy()
        });
        sim.exits(1);
        sim.pass(seconds(1));
        sim.pass(seconds(uptime));
        sim.take();
        sim.exits(1);
        let line = format!("restarting restart={second}.000s");
        assert_eq!(sim.take(), [line], "after {uptime} s");
    }
}

#[test]
fn with_reset_after_0_the_count_is_never_reset() {
    let mut sim = Sim::new(Policy {
        max_restarts: Some(1),
        reset_after: None,
        ..policy()
    });
    sim.exits(1);
    sim.pass(seconds(1_000_000));
    sim.exits(1);
    assert_eq!(sim.exit, Some(Exit(1)));
}

#[test]
fn a_command_that_never_could_be_launched_ends_it_at_once() {
    for (kind, code) in [
        (SpawnFailure::NotFound, 127),
        (SpawnFailure::NotExecutable, 126),
    ] {
        let mut sim = Sim::before_the_first_launch(policy());
        sim.failing = vec![kind];
        sim.perform(vec![Action::Spawn]);
        assert_eq!(sim.exit, Some(Exit(code)));
    }
}

#[test]
fn a_first_launch_that_fails_for_now_is_tried_again() {
    let mut sim = Sim::before_the_first_launch(policy());
    sim.failing = vec![SpawnFailure::Temporary; 2];
    sim.perform(vec![Action::Spawn]);
    assert_eq!(
        sim.take(),
        [
            "spawn failed",
            "restarting restart=1/unlimited delay=1.000s"
        ]
    );
    sim.pass(seconds(3));
    let second = "restarting restart=2/unlimited delay=2.000s";
    assert_eq!(sim.take(), ["spawn failed", second, "spawn"]);
    assert_eq!(sim.exit, None);
}

#[test]
fn a_later_launch_that_fails_is_backed_off_and_counted() {
    for (kind, code) in [
        (SpawnFailure::NotFound, 127),
        (SpawnFailure::NotExecutable, 126),
        (SpawnFailure::Temporary, 126),
    ] {
        let mut sim = Sim::new(Policy {
            max_restarts: Some(3),
            ..policy()
        });
        sim.exits(1);
        sim.failing = vec![kind; 3];
        sim.pass(seconds(1 + 2));
        assert_eq!(sim.exit, None);
        sim.pass(seconds(4));
        assert_eq!(sim.exit, Some(Exit(code)));
    }
}

#[test]
fn the_deadline_is_the_later_of_last_beat_and_delayed_launch_plus_timeout() {
    let mut sim = Sim::new(with_heartbeat(20, 30));
    assert_eq!(sim.deadline(), Some(seconds(50)));
    sim.pass(seconds(10));
    sim.beat();
    assert_eq!(sim.deadline(), Some(seconds(50)), "a beat in the delay");
    sim.pass(seconds(25));
    sim.beat();
    assert_eq!(sim.deadline(), Some(seconds(55)), "a beat after it");
}

#[test]
fn a_silent_command_is_terminated_then_killed() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pass(seconds(20) - Duration::from_nanos(1));
    assert_eq!(sim.take(), ["spawn"]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
    sim.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(sim.take(), [""; 0]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["KILL"]);
    sim.dies_of(9);
    assert_eq!(sim.take(), ["restarting restart=1/unlimited delay=1.000s"]);
}

#[test]
fn a_hung_command_that_exits_0_when_told_to_end_is_restarted() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pass(seconds(20));
    sim.exits(0);
    assert_eq!(sim.exit, None);
    sim.pass(seconds(1));
    assert_eq!(sim.take().last().unwrap(), "spawn");
}

#[test]
fn giving_up_on_a_hung_command_answers_124() {
    let mut sim = Sim::new(Policy {
        max_restarts: Some(0),
        ..with_heartbeat(20, 0)
    });
    sim.pass(seconds(20));
    sim.exits(0);
    assert_eq!(sim.exit, Some(Exit(124)));
}

#[test]
fn each_beat_moves_the_deadline() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    for _ in 0..100 {
        sim.pass(seconds(19));
        sim.beat();
    }
    assert_eq!(sim.take(), ["spawn"]);
    sim.pass(seconds(20));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
}

#[test]
fn a_beat_that_only_the_last_look_finds_saves_the_command() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.changed_unseen = true;
    sim.pass(seconds(39));
    assert_eq!(sim.take(), ["spawn"]);
    sim.pass(seconds(1));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
}

#[test]
fn a_beat_of_the_run_before_does_not_count_for_the_next() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pass(seconds(5));
    let old = sim.now;
    sim.exits(1);
    sim.pass(seconds(1));
    sim.tell(Event::Beat { at: old });
    assert_eq!(sim.deadline(), Some(seconds(26)));
    sim.take();
    sim.pass(seconds(20));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
}

#[test]
fn a_judge_who_comes_late_gives_one_more_timeout_once_per_silence() {
    let mut sim = Sim::new(with_heartbeat(10, 0));
    sim.beat();
    sim.freeze(seconds(30));
    assert_eq!(sim.take(), ["spawn"]);
    assert_eq!(sim.deadline(), Some(seconds(40)));
    sim.freeze(seconds(30));
    sim.pass(Duration::from_millis(100));
    assert_eq!(
        sim.take(),
        ["hung", "diagnose", "TERM"],
        "the second time is no excuse"
    );
}

#[test]
fn a_beat_makes_the_next_silence_excusable_again() {
    let mut sim = Sim::new(with_heartbeat(10, 0));
    for _ in 0..3 {
        sim.freeze(seconds(30));
        sim.pass(seconds(5));
        sim.beat();
    }
    assert_eq!(sim.take(), ["spawn"]);
    sim.pass(seconds(10));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
}

#[test]
fn a_judge_who_is_late_by_no_more_than_a_tenth_looks_a_second_time_and_has_no_excuse() {
    for (timeout, late, moment) in [
        (10, Duration::from_secs(1), Duration::from_millis(100)),
        (1, Duration::from_millis(100), Duration::from_millis(10)),
        (1, Duration::from_millis(4), Duration::from_millis(10)),
        (20, Duration::from_millis(23), Duration::from_millis(200)),
    ] {
        let mut sim = Sim::new(with_heartbeat(timeout, 0));
        sim.freeze(seconds(timeout) + late);
        assert_eq!(sim.take(), ["spawn"]);
        sim.pass(moment - Duration::from_nanos(1));
        assert_eq!(sim.take(), [""; 0]);
        sim.pass(Duration::from_nanos(1));
        assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
    }
    // Punctual, as far as a poll can be.
    for (timeout, late) in [(1, 3), (20, 22)] {
        let mut sim = Sim::new(with_heartbeat(timeout, 0));
        sim.freeze(seconds(timeout) + Duration::from_millis(late));
        assert_eq!(sim.take(), ["spawn", "hung", "diagnose", "TERM"]);
    }
}

#[test]
fn a_look_in_doubt_is_repeated_a_moment_later() {
    for timeout in [1, 20] {
        let mut sim = Sim::new(with_heartbeat(timeout, 0));
        sim.in_doubt = true;
        sim.pass(seconds(timeout) + Duration::from_millis(5) - Duration::from_nanos(1));
        assert_eq!(sim.take(), ["spawn"]);
        sim.pass(Duration::from_nanos(1));
        assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
    }
}

#[test]
fn a_beat_that_is_told_just_after_a_late_look_saves_the_command() {
    let mut sim = Sim::new(with_heartbeat(10, 0));
    // It left no mark for the look to find.
    sim.freeze(seconds(10) + Duration::from_millis(50));
    sim.pass(Duration::from_millis(99));
    sim.beat();
    sim.pass(seconds(10) - Duration::from_nanos(1));
    assert_eq!(sim.take(), ["spawn"]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
}

#[test]
fn a_stop_terminates_and_finishes() {
    for (signal, code) in [(SIGTERM, 0), (SIGHUP, 0), (SIGINT, 130), (SIGQUIT, 131)] {
        for ending in [0, 1, 143] {
            let mut sim = Sim::new(policy());
            sim.signal(signal);
            assert_eq!(sim.take(), ["spawn", "TERM"]);
            sim.exits(ending);
            assert_eq!(sim.exit, Some(Exit(code)), "{signal}");
        }
    }
}

#[test]
fn a_stop_that_ends_in_sigkill_answers_137_after_sigterm() {
    for (signal, code) in [(SIGTERM, 137), (SIGHUP, 137), (SIGINT, 130), (SIGQUIT, 131)] {
        let mut sim = Sim::new(policy());
        sim.signal(signal);
        sim.pass(seconds(5));
        assert_eq!(sim.take(), ["spawn", "TERM", "KILL"]);
        sim.dies_of(9);
        assert_eq!(sim.exit, Some(Exit(code)), "{signal}");
    }
}

#[test]
fn without_grace_sigkill_comes_at_once() {
    let mut sim = Sim::new(Policy {
        grace: Duration::ZERO,
        ..policy()
    });
    sim.signal(SIGTERM);
    assert_eq!(sim.take(), ["spawn", "KILL"]);
    sim.dies_of(9);
    assert_eq!(sim.exit, Some(Exit(137)));
}

#[test]
fn a_second_stop_kills_at_once_and_only_once() {
    let mut sim = Sim::new(policy());
    sim.signal(SIGTERM);
    sim.signal(SIGTERM);
    sim.signal(SIGINT);
    sim.pass(seconds(100));
    assert_eq!(sim.take(), ["spawn", "TERM", "KILL"]);
    sim.dies_of(9);
    assert_eq!(sim.exit, Some(Exit(137)));
}

#[test]
fn a_stop_during_backoff_finishes_at_once() {
    for (signal, code) in [(SIGTERM, 0), (SIGINT, 130)] {
        let mut sim = Sim::new(policy());
        sim.exits(1);
        sim.signal(signal);
        assert_eq!(sim.exit, Some(Exit(code)));
    }
}

#[test]
fn a_stop_while_a_hung_command_is_stopped_keeps_its_grace() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pass(seconds(22));
    sim.signal(SIGTERM);
    assert_eq!(sim.take(), ["spawn", "hung", "diagnose", "TERM"]);
    sim.exits(0);
    assert_eq!(sim.exit, Some(Exit(0)));
}

#[test]
fn a_stop_before_the_launch_is_answered_is_not_lost() {
    let mut sim = Sim::before_the_first_launch(policy());
    sim.signal(SIGTERM);
    sim.perform(vec![Action::Spawn]);
    assert_eq!(sim.take(), ["spawn", "TERM"]);

    let mut sim = Sim::before_the_first_launch(policy());
    sim.failing = vec![SpawnFailure::Temporary];
    sim.signal(SIGTERM);
    sim.perform(vec![Action::Spawn]);
    assert_eq!(sim.exit, Some(Exit(0)));
}

#[test]
fn leftovers_of_a_crash_are_terminated_killed_and_waited_for() {
    let mut sim = Sim::new(policy());
    sim.exits_leaving_something(1);
    let restarting = "restarting restart=1/unlimited delay=1.000s";
    assert_eq!(sim.take(), ["spawn", "TERM", restarting]);
    sim.pass(seconds(4));
    assert_eq!(sim.take(), [""; 0], "the delay is over, they are not gone");
    sim.pass(seconds(1));
    assert_eq!(sim.take(), ["KILL"]);
    sim.tell(Event::Cleared);
    sim.pass(Duration::ZERO);
    assert_eq!(sim.take(), ["spawn"]);
}

#[test]
fn the_delay_counts_from_the_end_of_the_command_not_of_its_leftovers() {
    let mut sim = Sim::new(policy());
    sim.exits_leaving_something(1);
    sim.pass(Duration::from_millis(400));
    sim.tell(Event::Cleared);
    assert_eq!(sim.deadline(), Some(seconds(1)));
}

#[test]
fn leftovers_that_nobody_announces_do_not_hold_up_the_restart() {
    let mut sim = Sim::new(policy());
    sim.exits_leaving_something(1);
    sim.pass(seconds(5) + SETTLE);
    assert_eq!(sim.take().last().unwrap(), "spawn");
}

#[test]
fn leftovers_are_cleared_before_the_supervisor_ends_and_leave_its_code() {
    let mut sim = Sim::new(policy());
    sim.exits_leaving_something(0);
    assert_eq!(sim.exit, None);
    sim.pass(seconds(5));
    assert_eq!(sim.take(), ["spawn", "TERM", "KILL"]);
    sim.tell(Event::Cleared);
    assert_eq!(sim.exit, Some(Exit(0)));

    // A stop in which only leftovers had to be killed is a stop within the grace.
    let mut sim = Sim::new(policy());
    sim.signal(SIGTERM);
    sim.exits_leaving_something(0);
    sim.pass(seconds(5));
    assert_eq!(sim.take(), ["spawn", "TERM", "TERM", "KILL"]);
    sim.tell(Event::Cleared);
    assert_eq!(sim.exit, Some(Exit(0)));
}

#[test]
fn a_stop_while_leftovers_are_cleared_cancels_the_restart() {
    let mut sim = Sim::new(policy());
    sim.exits_leaving_something(1);
    sim.signal(SIGTERM);
    assert_eq!(
        sim.take().last().unwrap(),
        "restarting restart=1/unlimited delay=1.000s"
    );
    sim.signal(SIGTERM);
    assert_eq!(sim.take(), ["KILL"]);
    sim.tell(Event::Cleared);
    assert_eq!(sim.exit, Some(Exit(0)));
}

#[test]
fn other_signals_are_forwarded_while_there_is_a_command() {
    let mut sim = Sim::new(policy());
    sim.tell(Event::Forward { signal: SIGUSR1 });
    assert_eq!(sim.take(), ["spawn", "forward SIGUSR1"]);
    sim.exits(1);
    sim.take();
    sim.tell(Event::Forward { signal: SIGUSR1 });
    assert_eq!(sim.take(), [""; 0]);
}

#[test]
fn a_command_that_the_terminal_told_gets_the_grace_before_sigterm_and_again_before_sigkill() {
    let mut sim = Sim::new(policy());
    sim.typed(SIGINT);
    sim.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(sim.take(), ["spawn"]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["TERM"]);
    sim.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(sim.take(), [""; 0]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["KILL"]);
    sim.dies_of(9);
    assert_eq!(sim.exit, Some(Exit(130)));
}

#[test]
fn a_command_that_heeds_the_terminal_is_told_nothing_else() {
    for (signal, code) in [(SIGINT, 130), (SIGQUIT, 131)] {
        let mut sim = Sim::new(policy());
        sim.typed(signal);
        sim.pass(seconds(1));
        sim.exits(1);
        assert_eq!(sim.take(), ["spawn"]);
        assert_eq!(sim.exit, Some(Exit(code)));
    }
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    let mut sim = Sim::new(policy());
    sim.typed(SIGINT);
    sim.pass(seconds(1));
    sim.typed(SIGINT);
    assert_eq!(sim.take(), ["spawn", "KILL"]);
}

#[test]
fn ctrl_c_without_grace_kills_at_once() {
    let mut sim = Sim::new(Policy {
        grace: Duration::ZERO,
        ..policy()
    });
    sim.typed(SIGINT);
    assert_eq!(sim.take(), ["spawn", "KILL"]);
}

#[test]
fn leftovers_of_a_command_that_heeded_the_terminal_have_a_grace_of_their_own() {
    let mut sim = Sim::new(policy());
    sim.typed(SIGINT);
    sim.pass(seconds(3));
    sim.exits_leaving_something(0);
    assert_eq!(sim.take(), ["spawn", "TERM"]);
    sim.pass(seconds(5) - Duration::from_nanos(1));
    assert_eq!(sim.take(), [""; 0]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["KILL"]);
    sim.tell(Event::Cleared);
    assert_eq!(sim.exit, Some(Exit(130)));
}

#[test]
fn time_stopped_by_the_terminal_is_not_silence() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pass(seconds(15));
    sim.pauses(seconds(1000));
    sim.pass(seconds(4));
    sim.pauses(seconds(7));
    assert_eq!(sim.take(), ["spawn", "suspend", "suspend"]);
    sim.pass(seconds(1) - Duration::from_nanos(1));
    assert_eq!(sim.take(), [""; 0]);
    sim.pass(Duration::from_nanos(1));
    assert_eq!(sim.take(), ["hung", "diagnose", "TERM"]);
}

#[test]
fn a_beat_after_the_pause_counts_from_itself() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pauses(seconds(1000));
    sim.pass(seconds(5));
    sim.beat();
    assert_eq!(sim.deadline(), Some(seconds(1025)));
}

#[test]
fn a_beat_from_within_the_pause_keeps_the_rest_of_it() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pauses(seconds(100));
    // It was made in the moment between the stop and its being noticed.
    let at = sim.start + seconds(1);
    sim.tell(Event::Beat { at });
    assert_eq!(sim.deadline(), Some(seconds(1 + 99 + 20)));
}

#[test]
fn while_nothing_runs_ctrl_z_stops_the_supervisor_alone() {
    let mut sim = Sim::new(policy());
    let told = false;
    sim.tell(Event::Suspend { told });
    assert_eq!(sim.take(), ["spawn", "forward SIGTSTP"]);
    sim.tell(Event::Suspend { told: true });
    assert_eq!(sim.take(), [""; 0]);
    sim.exits(1);
    sim.take();
    sim.tell(Event::Suspend { told });
    assert_eq!(sim.take(), ["suspend"]);
}

#[test]
fn a_command_that_is_told_to_end_is_not_waited_for_because_it_is_stopped() {
    let mut sim = Sim::new(policy());
    sim.signal(SIGTERM);
    let signal = Signal::SIGTTIN;
    sim.tell(Event::Paused { signal });
    sim.pass(seconds(5));
    assert_eq!(sim.take(), ["spawn", "TERM", "KILL"]);
}

#[test]
fn a_hangup_that_is_told_twice_is_one() {
    let mut sim = Sim::new(policy());
    sim.signal(SIGHUP);
    sim.signal(SIGHUP);
    assert_eq!(sim.take(), ["spawn", "TERM"]);
    sim.signal(SIGTERM);
    assert_eq!(sim.take(), ["KILL"]);
}
