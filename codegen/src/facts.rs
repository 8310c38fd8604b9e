//! The facts of a specification as sorted lines, so that two specifications can be compared with `diff`.

use crate::spec::{Class, Constant, ConstantKind, Field, Method, Spec};

/// One line for each constant, class, method, field and property.
pub(crate) fn facts(spec: &Spec) -> String {
    let mut lines: Vec<String> = spec.constants.iter().map(constant).collect();
    for class in &spec.classes {
        lines.push(format!("class {} {}", class.name, class.index));
        lines.extend(fields(&format!("property {}", class.name), &class.properties));
        for it in &class.methods {
            lines.push(method(class, it));
            lines.extend(fields(&format!("field {}.{}", class.name, it.name), &it.fields));
        }
    }
    lines.sort();
    lines.into_iter().map(|line| line + "\n").collect()
}

fn constant(constant: &Constant) -> String {
    let kind = match constant.kind {
        ConstantKind::Frame | ConstantKind::Success => "",
        ConstantKind::SoftError => " soft-error",
        ConstantKind::HardError => " hard-error",
    };
    format!("constant {} {}{kind}", constant.name, constant.value)
}

fn method(class: &Class, method: &Method) -> String {
    let mut line = format!(
        "method {}.{} {},{} by {}",
        class.name, method.name, class.index, method.index, method.sender
    );
    if method.synchronous {
        line += " synchronous";
    }
    if method.content {
        line += " content";
    }
    if !method.responses.is_empty() {
        line = line + " replies " + &method.responses.join(",");
    }
    line
}

/// The position has two digits, so that the lines sort by it.
fn fields(of: &str, fields: &[Field]) -> impl Iterator<Item = String> {
    fields.iter().zip(1..).map(move |(field, position)| {
        let reserved = if field.reserved { " reserved" } else { "" };
        format!("{of} {position:02} {} {}{reserved}", field.name, field.kind.name())
    })
}
