//! `constants.rs`: the layout of frames and the reply codes.

use super::{comment, doc, lines};
use crate::names;
use crate::spec::{Constant, ConstantKind};

/// The whole file.
pub(super) fn module(constants: &[Constant]) -> String {
    let replies = || constants.iter().filter(|constant| constant.kind.is_reply());
    let hard: Vec<_> = replies()
        .filter(|constant| constant.kind == ConstantKind::HardError)
        .map(|constant| names::constant(&constant.name))
        .collect();
    let head = comment("//!", "The numbers that mark frames, and the reply codes.");
    let items = lines(constants, item);
    let names = lines(replies(), |constant| {
        let name = names::constant(&constant.name);
        format!("{name} => \"{name}\",")
    });
    let is_hard = match hard.as_slice() {
        [] => "pub fn is_hard(_code: u16) -> bool { false }".to_owned(),
        hard => format!("pub fn is_hard(code: u16) -> bool {{ matches!(code, {}) }}", hard.join(" | ")),
    };
    format!(
        "{head}

        {items}

        /// The name of a reply code, as servers write it in front of a reply text.
        pub fn reply_name(code: u16) -> Option<&'static str> {{
            let name = match code {{
                {names}
                _ => return None,
            }};
            Some(name)
        }}

        /// Whether a reply code stands for an error that closes the whole connection.
        {is_hard}
        "
    )
}

fn item(constant: &Constant) -> String {
    let doc = doc(constant.doc.as_ref(), &format!("`{}`.", constant.name));
    let kind = if constant.kind.is_reply() {
        "u16"
    } else if u8::try_from(constant.value).is_ok() {
        "u8"
    } else {
        "u32"
    };
    format!("{doc}\npub const {}: {kind} = {};", names::constant(&constant.name), constant.value)
}
