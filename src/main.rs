//! `supervisor [OPTIONS] <command> [args...]`: see the library's documentation.
#![cfg_attr(all(target_os = "linux", target_env = "gnu"), no_main)]

use std::ffi::OsString;

use supervisor::cli::{self, Early};
use supervisor::config::{Config, Order};
use supervisor::error::Error;
use supervisor::exit::Exit;
use supervisor::reactor::{self, Ending};
use supervisor::{client, logging, signals};

/// The C library's call, without std in between. It tells std the arguments before that.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the only function of this name")]
#[unsafe(no_mangle)]
extern "C" fn main() -> std::ffi::c_int {
    supervisor::begin();
    run().0.into()
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn main() -> std::process::ExitCode {
    run().into()
}

fn run() -> Exit {
    let argv: Vec<OsString> = std::env::args_os().collect();
    match cli::parse(&argv) {
        Ok(Order::Call(call)) => client::run(&call),
        Ok(Order::Check) => Exit::SUCCESS,
        Ok(Order::Supervise(config)) => match supervise(*config) {
            Ok(Ending { exit, by }) => {
                if let Some(signal) = by {
                    signals::die_of(signal);
                }
                exit
            }
            Err(error) => {
                logging::complain(&format!("supervisor: {error}\n"));
                Exit::FAILED
            }
        },
        Err(early) => print(&early),
    }
}

fn supervise(config: Config) -> Result<Ending, Error> {
    logging::init(config.log_level, config.log_file.as_deref())?;
    let outcome = reactor::run(config);
    log::logger().flush();
    outcome
}

fn print(early: &Early) -> Exit {
    if early.exit == Exit::SUCCESS {
        logging::tell(&early.text);
    } else {
        logging::complain(&early.text);
    }
    early.exit
}
