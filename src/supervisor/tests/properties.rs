//! What holds for every sequence of events.

use proptest::prelude::*;

use super::super::{Notice, SETTLE, Wish};
use super::*;

/// What the world may do next.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Freeze(u64),
    Beat,
    UnseenBeat,
    Exit {
        code: u8,
        leftovers: bool,
    },
    Die(i32),
    Cleared,
    Stop(Signal),
    /// By the terminal, which tells the command, too.
    Typed(Signal),
    Pause(u64),
    Forward,
    FailLaunches(usize),
    Notified(Notice),
    Restart,
    Hold(bool),
    /// What can reach the machine at any time without meaning anything.
    Stray(Stray),
}

#[derive(Clone, Copy, Debug)]
enum Stray {
    Timeout,
    Looked,
    OldBeat,
    Cleared,
}

fn step() -> impl Strategy<Value = Step> {
    let stops = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
    ];
    prop_oneof![
        4 => (0..40_000u64).prop_map(Step::Pass),
        1 => (0..100_000u64).prop_map(Step::Freeze),
        4 => Just(Step::Beat),
        1 => Just(Step::UnseenBeat),
        4 => (0..=3u8, any::<bool>()).prop_map(|(code, leftovers)| Step::Exit { code, leftovers }),
        1 => (1..=64i32).prop_map(Step::Die),
        3 => Just(Step::Cleared),
        1 => prop::sample::select(stops.to_vec()).prop_map(Step::Stop),
        1 => prop::sample::select(stops[1..3].to_vec()).prop_map(Step::Typed),
        1 => (0..100_000u64).prop_map(Step::Pause),
        1 => Just(Step::Forward),
        1 => (1..4usize).prop_map(Step::FailLaunches),
        2 => notice().prop_map(Step::Notified),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => prop::sample::select(vec![Stray::Timeout, Stray::Looked, Stray::OldBeat, Stray::Cleared])
            .prop_map(Step::Stray),
    ]
}

fn notice() -> impl Strategy<Value = Notice> {
    let time =
        || prop_oneof![9 => 1..60_000u64, 1 => Just(LONGEST)].prop_map(Duration::from_millis);
    prop_oneof![
        Just(Notice::Ready),
        prop::option::of(time()).prop_map(Notice::Timeout),
        time().prop_map(Notice::Extend),
        Just(Notice::Ending),
        Just(Notice::Hung),
    ]
}

/// The longest time that an option takes, in milliseconds.
const LONGEST: u64 = 1_000_000_000_000;

fn any_policy() -> impl Strategy<Value = Policy> {
    (
        // To the limits of the options: 1e9 s.
        prop::option::of((
            prop_oneof![9 => 1..60_000u64, 1 => Just(LONGEST)],
            prop_oneof![9 => 0..10_000u64, 1 => Just(LONGEST)],
        )),
        prop::sample::select(vec![0, 1, 5000, LONGEST]),
        prop::sample::select(vec![None, Some(0), Some(1), Some(3), Some(u64::MAX)]),
        prop::sample::select(vec![0, 10, 1000, LONGEST]),
        prop::sample::select(vec![0.0, 0.3, 1.0]),
        prop::sample::select(vec![None, Some(seconds(10))]),
    )
        .prop_map(
            |(heartbeat, grace, max_restarts, factor, jitter, reset_after)| Policy {
                grace: Duration::from_millis(grace),
                max_restarts,
                backoff_factor: Duration::from_millis(factor),
                max_backoff: seconds(60),
                jitter,
                reset_after,
                heartbeat: heartbeat.map(|(timeout, delay)| Heartbeat {
                    timeout: Duration::from_millis(timeout),
                    initial_delay: Duration::from_millis(delay),
                    says_ready: false,
                }),
                hang_signal: Signal::SIGTERM,
            },
        )
}

