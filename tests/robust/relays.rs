//! The relay does what the other tests rely on.

use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::relay::{Direction, Fault, Relay, Traffic, Trigger};

/// Long enough to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that gives back what it gets, and how many bytes each of its connections brought until its end.
async fn echo() -> (Relay, tokio::sync::mpsc::UnboundedReceiver<io::Result<Vec<u8>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let relay = Relay::start(listener.local_addr().unwrap()).await.unwrap();
    let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
                let result = loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => break Ok(seen),
                        Ok(read) => {
                            seen.extend_from_slice(&buffer[..read]);
                            drop(stream.write_all(&buffer[..read]).await);
                        }
                        Err(error) => break Err(error),
                    }
                };
                drop(ended.send(result));
            });
        }
    });
    (relay, ends)
}

async fn connect(relay: &Relay) -> TcpStream {
    TcpStream::connect(relay.address()).await.unwrap()
}

/// Sends and reads the same back.
async fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.expect("no answer").unwrap();
    assert_eq!(back, text);
}

/// Everything up to the end.
async fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("no end").map(|_| rest)
}

fn at(direction: Direction, offset: u64, fault: Fault) -> Trigger {
    Trigger { direction, offset, fault }
}

#[tokio::test]
async fn it_forwards_and_counts() {
    let (relay, mut ends) = echo().await;
    let mut one = connect(&relay).await;
    exchange(&mut one, b"hello").await;
    let mut two = connect(&relay).await;
    exchange(&mut two, b"you").await;
    let expected = [5, 3].map(|bytes| Traffic { to_broker: bytes, to_client: bytes });
    relay.until(|counts| counts.traffic == expected).await.unwrap();
    assert_eq!(relay.counts().ended, 0);
    one.shutdown().await.unwrap();
    assert_eq!(ends.recv().await.unwrap().unwrap(), b"hello", "the end is passed on");
    assert_eq!(rest(&mut one).await.unwrap(), b"");
    relay.until(|counts| counts.ended == 1).await.unwrap();
    exchange(&mut two, b"still").await;
    assert_eq!(relay.counts().faults, 0);
}

