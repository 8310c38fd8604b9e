//! Which elements and attributes may stand where, so that a misspelt one is not overlooked.

use roxmltree::Node;

use super::source::Source;
use crate::error::Error;

/// An element of the grammar.
struct Element {
    name: &'static str,
    attributes: &'static [&'static str],
    children: &'static [&'static str],
}

const ELEMENTS: &[Element] = &[
    Element {
        name: "amqp",
        attributes: &["major", "minor", "revision", "port", "comment"],
        children: &["constant", "domain", "class", "doc"],
    },
    Element {
        name: "constant",
        attributes: &["name", "value", "class", "label"],
        children: &["doc", "rule"],
    },
    Element { name: "domain", attributes: &["name", "type", "label"], children: &["doc", "rule", "assert"] },
    Element {
        name: "class",
        attributes: &["name", "handler", "index", "label"],
        children: &["doc", "rule", "chassis", "field", "method"],
    },
    Element {
        name: "method",
        attributes: &["name", "index", "synchronous", "content", "deprecated", "label"],
        children: &["doc", "rule", "chassis", "response", "field"],
    },
    Element {
        name: "field",
        attributes: &["name", "domain", "type", "reserved", "secret", "label"],
        children: &["doc", "rule", "assert"],
    },
    Element { name: "chassis", attributes: &["name", "implement"], children: &["doc", "rule"] },
    Element { name: "response", attributes: &["name"], children: &["doc", "rule"] },
];

/// Prose and conditions, which nothing is generated from.
const OPAQUE: &[&str] = &["doc", "rule", "assert"];

/// Checks the whole document.
pub(super) fn check<'a>(source: &Source<'a>, root: Node<'a, 'a>) -> Result<(), Error> {
    if root.tag_name().name() == "amqp" {
        check_element(source, root)
    } else {
        Err(source.error(root, format!("<{}> where <amqp> is expected", root.tag_name().name())))
    }
}

fn check_element<'a>(source: &Source<'a>, node: Node<'a, 'a>) -> Result<(), Error> {
    let name = node.tag_name().name();
    let Some(element) = ELEMENTS.iter().find(|element| element.name == name) else {
        return Ok(());
    };
    for attribute in node.attributes() {
        if !element.attributes.contains(&attribute.name()) {
            let message = format!("<{name}> has no attribute `{}`", attribute.name());
            return Err(source.attribute_error(node, attribute.name(), message));
        }
    }
    for child in node.children().filter(Node::is_element) {
        let child_name = child.tag_name().name();
        if !element.children.contains(&child_name) {
            return Err(source.error(child, format!("<{child_name}> has no place in <{name}>")));
        }
        if !OPAQUE.contains(&child_name) {
            check_element(source, child)?;
        }
    }
    Ok(())
}
