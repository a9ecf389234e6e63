//! Keeps a command up: restarts it when it fails, and when it hangs.

pub mod child;
pub mod cli;
pub mod clock;
pub mod config;
pub mod error;
pub mod exit;
pub mod heartbeat;
pub mod logging;
pub mod reactor;
pub mod report;
pub mod signals;
pub mod supervisor;
mod sys;
pub mod text;
