//! Connections that are made by a function of the user.

use std::future::{pending, ready};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lepus::{ConnectOptions, Error, ErrorKind, Origin, Scope};
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;

fn options() -> ConnectOptions {
    ConnectOptions::new("amqp://me:hush-hush@one.example,two.example:5673/").unwrap()
}

fn names_the_host(error: &Error, text: &str) {
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Connect, Scope::Connection));
    assert_eq!(error.origin(), Origin::Network);
    assert!(error.to_string().contains(text), "{error}");
}

#[tokio::test(start_paused = true)]
async fn its_error_names_the_host_and_keeps_the_source() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let refusing = options().connector({
        let asked = Arc::clone(&asked);
        move |host: &str, port| {
            asked.lock().unwrap().push(format!("{host}:{port}"));
            ready(Err::<DuplexStream, _>(io::Error::other("the proxy wants a password")))
        }
    });
    let error = refusing.connect().await.unwrap_err();
    assert_eq!(*asked.lock().unwrap(), ["one.example:5672", "two.example:5673"]);
    names_the_host(&error, "cannot connect to two.example:5673: the connector reports an error");
    assert!(format!("{error:#}").contains("the proxy wants a password"), "{error:#}");

    // a robust connection asks it, too
    let error = refusing.robust().connect().await.unwrap_err();
    names_the_host(&error, "two.example:5673");
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn it_has_the_time_to_connect_and_no_more() {
    let stuck = options().connector(|_, _| pending::<io::Result<DuplexStream>>());
    let began = Instant::now();
    let error = stuck.connect_timeout(Duration::from_secs(3)).connect().await.unwrap_err();
    names_the_host(&error, "cannot connect to two.example:5673: no answer within 3 s");
    // the second host is asked while the first one is silent
    assert_eq!(began.elapsed().as_millis(), 3250);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_a_lost_connection() {
    let error = options().connector(|_, _| ready(Ok(duplex(64).0))).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionLost);
    assert!(error.to_string().contains("two.example:5673"), "{error}");
}

#[test]
fn debug_shows_whether_there_is_one_and_no_password() {
    let shown = format!("{:?}", options().connector(|_, _| ready(Ok(duplex(64).0))));
    assert!(shown.contains("connector: Some(Connector") && !shown.contains("hush"), "{shown}");
    assert!(format!("{:?}", options()).contains("connector: None"));
}
