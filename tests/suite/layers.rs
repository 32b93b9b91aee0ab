//! The layers hold: imports point down, edges do not know each other, words are pure.
//!
//! The table is the one in `src/lib.rs`. Every path that starts with `crate::` is looked at, in `use`
//! trees and in the code alike.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layer of the modules that neither read, wait nor know the time.
const PURE: u8 = 1;
/// The layer of the modules that must not know each other.
const EDGES: u8 = 4;
/// The layer of the binaries.
const ASSEMBLY: u8 = 5;

/// Where a path may start in a pure module.
const PURE_ROOTS: [&str; 20] = [
    "alloc",
    "base16ct",
    "base64ct",
    "blake3",
    "bytes",
    "core",
    "crate",
    "flate2",
    "md5",
    "rmp_serde",
    "self",
    "serde",
    "serde_json",
    "sha2",
    "std",
    "subtle",
    "super",
    "thiserror",
    "tokio_util",
    "zeroize",
];
/// What a pure module must not name, whatever way it is imported.
const IMPURE: [&str; 17] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "Instant::now",
    "std::time::SystemTime",
    "std::io::Read",
    "std::io::Write",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "Instant::now",
    "SystemTime::now",
    "tokio::",
];

#[test]
fn imports_point_down_and_edges_do_not_know_each_other() {
    let layers = layers();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let Some(&own) = layers.get(module.as_str()) else {
            wrong.push(format!("{}: `{module}` is missing in the table of src/lib.rs", path.display()));
            continue;
        };
        for target in crate_modules(&text) {
            let Some(&theirs) = layers.get(target.as_str()) else { continue };
            if theirs > own {
                wrong.push(format!("{}: L{own} uses `{target}` of L{theirs}", path.display()));
            }
            if own == EDGES && theirs == EDGES && target != module {
                wrong.push(format!("{}: edge `{module}` uses edge `{target}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn words_are_pure() {
    let layers = layers();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if layers.get(module_of(&path).as_str()) != Some(&PURE) {
            continue;
        }
        let is_test = path.ends_with("tests.rs");
        let code = if is_test { "" } else { text.split("#[cfg(test)]").next().unwrap() };
        wrong.extend(impurities(code).into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_at_the_top_name_each_other_by_crate() {
    // A `super::` from a top module would escape the test above.
    for (path, text) in sources() {
        let depth = path.strip_prefix(src()).unwrap().components().count();
        let climb = "super::".repeat(depth);
        let escapes = text.lines().find(|line| line.starts_with(&format!("use {climb}")));
        assert_eq!(escapes, None, "{}", path.display());
    }
}

#[test]
fn the_scanner_sees_what_it_is_there_to_see() {
    let text = "use crate::{server, limits::{A, B}};\nfn f() { crate::app::main() }\n// crate::client\n";
    assert_eq!(crate_modules(&code_of(text)), ["app", "limits", "server"]);
    for impure in [
        "use tokio::net::TcpStream;",
        "use std::{fmt, fs::File};",
        "fn f() { std::time::Instant::now() }",
        "fn f() { std::net::lookup() }",
        "use tokio_util::{codec::Decoder, sync::CancellationToken};",
        "use rustix::fs;",
    ] {
        assert!(!impurities(impure).is_empty(), "{impure}");
    }
    // Moments may be passed in; asking what time it is is for others. A module's own parts are its own.
    let pure = "mod part;\npub use part::Thing;\nuse std::{fmt, io};\nuse std::time::{Duration, Instant};\nuse tokio_util::codec::{Decoder, Encoder};";
    assert!(impurities(pure).is_empty());
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Modules and their layers, from the table in `src/lib.rs`.
fn layers() -> BTreeMap<String, u8> {
    let text = fs::read_to_string(src().join("lib.rs")).unwrap();
    let mut layers = BTreeMap::from([("bin".to_owned(), ASSEMBLY), ("lib".to_owned(), ASSEMBLY)]);
    for line in text.lines().filter_map(|line| line.strip_prefix("//! L")) {
        let (number, rest) = line.split_at(1);
        let modules = rest.trim_start().split_once(' ').unwrap().1;
        for module in modules.split(',').map(str::trim).filter(|word| !word.contains(' ')) {
            layers.insert(module.to_owned(), number.parse().unwrap());
        }
    }
    assert!(layers.len() > 10, "the table in src/lib.rs was not understood: {layers:?}");
    layers
}

/// All source files, without comments.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = code_of(&fs::read_to_string(&path).unwrap());
                found.push((path, text));
            }
        }
    }
    found
}

fn code_of(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The top module that a file belongs to.
fn module_of(path: &Path) -> String {
    let first = path.strip_prefix(src()).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The top modules that a text names, in `use` trees and elsewhere.
fn crate_modules(text: &str) -> Vec<String> {
    let uses = use_paths(text);
    let inline = text.match_indices("crate::").map(|(at, _)| &text[at..]);
    let mut modules: Vec<_> = uses
        .iter()
        .map(String::as_str)
        .chain(inline)
        .filter_map(|path| path.strip_prefix("crate::"))
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
        .filter(|module| !module.is_empty())
        .collect();
    modules.sort();
    modules.dedup();
    modules
}

/// What keeps a text from being pure.
fn impurities(code: &str) -> Vec<String> {
    let paths = use_paths(code);
    let mut wrong = Vec::new();
    for path in &paths {
        let root = path.split("::").next().unwrap();
        let is_own = code.contains(&format!("mod {root};"));
        if !(is_own || PURE_ROOTS.contains(&root))
            || (root == "tokio_util" && !path.starts_with("tokio_util::codec"))
        {
            wrong.push(format!("uses {path}"));
        }
    }
    for impure in IMPURE {
        if code.contains(impure) || paths.iter().any(|path| path.starts_with(impure)) {
            wrong.push(format!("names {impure}"));
        }
    }
    wrong
}

/// All paths of all `use` declarations, each in full.
fn use_paths(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for declaration in text.split(';') {
        // Before it stand the end of something else, and attributes.
        let starts = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
        let Some(at) = declaration.match_indices("use ").map(|(at, _)| at).find(|&at| {
            let line = declaration[..at + 4].rsplit('\n').next().unwrap().trim_start();
            starts.contains(&line)
        }) else {
            continue;
        };
        expand("", declaration[at + 4..].trim(), &mut paths);
    }
    paths
}

/// Writes a use tree out: `a::{b, c::{d, e}}` is `a::b`, `a::c::d`, `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        return paths.push(format!("{prefix}{}", tree.trim()));
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inner = &tree[open + 1..tree.rfind('}').filter(|&close| close > open).unwrap_or(tree.len())];
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[start..at].trim().is_empty() {
                    expand(&prefix, inner[start..at].trim(), paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}
