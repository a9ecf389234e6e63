// A Rust program that works with and without supervisor:
//     rustc --edition 2021 -O heartbeat.rs
//     supervisor --enable-heartbeat ./heartbeat
// Copy into your own program: beat(), `interval`, and the call of beat() in your loop.
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

// A beat is a write to the file. HEARTBEAT_FILE not set: not supervised, no beats.
fn beat() {
    let Some(path) = env::var_os("HEARTBEAT_FILE").filter(|p| !p.is_empty()) else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Err(e) = fs::write(&path, format!("{}\n", now.as_secs_f64())) {
        eprintln!("no beat: {e}"); // reported, not fatal
    }
}

fn main() {
    // supervisor sets HEARTBEAT_TIMEOUT (seconds, 0.5 for example). Four beats in that
    // time leave room for three late ones.
    let timeout = env::var("HEARTBEAT_TIMEOUT").ok().and_then(|t| t.parse::<f64>().ok());
    let timeout = timeout.filter(|t| *t > 0.0 && *t <= 1e9).unwrap_or(20.0);
    let interval = Duration::from_secs_f64(timeout / 4.0);

    // beat() stands in the loop that does the work. In a thread of its own it would go on
    // when the work hangs, and supervisor would see nothing.
    loop {
        println!("working"); // your work; longer than the interval? call beat() in it too
        beat();
        thread::sleep(interval); // waiting for work: never longer than this at a time
    }
}
