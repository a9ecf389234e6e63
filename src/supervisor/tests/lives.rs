//! No life of a healthy command ends in a kill, and no silence is missed.

use proptest::prelude::*;

use super::properties::config;
use super::*;

/// A command that beats in time, and a supervisor that sees it or does not run.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// A beat, this part of the timeout after the one before. Only the last look finds it where
    /// its event was lost.
    Beat { gap: f64, lost: bool },
    /// The supervisor is stopped for so many timeouts, the command goes on beating; the last of
    /// these beats is this part of a timeout old when the supervisor is continued.
    Deaf {
        timeouts: f64,
        last: f64,
        lost: bool,
    },
    /// Both stand still for so many timeouts; then the next beat takes its time.
    Frozen { timeouts: f64, next: f64 },
    /// The terminal stops both, this part of a timeout after the last beat, for so many timeouts; the
    /// next beat comes when this part of what was left is over.
    Paused {
        after: f64,
        timeouts: f64,
        next: f64,
    },
}

fn moment() -> impl Strategy<Value = Moment> {
    // Up to the last thousandth of a timeout.
    let part = || prop_oneof![0.0..0.999, Just(0.0), Just(0.999)];
    prop_oneof![
        6 => (part(), any::<bool>()).prop_map(|(gap, lost)| Moment::Beat { gap, lost }),
        2 => (0.0..4.0, part(), any::<bool>())
            .prop_map(|(timeouts, last, lost)| Moment::Deaf { timeouts, last, lost }),
        1 => (1.101..4.0, part()).prop_map(|(timeouts, next)| Moment::Frozen { timeouts, next }),
        1 => (part(), 0.0..4.0, part())
            .prop_map(|(after, timeouts, next)| Moment::Paused { after, timeouts, next }),
    ]
}

/// Lets the command live through it. Wherever the events of its beats were lost, a look finds the
/// last of them.
fn live_through(sim: &mut Sim, timeout: Duration, moment: Moment) {
    let beat = |sim: &mut Sim, lost: bool| {
        if lost {
            sim.changed_unseen = true;
        } else {
            sim.changed_unseen = false;
            sim.beat();
        }
    };
    match moment {
        Moment::Beat { gap, lost } => {
            sim.pass(timeout.mul_f64(gap));
            beat(sim, lost);
        }
        Moment::Deaf {
            timeouts,
            last,
            lost,
        } => {
            // Its own beats in between keep it healthy, whatever the length.
            let deaf = timeout.mul_f64(timeouts);
            let silent_at_the_end = timeout.mul_f64(last).min(deaf);
            sim.now += deaf;
            // Pending evidence first: the beat waits in the queue, or can be seen at the file.
            beat(sim, lost);
            sim.freeze(Duration::ZERO);
            sim.pass(timeout.mul_f64(0.999) - silent_at_the_end.min(timeout.mul_f64(0.999)));
            beat(sim, false);
        }
        Moment::Paused {
            after,
            timeouts,
            next,
        } => {
            sim.pass(timeout.mul_f64(after));
            sim.pauses(timeout.mul_f64(timeouts));
            sim.pass(timeout.mul_f64((1.0 - after) * next));
            beat(sim, false);
        }
        Moment::Frozen { timeouts, next } => {
            sim.freeze(timeout.mul_f64(timeouts));
            sim.pass(timeout.mul_f64(next));
            beat(sim, false);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_command_that_beats_in_time_is_never_killed(
        timeout in 1000..60_000u64,
        moments in prop::collection::vec(moment(), 1..60),
    ) {
        let timeout = Duration::from_millis(timeout);
        let mut sim = Sim::new(Policy {
            heartbeat: Some(Heartbeat { timeout, initial_delay: Duration::ZERO, says_ready: false }),
            ..policy()
        });
        for moment in &moments {
            live_through(&mut sim, timeout, *moment);
            sim.done.retain(|done| done != "suspend");
            prop_assert_eq!(&sim.done, &["spawn"], "{:?}", moment);
        }
    }

    #[test]
    fn a_command_that_hangs_is_always_found_within_two_timeouts(
        timeout in 1000..60_000u64,
        delay in 0..10_000u64,
        moments in prop::collection::vec(moment(), 0..30),
        frozen in prop::option::of(0.0..10.0),
    ) {
        let [timeout, initial_delay] = [timeout, delay].map(Duration::from_millis);
        let mut sim = Sim::new(Policy {
            heartbeat: Some(Heartbeat { timeout, initial_delay, says_ready: false }),
            ..policy()
        });
        // It hangs in the initial delay, or comes to life after it.
        if !moments.is_empty() {
            sim.pass(initial_delay);
            sim.beat();
        }
        for moment in &moments {
            live_through(&mut sim, timeout, *moment);
        }
        sim.take();
        if let Some(frozen) = frozen {
            sim.freeze(timeout.mul_f64(frozen));
        }
        let delay_left = (sim.start + initial_delay).saturating_duration_since(sim.now);
        sim.pass(delay_left + timeout * 2);
        let done = sim.take();
        prop_assert!(done.starts_with(&["hung".into(), "diagnose".into(), "TERM".into()]), "{done:?}");
    }
}
