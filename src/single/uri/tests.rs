//! Every part of a URI, and every mistake in one.

use proptest::prelude::*;

use super::*;

/// URI, user, password, host, port, vhost; `-` is absent. The specification's table comes first.
const VALID: &str = r#"
    amqp://user:pass@host:10000/vhost             user  pass  host  10000 vhost
    amqp://user%61:%61pass@ho%61st:10000/v%2fhost usera apass hoast 10000 v/host
    amqp://user:passw%23rd@host:10000/vhost       user  passw#rd host 10000 vhost
    amqp://                                       -     -     -     -     -
    amqp://:@/                                    ""    ""    -     -     /
    amqp://user@                                  user  -     -     -     -
    amqp://user:pass@                             user  pass  -     -     -
    amqp://host                                   -     -     host  -     -
    amqp://:10000                                 -     -     -     10000 -
    amqp:///vhost                                 -     -     -     -     vhost
    amqp://host/                                  -     -     host  -     /
    amqp://host/%2f                               -     -     host  -     /
    amqp://[::1]                                  -     -     ::1   -     -
    amqp://u:p@[2001:db8::7]:5673/v?              u     p     2001:db8::7 5673 v
    amqp://[fe80::1%25eth0]:/                     -     -     fe80::1%eth0 - /
    amqp://h/a%2Fb                                -     -     h     -     a/b
    amqp://u:p%40@h                               u     p@    h     -     -
    amqp://u:p@q:r+s%2B@h:65535/v+@               u     p@q:r+s+ h  65535 v+@
    aMqP://%75:%F0%9f%90%87é@%68/%76              u     🐇é   h     -     v
"#;

#[test]
fn valid_uris() {
    for row in VALID.trim().lines() {
        let mut words = row.split_whitespace().map(|word| (word != "-").then(|| word.trim_matches('"')));
        let text = words.next().flatten().unwrap_or_default();
        let Uri { tls, user, password, mut hosts, vhost, query } = parsed(text);
        let HostPort { host, port } = hosts.pop().unwrap();
        assert!(hosts.is_empty(), "{text}");
        let parts = [user, password, host, port.map(|port| port.to_string()), vhost];
        assert!(words.eq(parts.each_ref().map(Option::as_deref)), "{text}: {parts:?}");
        assert!(!tls && query == Query::default(), "{text}");
    }
    assert!(parsed("AMQPS://h").tls);
}

