//! `supervisor [OPTIONS] <command> [args...]`: see the library's documentation.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use supervisor::cli::{self, Early};
use supervisor::config::{Config, Order};
use supervisor::error::Error;
use supervisor::exit::Exit;
use supervisor::reactor::{self, Ending};
use supervisor::{client, logging, signals};

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let exit = match cli::parse(&argv) {
        Ok(Order::Call(call)) => client::run(&call),
        Ok(Order::Supervise(config)) => match supervise(settled(config)) {
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
    };
    exit.into()
}

/// The same, where the command line's memory was, and not above it: that can then be given back.
fn settled(config: Box<Config>) -> Config {
    Config::clone(&config)
}

fn supervise(config: Config) -> Result<Ending, Error> {
    logging::init(config.log_level, config.log_file.as_deref())?;
    let outcome = reactor::run(config);
    log::logger().flush();
    outcome
}

fn print(early: &Early) -> Exit {
    if early.exit == Exit::SUCCESS {
        // Not `print`, which panics where stdout can't be written.
        let _ = std::io::stdout().write_all(early.text.as_bytes());
    } else {
        logging::complain(&early.text);
    }
    early.exit
}
