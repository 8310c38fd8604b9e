//! The struct of a class's content properties.

use super::fields::{by_reference, get_method, put_function, rust_type};
use super::{doc, lines};
use crate::names;
use crate::spec::{Class, Field};

/// The struct with its encoding and decoding, or nothing if the class has no properties.
pub(super) fn item(class: &Class) -> String {
    if class.properties.is_empty() {
        return String::new();
    }
    let flagged = || class.properties.iter().zip((0..16).rev());
    let declarations = lines(&class.properties, |field| declaration(class, field));
    let flags = flagged()
        .map(|(field, bit)| format!("(u16::from(self.{}.is_some()) << {bit})", names::field(&field.name)))
        .collect::<Vec<_>>()
        .join(" | ");
    let puts = lines(&class.properties, put);
    let gets = lines(flagged(), |(field, bit)| get(field, 1 << bit));
    format!(
        "
        /// The properties of a content of class `{}`; those absent take no space on the wire.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Properties {{
            {declarations}
        }}

        impl Properties {{
            /// Appends the flags, then the properties that are present.
            pub fn encode(&self, out: &mut Vec<u8>) {{
                let flags = {flags};
                put_short(out, flags);
                {puts}
            }}

            /// Reads the flags and the properties they announce; further words of flags are ignored.
            ///
            /// # Errors
            /// When the input ends too early or holds a value that cannot be read.
            pub fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {{
                let flags = input.short()?;
                let mut last = flags;
                while last & 1 != 0 {{
                    last = input.short()?;
                }}
                Ok(Self {{ {gets} }})
            }}
        }}
        ",
        class.name
    )
}

fn declaration(class: &Class, field: &Field) -> String {
    let doc = doc(field.doc.as_ref(), &format!("Property `{}` of class `{}`.", field.name, class.name));
    format!("{doc}\npub {}: Option<{}>,", names::field(&field.name), rust_type(field.kind))
}

fn put(field: &Field) -> String {
    let name = names::field(&field.name);
    let reference = if by_reference(field.kind) { "&" } else { "" };
    format!("if let Some(value) = {reference}self.{name} {{ {}(out, value); }}", put_function(field.kind))
}

fn get(field: &Field, mask: u16) -> String {
    let name = names::field(&field.name);
    let get = get_method(field.kind);
    format!("{name}: if flags & {mask:#06x} == 0 {{ None }} else {{ Some(input.{get}()?) }},")
}
