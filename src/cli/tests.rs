//! The command line, word by word.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn parse_order(words: &[&str]) -> Result<Order, Early> {
    let argv: Vec<OsString> = ["supervisor"]
        .iter()
        .chain(words)
        .map(OsString::from)
        .collect();
    parse(&argv)
}

fn parse_words(words: &[&str]) -> Result<Config, Early> {
    match parse_order(words)? {
        Order::Supervise(config) => Ok(*config),
        order @ (Order::Call(_) | Order::Check) => panic!("{order:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    definition(&whole()).debug_assert();
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = parse_words(&["--enable-heartbeat", "true"]).unwrap();
    let policy = config.policy;
    let heartbeat = policy.heartbeat.unwrap();
    assert_eq!(
        config.heartbeat_file.unwrap(),
        PathBuf::from("heartbeat.txt")
    );
    assert_eq!(heartbeat.timeout, Duration::from_secs(20));
    assert_eq!(heartbeat.initial_delay, Duration::ZERO);
    assert_eq!(policy.grace, Duration::from_secs(5));
    assert_eq!(policy.max_restarts, None);
    assert_eq!(policy.backoff_factor, Duration::from_secs(1));
    assert_eq!(policy.max_backoff, Duration::from_secs(3600));
    assert_eq!(policy.jitter.to_bits(), 0f64.to_bits());
    assert_eq!(policy.reset_after, Some(Duration::from_secs(60)));
    assert_eq!(policy.hang_signal, Signal::SIGTERM);
    assert_eq!(config.log_level, LevelFilter::Info);
    assert_eq!(config.log_file, None);
    assert!(!config.keep_descendants);
    assert!(parse_words(&["true"]).unwrap().policy.heartbeat.is_none());
}

#[test]
fn to_leave_out_what_nobody_named_makes_no_difference() {
    for line in [
        "true",
        "true --timeout x --list",
        "--timeout=3 --enable-heartbeat --initial-check-delay 0.5 -- true",
        "--heartbeat-file hb --max-restarts -1 --max-backoff 7 true",
        "--grace-period 1 --grace-period 2 --keep-descendants --sd-notify true",
        "--hang-signal abrt --log-level debug --log-file l --name n true",
        "--backoff-factor 0 --backoff-jitter .5 --reset-after 0 true",
        "--on-event a --on-give-up b --metrics-file m true",
        "--list --json",
        "--status n",
        "--restart n",
        "--check true",
    ] {
        let words = ["supervisor"].into_iter().chain(line.split(' '));
        let argv: Vec<_> = words.map(OsString::from).collect();
        let matches = definition(&whole()).try_get_matches_from(&argv).unwrap();
        let by_the_whole = order(Typed(matches));
        let brief = parse(&argv).unwrap();
        assert_eq!(format!("{brief:?}"), format!("{by_the_whole:?}"), "{line}");
        let named = OPTIONS.iter().filter(|row| row.is_named(&argv)).count();
        let typed = argv
            .iter()
            .filter(|word| word.len() > 2 && word.as_encoded_bytes().starts_with(b"--"));
        assert!(named <= typed.count(), "{line}: {named}");
    }
}

#[test]
fn all_that_follows_the_command_belongs_to_it() {
    for (typed, command) in [
        (
            &["ls", "--timeout", "x", "-h"][..],
            &["ls", "--timeout", "x", "-h"][..],
        ),
        (&["--", "ls", "--", "-V"], &["ls", "--", "-V"]),
        (&["ls", "--", "-V"], &["ls", "--", "-V"]),
        (&["--grace-period", "1", "ls", "-1"], &["ls", "-1"]),
        (&["--", "--odd-name"], &["--odd-name"]),
        (&["-"], &["-"]),
        (&["ls", "", "a b"], &["ls", "", "a b"]),
    ] {
        assert_eq!(parse_words(typed).unwrap().command, command, "{typed:?}");
    }
}

#[test]
fn seconds_are_decimal_numbers() {
    for (text, duration) in [
        ("20", Duration::from_secs(20)),
        ("0.25", Duration::from_millis(250)),
        (".5", Duration::from_millis(500)),
        ("1e3", Duration::from_secs(1000)),
        ("1e9", Duration::from_secs(1_000_000_000)),
        ("1e-300", Duration::from_nanos(1)),
    ] {
        assert_eq!(seconds(text.into()), Ok(duration), "{text}");
    }
    assert_eq!(seconds("0".into()), Ok(Duration::ZERO));
    for text in [
        "",
        " 1",
        "1 ",
        "-1",
        "-2",
        "-0.001",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "infinity",
        "1e300",
        "1000000001",
        "1,5",
        "20s",
        "0x10",
        "twenty",
    ] {
        assert!(seconds(text.into()).is_err(), "{text}");
        assert!(positive_seconds(text.into()).is_err(), "{text}");
    }
    for zero in ["0", "0.0", "-0", "0e9"] {
        assert!(positive_seconds(zero.into()).is_err(), "{zero}");
    }
}

#[test]
fn counts_are_whole_numbers_from_minus_one() {
    assert_eq!(max_restarts("-1".into()).unwrap(), None);
    assert_eq!(max_restarts("0".into()).unwrap(), Some(0));
    let most = i64::MAX.to_string().into();
    assert_eq!(max_restarts(most).unwrap(), Some(i64::MAX.unsigned_abs()));
    for text in ["-2", "1.5", "", "many", "1e3", "9223372036854775808"] {
        assert!(max_restarts(text.into()).is_err(), "{text}");
    }
}

#[test]
fn a_variable_is_on_unless_it_says_no() {
    for on in ["1", "true", "yes", "on", "anything", "n"] {
        assert!(is_on(&on.into()), "{on}");
    }
    for off in ["", "0", "false", "no", "off", "OFF", "False"] {
        assert!(!is_on(&off.into()), "{off}");
    }
}

#[test]
fn each_option_has_its_variable() {
    for arg in definition(&whole()).get_arguments() {
        let (Some(long), Some(variable)) = (arg.get_long(), arg.get_env()) else {
            // A call has none: a variable would turn each supervisor into it.
            let calls = [
                "list", "status", "restart", "stop", "pause", "resume", "json", "check",
            ];
            let id = arg.get_id().as_str();
            assert!(id == "command" || calls.contains(&id), "{id}");
            continue;
        };
        let expected = format!("SUPERVISOR_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(variable.to_str(), Some(expected.as_str()));
    }
}

#[test]
fn the_last_of_two_equal_options_counts() {
    let config = parse_words(&["--grace-period", "1", "--grace-period", "2", "x"]).unwrap();
    assert_eq!(config.policy.grace, Duration::from_secs(2));
}

#[test]
fn options_that_need_the_heartbeat_are_noted_without_it() {
    let words = ["--timeout", "3", "--heartbeat-file", "x", "true"];
    let noted = parse_words(&words).unwrap().without_effect;
    assert_eq!(noted, ["--heartbeat-file", "--timeout"]);
    let words = ["--enable-heartbeat", "--timeout", "3", "true"];
    assert!(parse_words(&words).unwrap().without_effect.is_empty());
}

#[test]
fn a_usage_error_is_one_line_that_names_the_option_and_the_value() {
    for (words, parts) in [
        (&[][..], &["no command given"][..]),
        (&["--list", "ls"], &["--list", "take no command"]),
        (&["--status", "web", "ls"], &["--status", "take no command"]),
        (&["--json", "ls"], &["--json goes with --list"]),
        (&["--stop", "a", "--restart", "b"], &["--stop", "--restart"]),
        (&["--timeout", "x", "ls"], &["--timeout", "'x'", "seconds"]),
        (&["--timeout"], &["--timeout"]),
        (&["--max-restarts", "-2", "ls"], &["--max-restarts", "'-2'"]),
        (
            &["--heartbeat-file", "", "ls"],
            &["--heartbeat-file", "path of a file"],
        ),
        (&["--no-such", "ls"], &["--no-such"]),
        (
            &["--grace-perod", "1", "ls"],
            &["--grace-perod", "--grace-period"],
        ),
        (&["--log-level", "a\nb", "ls"], &["--log-level", "a b"]),
        (&["-x", "ls"], &["-x"]),
        (&["--timeout", "-.5", "ls"], &["--timeout", "'-.5'"]),
    ] {
        let early = parse_words(words).unwrap_err();
        assert_eq!(early.exit, Exit::USAGE, "{words:?}");
        assert!(early.text.starts_with("supervisor: "), "{}", early.text);
        assert_eq!(early.text.matches('\n').count(), 1, "{}", early.text);
        for part in parts {
            assert!(early.text.contains(part), "{part} in {}", early.text);
        }
    }
}

#[test]
fn a_call_names_an_instance_and_has_no_command() {
    let one = |verb, form| Call::One(verb, "web".into(), form);
    for (words, call) in [
        (&["--list"][..], Call::List(Form::Text)),
        (&["--list", "--json"], Call::List(Form::Json)),
        (
            &["--json", "--status", "web"],
            one(Verb::Status, Form::Json),
        ),
        (&["--status=web"], one(Verb::Status, Form::Text)),
        (&["--restart", "web"], one(Verb::Restart, Form::Text)),
        (&["--stop", "web"], one(Verb::Stop, Form::Text)),
        (&["--pause", "web"], one(Verb::Pause, Form::Text)),
        (&["--resume", "web"], one(Verb::Resume, Form::Text)),
    ] {
        match parse_order(words).unwrap() {
            Order::Call(parsed) => assert_eq!(parsed, call),
            order @ (Order::Supervise(_) | Order::Check) => panic!("{words:?}: {order:?}"),
        }
    }
    for words in [
        &["--list", "true"][..],
        &["--status", "web", "true"],
        &["--status"],
        &["--status", "../web"],
        &["--list", "--stop", "web"],
        &["--stop", "a", "--restart", "b"],
        &["--json", "true"],
        &["--json"],
        &["--check", "--list"],
        &["--stop", "web", "--check"],
    ] {
        assert_eq!(
            parse_order(words).unwrap_err().exit,
            Exit::USAGE,
            "{words:?}"
        );
    }
}

#[test]
fn a_signal_has_a_name_or_a_number() {
    for text in ["ABRT", "SIGABRT", "abrt", "sigAbrt", "6"] {
        assert_eq!(signal(text.into()), Ok(Signal::SIGABRT), "{text}");
    }
    for text in [
        "",
        "0",
        "-6",
        "65",
        "34",
        "SIG",
        "ABORT",
        "SIGSIGABRT",
        "6.0",
    ] {
        assert!(signal(text.into()).is_err(), "{text}");
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    for name in ["", ".x", "a/b", "a b", "x\n"] {
        let early = parse_words(&["--name", name, "true"]).unwrap_err();
        assert!(early.text.contains("--name"), "{}", early.text);
    }
    assert_eq!(
        parse_words(&["--name", "web@1", "true"])
            .unwrap()
            .name
            .unwrap(),
        "web@1"
    );
}
