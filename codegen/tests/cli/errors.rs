//! Wrong specifications: an error with its place, and nothing is written.

use crate::support::{SMALL, Scratch, TestResult};

/// A name, what to replace in the small specification by what, and the complaint with its place.
type Case = (&'static str, &'static str, &'static str, &'static str);

/// Runs `generate` with the change made.
fn assert_refused((name, from, to, complaint): Case) -> TestResult {
    assert!(SMALL.contains(from), "{name}: `{from}` is not in the specification");
    let scratch = Scratch::new(&format!("error-{name}"), &SMALL.replacen(from, to, 1))?;
    let run = scratch.run("generate")?;
    let expected = format!("{}:{complaint}\n", scratch.spec.display());
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), expected.as_str()), "{name}");
    assert!(!scratch.directory.exists(), "{name}: nothing is written");
    Ok(())
}

fn assert_all_refused(cases: &[Case]) -> TestResult {
    cases.iter().copied().try_for_each(assert_refused)
}

#[test]
fn a_missing_file_is_named() -> TestResult {
    let scratch = Scratch::new("missing-file", SMALL)?;
    std::fs::remove_file(&scratch.spec)?;
    let run = scratch.run("generate")?;
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.starts_with(&format!("{}: ", scratch.spec.display())), "{}", run.stderr);
    assert!(!scratch.directory.exists());
    Ok(())
}

#[test]
fn broken_xml_and_a_foreign_grammar() -> TestResult {
    assert_all_refused(&[
        ("unclosed", "</method>", "", "23:3: not well-formed XML: expected 'method' tag, not 'class'"),
        ("element", "<response ", "<answer ", "11:7: <answer> has no place in <method>"),
        ("attribute", "content=", "contents=", "16:27: <method> has no attribute `contents`"),
        ("class-attribute", "handler=", "handled-by=", "6:23: <class> has no attribute `handled-by`"),
    ])?;
    let scratch = Scratch::new("root", "<html/>")?;
    let run = scratch.run("generate")?;
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.ends_with(":1:1: <html> where <amqp> is expected\n"), "{}", run.stderr);
    Ok(())
}

#[test]
fn missing_and_invalid_attributes() -> TestResult {
    assert_all_refused(&[
        ("no-index", r#" index="70""#, "", "8:5: <method> lacks the attribute `index`"),
        ("no-name", r#"name="queue" "#, "", "13:7: <field> lacks the attribute `name`"),
        (
            "index",
            r#"index="70""#,
            r#"index="70000""#,
            "8:40: `index` must be a number of 16 bits, not `70000`",
        ),
        (
            "flag",
            r#"synchronous="1""#,
            r#"synchronous="yes""#,
            "8:24: `synchronous` must be 0 or 1, not `yes`",
        ),
        (
            "name",
            r#"name="queue""#,
            r#"name="Queue""#,
            "13:14: `name` must be lower-case words joined by `-`, not `Queue`",
        ),
        ("severity", "soft-error", "soft", "3:42: `class` must be soft-error or hard-error, not `soft`"),
        (
            "reply",
            r#"value="404""#,
            r#"value="65536""#,
            "3:30: `value` must be a number of 16 bits, not `65536`",
        ),
        (
            "chassis",
            r#"<chassis name="server""#,
            r#"<chassis name="broker""#,
            "10:16: `name` must be client or server, not `broker`",
        ),
        (
            "no-chassis",
            r#"<chassis name="server" implement="MUST"/>"#,
            "",
            "8:5: no <chassis> says which side receives the method",
        ),
    ])
}

#[test]
fn unknown_names() -> TestResult {
    assert_all_refused(&[
        ("domain", r#"queue" domain="name""#, r#"queue" domain="label""#, "13:27: unknown domain `label`"),
        ("type", r#"type="short""#, r#"type="tiny""#, "12:32: unknown type `tiny`"),
        ("domain-type", r#"type="shortstr""#, r#"type="text""#, "5:23: unknown type `text`"),
        (
            "response",
            r#"<response name="get-ok""#,
            r#"<response name="got""#,
            "11:17: response `got` is no method of class `basic`",
        ),
        (
            "both-types",
            r#"queue" domain="name""#,
            r#"queue" domain="name" type="short""#,
            "13:7: a field has either a `domain` or a `type`",
        ),
    ])
}

#[test]
fn what_is_there_twice() -> TestResult {
    assert_all_refused(&[
        ("twice-method-index", r#"index="71""#, r#"index="70""#, "16:5: method index `70` is there twice"),
        ("twice-method", r#"method name="ack""#, r#"method name="get""#, "19:5: method `get` is there twice"),
        ("twice-field", r#"name="queue""#, r#"name="no-wait""#, "14:7: field `no-wait` is there twice"),
        ("twice-domain", r#"name="name""#, r#"name="no-wait""#, "5:3: domain `no-wait` is there twice"),
        (
            "twice-constant",
            r#"name="not-found""#,
            r#"name="frame-end""#,
            "3:3: constant `frame-end` is there twice",
        ),
        (
            "twice-reply-code",
            r#"name="frame-end" value="206"/"#,
            r#"name="no-route" value="404" class="soft-error"/"#,
            "3:3: reply code `404` is there twice",
        ),
        (
            "twice-class",
            "</class>",
            concat!(
                r#"</class><class name="basic" index="61">"#,
                r#"<method name="a" index="1"><chassis name="client"/></method></class>"#
            ),
            "23:11: class `basic` is there twice",
        ),
        (
            "twice-class-index",
            "</class>",
            concat!(
                r#"</class><class name="tx" index="60">"#,
                r#"<method name="a" index="1"><chassis name="client"/></method></class>"#
            ),
            "23:11: class index `60` is there twice",
        ),
        (
            "twice-rust-name",
            r#"<field name="queue" domain="name"/>"#,
            r#"<field name="type" domain="name"/><field name="kind" domain="name"/>"#,
            "13:41: field `kind` is there twice",
        ),
        (
            "twice-response",
            r#"<response name="get-ok"/>"#,
            r#"<response name="get-ok"/><response name="get-ok"/>"#,
            "11:32: response `get-ok` is there twice",
        ),
    ])
}

#[test]
fn what_cannot_be_generated() -> TestResult {
    assert_all_refused(&[
        (
            "bit-property",
            r#"<field name="type" domain="name"/>"#,
            r#"<field name="type" domain="no-wait"/>"#,
            "7:5: a property can be neither reserved nor a bit",
        ),
        (
            "no-method",
            "</class>",
            r#"</class><class name="tx" index="90"/>"#,
            "23:11: class `tx` has no method",
        ),
    ])?;
    let properties: String =
        (1..=16).map(|n| format!("<field name=\"p-{n}\" type=\"octet\"/>\n")).collect::<Vec<_>>().concat();
    let text = SMALL.replace(r#"<field name="type" domain="name"/>"#, &properties);
    let scratch = Scratch::new("error-properties", &text)?;
    let run = scratch.run("generate")?;
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.ends_with(":22:1: more than 15 properties do not fit one word of flags\n"),
        "{}",
        run.stderr
    );
    Ok(())
}
