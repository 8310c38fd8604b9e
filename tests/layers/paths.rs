//! The paths that a source file names, in full: `crate::mux::ids`, `tokio::net::TcpStream`.

use std::collections::HashMap;
use std::iter::Peekable;
use std::path::Path;

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// A path in the code.
#[derive(Debug, PartialEq)]
pub(crate) struct Mention {
    /// The module that names it, without `crate`.
    pub(crate) module: Vec<String>,
    /// Begins with `crate` or the name of another crate, or else is relative to the module.
    pub(crate) path: Vec<String>,
    /// What an import calls it: its last part, what follows `as`, or `*`.
    pub(crate) name: Option<String>,
    pub(crate) line: usize,
}

/// The module that a file is, by its path below `src`.
pub(crate) fn module_of(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let mut module: Vec<String> = names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || (last == "lib" && module.len() == 1)) {
        module.pop();
    }
    module
}

/// Whether a module is compiled for tests only.
pub(crate) fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| name == "tests" || name == "testing")
}

/// Every path of two parts or more in the code, and every import. Comments, strings and documentation are not code.
pub(crate) fn mentions(module: &[String], code: &str) -> Vec<Mention> {
    let tokens: TokenStream = code.parse().unwrap();
    let mut found = Vec::new();
    Scan { module: module.to_vec(), found: &mut found }.tokens(tokens);
    let imports: HashMap<String, Vec<String>> =
        found.iter().filter_map(|it| Some((it.name.clone()?, it.path.clone()))).collect();
    for mention in found.iter_mut().filter(|mention| mention.name.is_none()) {
        if let Some(full) = imports.get(&mention.path[0]) {
            mention.path.splice(..1, full.iter().cloned());
        }
    }
    found
}

/// Goes through the tokens of a module.
struct Scan<'a> {
    module: Vec<String>,
    found: &'a mut Vec<Mention>,
}

type Tokens = Peekable<IntoIter>;

impl Scan<'_> {
    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                // `impl Trait + use<'a>` is no import
                TokenTree::Ident(word) if word == "use" && !is_punct(tokens.peek(), '<') => {
                    self.imports(&mut tokens, &[]);
                }
                TokenTree::Ident(word) if word == "mod" => self.inline_module(&mut tokens),
                TokenTree::Ident(word) => self.path(&word, &mut tokens),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// `mod name { … }`, or no more than `mod name;`.
    fn inline_module(&mut self, tokens: &mut Tokens) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        if let Some(TokenTree::Group(body)) = tokens.next_if(|token| matches!(token, TokenTree::Group(_))) {
            let module = [&*self.module, &[name.to_string()]].concat();
            Scan { module, found: self.found }.tokens(body.stream());
        }
    }

    /// The rest of a path that begins with `first`.
    fn path(&mut self, first: &Ident, tokens: &mut Tokens) {
        let mut path = vec![first.to_string()];
        while separator(tokens) {
            match tokens.next_if(|token| matches!(token, TokenTree::Ident(_))) {
                Some(part) => path.push(part.to_string()),
                None => break, // `::<`
            }
        }
        if path.len() > 1 {
            self.add(&path, None, first);
        }
    }

    /// A tree of imports, up to the `;` or `,` that ends it.
    fn imports(&mut self, tokens: &mut Tokens, prefix: &[String]) {
        let mut path = prefix.to_vec();
        let mut last = None;
        let mut alias = None;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => alias = tokens.next().map(|name| name.to_string()),
                TokenTree::Ident(word) => {
                    // `a::{self}` is `a`
                    if path.is_empty() || word != "self" {
                        path.push(word.to_string());
                    }
                    last = Some(word);
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    let mut trees = group.stream().into_iter().peekable();
                    while trees.peek().is_some() {
                        self.imports(&mut trees, &path);
                    }
                    last = None;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    path.push("*".to_owned());
                    last = Some(Ident::new("glob", punct.span()));
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {}
                TokenTree::Punct(_) | TokenTree::Group(_) | TokenTree::Literal(_) => break,
            }
        }
        if let Some(last) = last {
            let name = alias.or_else(|| path.last().cloned());
            self.add(&path, name, &last);
        }
    }

    fn add(&mut self, path: &[String], name: Option<String>, at: &Ident) {
        let line = at.span().start().line;
        self.found.push(Mention {
            module: self.module.clone(),
            path: absolute(&self.module, path),
            name,
            line,
        });
    }
}

/// The path from the crate's root, unless it begins with a name.
fn absolute(module: &[String], path: &[String]) -> Vec<String> {
    let mut full = Vec::new();
    for (position, part) in path.iter().enumerate() {
        match part.as_str() {
            "crate" | "lepus" if position == 0 => full = vec!["crate".to_owned()],
            "self" | "super" if position == 0 => {
                full = [&["crate".to_owned()], module].concat();
                full.truncate(full.len() - usize::from(part == "super"));
            }
            "super" => {
                full.pop();
            }
            _ => full.push(part.clone()),
        }
    }
    full
}

/// Takes a `::`.
fn separator(tokens: &mut Tokens) -> bool {
    let mut ahead = tokens.clone();
    let found = is_punct(ahead.next().as_ref(), ':') && is_punct(ahead.next().as_ref(), ':');
    if found {
        *tokens = ahead;
    }
    found
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// The paths alone.
#[cfg(test)]
fn found(module: &str, code: &str) -> Vec<String> {
    let module = module_of(Path::new(module));
    mentions(&module, code).iter().map(|mention| mention.path.join("::")).collect()
}

#[test]
fn files_are_modules() {
    assert_eq!(module_of(Path::new("lib.rs")), [""; 0]);
    assert_eq!(module_of(Path::new("error.rs")), ["error"]);
    assert_eq!(module_of(Path::new("mux/mod.rs")), ["mux"]);
    assert_eq!(module_of(Path::new("mux/session/consumers.rs")), ["mux", "session", "consumers"]);
}

#[test]
fn trees_of_imports_are_taken_apart() {
    assert_eq!(
        found("mux/ids.rs", "use crate::{a, b::{c, d::{self, E as F}}, g::*};"),
        ["crate::a", "crate::b::c", "crate::b::d", "crate::b::d::E", "crate::g::*"]
    );
    assert_eq!(found("mux/ids.rs", "use {std::fmt, tokio::net};"), ["std::fmt", "tokio::net"]);
    assert_eq!(found("mux/ids.rs", "use bytes;"), ["bytes"]);
}

#[test]
fn relative_paths_become_absolute() {
    assert_eq!(found("mux/ids.rs", "use self::x::Y;"), ["crate::mux::ids::x::Y"]);
    assert_eq!(found("mux/ids.rs", "use super::tune;"), ["crate::mux::tune"]);
    assert_eq!(found("mux/mod.rs", "use super::client;"), ["crate::client"]);
    assert_eq!(found("mux/ids.rs", "mod tests { use super::super::tune; }"), ["crate::mux::tune"]);
    assert_eq!(found("mux/ids.rs", "fn f() { super::super::client::f() }"), ["crate::client::f"]);
}

#[test]
fn an_imported_name_stands_for_its_path() {
    assert_eq!(
        found("mux/ids.rs", "use std::time::Instant as I; fn f() { I::now() }"),
        ["std::time::Instant", "std::time::Instant::now"]
    );
}

#[test]
fn each_path_knows_its_line() {
    let lines: Vec<usize> =
        mentions(&[], "use a::{\n  b,\n  c,\n};\nfn f() { d::e() }").iter().map(|it| it.line).collect();
    assert_eq!(lines, [2, 3, 5]);
}
