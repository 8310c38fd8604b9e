//! The protocol as the specification file states it, with domains resolved.

use std::fmt;

/// All that is generated from.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The constants in the file's order.
    pub(crate) constants: Vec<Constant>,
    /// The classes by index.
    pub(crate) classes: Vec<Class>,
}

/// A named number.
#[derive(Debug)]
pub(crate) struct Constant {
    /// Its name in the file, such as `frame-end`.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: u32,
    /// What it is for.
    pub(crate) kind: ConstantKind,
    /// What it means.
    pub(crate) doc: Option<String>,
}

/// What a constant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConstantKind {
    /// The layout of frames.
    Frame,
    /// The reply code that stands for success.
    Success,
    /// The reply code of an error that closes a channel.
    SoftError,
    /// The reply code of an error that closes the connection.
    HardError,
}

impl ConstantKind {
    /// Whether the constant is a reply code.
    pub(crate) fn is_reply(self) -> bool {
        self != Self::Frame
    }
}

/// A class of methods.
#[derive(Debug)]
pub(crate) struct Class {
    /// Its name in the file, such as `queue`.
    pub(crate) name: String,
    /// Its number on the wire.
    pub(crate) index: u16,
    /// What it is for.
    pub(crate) doc: Option<String>,
    /// The properties of its contents, from flag bit 15 down.
    pub(crate) properties: Vec<Field>,
    /// The methods by index.
    pub(crate) methods: Vec<Method>,
}

impl Class {
    /// The method of this name.
    pub(crate) fn method(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| method.name == name)
    }
}

/// A method of a class.
#[derive(Debug)]
pub(crate) struct Method {
    /// Its name in the file, such as `declare-ok`.
    pub(crate) name: String,
    /// Its number within the class.
    pub(crate) index: u16,
    /// What it does.
    pub(crate) doc: Option<String>,
    /// Which side may send it.
    pub(crate) sender: Sender,
    /// Whether it asks for a reply, or is one.
    pub(crate) synchronous: bool,
    /// Whether a content follows it.
    pub(crate) content: bool,
    /// The names of the methods that may answer it.
    pub(crate) responses: Vec<String>,
    /// Its arguments in the order of the wire.
    pub(crate) fields: Vec<Field>,
}

impl Method {
    /// The one method that answers this one when the client sends it, unless that carries content.
    pub(crate) fn reply<'a>(&self, class: &'a Class) -> Option<&'a Method> {
        let [response] = self.responses.as_slice() else { return None };
        let asked_by_client = self.synchronous && self.sender != Sender::Server;
        class.method(response).filter(|reply| asked_by_client && !reply.content)
    }
}

/// Which side may send a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Only the client.
    Client,
    /// Only the server.
    Server,
    /// Either side.
    Both,
}

/// An argument of a method, or a property of a content.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its name in the file, such as `routing-key`.
    pub(crate) name: String,
    /// Its type on the wire.
    pub(crate) kind: Type,
    /// Whether it is sent empty and ignored.
    pub(crate) reserved: bool,
    /// Whether it may hold a password or token, so that `Debug` does not show it.
    pub(crate) secret: bool,
    /// What it means.
    pub(crate) doc: Option<String>,
}

/// The elementary types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// One bit; consecutive ones share octets.
    Bit,
    /// 8 bits.
    Octet,
    /// 16 bits.
    Short,
    /// 32 bits.
    Long,
    /// 64 bits.
    LongLong,
    /// Up to 255 bytes.
    ShortStr,
    /// Up to 4 GiB.
    LongStr,
    /// Seconds since 1970.
    Timestamp,
    /// Names with typed values.
    Table,
}

impl Type {
    const ALL: [Self; 9] = [
        Self::Bit,
        Self::Octet,
        Self::Short,
        Self::Long,
        Self::LongLong,
        Self::ShortStr,
        Self::LongStr,
        Self::Timestamp,
        Self::Table,
    ];

    /// The type of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The name in the file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bit => "bit",
            Self::Octet => "octet",
            Self::Short => "short",
            Self::Long => "long",
            Self::LongLong => "longlong",
            Self::ShortStr => "shortstr",
            Self::LongStr => "longstr",
            Self::Timestamp => "timestamp",
            Self::Table => "table",
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Both => "both",
        })
    }
}
