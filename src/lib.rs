//! Keeps a command up: restarts it when it fails, and when it hangs.
//!
//! ```text
//!  notify's thread ────────── last beat (atomic) ─┐
//!  SIGCHLD, SIGTERM, ... ── signal-hook's pipe ──┤   ┌─────────┐ Event, now  ┌────────────┐
//!  sockets: the command's, those who ask ────────┼──►│ reactor │────────────►│ supervisor │
//!  the machine's deadline = timeout of the poll ─┘   │  mio    │◄────────────│ pure state │
//!                                                    └────┬────┘  [Action]   └────────────┘
//!                     child: spawn, signal, reap ◄───────┤
//!                     hooks, metrics, service manager ◄──┘
//! ```
//!
//! **One decides, one acts.** [`supervisor`] is a state machine: every policy, and nothing that
//! touches the world. It is given events and the time and answers with actions. [`reactor`] is one
//! poll loop: it delivers what happened and performs what is answered. Between two events nothing
//! runs: there is no sleep and no periodic timer, and every deadline is the timeout of the one poll. (The one
//! pause is the watcher's, in its own thread and between beats that come fast.)
//!
//! **The states**, each with its own data and its own deadline:
//!
//! ```text
//!  Starting ──► Running ──► Stopping ──┐
//!     ▲            │ exit              ▼
//!     │            └──────────────► Clearing (leftovers of its tree) ──► Finished
//!     └──────────── Backoff ◄──────────┘
//! ```
//!
//! **The order of a turn**: requests to stop, ends of children, beats, and the timeout last, so that
//! a beat that waits wins over its deadline. Before a kill the machine asks for one look at the
//! file itself ([`supervisor::Action::Look`]).
//!
//! **A beat does not wake the loop.** [`heartbeat`] notes its time in an atomic, in notify's thread.
//! The loop sleeps to the deadline that it knew, reads the atomic, and sleeps on to the next one. Nor need each
//! beat wake that thread: where they come faster than anybody has to know of them, it rests after some.
//!
//! **Beats come by a file or by a socket** ([`notify_socket`], a message a wake-up), and both are noted in
//! the [`pulse`], which also knows how near one came to its deadline.
//!
//! **Who asks is never waited for.** [`control`] gives each client one answer; [`client`] is its other
//! side. [`hooks`], pure, decides which of the user's commands runs when; it is a helper beside the
//! command's tree, reaped by the same loop. What is seen from outside is one piece of plain data, [`status`],
//! shown by [`control`], [`metrics`] and [`manager`].
//!
//! **Nothing is left behind.** We are a subreaper: whatever the command started descends from us, and
//! `child` finds it below us in `/proc`, tells it to end, and reaps it; that nothing is left is what
//! waitpid(2) says. Only our own children are signalled by their number.
//!
//! **In a terminal the command stays in our process group**, so that it is where the shell thinks it is.
//! Who sent a signal then tells what it means: what the terminal sent has reached the command, too. See
//! [`signals`] and [`terminal`].
//!
//! **A second wish kills at once**, so [`echo`], pure as well, tells a copy of the first from it.
//!
//! **The log stays readable.** [`flood`], pure too, decides which lines are left out where the same
//! failure repeats many times a second; [`logging`] writes the rest and never waits for a reader.
//!
//! **Others may wait, the loop never does.** notify's thread reads the events; the keeper, parked until
//! then, moves the watch, for which it has to wait for notify's; where stderr can't be opened again, a
//! thread writes the log. Without a heartbeat, and with an ordinary stderr, there is one thread.
//!
//! **The rooms**: plain data in [`config`], [`report`], [`status`], [`exit`], [`error`], [`text`]; adapters
//! that do not know each other nor any policy in [`child`], [`signals`], [`terminal`], [`heartbeat`],
//! [`notify_socket`], [`control`], [`diagnose`], [`metrics`], [`manager`], [`logging`]; all `unsafe` in `sys`. `scripts/check_layout.py` holds the code against that.

pub mod child;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod control;
pub mod diagnose;
pub mod echo;
pub mod error;
pub mod exit;
pub mod flood;
pub mod heartbeat;
pub mod hooks;
pub mod lock;
pub mod logging;
pub mod manager;
pub mod metrics;
pub mod notify_socket;
pub mod pulse;
pub mod reactor;
pub mod report;
pub mod signals;
pub mod status;
pub mod supervisor;
mod sys;
pub mod terminal;
pub mod text;
pub mod threads;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub use sys::begin;
