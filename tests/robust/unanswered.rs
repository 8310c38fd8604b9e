//! A server that does not answer a call.

use std::time::Duration;

use lepus::broker::{Broker, ReplyFault};
use lepus::protocol::{basic, channel, queue};
use lepus::robust::{Event, Events};
use lepus::{Channel, ConnectOptions, Connection, ConnectionState, ErrorKind};
use tokio::time::{Instant, sleep};

use crate::case::test;
use crate::peer::{Listener, Peer, TUNE, both, within};

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A broker in memory, and a robust connection to it; the clock is paused.
async fn connected() -> (Broker, Connection, Events) {
    let broker = Broker::options().without_port().start().await.unwrap();
    let options = ConnectOptions::new(&broker.url()).unwrap().connector(broker.connector());
    let options = options.rpc_timeout(LIMIT).close_timeout(Duration::from_secs(1));
    let connection = options.robust().connect().await.unwrap();
    let events = connection.events();
    (broker, connection, events)
}

async fn closed(events: &mut Events) -> lepus::Error {
    match events.next().await {
        Some(Event::ChannelClosed { error }) => error,
        event => panic!("another event: {event:?}"),
    }
}

async fn restored(events: &mut Events) {
    let event = events.next().await;
    assert!(
        matches!(&event, Some(Event::ChannelRestored { unrestored }) if unrestored.is_empty()),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_channel_with_an_unanswered_call_is_replaced() {
    let (broker, connection, mut events) = connected().await;
    let channel = connection.channel().await.unwrap();
    let jobs = channel.declare_queue("jobs").await.unwrap();
    let mut consumer = jobs.consume().await.unwrap();
    let exchange = channel.default_exchange();
    exchange.publish("jobs", "1").await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();

    broker.fault_reply::<queue::DeclareOk>(ReplyFault::Drop);
    let error = channel.declare_queue("q").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("queue.declare on channel 1"), "{error}");
    let last = connection.status().last_error.unwrap();
    assert_eq!(last.kind(), ErrorKind::Timeout);

    let began = Instant::now();
    // waits for the next channel
    channel.declare_queue("q").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(closed(&mut events).await.kind(), ErrorKind::Timeout);
    restored(&mut events).await;
    assert_eq!(connection.status().state, ConnectionState::Ready);
    assert!(connection.is_ready());
    assert_eq!((connection.counters().reconnects, connection.counters().republished), (0, 0));

    // comes again, as its channel is gone
    assert_eq!(delivery.ack().unwrap(), lepus::Settled::Stale);
    let again = consumer.next().await.unwrap().unwrap();
    assert!(again.redelivered());
    again.ack().unwrap();
    exchange.publish("jobs", "2").await.unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().body_str(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_confirmed_before_the_channel_is_replaced() {
    let (broker, connection, mut events) = connected().await;
    let channel = connection.channel().await.unwrap();
    let exchange = channel.default_exchange();
    channel.declare_queue("jobs").await.unwrap();
    broker.fault_reply::<basic::QosOk>(ReplyFault::Drop);
    // 7 s after the call's time-out
    broker.fault_reply::<basic::Ack>(ReplyFault::Delay(Duration::from_secs(12)));
    let first = exchange.enqueue("jobs", "1").await.unwrap();
    assert_eq!(channel.qos(7).await.unwrap_err().kind(), ErrorKind::Timeout);
    sleep(Duration::from_secs(1)).await;
    let status = connection.status();
    assert_eq!((status.state, status.since.as_secs()), (ConnectionState::Unresponsive, 1));
    assert!(!connection.is_ready());

    let began = Instant::now();
    let (second, (acked, seconds)) = tokio::join!(exchange.publish("jobs", "2"), async {
        let first = first.await;
        (first, began.elapsed().as_secs())
    });
    second.unwrap();
    acked.unwrap();
    assert!((5..=6).contains(&seconds), "{seconds}");
    assert!((5..=7).contains(&began.elapsed().as_secs()), "the second message waited: {:?}", began.elapsed());
    closed(&mut events).await;
    restored(&mut events).await;
    assert_eq!((connection.counters().reconnects, connection.counters().republished), (0, 0));
    for body in ["1", "2"] {
        let delivery = channel.queue("jobs").unwrap().get().await.unwrap().unwrap();
        assert_eq!((delivery.body_str(), delivery.is_republished()), (Some(body), false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_never_confirmed_is_published_again_behind_the_close() {
    let (broker, connection, mut events) = connected().await;
    let channel = connection.channel().await.unwrap();
    channel.declare_queue("jobs").await.unwrap();
    broker.fault_reply::<basic::QosOk>(ReplyFault::Drop);
    broker.fault_reply::<basic::Ack>(ReplyFault::Drop);
    let first = channel.default_exchange().enqueue("jobs", "1").await.unwrap();
    assert_eq!(channel.qos(7).await.unwrap_err().kind(), ErrorKind::Timeout);
    first.await.unwrap();
    closed(&mut events).await;
    restored(&mut events).await;
    assert_eq!((connection.counters().reconnects, connection.counters().republished), (0, 1));
    for is_republished in [false, true] {
        let delivery = channel.queue("jobs").unwrap().get().await.unwrap().unwrap();
        assert_eq!(delivery.is_republished(), is_republished);
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_close_is_not_answered_costs_the_link() {
    let (broker, connection, mut events) = connected().await;
    let channel = connection.channel().await.unwrap();
    broker.fault_reply::<queue::DeclareOk>(ReplyFault::Drop);
    broker.fault_reply::<channel::CloseOk>(ReplyFault::Drop);
    assert_eq!(channel.declare_queue("q").await.unwrap_err().kind(), ErrorKind::Timeout);
    let event = events.next().await;
    let Some(Event::Lost { error }) = event else { panic!("another event: {event:?}") };
    assert!(error.to_string().contains("did not answer a call, nor the close of its channel"), "{error}");
    connection.ready().await.unwrap();
    channel.declare_queue("q").await.unwrap();
    assert_eq!(connection.counters().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn two_unanswered_calls_in_a_row_cost_the_link() {
    let (broker, connection, mut events) = connected().await;
    let first = connection.channel().await.unwrap();
    let second = connection.channel().await.unwrap();
    let publishing = connection.channel().await.unwrap();
    // with something unconfirmed, neither is closed soon
    first.declare_queue("jobs").await.unwrap();
    broker.stop_reading(true);
    let waiting = [&first, &second].map(Channel::default_exchange);
    let mut confirms = Vec::new();
    for exchange in &waiting {
        confirms.push(exchange.enqueue("jobs", "1").await.unwrap());
    }
    let began = Instant::now();
    let (one, two) = tokio::join!(first.declare_queue("q"), second.declare_queue("q"));
    assert_eq!([one.unwrap_err().kind(), two.unwrap_err().kind()], [ErrorKind::Timeout; 2]);
    let event = events.next().await;
    let Some(Event::Lost { error }) = event else { panic!("another event: {event:?}") };
    assert!(error.to_string().contains("several calls in a row"), "{error}");
    // two heartbeat intervals behind their limit
    assert_eq!(began.elapsed().as_secs(), 45);
    for confirm in confirms {
        confirm.await.unwrap();
    }
    first.declare_queue("q").await.unwrap();
    publishing.default_exchange().publish("jobs", "2").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replaced_channel_that_gets_no_answer_either_costs_the_link() {
    let (broker, connection, mut events) = connected().await;
    let channel = connection.channel().await.unwrap();
    for is_answered in [true, false, false] {
        if is_answered {
            channel.declare_queue("jobs").await.unwrap();
        }
        broker.fault_reply::<queue::DeclareOk>(ReplyFault::Drop);
        assert_eq!(channel.declare_queue("q").await.unwrap_err().kind(), ErrorKind::Timeout);
        if is_answered {
            closed(&mut events).await;
            restored(&mut events).await;
            channel.declare_queue("jobs").await.unwrap();
        }
    }
    closed(&mut events).await;
    restored(&mut events).await;
    let event = events.next().await;
    let Some(Event::Lost { error }) = event else { panic!("another event: {event:?}") };
    assert!(error.to_string().contains("several calls in a row"), "{error}");
    connection.ready().await.unwrap();
    channel.declare_queue("q").await.unwrap();
    assert_eq!(connection.counters().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_blocks_publishers_is_waited_for() {
    let (broker, connection, _events) = connected().await;
    let channel = connection.channel().await.unwrap();
    channel.declare_queue("jobs").await.unwrap();
    broker.block("low on memory");
    let confirm = channel.default_exchange().enqueue("jobs", "1").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(connection.blocked().is_some());
    for _ in 0..3 {
        assert_eq!(channel.declare_queue("q").await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(connection.status().state, ConnectionState::Ready);
    }
    sleep(Duration::from_secs(100)).await;
    broker.unblock();
    confirm.await.unwrap();
    channel.declare_queue("q").await.unwrap();
    assert_eq!((connection.counters().reconnects, connection.counters().republished), (0, 0));
}

/// The answer to a declare comes 2 s after its caller has given up. The channel waits for a confirm meanwhile.
async fn declared_late(broker: &Broker, channel: &Channel) -> lepus::Error {
    broker.fault_reply::<basic::Ack>(ReplyFault::Delay(Duration::from_secs(15)));
    broker.fault_reply::<queue::DeclareOk>(ReplyFault::Delay(LIMIT + Duration::from_secs(2)));
    drop(channel.default_exchange().enqueue("nowhere", "1").await.unwrap());
    channel.declare_queue("late").await.unwrap_err()
}

/// Whether a queue comes back after a loss.
async fn comes_back(broker: &Broker, connection: &Connection, queue: &str) -> bool {
    let options = ConnectOptions::new(&broker.url()).unwrap().connector(broker.connector());
    let other = options.connect().await.unwrap();
    other.channel().await.unwrap().queue(queue).unwrap().delete().await.unwrap();
    other.close().await.unwrap();
    broker.cut();
    sleep(Duration::from_secs(1)).await;
    connection.ready().await.unwrap();
    broker.queues().iter().any(|info| info.name == queue)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_is_recorded_and_the_channel_goes_on() {
    let (broker, connection, _events) = connected().await;
    let channel = connection.channel().await.unwrap();
    let mut consumer = channel.declare_queue("jobs").await.unwrap().consume().await.unwrap();
    channel.default_exchange().publish("jobs", "1").await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();

    let error = declared_late(&broker, &channel).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("unless its answer still comes, what is restored"), "{error}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(connection.status().state, ConnectionState::Unresponsive);
    let began = Instant::now();
    channel.default_exchange().publish("jobs", "2").await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 1);
    assert_eq!(connection.status().state, ConnectionState::Ready);
    // on the same channel as ever
    assert_eq!(delivery.ack().unwrap(), lepus::Settled::Sent);
    assert!(comes_back(&broker, &connection, "late").await);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_is_answered_late_is_recorded() {
    let (broker, connection, _events) = connected().await;
    let channel = connection.channel().await.unwrap();
    let queue = channel.declare_queue("q").await.unwrap();
    broker.fault_reply::<basic::Ack>(ReplyFault::Delay(Duration::from_secs(15)));
    broker.fault_reply::<queue::DeleteOk>(ReplyFault::Delay(LIMIT + Duration::from_secs(2)));
    drop(channel.default_exchange().enqueue("nowhere", "1").await.unwrap());
    assert_eq!(queue.delete().await.unwrap_err().kind(), ErrorKind::Timeout);
    sleep(Duration::from_secs(3)).await;
    assert!(!comes_back(&broker, &connection, "q").await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_the_channel_was_replaced_is_not_recorded() {
    let (broker, connection, mut events) = connected().await;
    let channel = connection.channel().await.unwrap();
    broker.fault_reply::<queue::DeclareOk>(ReplyFault::Delay(LIMIT + Duration::from_secs(2)));
    channel.declare_queue("late").await.unwrap_err();
    closed(&mut events).await;
    restored(&mut events).await;
    sleep(Duration::from_secs(3)).await;
    assert!(broker.queues().iter().any(|info| info.name == "late"));
    assert!(!comes_back(&broker, &connection, "late").await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_after_a_later_call_on_the_same_queue_is_not_recorded() {
    let (broker, connection, _events) = connected().await;
    let channel = connection.channel().await.unwrap();
    let other = connection.channel().await.unwrap();
    declared_late(&broker, &channel).await;
    other.queue("late").unwrap().delete().await.unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(connection.status().state, ConnectionState::Ready);
    assert!(!comes_back(&broker, &connection, "late").await);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_when_publishers_go_on_is_recorded() {
    let (broker, connection, _events) = connected().await;
    let channel = connection.channel().await.unwrap();
    broker.block("low on memory");
    let confirm = channel.default_exchange().enqueue("nowhere", "1").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(channel.declare_queue("late").await.unwrap_err().kind(), ErrorKind::Timeout);
    broker.unblock();
    confirm.await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(comes_back(&broker, &connection, "late").await);
}

async fn next_link(listener: &Listener) -> Peer {
    let mut server = listener.accept().await;
    server.handshake(TUNE).await;
    server
}
#[test]
fn the_error_of_a_call_says_how_often_it_was_sent() {
    test(async |_| {
        let listener = Listener::bind().await;
        let options = listener.options().rpc_timeout(Duration::from_secs(1)).robust();
        let (connection, mut server) = both(options.connect(), next_link(&listener)).await;
        let connection = connection.unwrap();
        let channel = both(connection.channel(), server.open_channel(1)).await.0.unwrap();
        let declaring = tokio::spawn(async move { channel.declare_queue("q").await });
        for link in 1..=2 {
            server.receive::<queue::Declare>(1).await;
            server.end().await;
            if link == 1 {
                server = next_link(&listener).await;
                server.open_channel(1).await;
            }
        }
        drop(listener);
        let error = within("an error", declaring).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("sent 2 times within 1 s"), "{error}");
    });
}
