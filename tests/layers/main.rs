//! Imports run down the layers only: the rule of ARCHITECTURE.md, checked on every path that the source files name.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be read fails it")]
#![expect(clippy::indexing_slicing, reason = "a test: a wrong index fails it")]

mod paths;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use self::paths::{Mention, is_test, mentions, module_of};

/// The folders of `src`, lowest first. A layer may name itself and those before it.
const LAYERS: [&str; 9] =
    ["codec", "mux", "error", "driver", "protocol", "single", "robust", "client", "broker"];

/// Layers that may name less than their place in the list allows. The embedded broker must not share a fault with
/// what it tests; `protocol` is the public face of the codec.
const ON_THESE_ALONE: [(&str, &[&str]); 2] = [("broker", &["codec"]), ("protocol", &["codec"])];

/// Modules for fuzzing and benchmarks. They reach into every layer; only test code may name them.
const TOOLS: [&str; 2] = ["fuzzing", "bench"];

/// What a folder of `src` must not name. A rule for a folder that does not exist is waiting for it.
const FORBIDDEN: [(&str, &[&str]); 7] = [
    ("codec", &["tokio", "tracing", "parking_lot", "std::net"]),
    ("mux", &["tokio", "tracing", "parking_lot", "std::net"]),
    ("protocol", &["tokio", "tracing", "parking_lot", "std::net"]),
    ("client", &["tokio::net", "tokio::io", "crate::driver"]),
    ("robust", &["crate::driver"]),
    ("single", &["tokio::net", "tokio::io"]),
    ("robust/ledger", &["tokio", "tracing", "parking_lot", "std::net", "crate::driver"]),
];

/// Folders that are told the time. Their tests may read the clock.
const WITHOUT_CLOCK: [&str; 4] = ["codec", "mux", "protocol", "robust/ledger"];
const CLOCKS: [&str; 2] = ["std::time::Instant::now", "tokio::time::Instant::now"];

/// Where each name that the crate's root re-exports comes from: `Message` -> `client`.
type Exports = HashMap<String, String>;

#[test]
fn imports_run_down_the_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let exports = exports(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let mut files = Vec::new();
    sources(&src, &mut files);
    let (mut seen, mut faults) = (0, Vec::new());
    for file in files {
        let code = fs::read_to_string(src.join(&file)).unwrap();
        for mention in mentions(&module_of(&file), &code) {
            seen += usize::from(mention.path[0] == "crate");
            if let Some(fault) = fault(&file, &mention, &exports) {
                faults.push(format!("src/{}:{}: {fault}", file.display(), mention.line));
            }
        }
    }
    assert!(seen > 500, "only {seen} paths of this crate were found: is this the right folder?");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// All Rust files below `src`, relative to it.
fn sources(src: &Path, found: &mut Vec<PathBuf>) {
    let mut folders = vec![src.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(src).unwrap().to_owned());
            }
        }
    }
    found.sort();
}

/// Reads the `pub use self::layer::…` lines of the root.
fn exports(root: &str) -> Exports {
    let imports = mentions(&[], root).into_iter().filter(|mention| mention.name.is_some());
    imports
        .filter_map(|mention| {
            let name = mention.name.unwrap();
            assert_ne!(name, "*", "the root must name what it exports: {}", mention.path.join("::"));
            let layer = mention.path.get(1)?;
            (mention.path[0] == "crate" && mention.path.len() > 2).then(|| (name, layer.clone()))
        })
        .collect()
}

/// What is wrong with this path in this file.
fn fault(file: &Path, mention: &Mention, exports: &Exports) -> Option<String> {
    let path = mention.path.join("::");
    let module = &mention.module;
    let own = module.first()?; // the root may name everything
    let place = module.join("/");
    let within = |folder: &&str| place == **folder || place.starts_with(&format!("{folder}/"));
    let forbidden = FORBIDDEN.iter().filter(|(folder, _)| within(folder)).flat_map(|(_, names)| *names);
    let without_clock = WITHOUT_CLOCK.iter().any(within) && !is_test(module);
    let clocks = CLOCKS.iter().filter(|_| without_clock);
    if let Some(name) = forbidden.chain(clocks).find(|name| is_below(&path, name)) {
        return Some(format!("{place} must not use {name}: {path}"));
    }
    if mention.path[0] != "crate" {
        return None;
    }
    let Some(name) = mention.path.get(1).filter(|name| *name != "*") else {
        return Some("names the whole root of the crate".to_owned());
    };
    let other = exports.get(name).map_or(name.as_str(), String::as_str);
    match may_name(own, other, is_test(module)) {
        Some(true) => None,
        Some(false) => Some(format!("{own} must not know {other}: {path}")),
        None => Some(format!("no layer is known for `{own}` or `{other}` ({}): {path}", file.display())),
    }
}

