//! Makes the man page and the completions, each from its template here and the table of options that clap
//! has, and writes them into the directory that is named: `make documents`.
//!
//! Not `clap_mangen` and `clap_complete`: what follows our options is a command with a completion of its
//! own, and what follows some of them is the name of an instance.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use clap::Arg;

/// What stands in for which marker of a template.
type Fillings = Vec<(&'static str, String)>;

/// How a template is filled.
type Fill = fn(&[Opt]) -> Fillings;

/// Each file that is made.
const DOCUMENTS: [(&str, Fill); 4] = [
    ("supervisor.1", man),
    ("supervisor.bash", bash),
    ("_supervisor", zsh),
    ("supervisor.fish", fish),
];

fn main() {
    let out = std::env::args_os().nth(1).expect("a directory is named");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/documents");
    let mut line = supervisor::cli::command_line();
    line.build();
    let options: Vec<_> = line.get_arguments().filter_map(Opt::of).collect();
    for (name, fill) in DOCUMENTS {
        let template = templates.join(format!("{name}.in"));
        let mut text = fs::read_to_string(template).unwrap();
        for (marker, filling) in fill(&options) {
            let marker = format!("@{marker}@");
            assert!(text.contains(&marker), "{marker} is not in {name}.in");
            text = text.replace(&marker, &filling);
        }
        fs::write(Path::new(&out).join(name), text).unwrap();
    }
}

/// An option, as clap has it.
struct Opt {
    long: String,
    short: Option<char>,
    /// What its value is called in the help; empty if it takes none.
    value: String,
    help: String,
    heading: Option<String>,
    default: Option<String>,
    variable: Option<String>,
}

/// What may follow it.
#[derive(PartialEq)]
enum Kind {
    Nothing,
    File,
    Instance,
    Level,
    Signal,
    Other,
}

impl Opt {
    /// None for the command, which is no option.
    fn of(arg: &Arg) -> Option<Self> {
        let value = arg.get_value_names().unwrap_or_default().concat();
        let default = arg.get_default_values().first();
        let default = default.filter(|_| !value.is_empty());
        Some(Self {
            long: format!("--{}", arg.get_long()?),
            short: arg.get_short(),
            value,
            help: arg.get_help()?.to_string(),
            heading: arg.get_help_heading().map(str::to_owned),
            default: default.map(|default| default.to_str().unwrap().to_owned()),
            variable: arg.get_env().map(|name| name.to_str().unwrap().to_owned()),
        })
    }

    fn kind(&self) -> Kind {
        match self.value.as_str() {
            "" => Kind::Nothing,
            "PATH" => Kind::File,
            "NAME" if self.long != "--name" => Kind::Instance,
            "L" => Kind::Level,
            "SIG" => Kind::Signal,
            _ => Kind::Other,
        }
    }
}

/// A line for each.
fn lines(options: &[Opt], line: impl Fn(&Opt) -> String) -> String {
    options.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The names of some, with `between` in between.
fn names(options: &[Opt], between: &str, which: impl Fn(Kind) -> bool) -> String {
    let some = options.iter().filter(|option| which(option.kind()));
    let names: Vec<_> = some.map(|option| option.long.as_str()).collect();
    names.join(between)
}

fn man(options: &[Opt]) -> Fillings {
    // A minus sign is to be one, also where it is copied from.
    let roff = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let mut out = String::new();
    let mut heading = &None;
    for option in options {
        if option.heading != *heading || out.is_empty() {
            out += if out.is_empty() { "" } else { ".El\n" };
            let title = option.heading.as_deref().unwrap_or("Other");
            out += &format!(".Ss {title}\n.Bl -tag -width Ds\n");
            heading = &option.heading;
        }
        let short = option.short.map(|short| format!("Fl {short} , "));
        let value = match option.value.as_str() {
            "" => String::new(),
            value => format!(" Ar {value}"),
        };
        let long = &option.long[1..];
        out += &format!(".It {}Fl {long}{value}\n", short.unwrap_or_default());
        out += &format!("{}.\n", roff(&option.help));
        if let Some(default) = &option.default {
            out += &format!("Default: {}.\n", roff(default));
        }
        if let Some(variable) = &option.variable {
            out += &format!(".Pq Ev {variable}\n");
        }
    }
    out += ".El";
    vec![("OPTIONS", out)]
}

fn bash(options: &[Opt]) -> Fillings {
    let shorts = options.iter().filter_map(|option| option.short);
    let shorts: String = shorts.map(|short| format!("-{short} ")).collect();
    vec![
        ("VALUED", names(options, "|", |kind| kind != Kind::Nothing)),
        ("FILES", names(options, "|", |kind| kind == Kind::File)),
        (
            "INSTANCES",
            names(options, "|", |kind| kind == Kind::Instance),
        ),
        ("LEVELS", names(options, "|", |kind| kind == Kind::Level)),
        ("SIGNALS", names(options, "|", |kind| kind == Kind::Signal)),
        ("OPTIONS", shorts + &names(options, " ", |_| true)),
    ]
}

fn zsh(options: &[Opt]) -> Fillings {
    let line = |option: &Opt| {
        let Opt {
            long, value, help, ..
        } = option;
        let help = help.replace(':', "\\:").replace('\'', "'\\''");
        let completes = match option.kind() {
            Kind::Nothing => String::new(),
            Kind::File => format!(":{value}:_files"),
            Kind::Instance => format!(":{value}:_supervisor_instances"),
            Kind::Level => format!(":{value}:(error warn info debug)"),
            Kind::Signal => format!(":{value}:_signals"),
            Kind::Other => format!(":{value}: "),
        };
        match option.short {
            Some(short) => {
                let both = format!("-{short} {long}");
                format!("    '({both})'{{-{short},{long}}}'[{help}]' \\")
            }
            None if value.is_empty() => format!("    '{long}[{help}]' \\"),
            None => format!("    '{long}=[{help}]{completes}' \\"),
        }
    };
    vec![("OPTIONS", lines(options, line))]
}

fn fish(options: &[Opt]) -> Fillings {
    let line = |option: &Opt| {
        let Opt { long, help, .. } = option;
        let short = option.short.map(|short| format!(" -s {short}"));
        let completes = match option.kind() {
            Kind::Nothing => "",
            Kind::File => " -r -F",
            Kind::Instance => " -x -a '(__supervisor_instances)'",
            Kind::Level => " -x -a 'error warn info debug'",
            Kind::Signal => " -x -a '(kill -l | string split -n \" \")'",
            Kind::Other => " -x",
        };
        format!(
            "complete -c supervisor -n 'not __supervisor_command >/dev/null'{} -l {}{completes} -d '{}'",
            short.unwrap_or_default(),
            &long[2..],
            help.replace('\'', "\\'"),
        )
    };
    let spec = options.iter().map(|option| {
        let short = option.short.map(|short| format!("{short}/"));
        let value = if option.value.is_empty() { "" } else { "=" };
        format!("{}{}{value}", short.unwrap_or_default(), &option.long[2..])
    });
    vec![
        ("SPEC", spec.collect::<Vec<_>>().join(" ")),
        ("OPTIONS", lines(options, line)),
    ]
}
