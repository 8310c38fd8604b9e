//! Rust names for the names of the specification file.

/// Words that Rust keeps for itself, then the local names of generated functions.
const TAKEN: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop",
    "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static",
    "struct", "super", "trait", "true", "try", "typeof", "unsafe", "unsized", "use", "virtual", "where",
    "while", "yield", "bits", "input", "out",
];

/// Types that the generated modules define or import.
const TAKEN_TYPES: &[&str] = &[
    "Bytes",
    "DecodeError",
    "Decoder",
    "FieldTable",
    "MethodId",
    "Option",
    "Properties",
    "Result",
    "Self",
    "ShortStr",
    "Timestamp",
    "Vec",
];

/// Modules that are generated besides those of the classes.
const TAKEN_MODULES: &[&str] = &["constants"];

/// The name of a field, `snake_case`; `type` becomes `kind`, other keywords get an underscore.
pub(crate) fn field(name: &str) -> String {
    let snake = name.replace('-', "_");
    match snake.as_str() {
        "type" => "kind".to_owned(),
        taken if TAKEN.contains(&taken) => snake + "_",
        _ => snake,
    }
}

/// The name of a class's module and file.
pub(crate) fn module(name: &str) -> String {
    let module = field(name);
    if TAKEN_MODULES.contains(&module.as_str()) { module + "_" } else { module }
}

/// The name of a constant, `SCREAMING_SNAKE_CASE`.
pub(crate) fn constant(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

/// The name of a method's struct, `CamelCase`.
pub(crate) fn method(name: &str) -> String {
    let camel = camel(name);
    if TAKEN_TYPES.contains(&camel.as_str()) { camel + "_" } else { camel }
}

/// The name of a method's variant in the enum of all methods.
pub(crate) fn variant(class: &str, method: &str) -> String {
    camel(class) + &camel(method)
}

/// Whether a name of the file can become Rust names: lower-case letters and digits in parts joined by
/// `-`, the first with a letter in front.
pub(crate) fn is_valid(name: &str) -> bool {
    let part_is_valid =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('-').all(part_is_valid)
}

fn camel(name: &str) -> String {
    name.split('-').map(capitalised).collect()
}

fn capitalised(part: &str) -> String {
    let mut chars = part.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_and_local_names_are_avoided() {
        assert_eq!(field("type"), "kind");
        assert_eq!(field("yield"), "yield_");
        assert_eq!(field("input"), "input_");
        assert_eq!(field("routing-key"), "routing_key");
        assert_eq!(module("constants"), "constants_");
        assert_eq!(method("self"), "Self_");
        assert_eq!(method("update-secret-ok"), "UpdateSecretOk");
        assert_eq!(variant("basic", "get-empty"), "BasicGetEmpty");
        assert_eq!(constant("frame-end"), "FRAME_END");
    }

    #[test]
    fn only_names_that_can_become_identifiers_are_valid() {
        for name in ["ack", "reserved-1", "x2"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "-", "a-", "-a", "a--b", "1a", "Ack", "a_b", "a b", "ä"] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