#[test]
fn invalid_uris() {
    use UriError::*;
    let rows: &[(UriError, &[&str])] = &[
        (Empty, &[""]),
        (NoScheme, &["amqp", "amqp:/h", "h:5672", "127.0.0.1"]),
        (Scheme, &["://", "amqpx://h", "s3cret://h"]),
        (Untrimmed, &[" amqp://h", "\namqp://h", "amqp://h\n", "amqp://u:s3cret@h/v \r\n", "amqp://h?x=1 "]),
        (SecondUri, &["amqp://u:s3cret@a,amqp://u:s3cret@b", "amqp://a:1,amqps://b/v"]),
        (NoHost, &["amqp://a,", "amqp://,b", "amqp://u:s3cret@a:1,,b/v"]),
        (Fragment, &["amqp://u:s3cret#s3cret@h/", "amqp://h/#", "amqp://h/v?a=b#c"]),
        (MisplacedAt, &["amqp://u:12/s3cret@h", "amqp://u:1?s3cret@h", "amqp://s3c/ret:s3cret@h/v"]),
        (WhiteSpace("password"), &["amqp://u:s3cret @h", "amqp://u:s3cret\0@h", "amqp://u:\u{a0}@h"]),
        (WhiteSpace("host"), &["amqp://a b", "amqp://a%20b", "amqp://h\n1", "amqp://[fe80::1%25%00]"]),
        (WhiteSpace("port"), &["amqp://h:5672 ,i", "amqp://h:5672\n/"]),
        (WhiteSpace("vhost"), &["amqp://h/v v", "amqp://h/\t\tv"]),
        (WhiteSpace("query"), &["amqp://h/?password=s3cret s3cret", "amqp://h?x\n=1"]),
        (Escape("user"), &["amqp://%zz@h", "amqp://s3cret%@h"]),
        (Escape("password"), &["amqp://u:s3cret%zz@h", "amqp://u:%+1@h", "amqp://u:%é@h"]),
        (Escape("host"), &["amqp://foo%1", "amqp://foo%1x", "amqp://[::1%eth0]"]),
        (Escape("query"), &["amqp://h?unknown=%", "amqp://h?%", "amqp://h?password=s3cret%f"]),
        (NotUtf8("vhost"), &["amqp://u:s3cret@h/%c3"]),
        (
            SecondColon,
            &[
                "amqp://foo:bar:s3cret",
                "amqp://::1",
                "amqp://foo:[::1]",
                "amqp://[::1]:1:2",
                "amqp://a,b:1:2",
            ],
        ),
        (Ipv6, &["amqp://foo[::1]", "amqp://[::1]foo", "amqp://[::1", "amqp://[h]", "amqp://[]"]),
        (Ipv6, &["amqp://[fe80::1%25]", "amqp://[127.0.0.1]", "amqp://[::1%00", "amqp://h]"]),
        (Port, &["amqp://h:+1", "amqp://h:1000xyz", "amqp://u:s3cret/h", "amqp://a:1,b:x"]),
        (PortRange, &["amqp://h:0", "amqp://h:65536", "amqp://h:99999999999999999999", "amqp://a:1,b:0"]),
        (VhostSegments, &["amqp://h/a/b", "amqp://h/v/", "amqp://h///"]),
        (DoubleSlash, &["amqp://h//", "amqp://u:s3cret@h:5672//", "amqp://h//?heartbeat=1"]),
    ];
    for (expected, texts) in rows {
        for text in *texts {
            assert_eq!(text.parse::<Uri>().as_ref(), Err(expected), "{text:?}");
        }
    }
}

#[test]
fn query_parameters() {
    let Uri { password, query, .. } = parsed(
        "amqps://h?heartbeat=9&heartbeat=0&connection_timeout=1500&channel_max=7&frame_max=131072&&\
         &auth_mechanism=External&auth_mechanism=plain&auth_mechanism=amqplain&auth_mechanism=anonymous\
         &cacertfile=/a%26b/c+d&certfile=c&keyfile=k&password=s3cret&verify=verify_none&depth=2\
         &fail_if_no_peer_cert=true&server_name_indication=sn&customize_hostname_check=https",
    );
    assert_eq!((password, &query.tls.key_password), (None, &Some(Secret("s3cret".to_owned()))));
    let expected = "Query { heartbeat: Some(0), connection_timeout: Some(1.5s), channel_max: Some(7), \
        frame_max: Some(131072), auth_mechanism: [External, Plain, AmqPlain, Anonymous], \
        tls: TlsQuery { ca_cert_file: Some(\"/a&b/c+d\"), cert_file: Some(\"c\"), key_file: Some(\"k\"), \
        key_password: Some(***), verify_peer: Some(false), fail_if_no_peer_cert: Some(true), \
        server_name: Some(Name(\"sn\")), depth: Some(2), https_hostname_check: true } }";
    assert_eq!(format!("{query:?}"), expected);
    let name = parsed("amqp://?server_name_indication=disable").query.tls.server_name;
    assert_eq!(name, Some(ServerName::Disable));
}

#[test]
fn several_hosts_keep_their_order_and_ports() {
    let Uri { user, hosts, vhost, .. } = parsed("amqp://u:p,@a:1,b,[::1]:2,:3/v");
    let host = |host: Option<&str>, port| HostPort { host: host.map(str::to_owned), port };
    assert_eq!(
        hosts,
        [host(Some("a"), Some(1)), host(Some("b"), None), host(Some("::1"), Some(2)), host(None, Some(3))]
    );
    assert_eq!((user.as_deref(), vhost.as_deref()), (Some("u"), Some("v")));
}

