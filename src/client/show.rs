//! Instances as a person reads them.

use std::fmt::Write as _;

use serde_json::Value;

use crate::text;

/// What a table's last column shows at most, in characters.
const COMMAND: usize = 60;

/// A table of all, with a line for each.
pub fn table(instances: &[Value]) -> String {
    let heads = [
        "NAME",
        "PID",
        "STATE",
        "UPTIME",
        "RESTARTS",
        "LAST BEAT",
        "MARGIN",
        "COMMAND",
    ];
    let mut rows = vec![heads.map(str::to_owned)];
    rows.extend(instances.iter().map(row));
    let widths: [usize; 8] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String can't fail, here and below.
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn row(instance: &Value) -> [String; 8] {
    let heartbeat = &instance["heartbeat"];
    if let Some(error) = instance["error"].as_str() {
        let blank = String::new;
        let answer = clean(&format!("({error})"));
        return [
            word(&instance["name"]),
            word(&instance["pid"]),
            "no answer".to_owned(),
            blank(),
            blank(),
            blank(),
            blank(),
            answer,
        ];
    }
    [
        word(&instance["name"]),
        word(&instance["pid"]),
        word(&instance["state"]),
        span(&instance["uptime_s"]),
        word(&instance["restarts"]),
        span(&heartbeat["last_beat_s"]),
        span(&heartbeat["tightest_margin_s"]),
        shortened(&command(instance)),
    ]
}

/// One in full: a line for each of its facts.
pub fn one(instance: &Value) -> String {
    let heartbeat = &instance["heartbeat"];
    let exit = &instance["last_exit"];
    let last_exit = match exit["code"].as_u64() {
        Some(code) => format!("code {code}"),
        None => word(&exit["signal"]),
    };
    let facts = [
        ("name", word(&instance["name"])),
        ("pid", word(&instance["pid"])),
        ("state", word(&instance["state"])),
        ("command", command(instance)),
        ("command pid", word(&instance["command_pid"])),
        ("uptime", span(&instance["uptime_s"])),
        ("run", word(&instance["run"])),
        ("restarts", word(&instance["restarts"])),
        ("last exit", last_exit),
        ("heartbeat", word(&heartbeat["file"])),
        ("timeout", span(&heartbeat["timeout_s"])),
        ("last beat", span(&heartbeat["last_beat_s"])),
        ("tightest margin", span(&heartbeat["tightest_margin_s"])),
        ("status", word(&instance["status"])),
    ];
    let dropped = instance["notify_dropped"]
        .as_u64()
        .filter(|count| *count > 0);
    let dropped = dropped.map(|count| ("dropped", format!("{count} messages")));
    let mut text = String::new();
    for (name, fact) in facts.into_iter().chain(dropped) {
        let _ = writeln!(text, "{name:16} {fact}");
    }
    text
}

/// A number or a text; what there is not is a dash.
fn word(value: &Value) -> String {
    let text = value.as_str().filter(|text| !text.is_empty()).map(clean);
    let number = value.is_number().then(|| value.to_string());
    text.or(number).unwrap_or_else(|| "-".to_owned())
}

/// A time, in the two largest of its units; to the hundredth of a second where it is short.
fn span(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_f64() else {
        return "-".to_owned();
    };
    if seconds < 60.0 {
        return format!("{seconds:.2}s");
    }
    // Whole seconds are enough; a time is never below zero, nor near the end of the numbers.
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m{:02}s", whole % 60),
        (0, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

fn command(instance: &Value) -> String {
    let words = instance["command"].as_array().into_iter().flatten();
    let words: Vec<_> = words.filter_map(Value::as_str).map(clean).collect();
    words.join(" ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Without what a terminal takes for more than a letter.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        let _ = text::escape(&mut clean, c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_shows_its_two_largest_units() {
        for (seconds, shown) in [
            (json!(0.0), "0.00s"),
            (json!(59.994), "59.99s"),
            (json!(60), "1m00s"),
            (json!(3599.9), "59m59s"),
            (json!(3600), "1h00m"),
            (json!(90_061), "1d01h"),
            (json!(1e9), "11574d01h"),
            (Value::Null, "-"),
        ] {
            assert_eq!(span(&seconds), shown);
        }
    }

    #[test]
    fn a_table_has_its_columns_below_each_other_and_no_name_leaves_its_line() {
        let full = json!({
            "name": "web", "pid": 42, "state": "running", "uptime_s": 12.5, "restarts": 3,
            "heartbeat": { "file": "/run/hb", "last_beat_s": 0.25, "tightest_margin_s": 17.125 },
            "command": ["sh", "-c", "x\n\u{1b}[31m"],
        });
        let silent = json!({ "name": "stuck", "pid": 7, "error": "nothing was heard" });
        let expected = "\
NAME   PID  STATE      UPTIME  RESTARTS  LAST BEAT  MARGIN  COMMAND
web    42   running    12.50s  3         0.25s      17.12s  sh -c x\\n\\x1b[31m
stuck  7    no answer                                       (nothing was heard)
";
        assert_eq!(table(&[full, silent]), expected);
        assert_eq!(table(&[]).lines().count(), 1);
    }

    #[test]
    fn a_long_command_is_cut_and_says_so() {
        let row = row(&json!({ "command": ["ä".repeat(100)] }));
        assert_eq!(row[7], format!("{}...", "ä".repeat(60)));
    }
}
