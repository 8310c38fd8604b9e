//! What options say of themselves: getters, and the URI without the password.

use std::time::Duration;

use lepus::robust::{self, Backoff, Outage};
use lepus::{ConnectOptions, ErrorKind, Mechanism};
use proptest::prelude::*;

fn parsed(uri: &str) -> ConnectOptions {
    uri.parse().unwrap()
}

#[test]
fn the_default_is_the_empty_uri() {
    let default = ConnectOptions::default();
    assert_eq!(default.to_string(), "amqp://guest@localhost:5672/%2F");
    assert_eq!(format!("{default:?}"), format!("{:?}", parsed("amqp://")));
}

#[test]
fn getters_give_what_was_set() {
    let options = ConnectOptions::try_from("amqp://u:p@a:1,[::1],c/v").unwrap();
    assert_eq!(options.get_hosts().collect::<Vec<_>>(), [("a", 1), ("::1", 5672), ("c", 5672)]);
    assert_eq!((options.get_user(), options.get_vhost(), options.get_connection_name()), ("u", "v", None));
    let second = Duration::from_secs(1);
    let options = options
        .credentials("app", "hush")
        .vhost("w")
        .connection_name("reports")
        .mechanisms([Mechanism::External])
        .heartbeat(second)
        .channel_max(2)
        .frame_max(1)
        .connect_timeout(3 * second)
        .handshake_timeout(4 * second)
        .rpc_timeout(5 * second)
        .close_timeout(6 * second)
        .outgoing_limit(7)
        .incoming_limit(8)
        .unconfirmed_messages(9)
        .message_limit(10);
    assert_eq!((options.get_user(), options.get_vhost()), ("app", "w"));
    assert_eq!(options.get_connection_name(), Some("reports"));
    assert_eq!(options.get_mechanisms(), [Mechanism::External]);
    assert_eq!((options.get_heartbeat(), options.get_channel_max()), (second, 2));
    assert_eq!(options.get_frame_max(), 8192, "raised");
    assert_eq!(options.get_connect_timeout(), 3 * second);
    assert_eq!(options.get_handshake_timeout(), 4 * second);
    assert_eq!(options.get_rpc_timeout(), 5 * second);
    assert_eq!(options.get_close_timeout(), 6 * second);
    assert_eq!((options.get_outgoing_limit(), options.get_incoming_limit()), (7, 8));
    assert_eq!((options.get_unconfirmed_messages(), options.get_message_limit()), (9, 10));
}

#[test]
fn getters_of_robust_options_give_what_was_set() {
    let options: robust::Options = "amqp://a".parse().unwrap();
    let shown = format!("{options:?}");
    assert_eq!(shown, format!("{:?}", robust::Options::from(parsed("amqp://a"))));
    assert_eq!((options.get_shuffled(), options.get_retry_first_connect()), (false, false));
    assert_eq!((options.get_republish(), options.get_revive_consumers()), (true, true));
    assert_eq!((options.get_attempts(), options.get_on_outage()), (None, Outage::Wait));
    let backoff = Backoff::new().first(Duration::from_millis(2)).most(Duration::from_secs(3));
    let options = options
        .host("b", 1)
        .shuffled()
        .backoff(backoff)
        .attempts(4)
        .retry_first_connect()
        .on_outage(Outage::Fail)
        .unconfirmed_limit(5)
        .republish(false)
        .revive_consumers(false)
        .locked_limit(Duration::from_secs(6));
    assert_eq!(options.get_hosts().collect::<Vec<_>>(), [("a", 5672), ("b", 1)]);
    assert_eq!(options.get_connect_options().get_hosts().count(), 1);
    assert_eq!((options.get_shuffled(), options.get_retry_first_connect()), (true, true));
    assert_eq!((options.get_republish(), options.get_revive_consumers()), (false, false));
    assert_eq!((options.get_attempts(), options.get_on_outage()), (Some(4), Outage::Fail));
    assert_eq!(options.get_backoff().get_first(), Duration::from_millis(2));
    assert_eq!(options.get_backoff().get_most(), Duration::from_secs(3));
    assert_eq!((options.get_unconfirmed_limit(), options.get_locked_limit()), (5, Duration::from_secs(6)));
}

#[test]
fn a_uri_that_is_not_valid_is_an_error_however_it_is_read() {
    for error in [
        "amqp:".parse::<ConnectOptions>().unwrap_err(),
        ConnectOptions::try_from("amqp:").unwrap_err(),
        "amqp:".parse::<robust::Options>().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}

#[test]
fn options_are_shown_as_their_uri() {
    for (uri, shown) in [
        ("amqp://u:hush@h:1/", "amqp://u@h:1/%2F"),
        ("amqp://:hush@h/v", "amqp://@h:5672/v"),
        ("amqp://u%40:hush@a,[fe80::1%25eth0]:2/a%2Fb", "amqp://u%40@a:5672,[fe80::1%25eth0]:2/a%2Fb"),
        ("amqp://é@h/%0a%1b", "amqp://%C3%A9@h:5672/%0A%1B"),
        ("amqp://h?heartbeat=60&channel_max=2047", "amqp://guest@h:5672/%2F"),
        (
            "amqp://h?auth_mechanism=External&heartbeat=0&frame_max=9000&channel_max=7&connection_timeout=1500",
            "amqp://guest@h:5672/%2F?heartbeat=0&connection_timeout=1500&channel_max=7&frame_max=9000\
             &auth_mechanism=external",
        ),
    ] {
        assert_eq!(parsed(uri).to_string(), shown);
        assert_eq!(parsed(shown).to_string(), shown);
    }
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat()
}

prop_compose! {
    fn host()(host in "[^ \\p{C}\\p{Z}]{1,9}|::1|fe80::1%[^ \\p{C}\\p{Z}]{0,4}", port in 1_u16.., shows_port: bool) -> String {
        let port = if shows_port { format!(":{port}") } else { String::new() };
        format!("{}{port}", encoded(&host))
    }
}

proptest! {
    #[test]
    fn what_is_shown_parses_to_the_same_but_for_the_password(
        user: String,
        password: String,
        hosts in prop::collection::vec(host(), 1..4),
        vhost in "(?s).{0,9}",
        heartbeat: Option<u16>,
        timeout: Option<u32>,
        channel_max: Option<u16>,
        frame_max: Option<u32>,
        mechanisms in prop::collection::vec(prop::sample::select(vec!["plain", "amqplain", "external", "anonymous"]), 0..4),
    ) {
        let mut query: Vec<_> = mechanisms.iter().map(|name| format!("auth_mechanism={name}")).collect();
        query.extend(heartbeat.map(|value| format!("heartbeat={value}")));
        query.extend(timeout.map(|value| format!("connection_timeout={value}")));
        query.extend(channel_max.map(|value| format!("channel_max={value}")));
        query.extend(frame_max.map(|value| format!("frame_max={value}")));
        let secret = format!("hush-hush{password}");
        let (hosts, query) = (hosts.join(","), query.join("&"));
        let uri = format!("amqp://{}:{}@{hosts}/{}?{query}", encoded(&user), encoded(&secret), encoded(&vhost));

        let options = parsed(&uri);
        let shown = options.to_string();
        prop_assert!(!shown.contains("hush-hush"));
        prop_assert!(shown.is_ascii() && !shown.contains(char::is_control), "{}", shown);
        // `Debug` has everything that a URI can say, and stars for the password
        prop_assert_eq!(format!("{:?}", parsed(&shown)), format!("{options:?}"));
    }
}
