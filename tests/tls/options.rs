//! What a URI says about TLS, and how options are shown.

use lepus::{ConnectOptions, ErrorKind, Mechanism, Tls};

#[test]
fn amqps_means_another_port() {
    let options = ConnectOptions::new("amqps://a,b:1").unwrap();
    assert_eq!(options.get_hosts().collect::<Vec<_>>(), [("a", 5671), ("b", 1)]);
    assert_eq!(options.to_string(), "amqps://guest@a:5671,b:1/%2F");
}

#[test]
fn a_certificate_without_a_password_means_external() {
    for (uri, mechanisms) in [
        ("amqps://h?certfile=c&keyfile=k", &[Mechanism::External][..]),
        ("amqps://app@h?certfile=c&keyfile=k", &[Mechanism::External]),
        ("amqps://app:hush@h?certfile=c&keyfile=k", &[Mechanism::Plain, Mechanism::AmqPlain]),
        ("amqps://h?certfile=c&keyfile=k&auth_mechanism=plain", &[Mechanism::Plain]),
        ("amqps://h?cacertfile=c", &[Mechanism::Plain, Mechanism::AmqPlain]),
    ] {
        let options = ConnectOptions::new(uri).unwrap();
        assert_eq!(options.get_mechanisms(), mechanisms, "{uri}");
        // also when what is shown is read again, without a password
        let again = ConnectOptions::new(&options.to_string()).unwrap();
        assert_eq!(again.get_mechanisms(), mechanisms, "{options}");
        assert_eq!(again.to_string(), options.to_string());
    }
}

#[test]
fn the_shown_uri_has_the_files() {
    let uri = "amqps://guest@h:5671/%2F?auth_mechanism=external&cacertfile=%2Fetc%2Fa%20b.pem&certfile=c.pem&keyfile=c.key\
               &server_name_indication=other";
    assert_eq!(ConnectOptions::new(uri).unwrap().to_string(), uri);
    let silent = "amqps://guest@h:5671/%2F?server_name_indication=disable";
    assert_eq!(ConnectOptions::new(silent).unwrap().to_string(), silent);
    let texts = Tls::new().ca_pem("hush").identity_pem("hush", "hush-hush");
    let options = ConnectOptions::new("amqps://me:hush@h").unwrap().tls(texts);
    assert_eq!(options.to_string(), "amqps://me@h:5671/%2F");
    let shown = format!("{options:?}");
    assert!(shown.contains("the PEM text") && !shown.contains("hush"), "{shown}");
}

#[test]
fn what_is_how_it_is_may_be_said() {
    let uri = "amqps://h?verify=verify_peer&fail_if_no_peer_cert=true&customize_hostname_check=https";
    assert_eq!(ConnectOptions::new(uri).unwrap().to_string(), "amqps://guest@h:5671/%2F");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    for (uri, text) in [
        ("amqps://h?verify=verify_none", "Tls::dangerously_accept_any_certificate"),
        ("amqps://h?certfile=c&keyfile=k&password=hush", "decrypt the key"),
        ("amqps://h?depth=3", "depth: the length of certificate chains cannot be set"),
        ("amqps://h?fail_if_no_peer_cert=false", "a server always has a certificate"),
        ("amqps://h?certfile=c", "certfile without keyfile"),
        ("amqps://h?keyfile=k", "keyfile without certfile"),
        ("amqp://h?cacertfile=c", "begin it with amqps://"),
        ("amqp://h?verify=verify_peer", "begin it with amqps://"),
    ] {
        let error = ConnectOptions::new(uri).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{uri}");
        assert!(error.to_string().contains(text) && !error.to_string().contains("hush"), "{error}");
    }
}
