//! The picture that the README begins with: it still shows what this program prints, and nothing in it runs.

use std::collections::BTreeSet;
use std::process::Command;

use crate::harness::*;

/// What the picture consists of, a line each: `element NAME`, `attribute NAME`, and `text ` with each
/// line of the terminals, broken ones put together. Python refuses what is no XML.
fn recording() -> Vec<String> {
    let read = "
import sys, xml.etree.ElementTree as tree
lines = []
for element in tree.parse(sys.argv[1]).iter():
    name = element.tag.removeprefix('{http://www.w3.org/2000/svg}')
    print('element', name)
    for attribute in element.attrib: print('attribute', attribute)
    if name == 'style': print('style', ' '.join(element.text.split()))
    if name == 'text':
        text = ''.join(element.itertext())
        if element.get('class') == 'on': lines[-1] += text
        else: lines.append(text)
for line in lines: print('text', line)
";
    let picture = project("scripts/recording/recording.svg");
    let read = Command::new("python3")
        .args(["-c", read])
        .arg(picture)
        .output()
        .unwrap();
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    String::from_utf8(read.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn of<'a>(recording: &'a [String], kind: &str) -> Vec<&'a str> {
    let lines = recording.iter().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(of, _)| *of == kind)
        .map(|(_, rest)| rest)
        .collect()
}

/// The level, event and fields of each line of a log, without the values. What is known of a process
/// that hangs depends on the kernel and on who asks, so of those fields only the first four. Each once: a busy
/// machine may make it hang again.
fn shape(log: &str) -> BTreeSet<String> {
    let lines = log
        .lines()
        .filter_map(|line| line.split_once(" [SUPERVISOR] "));
    let shape = lines.map(|(before, after)| {
        let level = before.rsplit(' ').next().unwrap();
        let event = events(&format!("[SUPERVISOR] {after}")).remove(0);
        let fields = after.split(' ').filter_map(|word| word.split_once('='));
        let known = if event == "hung" { 4 } else { usize::MAX };
        let fields: Vec<_> = fields.map(|(key, _)| key).take(known).collect();
        format!("{level} {event} {}", fields.join(" "))
    });
    shape.collect()
}

#[test]
fn the_recording_is_a_picture_and_nothing_in_it_runs_or_is_fetched() {
    let recording = recording();
    let drawn = [
        "svg", "title", "desc", "style", "g", "rect", "circle", "path", "text", "tspan",
    ];
    for element in of(&recording, "element") {
        assert!(drawn.contains(&element), "{element}");
    }
    for attribute in of(&recording, "attribute") {
        let runs = attribute.starts_with("on") || attribute.contains("href");
        assert!(!runs, "{attribute}");
    }
    for style in of(&recording, "style") {
        assert!(
            !style.contains("url(") && !style.contains("@import"),
            "{style}"
        );
    }
}

#[test]
fn the_recorded_commands_still_print_what_the_recording_shows() {
    let recording = recording();
    let shown = of(&recording, "text");
    let typed = shown
        .iter()
        .find_map(|line| line.strip_prefix("$ supervisor --name web "));
    let client = project("scripts/demo_client.py");
    let words = typed.unwrap().split(' ').map(|word| match word {
        "/dev/shm/web" => "heartbeat",
        "./web" => client.to_str().unwrap(),
        word => word,
    });
    let setup = Setup::new(["--name", "web"].into_iter().chain(words));
    let runs = setup.directory().join("runs");
    let sockets = setup.directory().join("sockets");
    let setup = setup.env("SUPERVISOR_RUNTIME_DIR", &sockets);
    let setup = setup.env("SUPERVISOR_BACKOFF_FACTOR", "0.01");
    // As in record.py.
    let setup = setup.env("DEMO_ACTS", "crash hang serve");
    let mut run = setup.env("DEMO_RUNS", runs).start();
    run.said("client: hang");
    run.said("client: beat");

    let call = |words: &[&str]| {
        let mut call = Command::new(supervisor());
        let call = call.args(words).env("SUPERVISOR_RUNTIME_DIR", &sockets);
        String::from_utf8(call.output().unwrap().stdout).unwrap()
    };
    assert!(shown.contains(&"$ supervisor --list"), "{shown:?}");
    let table = shown.iter().find(|line| line.starts_with("NAME ")).unwrap();
    let listed = call(&["--list"]);
    let head = listed.lines().next().unwrap();
    let same = table.split_whitespace().eq(head.split_whitespace());
    assert!(same, "{table}, now {head}");
    assert!(shown.contains(&"$ supervisor --stop web"), "{shown:?}");
    call(&["--stop", "web"]);
    assert_eq!(run.code(), 0);

    // Where tests write is no memory, which it says first.
    let log = run.log();
    let same = log
        .lines()
        .filter(|line| !line.contains("is not in memory"));
    let same = shape(&same.collect::<Vec<_>>().join("\n"));
    assert_eq!(shape(&shown.join("\n")), same, "make recording");
}
