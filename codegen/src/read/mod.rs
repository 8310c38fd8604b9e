//! Reads a specification file; every complaint names its place.

mod grammar;
mod source;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};

use self::source::{Source, Unique, doc_of, elements};
use crate::error::Error;
use crate::names;
use crate::spec::{Class, Constant, ConstantKind, Field, Method, Sender, Spec, Type};

/// Flag bits for properties; the sixteenth says that more flags follow.
const MAX_PROPERTIES: usize = 15;

/// Reads and checks the file.
pub(crate) fn read(path: &Path) -> Result<Spec, Error> {
    let text = fs::read_to_string(path).map_err(Error::file(path))?;
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(&text, options).map_err(|error| not_well_formed(path, &error))?;
    let source = Source::new(path, &document);
    let root = document.root_element();
    grammar::check(&source, root)?;
    let domains = domains(&source, root)?;
    Reader { source, domains }.spec(root)
}

fn not_well_formed(path: &Path, error: &roxmltree::Error) -> Error {
    let place = error.pos();
    let text = error.to_string();
    let reason = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    let message = format!("not well-formed XML: {reason}");
    Error::Spec { path: path.to_path_buf(), line: place.row, column: place.col, message }
}

fn domains<'a>(source: &Source<'a>, root: Node<'a, 'a>) -> Result<HashMap<&'a str, Type>, Error> {
    let mut names = Unique::new("domain");
    let mut domains = HashMap::new();
    for node in elements(root, "domain") {
        let name = source.name(node)?;
        names.add(source, node, name, name)?;
        domains.insert(name, source.elementary_type(node)?);
    }
    Ok(domains)
}

struct Reader<'a> {
    source: Source<'a>,
    domains: HashMap<&'a str, Type>,
}

impl<'a> Reader<'a> {
    fn spec(&self, root: Node<'a, 'a>) -> Result<Spec, Error> {
        let (mut names, mut indexes) = (Unique::new("class"), Unique::new("class index"));
        let mut classes = Vec::new();
        for node in elements(root, "class") {
            let class = self.class(node)?;
            names.add(&self.source, node, &class.name, names::module(&class.name))?;
            indexes.add(&self.source, node, class.index, class.index)?;
            classes.push(class);
        }
        classes.sort_by_key(|class| class.index);
        Ok(Spec { constants: self.constants(root)?, classes })
    }

    fn constants(&self, root: Node<'a, 'a>) -> Result<Vec<Constant>, Error> {
        let (mut names, mut replies) = (Unique::new("constant"), Unique::new("reply code"));
        let mut constants = Vec::new();
        for node in elements(root, "constant") {
            let constant = self.constant(node)?;
            names.add(&self.source, node, &constant.name, constant.name.clone())?;
            if constant.kind.is_reply() {
                replies.add(&self.source, node, constant.value, constant.value)?;
            }
            constants.push(constant);
        }
        Ok(constants)
    }

    fn constant(&self, node: Node<'a, 'a>) -> Result<Constant, Error> {
        let name = self.source.name(node)?;
        let kind = match node.attribute("class") {
            Some("soft-error") => ConstantKind::SoftError,
            Some("hard-error") => ConstantKind::HardError,
            Some(_) => return Err(self.source.invalid(node, "class", "soft-error or hard-error")),
            None if name == "reply-success" => ConstantKind::Success,
            None => ConstantKind::Frame,
        };
        let value = if kind.is_reply() {
            self.source.number::<u16>(node, "value")?.into()
        } else {
            self.source.number::<u32>(node, "value")?
        };
        Ok(Constant { name: name.to_owned(), value, kind, doc: doc_of(node) })
    }

    fn class(&self, node: Node<'a, 'a>) -> Result<Class, Error> {
        let name = self.source.name(node)?;
        let index = self.source.number(node, "index")?;
        let properties = self.properties(node)?;
        let (mut names, mut indexes) = (Unique::new("method"), Unique::new("method index"));
        let mut methods = Vec::new();
        for method_node in elements(node, "method") {
            let method = self.method(method_node)?;
            names.add(&self.source, method_node, &method.name, names::method(&method.name))?;
            indexes.add(&self.source, method_node, method.index, method.index)?;
            methods.push(method);
        }
        if methods.is_empty() {
            return Err(self.source.error(node, format!("class `{name}` has no method")));
        }
        methods.sort_by_key(|method| method.index);
        let class = Class { name: name.to_owned(), index, doc: doc_of(node), properties, methods };
        self.check_responses(node, &class)?;
        Ok(class)
    }

