//! Imports run down the layers only: the rule of ARCHITECTURE.md, kept by reading the `use` lines and
//! every other mention of `crate::`.

#![expect(clippy::unwrap_used, reason = "a test: what cannot be read fails it")]
use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. `error` is the public error type: it knows codec and mux, and everything above knows it.
/// `broker` stands beside them: see [`may_know`].
const LAYERS: [&str; 8] = ["codec", "mux", "error", "driver", "single", "robust", "client", "broker"];

/// Crates that a layer must not know. The codec and the multiplexer run without a runtime.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    ("codec", &["tokio", "tracing"]),
    ("mux", &["tokio", "tracing"]),
    ("single", &["tokio::net", "tokio::io"]),
    ("client", &["tokio::net", "tokio::io"]),
];

/// The embedded broker stands on the codec alone, and nothing stands on it: it must not share a fault with
/// what it tests.
fn may_know(own: &str, other: &str) -> bool {
    let height = |name| LAYERS.iter().position(|layer| *layer == name);
    match own {
        "broker" => ["broker", "codec"].contains(&other),
        _ => height(other) <= height(own),
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The layer that a file belongs to; `None` for the crate's root, which may name everything.
fn layer(src: &Path, file: &Path) -> Option<&'static str> {
    let first = file.strip_prefix(src).unwrap().iter().next().unwrap().to_str().unwrap();
    let name = first.trim_end_matches(".rs");
    LAYERS.into_iter().find(|layer| *layer == name)
}

/// The names that follow `crate::` in the code, without comments.
fn mentioned(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap();
    code.match_indices("crate::")
        .flat_map(|(at, found)| {
            let rest = &code[at + found.len()..];
            let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            match rest.strip_prefix('{') {
                Some(list) => list.split(',').map(|item| word(item.trim())).collect(),
                None => vec![word(rest)],
            }
        })
        .collect()
}

#[test]
fn imports_run_down_the_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut seen = 0;
    for file in files {
        let Some(own) = layer(&src, &file) else { continue };
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for name in mentioned(line) {
                if !LAYERS.contains(&name.as_str()) {
                    continue;
                }
                seen += 1;
                let place = format!("{}:{}: {}", file.display(), number + 1, line.trim());
                assert!(may_know(own, &name), "{own} must not know {name}: {place}");
            }
            for (_, crates) in FORBIDDEN.iter().filter(|(layer, _)| *layer == own) {
                for name in *crates {
                    let place = format!("{}:{}: {}", file.display(), number + 1, line.trim());
                    let code = line.split("//").next().unwrap();
                    assert!(!code.contains(&format!("{name}::")), "{own} must not use {name}: {place}");
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were found: is this looking in the right place?");
}

#[test]
fn an_import_that_runs_up_is_seen() {
    assert_eq!(mentioned("use crate::client::Channel;"), ["client"]);
    assert_eq!(mentioned("use crate::{error::Error, driver::link};"), ["error", "driver"]);
    assert_eq!(mentioned("let x = crate::driver::link::f(crate::mux::g());"), ["driver", "mux"]);
    assert!(mentioned("// see crate::client").is_empty());
}

#[test]
fn the_broker_knows_the_codec_alone() {
    assert!(may_know("broker", "codec"));
    for other in ["mux", "error", "driver", "single", "robust", "client"] {
        assert!(!may_know("broker", other) && !may_know(other, "broker"), "{other}");
    }
}
