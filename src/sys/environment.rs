//! The environment of what we launch; see the module above.

use std::ffi::{CStr, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;

/// What a program finds in its environment: what stands in ours is handed on from there as it is, be it with a
/// `=` or without, and not copied.
pub struct Environment {
    pub(super) inherited: Vec<&'static CStr>,
    /// `NAME=value`, each.
    pub(super) own: Vec<OsString>,
}

impl Environment {
    /// Ours, but for the variables whose name is to be left out.
    pub fn inherited(is_left_out: impl Fn(&OsStr) -> bool) -> Self {
        let ours = environment().filter(|variable| !is_left_out(name(variable)));
        Self {
            inherited: ours.collect(),
            own: Vec::new(),
        }
    }

    /// Sets a variable, instead of one that has this name.
    pub fn set(&mut self, variable: &str, value: &OsStr) {
        self.inherited.retain(|other| name(other) != variable);
        self.own.push([variable.as_ref(), value].join("=".as_ref()));
    }

    /// Adds `NAME=value` to what there is, also of that name: it is looked for as a whole.
    pub fn add(&mut self, variable: OsString) {
        self.own.push(variable);
    }

    /// The value of a variable that stands in ours.
    #[must_use]
    pub fn get(&self, variable: &str) -> Option<&OsStr> {
        let value = |other: &&'static CStr| {
            let rest = other.to_bytes().strip_prefix(variable.as_bytes())?;
            rest.strip_prefix(b"=")
        };
        let found = self.inherited.iter().find_map(value);
        found.map(OsStr::from_bytes)
    }
}

fn name(variable: &CStr) -> &OsStr {
    let mut parts = variable.to_bytes().split(|byte| *byte == b'=');
    OsStr::from_bytes(parts.next().unwrap_or_default())
}

/// The environment of this process, as it was given to us (environ(7)).
fn environment() -> impl Iterator<Item = &'static CStr> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut next = 0;
    std::iter::from_fn(move || {
        // SAFETY: a null-terminated array of strings of C; nothing in this process ever changes it (no
        // thread calls setenv(3) or its like), and we stop at the null.
        unsafe {
            let variable = environ.as_ref().map(|_| *environ.add(next))?;
            next += 1;
            (!variable.is_null()).then(|| CStr::from_ptr(variable))
        }
    })
    .fuse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_behind_one_of_its_name_without_a_value_and_each_is_handed_on() {
        let mut environment = Environment {
            inherited: vec![c"PATH", c"PATHS=/b", c"PATH=/a", c"=odd", c"X=1", c"X=2"],
            own: Vec::new(),
        };
        assert_eq!(environment.get("PATH"), Some(OsStr::new("/a")));
        assert_eq!(environment.get("NONE"), None);
        environment.set("X", OsStr::new("3"));
        assert_eq!(
            environment.inherited,
            [c"PATH", c"PATHS=/b", c"PATH=/a", c"=odd"]
        );
        assert_eq!(environment.own, ["X=3"]);
    }
}
