//! The recipes for containers and fleets: each is judged by its own tool, and the words in it are run.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::*;
use crate::metrics::with_all_metrics;

fn recipe(path: &str) -> PathBuf {
    project("scripts/recipes").join(path)
}

/// A copy of a recipe in `directory`, in which `from` is replaced.
fn changed(path: &str, from: &str, to: &str, directory: &Directory) -> PathBuf {
    let text = fs::read_to_string(recipe(path)).unwrap();
    assert!(text.contains(from), "{path} has no {from:?}");
    let changed = directory.join(Path::new(path).file_name().unwrap());
    fs::write(&changed, text.replace(from, to)).unwrap();
    changed
}

fn all_of(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(said).unwrap()
}

/// What it prints. It has to succeed.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", all_of(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A file as Python reads it and prints it as JSON.
fn read_by_python(script: &str, path: &Path) -> Value {
    let mut python = Command::new("python3");
    let text = printed(python.args(["-c", script]).arg(path));
    serde_json::from_str(&text).unwrap()
}

fn words(value: &Value) -> Vec<String> {
    let words = value.as_array().unwrap().iter();
    words
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

/// The value of an option that is written `--name=value`.
fn option<'a>(words: &'a [String], name: &str) -> &'a str {
    let value = |word: &'a String| word.strip_prefix(name)?.strip_prefix('=');
    words.iter().find_map(value).unwrap()
}

fn seconds(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: f64 = number.parse().unwrap();
    number * if unit == "s" { 1.0 } else { 60.0 }
}

/// Starts the options of a recipe, and asks as its two probes do, the second of which may kill: what they
/// answer while the command waits for its restart. Where the supervisor does not answer both fail.
fn asked_by_probes(options: &[String], ready: &[String], alive: &[String]) -> [i32; 2] {
    let directory = Directory::new();
    let heartbeat = directory.join("heartbeat");
    let place = directory.join("run/supervisor");
    let options = options.iter().map(|word| match word {
        word if word.starts_with("--heartbeat-file=") => {
            format!("--heartbeat-file={}", heartbeat.display())
        }
        word => word.clone(),
    });
    let words = options.chain([puppet().into_os_string().into_string().unwrap()]);
    let mut run = Setup::new(words)
        .env("SUPERVISOR_RUNTIME_DIR", &place)
        .env("SUPERVISOR_BACKOFF_FACTOR", "1000")
        .start();
    let answers = || {
        [ready, alive].map(|words| {
            let mut call = Command::new(supervisor());
            call.env("SUPERVISOR_RUNTIME_DIR", &place).args(words);
            call.output().unwrap().status.code().unwrap()
        })
    };
    run.ready();
    assert_eq!(answers(), [0, 0]);
    run.send("exit 3");
    run.logged(&["restarting"]);
    let waiting = answers();
    run.signal(Signal::SIGSTOP);
    assert_eq!(answers(), [1, 1]);
    run.signal(Signal::SIGCONT);
    assert!(!run.log_so_far().contains("no effect"));
    waiting
}

