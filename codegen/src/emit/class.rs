//! The file of a class: a struct for each method.

use std::collections::BTreeSet;

use super::{comment, doc, fields, lines, properties};
use crate::names;
use crate::spec::{Class, Field, Method, Type};

/// clippy's `struct_excessive_bools` allows as many.
const MAX_BOOLS: usize = 3;

/// The whole file.
pub(super) fn module(class: &Class) -> String {
    let name = &class.name;
    let summary = class.doc.as_ref().map_or_else(|| ".".to_owned(), |doc| format!(": {}", lower_first(doc)));
    let head = comment("//!", &format!("Class `{name}`{summary}"));
    let imports = imports(class);
    let index = class.index;
    let properties = properties::item(class);
    let methods = lines(&class.methods, |method| item(class, method));
    format!(
        "{head}

        {imports}

        /// The index of class `{name}`.
        pub const CLASS_ID: u16 = {index};
        {properties}
        {methods}
        "
    )
}

/// Continues a sentence after a colon; words that are not plain stay as they are.
fn lower_first(text: &str) -> String {
    let word = text.split(' ').next().unwrap_or_default();
    let is_plain = word.chars().skip(1).all(|c| c.is_ascii_lowercase() || c == ',');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if is_plain => first.to_ascii_lowercase().to_string() + chars.as_str(),
        _ => text.to_owned(),
    }
}

fn imports(class: &Class) -> String {
    let all: Vec<&Field> =
        class.methods.iter().flat_map(|method| &method.fields).chain(&class.properties).collect();
    let uses = |kind| all.iter().any(|field| field.kind == kind);
    let mut puts: BTreeSet<_> = all.iter().map(|field| fields::put_function(field.kind)).collect();
    if !class.properties.is_empty() {
        puts.insert("put_short");
    }
    let mut types = vec!["DecodeError", "Decoder", "MethodId"];
    types.extend(
        [Type::ShortStr, Type::Timestamp, Type::Table]
            .into_iter()
            .filter_map(|kind| uses(kind).then_some(fields::rust_type(kind))),
    );
    let bytes = if uses(Type::LongStr) { "use bytes::Bytes;\n\n" } else { "" };
    let encode = if puts.is_empty() {
        String::new()
    } else {
        format!("use crate::codec::encode::{{{}}};\n", puts.into_iter().collect::<Vec<_>>().join(", "))
    };
    let fmt = if class.methods.iter().any(has_secret) { "use std::fmt;\n\n" } else { "" };
    format!("{fmt}{bytes}{encode}use crate::codec::{{self, {}}};", types.join(", "))
}

/// The struct of a method and its traits.
fn item(class: &Class, method: &Method) -> String {
    let definition = definition(class, method);
    let arguments = arguments(method);
    let request = request(class, method);
    format!("\n{definition}\n\n{arguments}\n{request}")
}

/// The fields that are not reserved.
fn visible(method: &Method) -> impl Iterator<Item = &Field> {
    method.fields.iter().filter(|field| !field.reserved)
}

fn definition(class: &Class, method: &Method) -> String {
    let wire_name = format!("{}.{}", class.name, method.name);
    let doc = doc(method.doc.as_ref(), &format!("`{wire_name}`."));
    let eq = if visible(method).any(|field| field.kind == Type::Table) { "" } else { ", Eq" };
    let bools = visible(method).filter(|field| field.kind == Type::Bit).count();
    let expect = if bools > MAX_BOOLS {
        "#[expect(clippy::struct_excessive_bools, reason = \"the protocol's bits\")]\n"
    } else {
        ""
    };
    let name = names::method(&method.name);
    let body = if visible(method).next().is_none() {
        ";".to_owned()
    } else {
        format!(" {{\n{}\n}}", fields::declarations(&wire_name, visible(method)))
    };
    let (debug, by_hand) = if has_secret(method) { ("", debug(method)) } else { (" Debug,", String::new()) };
    format!(
        "{doc}\n#[derive(Clone,{debug} Default, PartialEq{eq})]\n{expect}pub struct {name}{body}{by_hand}"
    )
}

fn has_secret(method: &Method) -> bool {
    visible(method).any(|field| field.secret)
}

/// `Debug` for a method with secrets: it shows that they are there, and nothing of them.
fn debug(method: &Method) -> String {
    let name = names::method(&method.name);
    let fields = lines(visible(method), |field| {
        let field_name = names::field(&field.name);
        let value = if field.secret { "format_args!(\"***\")".into() } else { format!("self.{field_name}") };
        format!(".field(\"{field_name}\", &{value})")
    });
    format!(
        "

        impl fmt::Debug for {name} {{
            /// Hides what is secret.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{
                f.debug_struct(\"{name}\")
                {fields}
                .finish()
            }}
        }}"
    )
}

fn arguments(method: &Method) -> String {
    let name = names::method(&method.name);
    let index = method.index;
    let unused = if method.fields.is_empty() { "_" } else { "" };
    let encode = fields::encode(&method.fields);
    let decode = fields::decode(&method.fields);
    let visible: Vec<_> = visible(method).map(|field| names::field(&field.name)).collect();
    let value =
        if visible.is_empty() { "Self".to_owned() } else { format!("Self {{ {} }}", visible.join(", ")) };
    format!(
        "impl codec::Arguments for {name} {{
            const ID: MethodId = MethodId::new(CLASS_ID, {index});

            fn encode(&self, {unused}out: &mut Vec<u8>) {{
                {encode}
            }}

            fn decode({unused}input: &mut Decoder<'_>) -> Result<Self, DecodeError> {{
                {decode}
                Ok({value})
            }}
        }}
        "
    )
}

/// The trait of methods that a client may send and that one method answers.
fn request(class: &Class, method: &Method) -> String {
    let Some(reply) = method.reply(class) else { return String::new() };
    let is_no_wait = |field: &Field| field.name == "no-wait" && field.kind == Type::Bit;
    let no_wait = if visible(method).any(is_no_wait) { "self.no_wait" } else { "false" };
    format!(
        "
        impl codec::Request for {} {{
            type Reply = {};

            fn no_wait(&self) -> bool {{
                {no_wait}
            }}
        }}
        ",
        names::method(&method.name),
        names::method(&reply.name)
    )
}