#[test]
fn an_unknown_query_parameter_is_an_error_with_the_nearest_known_one() {
    let error = |pair: &str| format!("amqp://h?depth=1&{pair}").parse::<Uri>().unwrap_err().to_string();
    for (key, nearest) in [
        ("heatbeat", "heartbeat"),
        ("Heartbeat", "heartbeat"),
        ("heart_beat", "heartbeat"),
        ("connection-timeout", "connection_timeout"),
        ("timeout", "connection_timeout"),
        ("cacert_file", "cacertfile"),
        ("frame-max", "frame_max"),
        ("auth_mechanisms", "auth_mechanism"),
        ("verify_peer", "verify"),
    ] {
        let expected = format!("the query parameter number 2 is unknown: did you mean {nearest}?");
        assert_eq!(error(&format!("{key}=s3cret")), expected, "{key}");
    }
    for key in ["foo", "", "%20", "s3cret", &"x".repeat(10_000)] {
        let shown = error(&format!("{key}=1"));
        assert!(shown.contains("known are heartbeat, connection_timeout"), "{key}: {shown}");
    }
}

#[test]
fn what_others_write_gets_the_right_hint() {
    for (text, hint) in [
        ("pyamqp://guest:s3cret@h//", "the scheme pyamqp:// is Celery's word for it: write amqp://"),
        ("rabbitmq://h/", "the scheme rabbitmq:// is not one of AMQP"),
        ("HTTP://h:15672", "management API"),
        ("amqp+ssl://h", "amqps://"),
        ("h:5672", "has no scheme: begin it with amqp://"),
        ("amqp://h?retry_delay=s3cret", "retry_delay is of another client: use a robust connection"),
        ("amqp://h?ssl_options=%7B%7D", "cacertfile"),
        ("amqp://guest:s3cret@h:5672//", "end it in one '/'"),
        ("amqp://h:99999/", "from 1 to 65535"),
        ("amqp://guest:s3cret@h/\n", "line break"),
        ("amqp://a,amqp://b", "amqp://user:password@host1,host2/vhost"),
    ] {
        let error = text.parse::<Uri>().unwrap_err().to_string();
        assert!(error.contains(hint) && !error.contains("s3cret"), "{text:?}: {error}");
    }
}

#[test]
fn bad_query_values_name_the_key() {
    let bad = "heartbeat=65536 channel_max=+1 frame_max=4294967296 depth=-1 depth=256 verify=true \
        auth_mechanism=plain,external fail_if_no_peer_cert=1 customize_hostname_check=http";
    let empty = Query::KNOWN.map(|(key, _)| key).into_iter().filter(|key| *key != "password");
    for pair in empty.chain(bad.split(' ')) {
        let named = format!("the query parameter {} must be ", split_optional(pair, '=').0);
        let result = format!("amqp://h?password=&{pair}").parse::<Uri>();
        assert!(result.is_err_and(|error| error.to_string().starts_with(&named)), "{pair}");
    }
}

proptest! {
    #[test]
    fn encoded_parts_round_trip(user: String, left: String, right: String, vhost in "(?s).+") {
        let password = format!("{left}s3cret{right}");
        let [u, p, v] = [&user, &password, &vhost]
            .map(|text| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat());
        let uri = parsed(&format!("amqp://{u}:{p}@[::1]:1/{v}?password={p}"));
        let shown = format!("{uri:?}");
        prop_assert!(!shown.contains("s3cret"), "{}", shown);
        prop_assert_eq!((uri.user, uri.vhost), (Some(user), Some(vhost)));
        prop_assert_eq!(uri.query.tls.key_password, Some(Secret(password.clone())));
        prop_assert_eq!(uri.password, Some(password));
    }

    #[test]
    fn nothing_panics_and_no_error_shows_the_text(any: String, mess in r"[0-9a-f%:/?#@&=é \[\]]{0,20}") {
        for text in [any, mess].map(|text| format!("{text}s3cret{text}")) {
            for start in ["", "amqp://", "amqp://u:p", "amqp://h?password=", "amqp://h?depth="] {
                let shown = format!("{start}{text}").parse::<Uri>().map_err(|e| format!("{e} {e:?}"));
                prop_assert!(!shown.is_err_and(|shown| shown.contains("s3cret")));
            }
        }
    }
}

fn parsed(text: &str) -> Uri {
    text.parse().unwrap()
}
