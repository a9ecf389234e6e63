//! What the command says of itself (contract, section 9), and what somebody wants (section 11).

use super::*;
use crate::status::{Cause, Phase};
use crate::supervisor::{Notice, Wish};

fn notifying(timeout: u64, initial_delay: u64) -> Sim {
    let mut policy = with_heartbeat(timeout, initial_delay);
    policy.heartbeat.as_mut().unwrap().says_ready = true;
    Sim::new(policy)
}

impl Sim {
    fn says(&mut self, notice: Notice) {
        self.tell(Event::Notified(notice));
    }

    fn asked(&mut self, wish: Wish) {
        self.tell(Event::Asked(wish));
    }

    fn phase(&self) -> Phase {
        self.machine.status().phase
    }
}

#[test]
fn the_deadline_counts_from_ready_however_long_the_start_might_have_taken() {
    let mut sim = notifying(20, 100);
    assert_eq!(sim.phase(), Phase::Starting);
    assert_eq!(sim.deadline(), Some(seconds(120)));
    sim.pass(seconds(7));
    sim.says(Notice::Ready);
    assert_eq!(sim.phase(), Phase::Running);
    assert_eq!(sim.deadline(), Some(seconds(27)));
}

#[test]
fn more_time_is_for_the_start_and_for_the_end() {
    let mut sim = notifying(20, 0);
    sim.says(Notice::Extend(seconds(50)));
    assert_eq!(sim.deadline(), Some(seconds(50)));
    sim.says(Notice::Extend(seconds(1)));
    assert_eq!(sim.deadline(), Some(seconds(50)), "never less");
    sim.says(Notice::Ready);
    assert_eq!(sim.deadline(), Some(seconds(20)));
    sim.says(Notice::Extend(seconds(50)));
    assert_eq!(sim.deadline(), Some(seconds(20)));
    sim.says(Notice::Ending);
    assert_eq!(sim.phase(), Phase::Stopping);
    sim.says(Notice::Extend(seconds(50)));
    assert_eq!(sim.deadline(), Some(seconds(50)));
}

#[test]
fn who_is_ending_has_a_timeout_and_the_grace_at_least() {
    for (timeout, left) in [(20, 20), (2, 5)] {
        let mut sim = notifying(timeout, 0);
        sim.pass(seconds(1));
        sim.says(Notice::Ending);
        assert_eq!(sim.deadline(), Some(seconds(1 + left)));
        sim.exits(0);
        assert_eq!(sim.exit, Some(Exit(0)));
    }
}

#[test]
fn while_it_is_stopped_it_may_ask_for_more_time_and_a_second_signal_ends_that() {
    let mut sim = notifying(20, 0);
    sim.signal(Signal::SIGTERM);
    assert_eq!(sim.deadline(), Some(seconds(5)));
    sim.says(Notice::Extend(seconds(60)));
    assert_eq!(sim.deadline(), Some(seconds(60)));
    sim.says(Notice::Extend(seconds(1)));
    assert_eq!(sim.deadline(), Some(seconds(60)), "never less");
    sim.signal(Signal::SIGTERM);
    assert_eq!(sim.take(), ["spawn", "TERM", "KILL"]);
    sim.says(Notice::Extend(seconds(60)));
    assert_eq!(sim.deadline(), None);
}

#[test]
fn more_time_for_the_end_is_not_for_what_the_command_leaves_behind() {
    let mut sim = notifying(20, 0);
    sim.signal(Signal::SIGTERM);
    sim.says(Notice::Extend(seconds(3600)));
    sim.pass(seconds(10));
    sim.exits_leaving_something(0);
    assert_eq!(sim.deadline(), Some(seconds(15)), "the grace");
}

#[test]
fn a_timeout_that_it_sets_counts_from_then_and_for_this_run() {
    let mut sim = notifying(20, 0);
    sim.says(Notice::Ready);
    sim.pass(seconds(10));
    sim.says(Notice::Timeout(Some(seconds(3))));
    assert_eq!(sim.machine.timeout(), Some(seconds(3)));
    assert_eq!(sim.deadline(), Some(seconds(13)), "it has just been heard");
    sim.says(Notice::Timeout(None));
    assert_eq!((sim.deadline(), sim.machine.timeout()), (None, None));
    sim.says(Notice::Hung);
    assert_eq!(sim.take(), ["spawn"], "it wanted not to be judged");
    sim.exits(1);
    sim.pass(seconds(1));
    assert_eq!(sim.machine.timeout(), Some(seconds(20)));
}