#[tokio::test]
async fn a_cut_is_an_end_of_file_at_the_byte_that_was_chosen() {
    for offset in [0, 1, 4] {
        let (relay, mut ends) = echo().await;
        relay.next(at(Direction::ToBroker, offset, Fault::Cut));
        let mut stream = connect(&relay).await;
        stream.write_all(b"abcdef").await.unwrap();
        let cut = &b"abcdef"[..usize::try_from(offset).unwrap()];
        assert_eq!(ends.recv().await.unwrap().unwrap(), cut);
        rest(&mut stream).await.unwrap();
        relay.until(|counts| counts.faults == 1).await.unwrap();
        assert_eq!(relay.counts().traffic[0].to_broker, offset);

        // the plan was for one connection
        let mut stream = connect(&relay).await;
        exchange(&mut stream, b"goes on").await;
        relay.next(None);
        relay.next(at(Direction::ToClient, offset, Fault::Cut));
        exchange(&mut connect(&relay).await, b"is spared").await;
        let mut stream = connect(&relay).await;
        stream.write_all(b"abcdef").await.unwrap();
        assert_eq!(rest(&mut stream).await.unwrap(), cut);
        relay.until(|counts| counts.faults == 2).await.unwrap();
        assert_eq!(relay.counts().traffic[3].to_client, offset);
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_for_both() {
    let (relay, mut ends) = echo().await;
    let mut stream = connect(&relay).await;
    exchange(&mut stream, b"hello").await;
    relay.reset();
    assert_eq!(rest(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(ends.recv().await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);

    relay.next(at(Direction::ToClient, 2, Fault::Reset));
    let mut stream = connect(&relay).await;
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    relay.until(|counts| counts.faults == 2).await.unwrap();
}

#[tokio::test]
async fn orders_concern_only_the_connections_that_there_are() {
    let (relay, mut ends) = echo().await;
    let mut streams = [connect(&relay).await, connect(&relay).await];
    for stream in &mut streams {
        exchange(stream, b"x").await;
    }
    relay.cut();
    for stream in &mut streams {
        assert_eq!(rest(stream).await.unwrap(), b"");
        assert_eq!(ends.recv().await.unwrap().unwrap(), b"x");
    }
    relay.until(|counts| counts.faults == 2).await.unwrap();
    exchange(&mut connect(&relay).await, b"new").await;
    drop(streams);
    relay.until(|counts| counts.ended >= 2).await.unwrap();
}

#[tokio::test]
async fn a_stall_keeps_the_sockets_open() {
    let (relay, mut ends) = echo().await;
    let mut stream = connect(&relay).await;
    exchange(&mut stream, b"before").await;
    relay.stall();
    stream.write_all(b"late").await.unwrap();
    let mut back = [0; 4];
    assert!(timeout(SILENCE, stream.read_exact(&mut back)).await.is_err());
    assert_eq!(relay.counts().traffic[0].to_broker, 6);
    exchange(&mut connect(&relay).await, b"new").await;
    assert!(ends.recv().await.unwrap().is_ok(), "the new one has ended");
    assert!(ends.try_recv().is_err(), "the stalled one has not");
    relay.resume();
    // part of it may have been read before
    assert!(timeout(PATIENCE, stream.read(&mut back)).await.unwrap().unwrap() > 0);

    relay.next(at(Direction::ToBroker, 3, Fault::Stall));
    let mut stream = connect(&relay).await;
    stream.write_all(b"abcdef").await.unwrap();
    let mut back = [0; 6];
    assert!(timeout(SILENCE, stream.read_exact(&mut back)).await.is_err());
    assert_eq!(relay.counts().traffic[2], Traffic { to_broker: 3, to_client: 0 }, "both ways");
    relay.resume();
    relay.until(|counts| counts.traffic[2].to_client == 6).await.unwrap();
    // a connection that stalls can still be cut
    relay.stall();
    relay.cut();
    relay.until(|counts| counts.ended == 3).await.unwrap();
}

#[tokio::test]
async fn a_stalled_connection_takes_no_more_than_fits_in_its_buffers() {
    let (relay, _ends) = echo().await;
    let mut stream = connect(&relay).await;
    exchange(&mut stream, b"x").await;
    relay.stall();
    let much = vec![0; 65536];
    let flood = async { while stream.write_all(&much).await.is_ok() {} };
    assert!(timeout(SILENCE * 10, flood).await.is_err(), "the window fills");
    assert_eq!(relay.counts().traffic[0].to_broker, 1);
}

#[tokio::test]
async fn refused_is_refused_and_the_port_is_kept() {
    let (relay, _ends) = echo().await;
    let mut old = connect(&relay).await;
    exchange(&mut old, b"x").await;
    for _ in 0..3 {
        relay.refuse().await.unwrap();
        let refused = TcpStream::connect(relay.address()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        exchange(&mut old, b"goes on").await;
        relay.accept().await.unwrap();
        exchange(&mut connect(&relay).await, b"again").await;
    }
}

#[tokio::test]
async fn a_delay_delays_and_a_pause_pauses() {
    let (relay, _ends) = echo().await;
    let pause = Duration::from_millis(100);
    let started = Instant::now();
    relay.next(at(Direction::ToClient, 1, Fault::Pause(pause)));
    exchange(&mut connect(&relay).await, b"abc").await;
    assert!(started.elapsed() >= pause);
    let started = Instant::now();
    relay.delay(pause);
    exchange(&mut connect(&relay).await, b"abc").await;
    assert!(started.elapsed() >= 2 * pause, "each way");
}

#[tokio::test]
async fn it_goes_elsewhere_from_the_next_connection_on() {
    let (relay, _ends) = echo().await;
    let (other, mut other_ends) = echo().await;
    let mut stays = connect(&relay).await;
    exchange(&mut stays, b"here").await;
    relay.forward_to(other.address());
    let mut moves = connect(&relay).await;
    exchange(&mut moves, b"there").await;
    exchange(&mut stays, b"here").await;
    drop(moves);
    assert_eq!(other_ends.recv().await.unwrap().unwrap(), b"there");
}

#[tokio::test]
async fn dropped_it_is_gone_with_all_connections() {
    let (relay, mut ends) = echo().await;
    let mut stream = connect(&relay).await;
    exchange(&mut stream, b"x").await;
    let address = relay.address();
    drop(relay);
    assert_eq!(rest(&mut stream).await.unwrap(), b"");
    assert_eq!(ends.recv().await.unwrap().unwrap(), b"x");
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_url_with_the_relay_in_it() {
    let (relay, _ends) = echo().await;
    let address = relay.address();
    for (broker, expected) in [
        ("amqp://guest:guest@127.0.0.1/", format!("amqp://guest:guest@{address}/")),
        ("amqp://guest:guest@127.0.0.1:5674/a%2Fb?heartbeat=1", {
            format!("amqp://guest:guest@{address}/a%2Fb?heartbeat=1")
        }),
        ("amqp://localhost", format!("amqp://{address}")),
    ] {
        assert_eq!(relay.url(broker), expected);
    }
}