#[test]
fn hadolint_finds_nothing_wrong_with_the_dockerfile() {
    if !there_is("hadolint") {
        return;
    }
    let lint = |path: &Path| Command::new("hadolint").arg(path).output().unwrap();
    let found = lint(&recipe("container/Dockerfile"));
    assert!(found.status.success(), "{}", all_of(&found));
    let directory = Directory::new();
    let [exec, shell] = [r#"CMD ["/usr/bin/my-server"]"#, "CMD /usr/bin/my-server"];
    let found = lint(&changed("container/Dockerfile", exec, shell, &directory));
    assert!(!found.status.success() && all_of(&found).contains("DL3025"));
}

/// The image that the recipe makes of one with a shell, `server` as its program, and our libraries (for the
/// binary under test is not static); its configuration, and where its root is.
fn image(directory: &Directory, server: &str) -> (Value, PathBuf) {
    let buildah = |words: &[&str]| {
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs"]);
        buildah.arg("--root").arg(directory.join("storage"));
        buildah.arg("--runroot").arg(directory.join("state"));
        printed(buildah.env("TMPDIR", directory.path()).args(words))
    };
    let [base, context] = ["base", "context"].map(|name| directory.join(name));
    let copy = |from: &Path, to: PathBuf| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    for place in ["proc", "dev/shm"] {
        fs::create_dir_all(base.join(place)).unwrap();
    }
    let which = printed(Command::new("sh").args(["-c", "command -v busybox"]));
    let busybox = Path::new(&which);
    copy(busybox, base.join("bin/busybox"));
    for name in ["sh", "sleep"] {
        symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    for program in [busybox, supervisor()] {
        let libraries = Command::new("ldd").arg(program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        for library in libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            copy(Path::new(library), base.join(&library[1..]));
        }
    }
    let program = base.join("usr/bin/my-server");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    write_script(&program, server);
    copy(supervisor(), context.join("supervisor-edge"));
    copy(&recipe("container/Dockerfile"), context.join("Dockerfile"));

    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, base.to_str().unwrap(), "/"]);
    buildah(&["commit", &container, "localhost/my-server:1.0"]);
    let image = "--build-arg=IMAGE=localhost/my-server:1.0";
    let context = context.to_str().unwrap();
    let options = [
        "--isolation=chroot",
        "--format=docker",
        image,
        "--tag=supervised",
    ];
    buildah(&[&["bud"], &options[..], &[context]].concat());
    let about: Value =
        serde_json::from_str(&buildah(&["inspect", "--type=image", "supervised"])).unwrap();
    let container = buildah(&["from", "supervised"]);
    let root = buildah(&["mount", &container]);
    (about["Docker"]["config"].clone(), root.into())
}

/// The first process of a container, which ends with the test.
struct First(Pid);