/// What is true of the world: the machine is told only what can happen in it.
struct World {
    sim: Sim,
    policy: Policy,
    last_sign: Instant,
    alive: bool,
    leftovers: bool,
    terminated_at: Option<Instant>,
    stops: u32,
    /// The timeout of this run; None: it wants none.
    timeout: Option<Duration>,
    /// It has said itself that it hangs.
    confessed: bool,
    held: bool,
}

impl World {
    fn new(policy: Policy) -> Self {
        let sim = Sim::new(policy.clone());
        let mut world = Self {
            last_sign: sim.now,
            sim,
            policy,
            alive: false,
            leftovers: false,
            terminated_at: None,
            stops: 0,
            timeout: None,
            confessed: false,
            held: false,
        };
        world.check();
        world
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(ms) => self.pass(Duration::from_millis(ms)),
            Step::Freeze(ms) => {
                self.sim.freeze(Duration::from_millis(ms));
                self.check();
            }
            Step::Beat => {
                self.last_sign = self.sim.now;
                self.sim.beat();
            }
            Step::UnseenBeat => {
                self.last_sign = self.sim.now;
                self.sim.changed_unseen = true;
            }
            Step::Exit { code, leftovers } => self.end(Ended::Code(code), leftovers),
            Step::Die(number) => self.end(
                Ended::Signal {
                    number,
                    core: false,
                },
                false,
            ),
            Step::Cleared if self.leftovers => {
                self.leftovers = false;
                self.sim.tell(Event::Cleared);
            }
            Step::Stop(signal) => {
                self.stops += 1;
                self.sim.signal(signal);
            }
            Step::Typed(signal) => {
                self.stops += 1;
                self.sim.typed(signal);
            }
            Step::Pause(ms) if self.alive => {
                let time = Duration::from_millis(ms);
                self.sim.pauses(time);
                self.last_sign += time;
            }
            Step::Pause(_) => {}
            Step::Forward => self.sim.tell(Event::Forward {
                signal: Signal::SIGUSR2,
            }),
            Step::FailLaunches(count) => self.sim.failing = vec![SpawnFailure::NotFound; count],
            Step::Cleared => {}
            Step::Notified(notice) => {
                match notice {
                    Notice::Ready | Notice::Ending if self.alive => self.last_sign = self.sim.now,
                    Notice::Timeout(timeout) if self.alive => self.timeout = timeout,
                    Notice::Hung => self.confessed = self.alive,
                    Notice::Ready | Notice::Ending | Notice::Timeout(_) | Notice::Extend(_) => {}
                }
                self.sim.tell(Event::Notified(notice));
                self.check();
                self.confessed = false;
            }
            Step::Restart => self.sim.tell(Event::Asked(Wish::Restart)),
            Step::Hold(held) => {
                self.held = held;
                let wish = if held { Wish::Hold } else { Wish::Release };
                self.sim.tell(Event::Asked(wish));
            }
            Step::Stray(Stray::Timeout) => self.sim.tell(Event::Timeout),
            Step::Stray(Stray::Looked) => self.sim.tell(Event::Looked { in_doubt: false }),
            Step::Stray(Stray::OldBeat) => {
                let at = self.sim.start - seconds(1);
                self.sim.tell(Event::Beat { at });
            }
            Step::Stray(Stray::Cleared) if !self.leftovers => self.sim.tell(Event::Cleared),
            Step::Stray(Stray::Cleared) => {}
        }
        self.check();
    }

    /// Deadline by deadline, so that each action is checked at its own time.
    fn pass(&mut self, time: Duration) {
        let end = self.sim.now + time;
        let mut turns = 0;
        while let Some(due) = self.sim.machine.deadline().filter(|due| *due <= end) {
            self.sim.now = self.sim.now.max(due);
            self.sim.tell(Event::Timeout);
            self.check();
            turns += 1;
            // Launches that fail without a delay repeat at one instant; here they end.
            assert!(turns < 200_000, "deadlines that are never in the future");
        }
        self.sim.now = end;
    }

    fn end(&mut self, ended: Ended, leftovers: bool) {
        if self.alive {
            self.alive = false;
            self.leftovers = leftovers;
            self.sim.tell(Event::Exited { ended, leftovers });
        }
    }

    /// The invariants, after each step.
    fn check(&mut self) {
        for done in self.sim.take() {
            match done.as_str() {
                "suspend" => assert!(self.alive, "nobody is suspended"),
                "spawn" => {
                    assert!(!self.alive, "a launch beside a living command");
                    self.alive = true;
                    self.leftovers = false;
                    self.terminated_at = None;
                    self.timeout = self.policy.heartbeat.map(|heartbeat| heartbeat.timeout);
                    self.last_sign = self.sim.now;
                }
                "hung" => {
                    assert!(!self.held, "killed under a debugger's hands");
                    let timeout = self.timeout.expect("it wanted no deadline");
                    let silent = self.sim.now - self.last_sign;
                    assert!(self.confessed || silent >= timeout, "killed early");
                }
                "TERM" => {
                    // Once more after the end of the command itself, to those born since.
                    let again = self.terminated_at.is_some();
                    assert!(!(again && self.alive), "SIGTERM twice to the command");
                    assert!(self.alive || self.leftovers, "SIGTERM to nobody");
                    self.terminated_at.get_or_insert(self.sim.now);
                }
                "KILL" => {
                    assert!(self.alive || self.leftovers, "SIGKILL to nobody");
                    let waited = self.terminated_at.map(|at| self.sim.now - at);
                    let grace = self.policy.grace;
                    assert!(
                        grace.is_zero() || self.stops > 1 || waited >= Some(grace),
                        "SIGKILL without SIGTERM and the grace"
                    );
                }
                _ => {}
            }
        }
        if self.sim.exit.is_some() {
            assert!(!self.alive, "finished beside a living command");
            assert_eq!(self.sim.machine.deadline(), None);
        }
    }
}

