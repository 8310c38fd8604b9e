//! Where `RabbitMQ` 3.10 differs from 4.x, which is the model, with the reason. Nothing else may differ.

use crate::heard::Heard;

/// Words of lines that 3.10 takes in another way than 4.x, which the embedded broker follows.
const NOT_IN_3: [(&str, &str); 8] = [
    ("nonsense", "an unknown type of exchange closes the connection with 503; so did it until 3.13"),
    ("x-queue-leader-locator", "classic queues refuse it"),
    ("x-queue-mode=nonsense", "it is checked; in 4.x it means nothing"),
    ("x-queue-version", "there is no need to be 2"),
    ("x-queue-type=1", "the queue's name is made up before the type is checked, which ends with 541"),
    ("x-delivery-limit", "every delivery counts; in 4.3 those that basic.nack gives back do not"),
    (" priority=", "quorum queues have none before 4.3"),
    ("amq.rabbitmq.log", "it is only there when the log goes to it"),
];

/// The same for the newest 4.x, where 3.10 is followed: from 4.3 on a global limit is denied unless configured, and becomes
/// one for each consumer.
const NOT_IN_4: [(&str, &str); 1] = [(" global", "an operator may permit it")];

/// Words of a direct reply that must be routed: from 4.2 on it counts as routed while the channel is there, even when
/// nobody takes it.
const MANDATORY_REPLY: [&str; 2] = [" reply ", " mandatory"];

/// Words of a line whose message may overtake others and has expired at once: `RabbitMQ` leaves it in the queue until
/// something else happens there.
const EXPIRED_IN_FRONT: [&str; 2] = [" priority=", " expiration=0"];

/// Lines that cannot be compared.
pub(crate) fn is_skipped(line: &str, version: &str) -> bool {
    let words = if version.starts_with("3.") { &NOT_IN_3[..] } else { &NOT_IN_4[..] };
    words.iter().any(|(word, _)| line.contains(word))
        || (!version.starts_with("3.") && MANDATORY_REPLY.iter().all(|word| line.contains(word)))
        || EXPIRED_IN_FRONT.iter().all(|word| line.contains(word))
}

/// What is compared of a broker's words.
pub(crate) fn common(mut heard: Heard, version: &str) -> Heard {
    if version.starts_with("3.") {
        for text in heard.0.values_mut().flatten() {
            // quorum queues count in another way, and a dead letter is new
            for name in ["x-delivery-count", "x-acquired-count"] {
                *text = without_count(text, name);
            }
            if text.contains("x-death") {
                *text = without_list(&text.replace(" again", ""), "CC");
            }
            // only the first death has headers of its own
            *text = without_last_death(text);
            // another quoting
            *text = text.replace("<<\"quorum\">>", "quorum");
            // a queue without a type is stored without one
            if text.contains("inequivalent arg 'x-queue-type'") {
                text.truncate(text.find(": received").unwrap_or(text.len()));
            }
        }
    }
    heard
}

fn without_last_death(text: &str) -> String {
    let mut text = text.to_owned();
    for part in ["exchange", "queue", "reason"] {
        let name = format!(", x-last-death-{part}='");
        if let Some(start) = text.find(&name) {
            let length = text[start + name.len()..].find('\'').map_or(0, |end| name.len() + end + 1);
            text.replace_range(start..start + length, "");
        }
    }
    text
}

/// Without a header that is a number, and without headers if there were no others.
fn without_count(text: &str, name: &str) -> String {
    let mut text = text.to_owned();
    if let Some(start) = text.find(&format!("{name}=I64(")) {
        let length = text[start..].find(')').map_or(0, |end| end + 1);
        text.replace_range(start..start + length, "");
    }
    text.replace(", , ", ", ").replace("{, ", "{").replace(", }", "}").replace(" {}", "")
}

/// Without a header that is a list of names.
fn without_list(text: &str, name: &str) -> String {
    let mut text = text.to_owned();
    if let Some(start) = text.find(&format!("{{{name}=[")) {
        let length = text[start..].find("], ").map_or(0, |end| end + 3);
        text.replace_range(start + 1..start + length, "");
    }
    text
}