impl Drop for First {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

const SERVER: &str = "#!/bin/sh
# Its orphan is gone when only the first process and this one are left.
sh -c 'sleep 0 &'
while set -- /proc/[0-9]*; [ $# -gt 2 ]; do :; done
echo alone
while [ ! -e /dev/shm/hang ] || [ -e /dev/shm/hung ]; do
    echo > \"$HEARTBEAT_FILE\"
    sleep 0.1
done
: > /dev/shm/hung
sleep 1000
";

#[test]
fn the_image_is_built_and_runs_as_it_says() {
    if !is_root() || !there_is("buildah") || !there_is("busybox") {
        return;
    }
    let directory = Directory::new();
    let (image, root) = image(&directory, SERVER);
    let root = root.to_str().unwrap();
    // The delay before a restart is over before it is unhealthy too often.
    let check = &image["Healthcheck"];
    let patience = check["Interval"].as_f64().unwrap() / 1e9 * check["Retries"].as_f64().unwrap();
    let variables = words(&image["Env"]);
    assert!(
        patience
            > option(&variables, "SUPERVISOR_MAX_BACKOFF")
                .parse()
                .unwrap()
    );
    assert_eq!(image["StopSignal"], "SIGTERM");

    let prepare = "root=$1; shift; set -e
        mount -t proc proc \"$root/proc\"
        mount -t tmpfs -o mode=1777 shm \"$root/dev/shm\"
        : > \"$root/dev/null\"; mount --bind /dev/null \"$root/dev/null\"
        exec env -i \"$@\"";
    let user = format!("--userspec={}", image["User"].as_str().unwrap());
    let namespaces = ["--mount", "--pid", "--fork", "--kill-child"];
    let start = [&namespaces[..], &["sh", "-c", prepare, "sh", root]].concat();
    let start = start.into_iter().map(str::to_owned);
    let start = start
        .chain(variables)
        .chain(["SUPERVISOR_TIMEOUT=5".into()]);
    let start = start.chain(["chroot".into(), user, root.into()]);
    let start = start.chain(words(&image["Entrypoint"]));
    let mut run = Setup::of("unshare".as_ref(), start.chain(words(&image["Cmd"]))).start();
    let children = format!("/proc/{0}/task/{0}/children", run.pid());
    let children = || fs::read_to_string(&children).unwrap();
    assert!(eventually(|| !children().is_empty()));
    let first = First(Pid::from_raw(number_in(&children())));
    run.said("alone");
    let proc = PathBuf::from(format!("/proc/{}", first.0));
    assert_eq!(fs::metadata(&proc).unwrap().uid(), 10001);

    let health = || {
        let test = words(&check["Test"]);
        assert_eq!(test[0], "CMD");
        let target = first.0.to_string();
        let mut enter = Command::new("nsenter");
        enter.args([
            "--mount",
            "--pid",
            "--root",
            "--setuid=10001",
            "--setgid=10001",
        ]);
        enter.args(["--target", &target]).args(&test[1..]);
        let variables = words(&image["Env"]);
        enter
            .env_clear()
            .envs(variables.iter().filter_map(|one| one.split_once('=')));
        let output = enter.output().unwrap();
        output.status.code().unwrap()
    };
    assert_eq!(health(), 0);
    fs::write(proc.join("root/dev/shm/hang"), "").unwrap();
    run.logged(&["heartbeat timeout"]);
    run.logged(&["started", "run=2"]);
    assert_eq!(health(), 0);
    kill(first.0, Signal::SIGTERM).unwrap();
    run.logged(&["finished code=0 runs=2"]);
    assert_eq!(run.code(), 0);
}

#[test]
fn kubernetes_accepts_the_deployment_and_no_misspelt_key() {
    if !there_is_module("kubernetes_validate") {
        return;
    }
    let validate = |path: &Path| {
        let mut python = Command::new("python3");
        python
            .args(["-m", "kubernetes_validate", "--strict"])
            .arg(path);
        python.output().unwrap()
    };
    let found = validate(&recipe("kubernetes/deployment.yaml"));
    assert!(found.status.success(), "{}", all_of(&found));
    let directory = Directory::new();
    for key in [
        "failureThreshold",
        "medium",
        "terminationGracePeriodSeconds",
        "runAsNonRoot",
    ] {
        let path = changed("kubernetes/deployment.yaml", key, &key[1..], &directory);
        let found = validate(&path);
        assert!(
            !found.status.success() && all_of(&found).contains(&key[1..]),
            "{key}"
        );
    }
}

#[test]
fn the_probes_of_the_deployment_leave_a_command_the_time_to_be_restarted() {
    if !there_is_module("yaml") {
        return;
    }
    let script = "import json, sys, yaml
print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let deployment = read_by_python(script, &recipe("kubernetes/deployment.yaml"));
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let command = words(&container["command"]);
    let grace: f64 = option(&command, "--grace-period").parse().unwrap();
    assert!(pod["terminationGracePeriodSeconds"].as_f64().unwrap() > grace + 5.0);
    // Both are in the volume, and the directory is not the volume's own.
    let volume = format!(
        "{}/",
        container["volumeMounts"][0]["mountPath"].as_str().unwrap()
    );
    let place = &container["env"][0];
    assert_eq!(place["name"], "SUPERVISOR_RUNTIME_DIR");
    assert!(place["value"].as_str().unwrap().starts_with(&volume));
    assert!(option(&command, "--heartbeat-file").starts_with(&volume));

    let [ready, alive] = ["readinessProbe", "livenessProbe"].map(|probe| {
        let probe = &container[probe];
        assert!(probe["timeoutSeconds"].as_f64().unwrap() > 2.0);
        let words = words(&probe["exec"]["command"]);
        assert_eq!(words[0], command[0]);
        words[1..].to_vec()
    });
    assert_eq!(asked_by_probes(&command[1..], &ready, &alive), [3, 3]);
    // So it is asked for longer than the longest delay before it kills.
    let probe = &container["livenessProbe"];
    let looks = probe["failureThreshold"].as_f64().unwrap() - 1.0;
    let delay: f64 = option(&command, "--max-backoff").parse().unwrap();
    assert!(looks * probe["periodSeconds"].as_f64().unwrap() > delay);
}

/// The keys of Nomad's documented job specification (1.10), of the blocks that the recipe has; `env` may
/// have any.
const NOMAD: [(&str, &str); 9] = [
    (
        "job",
        "affinity all_at_once constraint consul datacenters group meta migrate multiregion namespace \
         node_pool parameterized periodic priority region reschedule spread type ui update vault",
    ),
    (
        "group",
        "affinity constraint consul count disconnect ephemeral_disk meta migrate network reschedule \
         restart scaling service shutdown_delay spread task update vault volume",
    ),
    (
        "task",
        "action affinity artifact config constraint consul csi_plugin dispatch_payload driver env \
         identity kill_signal kill_timeout kind leader lifecycle logs meta resources restart scaling \
         schedule service shutdown_delay template user vault volume_mount",
    ),
    ("restart", "attempts delay interval mode render_templates"),
    ("config", "args cap_add cap_drop command ipc_mode pid_mode"),
    (
        "resources",
        "cores cpu device memory memory_max numa secrets",
    ),
    (
        "service",
        "address address_mode canary_meta canary_tags check check_restart cluster connect \
         enable_tag_override identity kind meta name on_update port provider tagged_addresses tags task",
    ),
    (
        "check",
        "address_mode args body check_restart command expose failures_before_critical \
         failures_before_warning grpc_service grpc_use_tls header initial_status interval method name \
         on_update path port protocol success_before_passing task timeout tls_server_name \
         tls_skip_verify type",
    ),
    ("check_restart", "grace ignore_warnings limit"),
];

/// The keys of `body`, and of the blocks in it, that Nomad does not document.
fn unknown_keys(block: &str, body: &Value) -> Vec<String> {
    if block == "env" {
        return Vec::new();
    }
    let known = NOMAD.iter().find(|(name, _)| *name == block).unwrap().1;
    let mut unknown = Vec::new();
    for (key, value) in body.as_object().unwrap() {
        if !known.split_whitespace().any(|name| name == key) {
            unknown.push(format!("{block}.{key}"));
            continue;
        }
        for inner in value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one.is_object())
        {
            let inner = match key.as_str() {
                "group" | "task" => inner.as_object().unwrap().values().next().unwrap(),
                _ => inner,
            };
            unknown.extend(unknown_keys(key, inner));
        }
    }
    unknown
}

/// The job, without the quotes that python-hcl2 leaves around strings.
fn job(path: &Path) -> Value {
    let script = "import hcl2, json, sys
def plain(value):
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items() if not key.startswith('__')}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.strip('\"') if isinstance(value, str) else value
print(json.dumps(plain(hcl2.load(open(sys.argv[1])))))";
    read_by_python(script, path)["job"][0]["my-server"].clone()
}