/// So many times each property is tried: 1000, or `PROPTEST_CASES` (`make fuzz`).
pub fn config() -> ProptestConfig {
    let given = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: given.map_or(1000, |cases| cases.parse().unwrap()),
        // A failure becomes a named scenario, not a file of seeds.
        failure_persistence: None,
        ..Default::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_history_keeps_the_invariants(
        policy in any_policy(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(policy);
        for step in &steps {
            world.step(step);
        }
    }

    #[test]
    fn a_stop_always_finishes(
        policy in any_policy(),
        steps in prop::collection::vec(step(), 0..30),
        obeys in any::<bool>(),
    ) {
        let mut world = World::new(policy.clone());
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::Stop(Signal::SIGTERM));
        if obeys {
            world.step(&Step::Exit { code: 0, leftovers: false });
        }
        world.pass(policy.grace);
        world.step(&Step::Die(9));
        world.pass(policy.grace + SETTLE);
        prop_assert!(world.sim.exit.is_some(), "{:?}", world.sim.machine);
    }

    #[test]
    fn nothing_is_done_after_the_finish(steps in prop::collection::vec(step(), 1..30)) {
        let mut world = World::new(policy());
        world.step(&Step::Exit { code: 0, leftovers: false });
        prop_assert!(world.sim.exit.is_some());
        let exit = world.sim.exit;
        for step in &steps {
            world.step(step);
            prop_assert!(world.sim.take().is_empty());
        }
        prop_assert_eq!(world.sim.exit, exit);
    }

    #[test]
    fn backoff_is_monotone_and_capped(policy in any_policy(), made in any::<u64>()) {
        let here = crate::supervisor::backoff::delay(&policy, made);
        let next = crate::supervisor::backoff::delay(&policy, made.saturating_add(1));
        prop_assert!(here <= next);
        prop_assert!(next <= policy.max_backoff.max(policy.backoff_factor));
    }
}
