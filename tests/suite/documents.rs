//! The man page and the completions: made from the table of options, and of use in real shells.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::harness::*;
use crate::screen::Screen;

const DOCUMENTS: [&str; 4] = [
    "supervisor.1",
    "supervisor.bash",
    "_supervisor",
    "supervisor.fish",
];

const PAGES: [&str; 2] = ["supervisor.1", "supervisor-fleet.1"];

#[test]
fn the_documents_are_made_of_the_options_that_there_are() {
    let directory = Directory::new();
    let mut make = Command::new(example("documents", "scripts/documents/main.rs"));
    assert!(make.arg(directory.path()).status().unwrap().success());
    for name in DOCUMENTS {
        let made = fs::read_to_string(directory.join(name)).unwrap();
        let kept = fs::read_to_string(project("scripts/documents").join(name)).unwrap();
        assert!(made == kept, "{name} is out of date: make documents");
    }
}

#[test]
fn mandoc_finds_nothing_to_mend_in_the_manual_pages() {
    if !there_is("mandoc") {
        return;
    }
    for page in PAGES {
        let mut lint = Command::new("mandoc");
        lint.args(["-T", "lint"])
            .arg(project("scripts/documents").join(page));
        let said = String::from_utf8(lint.output().unwrap().stdout).unwrap();
        // Which other pages this machine has is not ours.
        let mut ours = said
            .lines()
            .filter(|line| !line.contains("referenced manual not found"));
        assert_eq!(ours.next(), None, "{said}");
    }
}

#[test]
fn the_readme_has_each_option_and_its_default() {
    let readme = fs::read_to_string(project("README.md")).unwrap();
    let mut line = supervisor::cli::command_line();
    line.build();
    for option in line.get_arguments().filter(|arg| !arg.is_positional()) {
        let long = format!("--{}", option.get_long().unwrap());
        let mut rows = readme
            .lines()
            .filter(|line| line.starts_with("| `-") && line.contains(&format!("`{long}")));
        let row = rows.next().unwrap_or_else(|| panic!("no row for {long}"));
        if let (Some(default), Some(_)) = (
            option.get_default_values().first(),
            option.get_value_names(),
        ) {
            let default = default.to_str().unwrap().to_owned();
            let cell = row.split('|').nth(2).unwrap().replace('`', "");
            assert_eq!(cell.trim(), default, "{row}");
        }
    }
}

/// A shell that has read its completions by `setup`, and finds both programs.
fn shell_with(shell: &[&str], setup: &str) -> Option<Screen> {
    if !there_is(shell[0]) {
        return None;
    }
    let mut screen = Screen::new(shell);
    let run = screen.directory.join("run");
    let run = run.to_str().unwrap();
    let fleet = screen.directory.join("supervisor-fleet");
    symlink(project("scripts/fleet.sh"), fleet).unwrap();
    let here = screen.directory.path().display();
    let programs = supervisor().parent().unwrap().display();
    let documents = project("scripts/documents");
    let setup = setup.replace("DOCUMENTS", documents.to_str().unwrap());
    let path = format!("PATH={programs}:{here}:$PATH");
    let place = format!("SUPERVISOR_RUNTIME_DIR={run}");
    screen.enters(&format!("export {place} {path}; {setup}; echo 'set' up"));
    screen.shows("set up");
    Some(screen)
}

/// With an instance to be found.
fn completes(shell: &[&str], setup: &str) {
    let Some(mut screen) = shell_with(shell, setup) else {
        return;
    };
    let run = screen.directory.join("run");
    let mut web = Setup::puppet(&["--name", "web-1"])
        .env("SUPERVISOR_RUNTIME_DIR", run)
        .start();
    let pid = web.ready();
    let script = screen.directory.join("script-in-front");
    write_script(&script, "#!/bin/sh\necho it was \"$1\" reached\n");
    screen.types("supervisor --stat\twe\t\n");
    screen.shows(&format!("{pid}"));
    screen.types("supervisor --max-rest\t0 ./scrip\t\n");
    screen.shows("it was  reached");
}

/// The fleet's options and their values, its commands, and the names in the file that stands before.
fn completes_fleet(shell: &[&str], setup: &str, options: &str) {
    let Some(mut screen) = shell_with(shell, setup) else {
        return;
    };
    let file = screen.directory.join("my-fleet");
    fs::write(file, "db sleep 9\nweb-1 --timeot 3 true\n").unwrap();
    // (This takes none.)
    screen.types("supervisor-fleet -f my-f\tnam\twe\t\n");
    screen.shows("names takes none");
    let shown = screen.everything();
    assert!(!shown.contains("web-1"), "{shown}");
    screen.types("supervisor-fleet -w pla\t-f ./my-f\tli\twe\t\n");
    screen.shows("not running: web-1");
    screen.types("supervisor-fleet -\t\t");
    screen.shows(options);
}

#[test]
fn bash_completes_the_fleet() {
    completes_fleet(
        &["bash", "--norc", "--noprofile", "-i"],
        ". DOCUMENTS/supervisor-fleet.bash",
        "-f  -h  -l  -w",
    );
}

#[test]
fn zsh_completes_the_fleet() {
    completes_fleet(
        &["zsh", "-f", "-i"],
        "fpath=(DOCUMENTS $fpath); autoload -U compinit; compinit -D -u",
        "where the output is appended to",
    );
}

#[test]
fn fish_completes_the_fleet() {
    completes_fleet(
        &["fish"],
        "source DOCUMENTS/supervisor-fleet.fish",
        "where the output is appended to",
    );
}

#[test]
fn bash_completes_options_instances_and_the_command() {
    completes(
        &["bash", "--norc", "--noprofile", "-i"],
        ". DOCUMENTS/supervisor.bash",
    );
}

#[test]
fn zsh_completes_options_instances_and_the_command() {
    completes(
        &["zsh", "-f", "-i"],
        "fpath=(DOCUMENTS $fpath); autoload -U compinit; compinit -D -u",
    );
}

#[test]
fn fish_completes_options_instances_and_the_command() {
    completes(&["fish"], "source DOCUMENTS/supervisor.fish");
}

#[test]
fn shellcheck_finds_nothing_in_the_shell_scripts() {
    if !there_is("shellcheck") {
        return;
    }
    let mut scripts = vec![project(".ci/run")];
    let mut places = vec![project("scripts")];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
            } else if fs::read(&path).unwrap().starts_with(b"#!/bin/sh") {
                scripts.push(path);
            }
        }
    }
    assert!(scripts.contains(&project("scripts/fleet.sh")));
    // OpenRC reads the variables of its scripts.
    let openrc =
        ["my-server", "supervisor-fleet"].map(|name| project("scripts/recipes/openrc").join(name));
    let bash = ["supervisor.bash", "supervisor-fleet.bash"]
        .map(|name| project("scripts/documents").join(name));
    for (options, scripts) in [
        (&[][..], &scripts[..]),
        (&["--shell=sh", "--exclude=SC2034"], &openrc),
        (&["--shell=bash"], &bash),
    ] {
        let mut check = Command::new("shellcheck");
        let said = check.args(options).args(scripts).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{text}");
    }
}