#[test]
fn the_job_for_nomad_is_made_of_documented_keys_and_its_checks_tell() {
    if !there_is_module("hcl2") {
        return;
    }
    let directory = Directory::new();
    for key in [
        "attempts",
        "kill_timeout",
        "check_restart",
        "ignore_warnings",
    ] {
        let path = changed("nomad/job.hcl", key, "unheard_of", &directory);
        let found = unknown_keys("job", &job(&path));
        assert!(
            found.len() == 1 && found[0].ends_with("unheard_of"),
            "{found:?}"
        );
    }
    let job = job(&recipe("nomad/job.hcl"));
    assert_eq!(unknown_keys("job", &job), [""; 0]);
    let task = &job["group"][0]["my-server"]["task"][0]["my-server"];
    let config = &task["config"][0];
    let mut args = words(&config["args"]);
    assert_eq!(args.pop().unwrap(), "/usr/local/bin/my-server");
    let kill_timeout = seconds(task["kill_timeout"].as_str().unwrap());
    assert!(kill_timeout > option(&args, "--grace-period").parse::<f64>().unwrap() + 5.0);
    // What a node allows if nobody says otherwise.
    assert!(kill_timeout <= 30.0);
    assert_eq!(task["kill_signal"], "SIGTERM");

    let service = &task["service"][0];
    assert_eq!(service["provider"], "consul");
    let checks = [0, 1].map(|number| {
        let check = &service["check"][number];
        assert_eq!(
            [&check["type"], &check["command"]],
            [&json!("script"), &config["command"]]
        );
        assert!(seconds(check["timeout"].as_str().unwrap()) > 2.0);
        words(&check["args"])
    });
    assert!(service["check"][0]["check_restart"].is_null());
    assert_eq!(asked_by_probes(&args, &checks[0], &checks[1]), [3, 0]);
}

fn promtool(words: &[&str], path: &Path) -> Output {
    Command::new("promtool")
        .args(words)
        .arg(path)
        .output()
        .unwrap()
}

