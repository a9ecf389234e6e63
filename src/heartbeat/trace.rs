//! Where a path leads.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many links are followed as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The way that the kernel takes from a path to its file, also where that does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The symbolic links on the way, each without another link in its own path.
    pub links: Vec<PathBuf>,
    /// The file's own place, without any link.
    pub end: PathBuf,
}

impl Trace {
    /// Follows `path`, which is absolute.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let mut trace = Self {
            links: Vec::new(),
            end: PathBuf::from("/"),
        };
        let mut ahead = names(path);
        while let Some(name) = ahead.pop() {
            if name == ".." {
                trace.end.pop();
                continue;
            }
            // `/` takes the place of all that was before it.
            let here = trace.end.join(name);
            match fs::read_link(&here) {
                Ok(target) if trace.links.len() < MOST_LINKS => {
                    trace.links.push(here);
                    ahead.extend(names(&target));
                }
                _ => trace.end = here,
            }
        }
        trace
    }
}

/// The names in a path, last one first; `/` where it is absolute.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    names
        .filter(|name| *name != Component::CurDir)
        .map(|name| name.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `a/` with a file, and links to it.
    fn tree(name: &str) -> PathBuf {
        let top = std::env::temp_dir().join(format!("trace-{}-{name}", std::process::id()));
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/file"), "").unwrap();
        fs::canonicalize(top).unwrap()
    }

    #[test]
    fn a_path_without_links_leads_to_itself() {
        let top = tree("plain");
        for (path, end) in [
            ("a/file", "a/file"),
            ("a/./b/../file", "a/file"),
            ("a/missing/deeper", "a/missing/deeper"),
        ] {
            let trace = Trace::of(&top.join(path));
            assert_eq!((trace.links, trace.end), (vec![], top.join(end)));
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn each_link_on_the_way_is_named_also_where_it_leads_nowhere() {
        let top = tree("links");
        let link = |target: &str, at: &str| symlink(target, top.join(at)).unwrap();
        link("a", "relative");
        link(top.join("a/b").to_str().unwrap(), "absolute");
        link("../../relative/file", "a/b/chained");
        link("missing/hb", "dangling");
        for (path, links, end) in [
            ("relative/file", vec!["relative"], "a/file"),
            (
                "absolute/chained",
                vec!["absolute", "a/b/chained", "relative"],
                "a/file",
            ),
            ("dangling", vec!["dangling"], "missing/hb"),
        ] {
            let links = links.iter().map(|link| top.join(link)).collect();
            let end = top.join(end);
            assert_eq!(Trace::of(&top.join(path)), Trace { links, end });
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_circle_of_links_comes_to_an_end() {
        let top = tree("circle");
        symlink("two", top.join("one")).unwrap();
        symlink("one", top.join("two")).unwrap();
        assert_eq!(Trace::of(&top.join("one")).links.len(), MOST_LINKS);
        fs::remove_dir_all(top).unwrap();
    }
}
