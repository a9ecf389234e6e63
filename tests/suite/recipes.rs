//! The recipes for what starts us at boot: each is judged by its own tool, and run by it where that can be.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fleet::on_machine;
use crate::harness::*;

/// Where the paths of a recipe are; its command beats and lives on, until it is told otherwise.
struct Machine {
    directory: Directory,
    daemon: Option<Child>,
}

const SERVER: &str = "#!/bin/sh
while [ ! -e fail ]; do
    [ -z \"${HEARTBEAT_FILE-}\" ] || : > \"$HEARTBEAT_FILE\"
    sleep 0.1
done
exit 3
";

impl Machine {
    fn new() -> Self {
        let directory = Directory::new();
        let bin = directory.join("bin");
        fs::create_dir(&bin).unwrap();
        symlink(supervisor(), bin.join("supervisor")).unwrap();
        write_script(&bin.join("my-server"), SERVER);
        // (Another test's runsvdir may be there.)
        let fleet = format!(
            "#!/bin/sh\nexec {}-really -w plain -f {} -l {} \"$@\"\n",
            bin.join("supervisor-fleet").display(),
            directory.join("fleet").display(),
            directory.join("logs").display(),
        );
        write_script(&bin.join("supervisor-fleet"), &fleet);
        let really = bin.join("supervisor-fleet-really");
        symlink(project("scripts/fleet.sh"), really).unwrap();
        Self {
            directory,
            daemon: None,
        }
    }

    /// The recipe of this name below `scripts/recipes`, with these paths, at a place here.
    fn install(&self, recipe: &str, place: &str) -> PathBuf {
        let here = self.directory.path().to_str().unwrap();
        let text = fs::read_to_string(project("scripts/recipes").join(recipe)).unwrap();
        let text = text
            .replace("/usr/local/bin/", &format!("{here}/bin/"))
            .replace("/usr/bin/", &format!("{here}/bin/"))
            .replace("=/run/", &format!("={here}/"))
            .replace(" /run/", &format!(" {here}/"))
            .replace("/var/log/", &format!("{here}/"));
        let place = self.directory.join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        write_script(&place, &text);
        place
    }

    fn command(&self, program: &str) -> Command {
        on_machine(&self.directory, program)
    }

    /// The instance of the recipes, if it runs: its supervisor's pid.
    fn server(&self) -> Option<i32> {
        let mut status = self.command("supervisor");
        let output = status.args(["--status", "my-server", "--json"]).output();
        let instance: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
        let pid = instance["pid"].as_i64()?;
        (instance["state"] == "running").then(|| i32::try_from(pid).unwrap())
    }

    /// Under another supervisor: killed it is started again, restarted it is another, told to stop it is
    /// gone, and having given up it stays away.
    fn is_kept_by(&mut self, mut daemon: Command, control: impl Fn(&str) -> Command) {
        self.daemon = Some(daemon.spawn().unwrap());
        let tell = |verb: &str| assert!(control(verb).status().unwrap().success(), "{verb}");
        let becomes_another = |old: i32| {
            let is_another = || self.server().is_some_and(|pid| pid != old);
            assert!(eventually(is_another));
            self.server().unwrap()
        };
        let first = becomes_another(0);
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let second = becomes_another(first);
        tell("restart");
        let third = becomes_another(second);
        tell("stop");
        gone(third);
        assert!(eventually(|| self.server().is_none()));
        tell("start");
        becomes_another(third);
        fs::write(self.directory.join("service/fail"), "").unwrap();
        let stays_down = || {
            let status = control("status").output().unwrap();
            let status = String::from_utf8(status.stdout).unwrap();
            status.starts_with("down") && !status.contains("want up")
        };
        assert!(eventually(stays_down));
        assert_eq!(self.server(), None);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
            // After who would start it again.
            let mut stop = self.command("supervisor");
            let _ = stop.args(["--stop", "my-server"]).output();
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !there_is("systemd-analyze") {
        return;
    }
    let machine = Machine::new();
    let verify = |units: &[PathBuf]| {
        let mut analyze = machine.command("systemd-analyze");
        let said = analyze.args(["verify", "--man=no"]).args(units).output();
        String::from_utf8(said.unwrap().stderr).unwrap()
    };
    let units = [
        "supervisor@.service",
        "supervisor-fleet.service",
        "my-server.service",
    ];
    let units = units.map(|unit| {
        let unit = machine.install(&format!("systemd/{unit}"), unit);
        // A unit is no program.
        fs::set_permissions(&unit, fs::Permissions::from_mode(0o644)).unwrap();
        unit
    });
    assert_eq!(verify(&units), "");
    for unit in units {
        let text = fs::read_to_string(&unit).unwrap();
        fs::write(&unit, text.replace("ExecStart=", "ExecBegin=")).unwrap();
        assert!(verify(&[unit]).contains("ExecBegin"));
    }
}

#[test]
fn no_unit_of_systemd_limits_the_grace_period_or_how_often_a_supervisor_is_started_again() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/recipes/systemd");
    for unit in fs::read_dir(units).unwrap() {
        let text = fs::read_to_string(unit.unwrap().path()).unwrap();
        let says = |line| text.lines().any(|of_unit| of_unit == line);
        assert!(says("TimeoutStopSec=infinity"), "{text}");
        assert_eq!(
            text.contains("\nRestart="),
            says("StartLimitIntervalSec=0"),
            "{text}"
        );
    }
}

/// The runit recipe, whose command may fail once, so that it has something to give up.
fn given_up_at_once(run: &Path) {
    let text = fs::read_to_string(run).unwrap();
    write_script(run, &text.replace("--name", "--max-restarts 0 --name"));
}

#[test]
fn runit_keeps_the_recipe_up() {
    if !there_is("runsv") {
        return;
    }
    let mut machine = Machine::new();
    given_up_at_once(&machine.install("runit/run", "service/run"));
    machine.install("runit/finish", "service/finish");
    let daemon = {
        let mut daemon = machine.command("runsv");
        daemon.arg(machine.directory.join("service"));
        daemon
    };
    let service = machine.directory.join("service");
    machine.is_kept_by(daemon, |verb| {
        let mut sv = Command::new("sv");
        sv.args(["-w", "30", verb]).arg(&service);
        sv
    });
}

#[test]
fn s6_keeps_the_recipe_up() {
    if !there_is("s6-supervise") {
        return;
    }
    let mut machine = Machine::new();
    given_up_at_once(&machine.install("s6/run", "service/run"));
    machine.install("s6/finish", "service/finish");
    let daemon = {
        let mut daemon = machine.command("s6-supervise");
        daemon.arg(machine.directory.join("service"));
        daemon
    };
    let service = machine.directory.join("service");
    machine.is_kept_by(daemon, |verb| {
        let (program, options): (_, &[&str]) = match verb {
            "restart" => ("s6-svc", &["-r"]),
            "stop" => ("s6-svc", &["-wd", "-d"]),
            "start" => ("s6-svc", &["-u"]),
            _ => ("s6-svstat", &[]),
        };
        let mut s6 = Command::new(program);
        s6.args(options).arg(&service);
        s6
    });
}

#[test]
fn openrc_starts_and_stops_the_recipes() {
    if !there_is("openrc-run") || !is_root() {
        return;
    }
    let machine = Machine::new();
    let server = machine.install("openrc/my-server", "my-server");
    let fleet = machine.install("openrc/supervisor-fleet", "supervisor-fleet");
    fs::write(
        machine.directory.join("fleet"),
        "my-server /bin/sleep 1000\nfaulty\n",
    )
    .unwrap();
    // OpenRC keeps the environment from services.
    let place = machine.directory.join("run");
    for script in [&server, &fleet] {
        let text = fs::read_to_string(script).unwrap();
        let place = format!("\nexport SUPERVISOR_RUNTIME_DIR={}\n", place.display());
        write_script(script, &text.replacen('\n', &place, 1));
    }
    // What OpenRC has where it started the machine.
    let prepare = "set -e; mount -t tmpfs none /run; mkdir /run/openrc
        for part in daemons exclusive failed hotplugged inactive options scheduled started starting \
            stopping tmp wasinactive; do mkdir /run/openrc/$part; done
        touch /run/openrc/softlevel
        for service in \"$@\"; do
            $service start
            until supervisor --status my-server > running.${service##*/}; do :; done
            $service stop; ! supervisor --status my-server
        done; echo all";
    let mut run = machine.command("unshare");
    run.args(["--mount", "timeout", "30", "sh", "-c", prepare, "sh"]);
    let output = run.arg(&server).arg(&fleet).output().unwrap();
    assert!(output.stdout.ends_with(b"all\n"), "{output:?}");
    for service in ["my-server", "supervisor-fleet"] {
        let seen = machine.directory.join(format!("running.{service}"));
        let seen = fs::read_to_string(seen).unwrap_or_default();
        assert!(
            seen.contains("state            running"),
            "{seen} {output:?}"
        );
    }
}

#[test]
fn procd_is_told_of_each_line() {
    let machine = Machine::new();
    let script = machine.install("openwrt/supervisor", "init");
    fs::write(machine.directory.join("fleet"), "web a\ndb b\n").unwrap();
    // In place of OpenWrt's functions.
    let stub = "procd_open_instance() { echo \"open $1\"; }; procd_close_instance() { echo close; }
        procd_set_param() { echo \"$@\"; }
        . \"$1\"; [ \"$USE_PROCD\" = 1 ] && start_service";
    let mut sh = machine.command("sh");
    let output = sh.args(["-c", stub, "sh"]).arg(script).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let instances: Vec<_> = said.split("close\n").collect();
    for (instance, name) in instances.iter().zip(["web", "db"]) {
        assert!(instance.starts_with(&format!("open {name}\n")), "{said}");
        let command = format!("\ncommand supervisor-fleet exec {name}\n");
        assert!(instance.contains(&command), "{said}");
    }
    assert_eq!(instances[2..], [""], "{said}");
}