/// What may be wrong with an alert: the part that is replaced, and by what.
#[rustfmt::skip]
const FAULTS: [(&str, &str, &str); 24] = [
    ("RestartsOften", "{reason!=\"requested\"}", ""),
    ("RestartsOften", "sum without (reason) ", ""),
    ("RestartsOften", "[15m])) > 4", "[15m])) > 40"),
    ("WaitsLong", "delay_seconds > 300", "delay_seconds > 200"),
    ("WaitsLong", "delay_seconds > 300", "delay_seconds > 600"),
    ("Hang", "{reason=\"heartbeat\"}", ""),
    ("Hang", "[1h]) > 0", "[2h]) > 0"),
    ("Hang", "[1h]) > 0", "[1h]) > 1000"),
    ("Ended", "supervisor_up == 0 and ", ""),
    ("Ended", "and supervisor_backoff_delay_seconds == 0", ""),
    ("Ended", "unless supervisor_last_exit_code == 0", ""),
    ("Ended", "for: 2m", "for: 20m"),
    ("Silent", "supervisor_up == 1 and on", "supervisor_up and on"),
    ("Silent", "and on (instance, name) supervisor_heartbeats_total", ""),
    ("Silent", "mtime_seconds > 300", "mtime_seconds > 3000"),
    ("Silent", "mtime_seconds > 300", "mtime_seconds > -1"),
    ("Gone", "unless on (instance, name) supervisor_up", ""),
    ("Gone", "and on (instance) up == 1", ""),
    ("MarginSmall", "margin_seconds < 1", "margin_seconds < 0.1"),
    ("MarginSmall", "< 1 and supervisor_up == 1", "< 1"),
    ("MarginFell", "< 0.5 * min_over", "< 0.1 * min_over"),
    ("MarginFell", "< 0.5 * min_over", "< 2 * min_over"),
    ("MarginFell", "and supervisor_heartbeat_tightest_margin_seconds offset 2d", ""),
    ("FileUnreadable", "scrape_error == 1", "scrape_error == 2"),
];

#[test]
fn promtool_passes_the_alerts_and_their_tests() {
    if !there_is("promtool") {
        return;
    }
    let rules = "prometheus/supervisor.rules.yml";
    let found = promtool(&["check", "rules"], &recipe(rules));
    assert!(found.status.success(), "{}", all_of(&found));
    let tests = recipe("prometheus/supervisor.rules.test.yml");
    let found = promtool(&["test", "rules"], &tests);
    assert!(found.status.success(), "{}", all_of(&found));

    // And no part of them is there for nothing: in each round each alert has another fault.
    let directory = Directory::new();
    let copy = directory.join("supervisor.rules.test.yml");
    fs::copy(&tests, &copy).unwrap();
    let turn = |index: usize| {
        let before = FAULTS[..index].iter();
        before.filter(|one| one.0 == FAULTS[index].0).count()
    };
    for round in 0.. {
        let faults = (0..FAULTS.len()).filter(|index| turn(*index) == round);
        let faults: Vec<_> = faults.map(|index| FAULTS[index]).collect();
        if faults.is_empty() {
            break;
        }
        let mut text = fs::read_to_string(recipe(rules)).unwrap();
        for (alert, part, fault) in &faults {
            assert_eq!(text.matches(part).count(), 1, "{alert} {part}");
            text = text.replace(part, fault);
        }
        fs::write(directory.join("supervisor.rules.yml"), text).unwrap();
        let said = all_of(&promtool(&["test", "rules"], &copy));
        for (alert, part, _) in &faults {
            let failed = format!("alertname: Supervisor{alert},");
            assert!(said.contains(&failed), "{alert} {part}\n{said}");
        }
    }
}

#[test]
fn the_alerts_are_about_metrics_that_are_written() {
    let (_run, path) = with_all_metrics();
    let written = || fs::read_to_string(&path).unwrap_or_default();
    let rules = fs::read_to_string(recipe("prometheus/supervisor.rules.yml")).unwrap();
    let expressions: String = rules.lines().filter(|line| !line.contains("# ")).collect();
    let names = expressions.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: Vec<_> = names
        .filter(|name| name.starts_with("supervisor_"))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(written().contains(&format!("# TYPE {name} ")), "{name}");
    }
}
