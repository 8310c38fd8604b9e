//! Attributes of elements, and errors with their place.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::path::Path;
use std::str::FromStr;

use roxmltree::{Document, Node};

use crate::error::Error;
use crate::names;
use crate::spec::Type;

/// The file that is read.
pub(super) struct Source<'a> {
    path: &'a Path,
    document: &'a Document<'a>,
}

impl<'a> Source<'a> {
    /// The document that was read from `path`.
    pub(super) fn new(path: &'a Path, document: &'a Document<'a>) -> Self {
        Self { path, document }
    }

    /// An error at the start of an element.
    pub(super) fn error(&self, node: Node<'a, 'a>, message: impl Into<String>) -> Error {
        self.error_at(node.range().start, message.into())
    }

    /// An error at an attribute, or at its element if it is absent.
    pub(super) fn attribute_error(&self, node: Node<'a, 'a>, name: &str, message: String) -> Error {
        let attribute = node.attribute_node(name).map(|attribute| attribute.range().start);
        self.error_at(attribute.unwrap_or(node.range().start), message)
    }

    /// An error that says which values an attribute may have.
    pub(super) fn invalid(&self, node: Node<'a, 'a>, name: &str, expected: &str) -> Error {
        let value = node.attribute(name).unwrap_or_default();
        self.attribute_error(node, name, format!("`{name}` must be {expected}, not `{value}`"))
    }

    fn error_at(&self, offset: usize, message: String) -> Error {
        let place = self.document.text_pos_at(offset);
        Error::Spec { path: self.path.to_path_buf(), line: place.row, column: place.col, message }
    }

    /// An attribute that has to be there.
    pub(super) fn required(&self, node: Node<'a, 'a>, name: &str) -> Result<&'a str, Error> {
        node.attribute(name).ok_or_else(|| {
            self.error(node, format!("<{}> lacks the attribute `{name}`", node.tag_name().name()))
        })
    }

    /// The attribute `name`, fit to become a Rust name.
    pub(super) fn name(&self, node: Node<'a, 'a>) -> Result<&'a str, Error> {
        let name = self.required(node, "name")?;
        if names::is_valid(name) {
            Ok(name)
        } else {
            Err(self.invalid(node, "name", "lower-case words joined by `-`"))
        }
    }

    /// An attribute that is a number within the range of `T`.
    pub(super) fn number<T: FromStr>(&self, node: Node<'a, 'a>, name: &str) -> Result<T, Error> {
        let bits = 8 * size_of::<T>();
        let digits = self.required(node, name)?;
        digits.parse().map_err(|_| self.invalid(node, name, &format!("a number of {bits} bits")))
    }

    /// An attribute that is `0` or `1`; absent means `0`.
    pub(super) fn flag(&self, node: Node<'a, 'a>, name: &str) -> Result<bool, Error> {
        match node.attribute(name) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(self.invalid(node, name, "0 or 1")),
        }
    }

    /// The attribute `type`, an elementary type.
    pub(super) fn elementary_type(&self, node: Node<'a, 'a>) -> Result<Type, Error> {
        let name = self.required(node, "type")?;
        Type::from_name(name)
            .ok_or_else(|| self.attribute_error(node, "type", format!("unknown type `{name}`")))
    }
}

/// Keys that must not repeat.
pub(super) struct Unique<K> {
    what: &'static str,
    seen: HashSet<K>,
}

impl<K: Eq + Hash> Unique<K> {
    /// No keys yet, of things that an error calls `what`.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, seen: HashSet::new() }
    }

    /// Adds the key of what an error calls `shown`, or complains that it was there before.
    pub(super) fn add<'a>(
        &mut self,
        source: &Source<'a>,
        node: Node<'a, 'a>,
        shown: impl Display,
        key: K,
    ) -> Result<(), Error> {
        if self.seen.insert(key) {
            Ok(())
        } else {
            Err(source.error(node, format!("{} `{shown}` is there twice", self.what)))
        }
    }
}

/// The child elements of this name.
pub(super) fn elements<'a>(node: Node<'a, 'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

/// The text of the first `doc` on one line.
pub(super) fn doc_of(node: Node<'_, '_>) -> Option<String> {
    let doc = node.children().find(|child| child.tag_name().name() == "doc")?;
    let words: Vec<_> = doc.text()?.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}
