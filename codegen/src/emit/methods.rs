//! `mod.rs`: the enum of all methods and what is known of each by its number.

use super::{comment, lines};
use crate::names;
use crate::spec::{Class, Method, Sender, Spec};

/// The whole file.
pub(super) fn module(spec: &Spec) -> String {
    let all: Vec<_> =
        spec.classes.iter().flat_map(|class| class.methods.iter().map(|it| Entry(class, it))).collect();
    let head = comment("//!", "The methods, properties and constants of the protocol, as plain data.");
    let modules = lines(&spec.classes, |class| format!("pub mod {};", names::module(&class.name)));
    let variants = lines(&all, |it| format!("/// {}\n{}({}),", it.quoted(), it.variant(), it.path()));
    let implementation = implementation(&all);
    let conversions = lines(&all, |it| format!("    {}({}),", it.variant(), it.path()));
    format!(
        "{head}

        pub mod constants;
        {modules}

        use crate::codec::encode::put_short;
        use crate::codec::{{Arguments, DecodeError, Decoder, MethodId, Sender}};

        /// Any method, with its arguments.
        ///
        /// Brokers extend the protocol, so methods may be added.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum Method {{
            {variants}
        }}

        impl Method {{
            {implementation}
        }}

        // Both ways between a method's arguments and `Method`.
macro_rules! conversions {{
    ($($variant:ident($arguments:ty)),* $(,)?) => {{
        $(impl From<$arguments> for Method {{
            fn from(arguments: $arguments) -> Self {{
                Self::$variant(arguments)
            }}
        }}

        impl TryFrom<Method> for $arguments {{
            type Error = Method;

            fn try_from(method: Method) -> Result<Self, Method> {{
                match method {{
                    Method::$variant(arguments) => Ok(arguments),
                    other => Err(other),
                }}
            }}
        }})*
    }};
}}

        conversions!({conversions});
        "
    )
}

fn implementation(all: &[Entry<'_>]) -> String {
    let ids = lines(all, |it| format!("Self::{}(_) => {},", it.variant(), it.id()));
    let decodings =
        lines(all, |it| format!("{} => Arguments::decode(input).map(Self::{}),", it.id(), it.variant()));
    let encodings = lines(all, |it| format!("Self::{}(arguments) => arguments.encode(out),", it.variant()));
    let names = lines(all, |it| format!("{} => \"{}\",", it.id(), it.name()));
    let senders = lines([Sender::Client, Sender::Server, Sender::Both], |sender| senders(all, sender));
    let contents = patterns(all, |method| method.content);
    let has_content = if contents.is_empty() {
        "pub fn has_content(_id: MethodId) -> bool { false }".to_owned()
    } else {
        format!("pub fn has_content(id: MethodId) -> bool {{ matches!(id, {contents}) }}")
    };
    format!(
        "/// The numbers that name the method.
        pub fn id(&self) -> MethodId {{
            match self {{ {ids} }}
        }}

        /// Reads the arguments of the method with these numbers.
        ///
        /// # Errors
        /// When there is no such method, or its arguments cannot be read.
        pub fn decode(id: MethodId, input: &mut Decoder<'_>) -> Result<Self, DecodeError> {{
            match id {{
                {decodings}
                _ => Err(DecodeError::unknown_method(id)),
            }}
        }}

        /// Appends the numbers and the arguments: a method frame's payload.
        pub fn encode(&self, out: &mut Vec<u8>) {{
            let id = self.id();
            put_short(out, id.class);
            put_short(out, id.method);
            match self {{ {encodings} }}
        }}

        /// The name of the method with these numbers, such as `queue.declare`, or `unknown`.
        pub fn name(id: MethodId) -> &'static str {{
            match id {{
                {names}
                _ => \"unknown\",
            }}
        }}

        /// Which side may send the method with these numbers, if there is one.
        pub fn sender(id: MethodId) -> Option<Sender> {{
            match id {{
                {senders}
                _ => None,
            }}
        }}

        /// Whether a content follows the method with these numbers.
        {has_content}
        "
    )
}

/// The arm for the methods of one sender, if there are any.
fn senders(all: &[Entry<'_>], sender: Sender) -> String {
    let variant = match sender {
        Sender::Client => "Client",
        Sender::Server => "Server",
        Sender::Both => "Both",
    };
    match patterns(all, |method| method.sender == sender).as_str() {
        "" => String::new(),
        patterns => format!("{patterns} => Some(Sender::{variant}),"),
    }
}

/// The ids of the methods that `select` picks, as an or-pattern.
fn patterns(all: &[Entry<'_>], select: impl Fn(&Method) -> bool) -> String {
    all.iter().filter(|it| select(it.1)).map(Entry::id).collect::<Vec<_>>().join(" | ")
}

/// A method and its class.
struct Entry<'a>(&'a Class, &'a Method);

impl Entry<'_> {
    /// The name on the wire.
    fn name(&self) -> String {
        format!("{}.{}", self.0.name, self.1.name)
    }

    /// What documents the variant.
    fn quoted(&self) -> String {
        format!("`{}`.", self.name())
    }

    /// The variant of the enum.
    fn variant(&self) -> String {
        names::variant(&self.0.name, &self.1.name)
    }

    /// The struct.
    fn path(&self) -> String {
        format!("{}::{}", names::module(&self.0.name), names::method(&self.1.name))
    }

    /// The constant with the numbers.
    fn id(&self) -> String {
        self.path() + "::ID"
    }
}
