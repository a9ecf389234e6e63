//! Tells the program which commit it is built from, for `--version`.

use std::path::Path;
use std::process::Command;

/// What a build depends on: where one of these has changes, it is not that commit.
const SOURCES: [&str; 4] = ["src", "scripts/build.rs", "Cargo.toml", "Cargo.lock"];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let version = match checked_out().or_else(packaged) {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    println!("cargo::rustc-env=VERSION={version}");
}

/// That of the checkout, if this is one and not a part of somebody else's.
fn checked_out() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top) != Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().ok()? {
        return None;
    }
    // Written by each commit and each checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changes = git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat())?;
    Some(commit + if changes.is_empty() { "" } else { "-dirty" })
}

/// That of a package, where cargo notes it.
fn packaged() -> Option<String> {
    let noted = std::fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, commit) = noted.split_once("\"sha1\": \"")?;
    let is_dirty = noted.contains("\"dirty\": true");
    Some(commit.get(..12)?.to_owned() + if is_dirty { "-dirty" } else { "" })
}

fn git(words: &[&str]) -> Option<String> {
    let output = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim_end().to_owned())
}