/// Whether `path` is `name` or something in it.
fn is_below(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether one layer may name another; `None` if the lists above do not have both.
fn may_name(own: &str, other: &str, in_test: bool) -> Option<bool> {
    let height = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    let is_tool = |name: &str| TOOLS.contains(&name);
    if own == other {
        return (is_tool(own) || height(own).is_some()).then_some(true);
    }
    if is_tool(other) {
        return Some(in_test || is_tool(own));
    }
    let other_height = height(other)?;
    if is_tool(own) {
        return Some(true);
    }
    let own_height = height(own)?;
    match ON_THESE_ALONE.iter().find(|(layer, _)| *layer == own) {
        Some((_, known)) => Some(known.contains(&other)),
        None => Some(other_height < own_height),
    }
}

/// The faults of one file, each without its line.
#[cfg(test)]
fn faults_of(file: &str, code: &str) -> Vec<String> {
    let exports =
        exports("pub use self::client::{Message, Channel as Renamed}; pub use self::codec::FieldTable;");
    let file = Path::new(file);
    mentions(&module_of(file), code).iter().filter_map(|mention| fault(file, mention, &exports)).collect()
}

#[test]
fn an_import_that_runs_up_is_seen_in_every_form() {
    for code in [
        "use crate::client::Channel;",
        "pub(crate) use crate::client::Channel;",
        "use crate::{\n    codec,\n    client::{\n        Channel,\n    },\n};",
        "use crate::{codec::{table, frame}, client};",
        "use crate::client as users;",
        "use super::super::client::Channel;",
        "use self::super::super::client::Channel;",
        "use super::super::{codec, client};",
        "fn f() -> crate::client::Channel { todo!() }",
        "fn f() { trace!(\"x\", crate::client::f(1)); }",
        "macro_rules! m { () => { $crate::client::f() } }",
        "impl crate :: client :: Carrier for X {}",
        "use lepus::client::Channel;",
    ] {
        let faults = faults_of("driver/reader.rs", code);
        assert!(
            faults.iter().any(|fault| fault.contains("driver must not know client")),
            "{code}: {faults:?}"
        );
    }
}

#[test]
fn a_name_that_the_root_exports_counts_as_its_layer() {
    assert_eq!(
        faults_of("driver/reader.rs", "use crate::{FieldTable, Message};"),
        ["driver must not know client: crate::Message"]
    );
    assert_eq!(
        faults_of("mux/ids.rs", "fn f(_: crate::Renamed) {}"),
        ["mux must not know client: crate::Renamed"]
    );
    assert_eq!(faults_of("mux/ids.rs", "use crate::Unheard;").len(), 1);
    assert_eq!(faults_of("unheard/ids.rs", "use crate::codec;").len(), 1);
}

#[test]
fn the_whole_root_cannot_be_imported() {
    for code in ["use crate::*;", "use super::super::*;", "use crate as lepus;", "use crate::{self as all};"]
    {
        assert_eq!(faults_of("driver/reader.rs", code), ["names the whole root of the crate"], "{code}");
    }
}

#[test]
fn what_runs_down_or_is_not_code_is_no_fault() {
    for code in [
        "// use crate::client::Channel;",
        "/* use crate::client; /* crate::robust */ */",
        "/// See [`crate::client::Channel`].\nfn f() {}",
        "//! crate::client",
        "const S: &str = \"crate::client::f\"; const R: &str = r#\"crate::robust::\"#;",
        "pub(crate) fn f() {} pub(super) fn g() {} pub(in crate::driver) fn h() {}",
        "use crate::codec::Method; use super::shared::Shared; use crate::FieldTable;",
        "mod tests { use super::*; use super::super::shared; }",
        "fn f<'a>(_: &'a str) -> impl Sized + use<'a> {}",
    ] {
        assert_eq!(faults_of("driver/reader.rs", code), [""; 0], "{code}");
    }
}

#[test]
fn a_folder_must_not_use_what_is_forbidden_there() {
    let ledger = "robust/ledger/topology.rs";
    for code in [
        "use tokio::sync::Mutex;",
        "use ::tokio;",
        "fn f() { tokio::spawn(g()) }",
        "#[tokio::test] fn f() {}",
        "use tracing as log;",
        "use std::time::Instant; fn f() { Instant::now(); }",
        "use std::{time::{Instant as I}}; fn f() { I::now(); }",
        "use std::time; fn f() { time::Instant::now(); }",
        "fn f() { std::time::Instant::now(); }",
        "use crate::driver::link::Link;",
        "use super::super::super::driver;",
    ] {
        assert_eq!(faults_of(ledger, code).len(), 1, "{code}: {:?}", faults_of(ledger, code));
    }
    assert!(faults_of(ledger, "use std::time::Instant; fn f(now: Instant) {}").is_empty());
    assert!(faults_of(ledger, "mod tests { use std::time::Instant; fn f() { Instant::now(); } }").is_empty());
    assert!(
        faults_of("robust/runner/supervisor.rs", "use tokio::sync::Mutex; use crate::single;").is_empty()
    );
    assert_eq!(faults_of("robust/runner/supervisor.rs", "use crate::driver::race::Race;").len(), 1);
    assert_eq!(faults_of("client/channel.rs", "use tokio::{net::TcpStream, sync};").len(), 1);
}

#[test]
fn the_broker_and_the_protocol_stand_on_the_codec_alone() {
    for layer in ["broker", "protocol"] {
        assert_eq!(may_name(layer, "codec", false), Some(true));
        for other in LAYERS.into_iter().filter(|other| ![layer, "codec"].contains(other)) {
            assert_eq!(may_name(layer, other, false), Some(false), "{layer}, {other}");
        }
    }
    for layer in LAYERS.into_iter().filter(|layer| *layer != "broker") {
        assert_eq!(may_name(layer, "broker", false), Some(false), "{layer}");
    }
}

#[test]
fn only_tests_name_the_tools() {
    assert_eq!(may_name("codec", "fuzzing", true), Some(true));
    assert_eq!(may_name("codec", "fuzzing", false), Some(false));
    assert_eq!(may_name("fuzzing", "robust", false), Some(true));
}