#[test]
fn a_start_may_take_its_time_whatever_is_said_meanwhile() {
    let mut sim = notifying(20, 10);
    sim.says(Notice::Timeout(Some(seconds(1))));
    assert_eq!(sim.deadline(), Some(seconds(30)), "it is not ready yet");
    sim.beat();
    assert_eq!(
        (sim.phase(), sim.deadline()),
        (Phase::Running, Some(seconds(30)))
    );
    sim.says(Notice::Extend(seconds(50)));
    assert_eq!(
        sim.deadline(),
        Some(seconds(50)),
        "a beat does not end the start"
    );
    sim.pass(seconds(40));
    sim.says(Notice::Ready);
    assert_eq!(sim.deadline(), Some(seconds(41)));
}

#[test]
fn who_says_that_it_hangs_is_believed() {
    let mut sim = notifying(20, 100);
    sim.pass(seconds(2));
    sim.says(Notice::Hung);
    assert_eq!(sim.take(), ["spawn", "hung", "diagnose", "TERM"]);
    sim.exits(0);
    assert_eq!(sim.machine.status().counts.of(Cause::Heartbeat), 1);
}

#[test]
fn without_a_heartbeat_nothing_that_is_said_means_anything() {
    let mut sim = Sim::new(policy());
    for notice in [
        Notice::Ready,
        Notice::Hung,
        Notice::Ending,
        Notice::Timeout(Some(seconds(1))),
        Notice::Extend(seconds(1)),
    ] {
        sim.says(notice);
    }
    assert_eq!(sim.take(), ["spawn"]);
    assert_eq!((sim.deadline(), sim.phase()), (None, Phase::Running));
}

#[test]
fn a_hung_command_is_told_by_its_own_signal_and_only_then() {
    let hung_by = |signal| Policy {
        hang_signal: signal,
        ..with_heartbeat(20, 0)
    };
    let mut sim = Sim::new(hung_by(Signal::SIGABRT));
    sim.pass(seconds(26));
    assert_eq!(sim.take(), ["spawn", "hung", "diagnose", "ABRT", "KILL"]);
    let mut sim = Sim::new(hung_by(Signal::SIGABRT));
    sim.signal(Signal::SIGTERM);
    assert_eq!(sim.take(), ["spawn", "TERM"]);
    let mut sim = Sim::new(hung_by(Signal::SIGKILL));
    sim.pass(seconds(20));
    assert_eq!(sim.take(), ["spawn", "hung", "diagnose", "KILL"]);
    // What it left behind is told in the same way.
    let mut sim = Sim::new(hung_by(Signal::SIGABRT));
    sim.pass(seconds(20));
    sim.exits_leaving_something(0);
    let told = sim.take();
    assert_eq!(
        told.iter().filter(|done| *done == "ABRT").count(),
        2,
        "{told:?}"
    );
}

#[test]
fn a_restart_that_was_asked_for_is_no_failure_and_has_no_delay() {
    for end in [
        |sim: &mut Sim| sim.exits(0),
        |sim: &mut Sim| sim.exits(1),
        |sim: &mut Sim| sim.dies_of(15),
    ] {
        let mut sim = Sim::new(Policy {
            max_restarts: Some(0),
            ..policy()
        });
        sim.asked(Wish::Restart);
        assert_eq!(sim.phase(), Phase::Stopping);
        end(&mut sim);
        sim.pass(Duration::ZERO);
        let line = "restarting restart=0/0 delay=0.000s";
        assert_eq!(sim.take(), ["spawn", "TERM", line, "spawn"]);
        let status = sim.machine.status();
        assert_eq!((status.restarts, status.run, status.launched), (0, 2, 2));
        assert_eq!(status.counts.of(Cause::Requested), 1);
    }
}

#[test]
fn a_restart_that_was_asked_for_cuts_a_delay_short() {
    let mut sim = Sim::new(policy());
    sim.exits(1);
    assert_eq!(
        (sim.phase(), sim.machine.status().delay),
        (Phase::Backoff, seconds(1))
    );
    sim.asked(Wish::Restart);
    sim.pass(Duration::ZERO);
    assert_eq!(sim.take().last().unwrap(), "spawn");
    assert_eq!(sim.machine.status().restarts, 1, "that failure was one");
    sim.exits_leaving_something(1);
    sim.asked(Wish::Restart);
    sim.tell(Event::Cleared);
    sim.pass(Duration::ZERO);
    assert_eq!(sim.take().last().unwrap(), "spawn");
}

#[test]
fn who_asks_for_a_restart_of_a_hung_command_has_it_without_a_delay() {
    let mut sim = Sim::new(Policy {
        max_restarts: Some(0),
        ..with_heartbeat(20, 0)
    });
    sim.pass(seconds(20));
    sim.asked(Wish::Restart);
    sim.exits(0);
    sim.pass(Duration::ZERO);
    assert_eq!(sim.take().last().unwrap(), "spawn");
}