    fn properties(&self, class: Node<'a, 'a>) -> Result<Vec<Field>, Error> {
        for (position, node) in elements(class, "field").enumerate() {
            if position >= MAX_PROPERTIES {
                let message = format!("more than {MAX_PROPERTIES} properties do not fit one word of flags");
                return Err(self.source.error(node, message));
            }
            let property = self.field(node)?;
            if property.reserved || property.kind == Type::Bit {
                return Err(self.source.error(node, "a property can be neither reserved nor a bit"));
            }
        }
        self.fields(class)
    }

    fn method(&self, node: Node<'a, 'a>) -> Result<Method, Error> {
        let responses = elements(node, "response").map(|response| self.source.name(response));
        Ok(Method {
            name: self.source.name(node)?.to_owned(),
            index: self.source.number(node, "index")?,
            doc: doc_of(node),
            sender: self.sender(node)?,
            synchronous: self.source.flag(node, "synchronous")?,
            content: self.source.flag(node, "content")?,
            responses: responses.map(|name| name.map(str::to_owned)).collect::<Result<_, _>>()?,
            fields: self.fields(node)?,
        })
    }

    /// A chassis names the side that must understand the method: the other one sends it.
    fn sender(&self, method: Node<'a, 'a>) -> Result<Sender, Error> {
        let mut names = Unique::new("chassis");
        let (mut by_client, mut by_server) = (false, false);
        for node in elements(method, "chassis") {
            let name = self.source.required(node, "name")?;
            names.add(&self.source, node, name, name)?;
            match name {
                "server" => by_client = true,
                "client" => by_server = true,
                _ => return Err(self.source.invalid(node, "name", "client or server")),
            }
        }
        match (by_client, by_server) {
            (true, true) => Ok(Sender::Both),
            (true, false) => Ok(Sender::Client),
            (false, true) => Ok(Sender::Server),
            (false, false) => {
                Err(self.source.error(method, "no <chassis> says which side receives the method"))
            }
        }
    }

    fn fields(&self, parent: Node<'a, 'a>) -> Result<Vec<Field>, Error> {
        let mut names = Unique::new("field");
        let mut fields = Vec::new();
        for node in elements(parent, "field") {
            let field = self.field(node)?;
            names.add(&self.source, node, &field.name, names::field(&field.name))?;
            fields.push(field);
        }
        Ok(fields)
    }

    fn field(&self, node: Node<'a, 'a>) -> Result<Field, Error> {
        let kind = match (node.attribute("domain"), node.attribute("type")) {
            (Some(domain), None) => *self.domains.get(domain).ok_or_else(|| {
                self.source.attribute_error(node, "domain", format!("unknown domain `{domain}`"))
            })?,
            (None, Some(_)) => self.source.elementary_type(node)?,
            _ => return Err(self.source.error(node, "a field has either a `domain` or a `type`")),
        };
        Ok(Field {
            name: self.source.name(node)?.to_owned(),
            kind,
            reserved: self.source.flag(node, "reserved")?,
            secret: self.source.flag(node, "secret")?,
            doc: doc_of(node),
        })
    }

    /// Every response is a method of the same class, named once.
    fn check_responses(&self, class_node: Node<'a, 'a>, class: &Class) -> Result<(), Error> {
        for method in elements(class_node, "method") {
            let mut names = Unique::new("response");
            for node in elements(method, "response") {
                let name = self.source.name(node)?;
                names.add(&self.source, node, name, name)?;
                if class.method(name).is_none() {
                    let message = format!("response `{name}` is no method of class `{}`", class.name);
                    return Err(self.source.attribute_error(node, "name", message));
                }
            }
        }
        Ok(())
    }
}
