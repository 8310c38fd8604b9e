//! What the relay saw go by.

/// A method in what one side sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent<'a> {
    /// Class and method.
    pub(crate) id: (u16, u16),
    arguments: &'a [u8],
}

impl Sent<'_> {
    /// The reply code, if it closes a channel or the connection.
    pub(crate) fn close_code(self) -> Option<u16> {
        let closes = [(20, 40), (10, 50)].contains(&self.id);
        closes.then(|| u16::from_be_bytes(*self.arguments.first_chunk().unwrap()))
    }
}

/// The methods in what one side sent on a connection; the end may be cut.
pub(crate) fn methods(mut bytes: &[u8]) -> Vec<Sent<'_>> {
    if bytes.starts_with(b"AMQP") {
        bytes = bytes.get(8..).unwrap_or_default();
    }
    let mut methods = Vec::new();
    while let [kind, _, _, a, b, c, d, rest @ ..] = bytes {
        let size = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        let (Some(payload), Some(next)) = (rest.get(..size), rest.get(size + 1..)) else { break };
        if let (1, [class, class_low, method, method_low, arguments @ ..]) = (*kind, payload) {
            let id = (u16::from_be_bytes([*class, *class_low]), u16::from_be_bytes([*method, *method_low]));
            methods.push(Sent { id, arguments });
        }
        bytes = next;
    }
    methods
}