#[test]
fn nobody_can_ask_for_a_restart_of_what_is_ending() {
    let mut sim = Sim::new(policy());
    sim.signal(Signal::SIGTERM);
    assert!(sim.machine.status().is_ending);
    sim.asked(Wish::Restart);
    sim.exits_leaving_something(0);
    sim.asked(Wish::Restart);
    sim.tell(Event::Cleared);
    assert_eq!(sim.exit, Some(Exit(0)));
    sim.asked(Wish::Restart);
    assert_eq!(sim.take(), ["spawn", "TERM", "TERM"]);
}

#[test]
fn a_stop_wins_over_a_restart_that_is_under_way() {
    let mut sim = Sim::new(policy());
    sim.asked(Wish::Restart);
    sim.signal(Signal::SIGTERM);
    sim.exits(0);
    assert_eq!(sim.exit, Some(Exit(0)));
    assert_eq!(sim.take(), ["spawn", "TERM"], "its grace goes on");
}

#[test]
fn a_deadline_that_is_held_comes_a_whole_timeout_after_it_is_released() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.pass(seconds(19));
    sim.asked(Wish::Hold);
    assert_eq!((sim.phase(), sim.deadline()), (Phase::Paused, None));
    sim.pass(seconds(1000));
    sim.asked(Wish::Hold);
    sim.says(Notice::Hung);
    sim.asked(Wish::Release);
    assert_eq!(
        (sim.phase(), sim.deadline()),
        (Phase::Running, Some(seconds(1039)))
    );
    sim.pass(seconds(20));
    assert_eq!(sim.take(), ["spawn", "hung", "diagnose", "TERM"]);
}

#[test]
fn who_was_held_is_excused_all_the_same_when_both_were_frozen() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.asked(Wish::Hold);
    sim.asked(Wish::Release);
    sim.freeze(seconds(60));
    assert_eq!(sim.take(), ["spawn"]);
    assert_eq!(sim.deadline(), Some(seconds(80)));
}

#[test]
fn a_hold_lasts_over_a_restart_and_a_release_gives_nothing_to_who_was_not_held() {
    let mut sim = Sim::new(with_heartbeat(20, 0));
    sim.asked(Wish::Release);
    assert_eq!(sim.deadline(), Some(seconds(20)));
    sim.asked(Wish::Hold);
    sim.exits(1);
    assert_eq!(sim.phase(), Phase::Backoff);
    sim.pass(seconds(1));
    assert_eq!((sim.phase(), sim.deadline()), (Phase::Paused, None));
    sim.pass(seconds(100));
    sim.exits(1);
    sim.asked(Wish::Release);
    sim.pass(seconds(2));
    assert_eq!(sim.deadline(), Some(seconds(122)));
}

#[test]
fn a_beat_is_waited_for_from_where_the_deadline_is_counted() {
    let mut sim = Sim::new(with_heartbeat(20, 100));
    let awaited = |sim: &Sim| {
        sim.machine
            .awaited()
            .map(|(from, timeout)| (from - sim.start, timeout))
    };
    assert_eq!(awaited(&sim), Some((seconds(100), seconds(20))));
    sim.pass(seconds(110));
    sim.beat();
    assert_eq!(awaited(&sim), Some((seconds(110), seconds(20))));
    sim.pauses(seconds(7));
    assert_eq!(awaited(&sim), Some((seconds(117), seconds(20))));
    sim.asked(Wish::Hold);
    assert_eq!(awaited(&sim), None);
    sim.asked(Wish::Release);
    assert_eq!(awaited(&sim), Some((seconds(117), seconds(20))));
    sim.exits(1);
    assert_eq!(awaited(&sim), None);
}

#[test]
fn what_ended_a_run_and_why_there_was_another_is_known() {
    let mut sim = Sim::new(Policy {
        backoff_factor: Duration::ZERO,
        ..with_heartbeat(20, 0)
    });
    assert_eq!(sim.machine.status().last_exit, None);
    sim.exits(3);
    sim.pass(Duration::ZERO);
    sim.dies_of(11);
    sim.failing = vec![SpawnFailure::Temporary];
    sim.pass(Duration::ZERO);
    let status = sim.machine.status();
    assert!(matches!(
        status.last_exit,
        Some(Ended::Signal { number: 11, .. })
    ));
    assert_eq!((status.run, status.launched, status.restarts), (4, 4, 3));
    let counts = Cause::ALL.map(|cause| status.counts.of(cause));
    assert_eq!(counts, [1, 1, 0, 1, 0]);
}
