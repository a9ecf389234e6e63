//! The binary, seen from outside: every row of the contract's tables, by facts and not by times.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod callers;
mod clients;
mod clock;
mod control;
mod cost;
mod diagnose;
mod documents;
mod facts;
mod fleet;
mod harness;
mod heartbeat;
mod heartbeat_file;
mod hooks;
mod launch;
mod limits;
mod log;
mod manager;
mod metrics;
mod notify;
mod options;
mod pid1;
mod real;
mod recipes;
mod recording;
mod restart;
mod screen;
mod signals;
mod soak;
mod stop;
mod stuck_log;
mod terminal;
mod transcript;
mod tree;
mod watch;
