//! Runs the binary and waits for facts: a line of its log, a line of its command, a process that is
//! gone, a file. Each wait has a generous ceiling and shows everything that was printed when it fails.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use crate::facts::*;
use crate::transcript::{Source, Transcript};

/// The binary under test.
pub fn supervisor() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_supervisor"))
}

/// The scripted child.
pub fn puppet() -> PathBuf {
    example("puppet", "tests/puppet.rs")
}

/// A program beside the product. Cargo builds them with the tests, but not where a test is chosen by its name.
pub fn example(name: &str, source: &str) -> PathBuf {
    let program = supervisor().with_file_name("examples").join(name);
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let source = changed(&project(source)).unwrap();
    let fresh = changed(&program).is_ok_and(|built| built >= source);
    assert!(fresh, "out of date: cargo build --example {name}");
    program
}

/// Whether `program` can be started. CI has all of them; elsewhere a test may say that it can't run.
pub fn there_is(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI is to have {program}");
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Whether Python has this module; CI has them all.
pub fn there_is_module(module: &str) -> bool {
    let import = format!("import {module}");
    let found = Command::new("python3")
        .args(["-c", &import])
        .output()
        .unwrap();
    if !found.status.success() {
        assert!(std::env::var_os("CI").is_none(), "CI is to have {module}");
        eprintln!("skipped: python3 has no module {module}");
    }
    found.status.success()
}

/// Whether we are root, as CI is.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "CI is to run it as root");
        eprintln!("skipped: it takes root");
    }
    root
}

/// Writes a script that can be executed.
pub fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A file of the project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Builds a C file of the project; where it is then.
pub fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror", "-Wno-unused-result"]);
    cc.args(flags).arg("-o").arg(&built).arg(project(source));
    assert!(cc.status().unwrap().success(), "{source}");
    built
}

/// Where the instances under test have their sockets: not where those of this machine have theirs.
pub fn runtime_directory() -> PathBuf {
    let name = format!("supervisor-test-{}-run", std::process::id());
    std::env::temp_dir().join(name)
}

/// What `--status NAME --json` answers.
pub fn instance(name: &str) -> serde_json::Value {
    let mut call = Command::new(supervisor());
    call.env("SUPERVISOR_RUNTIME_DIR", runtime_directory());
    let answer = call.args(["--json", "--status", name]).output().unwrap();
    serde_json::from_slice(&answer.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&answer.stderr)))
}

/// A name for an instance that no other test has.
pub fn new_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("instance-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that goes with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("supervisor-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A run of the binary in the making.
pub struct Setup {
    command: Command,
    directory: Directory,
}

impl Setup {
    /// `supervisor` with these words; each is an option or the command.
    pub fn new<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Self {
        Self::of(supervisor().as_os_str(), words)
    }

    /// `program` with these words, for a caller of ours: a shell, `nohup`.
    pub fn of<S: AsRef<OsStr>>(program: &OsStr, words: impl IntoIterator<Item = S>) -> Self {
        let directory = Directory::new();
        let mut command = Command::new(program);
        command
            .args(words)
            .current_dir(directory.path())
            .env_remove("NO_COLOR")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("SUPERVISOR_") || name.starts_with("HEARTBEAT_") {
                command.env_remove(&*name);
            }
        }
        command.env("SUPERVISOR_RUNTIME_DIR", runtime_directory());
        Self { command, directory }
    }

    /// `supervisor` with these options and the puppet as its command.
    pub fn puppet(options: &[&str]) -> Self {
        Self::scripted(options, &[])
    }

    /// The same, and the puppet is told these commands at once.
    pub fn scripted(options: &[&str], commands: &[&str]) -> Self {
        let program = puppet();
        let words = options.iter().map(OsString::from);
        let commands = commands.iter().map(OsString::from);
        Self::new(words.chain([program.into_os_string()]).chain(commands))
    }

    /// `supervisor` with these words, in a user and mount namespace of its own that the shell
    /// commands `prepare` set up: what takes root elsewhere is allowed there.
    pub fn inside<S: AsRef<OsStr>>(prepare: &str, words: impl IntoIterator<Item = S>) -> Self {
        let script = format!("set -e; {prepare}; exec \"$@\"");
        let unshare = [
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ];
        let unshare = unshare.iter().map(OsString::from);
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        let words = unshare.chain([supervisor().into()]).chain(words);
        Self::of("unshare".as_ref(), words)
    }

    /// `supervisor` with these words, as another user, in a directory that he may only read; `first`
    /// is Python that is run before. None, aloud, where we may not become somebody else.
    pub fn as_user<S: AsRef<OsStr>>(
        user: u32,
        first: &str,
        words: impl IntoIterator<Item = S>,
    ) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let python = format!(
            "import os, resource, sys\n{first}\nos.setuid({user})\nos.execv(sys.argv[1], sys.argv[1:])"
        );
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        let start = ["-c".into(), python.into(), "./supervisor".into()];
        let setup = Self::of("python3".as_ref(), start.into_iter().chain(words));
        let directory = setup.directory.path();
        fs::copy(supervisor(), directory.join("supervisor")).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        Some(setup)
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn stdout(mut self, stdio: impl Into<Stdio>) -> Self {
        self.command.stdout(stdio);
        self
    }

    pub fn stderr(mut self, stdio: impl Into<Stdio>) -> Self {
        self.command.stderr(stdio);
        self
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn start(mut self) -> Run {
        let mut child = self.command.spawn().unwrap();
        let transcript = Arc::new(Transcript::default());
        let stdin = child.stdin.take();
        if let Some(stderr) = child.stderr.take() {
            transcript.follow(Source::Log, stderr);
        }
        if let Some(stdout) = child.stdout.take() {
            transcript.follow(Source::Command, stdout);
        }
        Run {
            child,
            stdin,
            transcript,
            cursors: [0; 2],
            directory: self.directory,
        }
    }

    /// Runs it to its end: exit code and log.
    pub fn finish(self) -> (i32, String) {
        let mut run = self.start();
        let code = run.code();
        (code, run.log())
    }
}

/// A supervisor that runs.
pub struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    transcript: Arc<Transcript>,
    /// How far each source has been read by the waits.
    cursors: [usize; 2],
    pub directory: Directory,
}

