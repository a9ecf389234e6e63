//! The short form of `make soak`: each of its scenarios, small.

use std::process::Command;

use crate::harness::*;

fn is_good(scenario: &str) {
    let mut soak = Command::new("python3");
    soak.arg(project("scripts/soak.py")).arg("--short");
    soak.arg("--supervisor").arg(supervisor()).arg(scenario);
    let done = soak.output().unwrap();
    let (said, complained) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    assert!(done.status.success(), "{said}{complained}");
}

macro_rules! scenarios {
    ($($name:ident: $scenario:literal;)*) => {
        $(#[test] fn $name() { is_good($scenario); })*
    };
}

scenarios! {
    a_supervisor_that_was_stopped_kills_nobody_who_beat: "frozen";
    what_was_stopped_together_gets_its_time: "together";
    a_queue_that_overflows_costs_nothing: "storms";
    a_storm_of_events_holds_up_nothing: "endless";
    replacements_by_the_thousand_leave_nothing_behind: "replaced";
    whatever_is_done_to_files_and_links_is_a_beat: "files";
    directories_moved_away_kill_nobody: "moved";
    restarts_by_the_hundred_leave_nothing_behind: "restarts";
    a_crowd_in_one_directory_is_told_apart: "crowd";
}
