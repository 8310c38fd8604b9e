//! Users, virtual hosts, addresses, and logins that fail.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use lepus::broker::{Broker, ReplyFault};
use lepus::protocol::connection;
use lepus::{ConnectOptions, ErrorKind};

use crate::tools::{open, test};

#[test]
fn the_users_are_those_that_were_given() {
    test(async |_| {
        let options = Broker::options().user("ann", "s3cret/@:").user("bob", "other");
        let broker = options.start().await.unwrap();
        let _connection = open(&broker).await;
        assert_eq!(broker.connections().first().unwrap().user, "ann");
        let as_user = async |name: &str, password: &str| {
            let options = ConnectOptions::new(&broker.url()).unwrap();
            options.credentials(name, password).connect().await.map_err(|error| error.kind())
        };
        as_user("bob", "other").await.unwrap();
        for (name, password) in [("bob", "s3cret/@:"), ("guest", "guest"), ("ann", "")] {
            assert_eq!(as_user(name, password).await.unwrap_err(), ErrorKind::Auth, "{name}");
        }
    });
}

#[test]
fn virtual_hosts_are_apart() {
    test(async |_| {
        let broker = Broker::options().vhost("a/b").start().await.unwrap();
        let other = broker.in_vhost("a/b");
        let (_first, channel) = open(&broker).await;
        channel.declare_queue("jobs").await.unwrap();
        assert_eq!(other.queue("jobs"), None);
        let connection = lepus::connect(&other.url()).await.unwrap();
        let channel = connection.channel().await.unwrap();
        channel.declare_queue("jobs").await.unwrap();
        channel.default_exchange().publish("jobs", "there").await.unwrap();
        assert_eq!(other.bodies("jobs"), ["there"]);
        assert!(broker.bodies("jobs").is_empty());
        let error = lepus::connect(&broker.in_vhost("none").url()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vhost);
    });
}

#[test]
fn an_address_can_be_chosen() {
    test(async |_| {
        // a port that was free a moment ago
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        assert!(Broker::options().address(address).start().await.is_err(), "it is taken");
        drop(free);
        let broker = Broker::options().address(address).start().await.unwrap();
        assert_eq!(broker.address(), Some(address));
        assert!(broker.url().contains(&address.to_string()));
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Broker::options().address(everywhere).start().await.unwrap();
    });
}

#[test]
fn logins_are_refused_while_it_is_said() {
    test(async |broker| {
        broker.refuse_logins(true);
        let error = lepus::connect(&broker.url()).await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::Auth, Some(403)));
        broker.refuse_logins(false);
        let _connection = open(&broker).await;
    });
}

#[test]
fn a_login_can_be_delayed() {
    test(async |broker| {
        let time = Duration::from_millis(100);
        broker.fault_reply::<connection::Tune>(ReplyFault::Delay(time));
        let started = Instant::now();
        let _connection = open(&broker).await;
        assert!(started.elapsed() >= time);

        broker.fault_reply::<connection::OpenOk>(ReplyFault::Drop);
        let options = ConnectOptions::new(&broker.url()).unwrap().handshake_timeout(time);
        assert_eq!(options.connect().await.unwrap_err().kind(), ErrorKind::HandshakeTimeout);
    });
}

#[test]
fn who_does_not_log_in_is_cut() {
    test(async |_| {
        let options = Broker::options().handshake_timeout(Duration::from_millis(50));
        let broker = options.start().await.unwrap();
        let mut silent = tokio::net::TcpStream::connect(broker.address().unwrap()).await.unwrap();
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest).await.unwrap();
        assert!(rest.is_empty());
        broker.until(|broker| broker.connections().is_empty()).await;
    });
}