impl Run {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The next line of the log that contains all of `parts`.
    pub fn logged(&mut self, parts: &[&str]) -> String {
        self.next_line(Source::Log, parts).1
    }

    /// When that line was seen, too.
    pub fn logged_at(&mut self, parts: &[&str]) -> (Instant, String) {
        self.next_line(Source::Log, parts)
    }

    /// Waits for the hang after the beat that was made at `beat`: not before `timeout` has passed. How
    /// late the beat was noticed: at once, or, where the watch was blind, by the look at a deadline.
    /// (How late the hang is found is another matter, and on a busy machine nobody's fault.)
    pub fn hangs_after(&mut self, beat: Instant, timeout: Duration) -> Duration {
        let (at, line) = self.logged_at(&["heartbeat timeout pid"]);
        let after = at - beat;
        assert!(after >= timeout, "early: {after:?}");
        let silent: f64 = field(&line, "silent")
            .trim_end_matches('s')
            .parse()
            .unwrap();
        after.saturating_sub(Duration::from_secs_f64(silent))
    }

    /// The next line of the command's output that contains `part`.
    pub fn said(&mut self, part: &str) -> String {
        self.next_line(Source::Command, &[part]).1
    }

    fn next_line(&mut self, source: Source, parts: &[&str]) -> (Instant, String) {
        let cursor = &mut self.cursors[source as usize];
        let ceiling = Instant::now() + CEILING;
        let mut lines = self.transcript.lines.lock().unwrap();
        loop {
            while let Some((from, at, line)) = lines.lines.get(*cursor) {
                *cursor += 1;
                if *from == source && parts.iter().all(|part| line.contains(part)) {
                    return (*at, line.clone());
                }
            }
            let left = ceiling.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && lines.open > 0,
                "no line with {parts:?} in\n{}",
                lines.show()
            );
            lines = self.transcript.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for the puppet to be ready; its pid.
    pub fn ready(&mut self) -> i32 {
        let line = self.said("ready ");
        number_in(&line)
    }

    /// Tells the puppet something and waits until it has done it.
    pub fn tell(&mut self, command: &str) -> String {
        self.send(command);
        self.said(&format!("did {command}"))
    }

    /// Tells the puppet something that it does not survive.
    pub fn send(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end of the supervisor: its exit code, or 1000 + the signal that killed it.
    pub fn code(&mut self) -> i32 {
        let status = self.status();
        status
            .code()
            .unwrap_or_else(|| 1000 + status.signal().unwrap())
    }

    fn status(&mut self) -> ExitStatus {
        let mut status = None;
        let (child, transcript) = (&mut self.child, &self.transcript);
        let ended = eventually(|| {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert!(
            ended,
            "still running\n{}",
            transcript.lines.lock().unwrap().show()
        );
        status.unwrap()
    }

    /// The whole log, after the end.
    pub fn log(&self) -> String {
        self.text_of(Source::Log)
    }

    /// All that the command printed, after the end.
    pub fn output(&self) -> String {
        self.text_of(Source::Command)
    }

    /// The log until now, for a run whose leftovers still hold stderr open.
    pub fn log_so_far(&self) -> String {
        self.transcript.lines.lock().unwrap().of(Source::Log)
    }

    fn text_of(&self, wanted: Source) -> String {
        let ceiling = Instant::now() + CEILING;
        let mut lines = self.transcript.lines.lock().unwrap();
        while lines.open > 0 {
            let left = ceiling.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "its output is still open\n{}",
                lines.show()
            );
            lines = self.transcript.changed.wait_timeout(lines, left).unwrap().0;
        }
        lines.of(wanted)
    }
}

impl Drop for Run {
    /// Nothing of a test stays behind. Of our SIGKILL the kernel tells the command and a hook's shell only,
    /// not what they started. And whatever the test was about: nobody has panicked.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It shall start nothing meanwhile.
            self.signal(Signal::SIGSTOP);
            for pid in descendants(self.pid()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let lines = self.transcript.lines.lock().unwrap();
            let panicked = lines
                .lines
                .iter()
                .any(|(.., line)| line.contains("panicked"));
            assert!(!panicked, "{}", lines.show());
        }
    }
}

#[test]
fn a_test_that_ends_early_leaves_nothing_behind() {
    let script = "setsid sleep 1000 & echo $!; read line";
    let hook =
        "env -i PATH=\"$PATH\" setsid sleep 1000 & echo $! > hook.new; mv hook.new hook; wait";
    let mut run = Setup::new(["--on-event", hook, "sh", "-c", script]).start();
    let mut pids = vec![number_in(&run.said(""))];
    assert!(eventually(|| run.directory.join("hook").exists()));
    let hook = fs::read_to_string(run.directory.join("hook")).unwrap();
    pids.push(number_in(hook.trim()));
    assert!(pids.iter().all(|pid| alive(*pid)));
    drop(run);
    pids.into_iter().for_each(gone);
}
