//! F. Publishing and confirms.

use std::time::Duration;

use lepus::protocol::{basic, channel, confirm, connection};
use lepus::{Channel, Confirm, Connection, ErrorKind, Exchange, FieldValue, Message, Properties, Scope};

use crate::peer::*;

fn ack(delivery_tag: u64, multiple: bool) -> Vec<u8> {
    method(1, &basic::Ack { delivery_tag, multiple })
}

fn nack(delivery_tag: u64, multiple: bool) -> Vec<u8> {
    // the requeue bit as RabbitMQ sets it: it means nothing
    method(1, &basic::Nack { delivery_tag, multiple, requeue: true })
}

/// Hands over so many messages, and lets the server take them.
async fn enqueued(server: &mut Peer, channel: &Channel, count: usize) -> Vec<Confirm> {
    let exchange = channel.default_exchange();
    let mut confirms = Vec::new();
    for n in 0..count {
        confirms.push(exchange.enqueue("k", format!("message {n}")).await.unwrap());
        server.receive_publish(1).await;
    }
    confirms
}

/// What became of each, in order.
async fn outcomes(confirms: Vec<Confirm>) -> Vec<Result<(), ErrorKind>> {
    let mut outcomes = Vec::new();
    for confirm in confirms {
        outcomes.push(within("a confirm", confirm).await.map_err(|error| error.kind()));
    }
    outcomes
}

/// Opens channel 1 without confirms.
async fn without_confirms() -> (Peer, Connection, Channel) {
    let (mut server, connection) = connected().await;
    let (channel, ()) = both(connection.channel().without_confirms(), async {
        server.expect(1, channel::Open).await;
        server.send(1, channel::OpenOk).await;
    })
    .await;
    (server, connection, channel.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_messages_of_many_tasks_are_never_interleaved() {
    let tune = connection::Tune { frame_max: 8192, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let publish = |exchange: Exchange, letter: u8| async move {
        for size in 0..40 {
            drop(exchange.enqueue("k", vec![letter; size * 997]).await.unwrap());
        }
    };
    for letter in *b"abcd" {
        tokio::spawn(publish(channel.default_exchange(), letter));
    }
    let mut total = 0;
    for _ in 0..4 * 40 {
        // panics where a frame of another message stands between
        let body = server.receive_publish(1).await.body;
        assert!(body.windows(2).all(|pair| pair[0] == pair[1]));
        total += body.len();
    }
    assert_eq!(total, 4 * 997 * (0..40).sum::<usize>());
}

#[tokio::test]
async fn f2_a_publish_that_is_dropped_while_it_waits_sends_nothing() {
    let (mut server, connection) = connected_with(TUNE, |options| options.outgoing_limit(1)).await;
    let channel = open(&mut server, &connection, 1).await;
    let exchange = channel.default_exchange();
    // nothing is written until the writer's task has its turn: the second must wait
    let first = exchange.enqueue("k", "first").await.unwrap();
    assert_eq!(first.delivery_tag(), Some(1));
    let mut second = Box::pin(exchange.enqueue("k", "dropped"));
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(second.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    drop(second);
    let third = exchange.enqueue("k", vec![3; 300_000]).await.unwrap();
    assert_eq!(third.delivery_tag(), Some(2));
    // it is handed over: dropping what waits for its confirm changes nothing
    drop(third);
    assert_eq!(server.receive_publish(1).await.body, b"first");
    assert_eq!(server.receive_publish(1).await.body.len(), 300_000);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn f3_c7_bodies_are_cut_at_frame_max_and_empty_ones_have_no_frame() {
    let tune = connection::Tune { frame_max: 8192, ..TUNE };
    let (mut server, connection) = connected_with(tune, |options| options).await;
    let channel = open(&mut server, &connection, 1).await;
    let exchange = channel.default_exchange();
    let most = 8192 - 8;
    for (size, pieces) in [
        (0, vec![]),
        (1, vec![1]),
        (most - 1, vec![most - 1]),
        (most, vec![most]),
        (most + 1, vec![most, 1]),
        (3 * most, vec![most; 3]),
        (3 * most + 1, vec![most, most, most, 1]),
    ] {
        let body: Vec<u8> = (0..=255).cycle().take(size).collect();
        drop(exchange.enqueue("k", body.clone()).await.unwrap());
        let published = server.receive_publish(1).await;
        assert_eq!((published.pieces, published.body), (pieces, body));
    }
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn f4_headers_that_do_not_fit_into_a_frame_are_refused_locally() {
    let (mut server, _connection, channel) = with_channel().await;
    let exchange = channel.default_exchange();
    let message = Message::new("body").header("large", "x".repeat(131_072));
    let error = exchange.publish("k", message).await.unwrap_err();
    assert_eq!((error.kind(), error.scope()), (ErrorKind::Argument, Scope::Call));
    assert!(error.to_string().contains("131072"), "{error}");
    nothing_else(&mut server, &channel).await;
    assert_eq!(exchange.enqueue("k", "fits").await.unwrap().delivery_tag(), Some(1));
    assert_eq!(server.receive_publish(1).await.body, b"fits");
}

#[tokio::test]
async fn f5_names_of_more_than_255_bytes_are_refused_locally() {
    let (mut server, _connection, channel) = with_channel().await;
    let exchange = channel.default_exchange();
    let long = "ä".repeat(128);
    assert_eq!(exchange.publish(&long, "m").await.unwrap_err().kind(), ErrorKind::Argument);
    for message in [
        Message::new("m").correlation_id(&long),
        Message::new("m").reply_to(&long),
        Message::new("m").content_type(&long),
        Message::new("m").header(&long, 1),
    ] {
        assert_eq!(exchange.publish("k", message).await.unwrap_err().kind(), ErrorKind::Argument);
    }
    assert_eq!(channel.declare_queue(&long).await.unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(channel.exchange(&long).unwrap_err().kind(), ErrorKind::Argument);
    nothing_else(&mut server, &channel).await;
    // 255 bytes fit, and no number was used up
    let confirm = exchange.enqueue(&long[..254], "m").await.unwrap();
    assert_eq!(confirm.delivery_tag(), Some(1));
    assert_eq!(server.receive_publish(1).await.method.routing_key.len(), 254);
}

#[tokio::test]
async fn f6_confirms_in_any_order_each_settle_one_waiter() {
    let (mut server, _connection, channel) = with_channel().await;
    let confirms = enqueued(&mut server, &channel, 5).await;
    let tags: Vec<_> = confirms.iter().map(Confirm::delivery_tag).collect();
    assert_eq!(tags, [1, 2, 3, 4, 5].map(Some));
    let (settled, ()) = both(
        outcomes(confirms),
        server.write(&[ack(2, false), ack(1, false), ack(3, false), ack(5, true), ack(4, false)].concat()),
    )
    .await;
    assert_eq!(settled, [Ok(()); 5]);
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn f6_a_confirm_that_is_alone_wakes_only_its_own_waiter() {
    let (mut server, _connection, channel) = with_channel().await;
    let mut confirms = enqueued(&mut server, &channel, 3).await.into_iter();
    let [mut one, two, mut three] = std::array::from_fn(|_| confirms.next().unwrap());
    server.write(&ack(2, false)).await;
    within("the second", two).await.unwrap();
    for waiting in [&mut one, &mut three] {
        assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    }
    server.write(&ack(0, true)).await;
    assert_eq!(outcomes(vec![one, three]).await, [Ok(()); 2]);
}

#[tokio::test]
async fn f7_what_is_settled_stays_settled_and_unknown_numbers_are_ignored() {
    let (mut server, _connection, channel) = with_channel().await;
    let confirms = enqueued(&mut server, &channel, 5).await;
    let late = [ack(5, true), nack(3, true), nack(2, false), ack(99, false), nack(99, true), ack(0, false)];
    server.write(&late.concat()).await;
    nothing_else(&mut server, &channel).await;
    assert_eq!(outcomes(confirms).await, [Ok(()); 5]);
    // 0 with multiple is all
    let confirms = enqueued(&mut server, &channel, 2).await;
    server.write(&nack(0, true)).await;
    assert_eq!(outcomes(confirms).await, [Err(ErrorKind::Nacked); 2]);
}

#[tokio::test]
async fn f8_a_confirm_that_comes_before_anybody_asks_is_kept() {
    let (mut server, _connection, channel) = with_channel().await;
    let confirms = enqueued(&mut server, &channel, 2).await;
    server.write(&[nack(2, false), ack(1, false)].concat()).await;
    nothing_else(&mut server, &channel).await;
    assert_eq!(outcomes(confirms).await, [Ok(()), Err(ErrorKind::Nacked)]);
}

#[tokio::test]
async fn f9_a_returned_message_is_told_to_its_own_publisher() {
    let (mut server, _connection, channel) = with_channel().await;
    let exchange = channel.default_exchange();
    let mut confirms = Vec::new();
    let mut published = Vec::new();
    for (key, body) in [("known", "1"), ("nowhere", "2"), ("nowhere", "3"), ("known", "4")] {
        let message = Message::new(body).message_id(body);
        confirms.push(exchange.enqueue(key, message).mandatory().await.unwrap());
        published.push(server.receive_publish(1).await);
        assert!(published.last().unwrap().method.mandatory);
    }
    let back = |n: usize| returned(1, "nowhere", &published[n].properties, &published[n].body);
    // other confirms and returns stand between a return and its ack
    server.write(&[ack(4, false), back(1), ack(1, false), back(2), ack(3, true)].concat()).await;
    let mut errors = Vec::new();
    for confirm in confirms {
        errors.push(within("a confirm", confirm).await);
    }
    for (n, outcome) in errors.into_iter().enumerate() {
        if n == 0 || n == 3 {
            outcome.unwrap();
            continue;
        }
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::Returned, Some(312)));
        let returned = error.returned().unwrap();
        assert_eq!(
            (returned.body(), returned.routing_key()),
            (&published[n].body.clone().into(), &short("nowhere"))
        );
        assert_eq!(returned.properties().unwrap(), published[n].properties);
    }
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn f10_what_returns_from_before_confirms_is_no_later_publish() {
    let (mut server, _connection, channel) = without_confirms().await;
    let exchange = channel.default_exchange();
    let mut returns = channel.returns();
    exchange.publish("nowhere", "same").mandatory().await.unwrap();
    server.receive_publish(1).await;
    let (selected, ()) = both(channel.call(confirm::Select { no_wait: false }), async {
        server.receive::<confirm::Select>(1).await;
        server.write(&returned(1, "nowhere", &Properties::default(), b"same")).await;
        server.send(1, confirm::SelectOk).await;
    })
    .await;
    selected.unwrap();
    assert_eq!(within("a return", returns.next()).await.unwrap().body(), "same");
    let confirm = exchange.enqueue("nowhere", "another").await.unwrap();
    assert_eq!(confirm.delivery_tag(), Some(1));
    server.receive_publish(1).await;
    server.write(&ack(1, false)).await;
    within("a confirm", confirm).await.unwrap();
}

#[tokio::test]
async fn f11_f13_a_closed_channel_fails_what_it_has_not_confirmed() {
    let (mut server, _connection, channel) = with_channel().await;
    let exchange = channel.exchange("missing").unwrap();
    let mut confirms = Vec::new();
    for _ in 0..5 {
        confirms.push(exchange.enqueue("k", "m").await.unwrap());
        server.receive_publish(1).await;
    }
    let close = channel::Close {
        reply_code: 404,
        reply_text: short("NOT_FOUND - no exchange 'missing'"),
        class_id: 60,
        method_id: 40,
    };
    server.write(&[ack(1, false), method(1, &close)].concat()).await;
    server.expect(1, channel::CloseOk).await;
    within("the channel to end", channel.closed()).await;
    let mut confirms = confirms.into_iter();
    within("a confirm", confirms.next().unwrap()).await.unwrap();
    for confirm in confirms {
        let error = within("a confirm", confirm).await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(404)));
    }
    assert_eq!(exchange.publish("k", "m").await.unwrap_err().reply_code(), Some(404));
}

#[tokio::test]
async fn f12_a_nack_is_a_nack_whatever_its_requeue_bit_says() {
    let (mut server, _connection, channel) = with_channel().await;
    for requeue in [false, true] {
        let confirms = enqueued(&mut server, &channel, 1).await;
        server
            .send(1, basic::Nack { delivery_tag: if requeue { 2 } else { 1 }, multiple: false, requeue })
            .await;
        assert_eq!(outcomes(confirms).await, [Err(ErrorKind::Nacked)]);
    }
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn f14_properties_have_the_form_that_the_server_wants() {
    let (mut server, _connection, channel) = with_channel().await;
    let message = Message::new("m").expiration(Duration::from_millis(1500)).priority(7);
    drop(channel.default_exchange().enqueue("k", message).await.unwrap());
    let properties = server.receive_publish(1).await.properties;
    assert_eq!(properties.expiration, Some(short("1500")));
    assert_eq!((properties.priority, properties.delivery_mode), (Some(7), Some(2)));
    drop(channel.default_exchange().enqueue("k", Message::new("m").transient()).await.unwrap());
    assert_eq!(server.receive_publish(1).await.properties.delivery_mode, Some(1));
}

#[tokio::test]
async fn f15_numbers_that_no_server_reads_are_not_sent() {
    let (mut server, _connection, channel) = with_channel().await;
    let message = Message::new("m").header("nan", f64::NAN).header("most", i64::MAX);
    drop(channel.default_exchange().enqueue("k", message).await.unwrap());
    let headers = server.receive_publish(1).await.properties.headers.unwrap();
    assert!(matches!(headers.get("nan"), Some(FieldValue::F64(value)) if value.is_nan()));
    assert_eq!(headers.get("most"), Some(&FieldValue::I64(i64::MAX)));
}

#[tokio::test]
async fn wide_integers_are_sent_as_i64_and_one_that_does_not_fit_is_an_error() {
    let (mut server, _connection, channel) = with_channel().await;
    let exchange = channel.default_exchange();
    let message = Message::new("m")
        .header("u64", 5_u64)
        .header("usize", 6_usize)
        .header("isize", -7_isize)
        .header("i128", 8_i128);
    drop(exchange.enqueue("k", message).await.unwrap());
    let headers = server.receive_publish(1).await.properties.headers.unwrap();
    let sent: Vec<_> = headers.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(sent, [5, 6, -7, 8].map(FieldValue::I64));

    let error = exchange.enqueue("k", Message::new("m").header("n", u64::MAX)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    assert_eq!(
        error.to_string(),
        "the message's header \"n\": the integer 18446744073709551615 does not fit: AMQP's widest integer is a signed \
         64-bit one (i64)"
    );
    let error = channel.declare_queue("q").argument("x-n", i128::MIN).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Argument);
    let text = error.to_string();
    assert!(text.starts_with("the argument \"x-n\": the integer -17014118346"), "{text}");
    let mut table = lepus::FieldTable::new();
    assert_eq!(table.insert("n", 3_usize), Ok(None));
    assert_eq!(
        table.insert("n", u64::MAX),
        Err(lepus::FieldError::Value(lepus::IntegerOutOfRange(u64::MAX.into())))
    );
    assert!(matches!(table.insert("n".repeat(256), 1), Err(lepus::FieldError::Name(_))));
    nothing_else(&mut server, &channel).await;
}

#[tokio::test]
async fn publishers_wait_at_the_outgoing_limit_and_go_on() {
    let (mut server, connection) = connected_with(TUNE, |options| options.outgoing_limit(64 << 10)).await;
    let channel = open(&mut server, &connection, 1).await;
    let exchange = channel.default_exchange();
    let (count, size) = (500, 100_000);
    let publisher = tokio::spawn(async move {
        for _ in 0..count {
            drop(exchange.enqueue("k", vec![7; size]).await.unwrap());
        }
    });
    // the sockets between hold less than all of it
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!publisher.is_finished(), "publishing never waited");
    for _ in 0..count {
        assert_eq!(server.receive_publish(1).await.body.len(), size);
    }
    within("the publisher", publisher).await.unwrap();
}

#[tokio::test]
async fn waiting_for_all_confirms_tells_of_what_nobody_awaited() {
    let (mut server, _connection, channel) = with_channel().await;
    drop(enqueued(&mut server, &channel, 3).await);
    let (all, ()) = both(channel.wait_for_confirms(), async {
        server.write(&[ack(1, false), nack(2, false), ack(3, false)].concat()).await;
    })
    .await;
    assert_eq!(all.unwrap_err().kind(), ErrorKind::Nacked);
    within("a second time", channel.wait_for_confirms()).await.unwrap();
}

/// A few hundred times, since it is about what happens on two threads at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn f11_what_was_confirmed_before_the_close_is_and_the_rest_hears_the_reason() {
    let (mut server, connection) = connected().await;
    for _ in 0..300 {
        let (channel, id) = both(connection.channel(), async {
            let id = server.next().await.channel;
            server.send(id, channel::OpenOk).await;
            server.receive::<confirm::Select>(id).await;
            server.send(id, confirm::SelectOk).await;
            id
        })
        .await;
        let exchange = channel.unwrap().default_exchange();
        let confirms = [exchange.enqueue("k", "1").await.unwrap(), exchange.enqueue("k", "2").await.unwrap()];
        let [first, second] = confirms.map(tokio::spawn);
        // this is refused before it is sent, by the limit or by the channel that has ended
        let refused = tokio::spawn(async move {
            loop {
                let error = exchange.enqueue(&[b'k'; 256], "").await.unwrap_err();
                if error.kind() != ErrorKind::Argument {
                    return error;
                }
                tokio::task::yield_now().await;
            }
        });
        for _ in 0..2 {
            server.receive_publish(id).await;
        }
        let ack = method(id, &basic::Ack { delivery_tag: 1, multiple: false });
        let close = method(id, &channel::Close { reply_code: 404, ..Default::default() });
        server.write(&[ack, close].concat()).await;
        server.expect(id, channel::CloseOk).await;
        within("the first confirm", first).await.unwrap().unwrap();
        let second = within("the second confirm", second).await.unwrap().unwrap_err();
        let refused = within("the end", refused).await.unwrap();
        for error in [second, refused] {
            assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(404)));
        }
    }
}

#[tokio::test]
async fn unconfirmed_publishes_of_a_channel_have_a_settable_bound() {
    let (mut server, connection) = connected_with(TUNE, |options| options.unconfirmed_messages(3)).await;
    let channel = open(&mut server, &connection, 1).await;
    let other = open(&mut server, &connection, 2).await;
    let exchange = channel.default_exchange();
    for _ in 0..3 {
        drop(exchange.enqueue("k", "m").await.unwrap());
        server.receive_publish(1).await;
    }
    let (confirm, ()) = both(exchange.enqueue("k", "waits"), async {
        // another channel has a bound of its own
        drop(other.default_exchange().enqueue("k", "goes").await.unwrap());
        assert_eq!(server.receive_publish(2).await.body, b"goes");
        // the oldest counts, and what was confirmed behind it
        server.send(1, basic::Ack { delivery_tag: 2, multiple: false }).await;
        nothing_else(&mut server, &channel).await;
        server.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
        assert_eq!(server.receive_publish(1).await.body, b"waits");
        server.send(1, basic::Ack { delivery_tag: 4, multiple: true }).await;
    })
    .await;
    confirm.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_nack_is_told_to_each_task_that_publishes_on_a_clone() {
    let (mut server, _connection, channel) = with_channel().await;
    let tasks = [channel.clone(), channel.clone()];
    for task in &tasks {
        drop(task.default_exchange().enqueue("k", "m").await.unwrap());
        server.receive_publish(1).await;
    }
    server.send(1, basic::Nack { delivery_tag: 1, ..Default::default() }).await;
    server.send(1, basic::Ack { delivery_tag: 2, multiple: false }).await;
    for task in &tasks {
        let error = within("the confirms", task.wait_for_confirms()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Nacked);
        // once
        within("the confirms", task.wait_for_confirms()).await.unwrap();
    }
}
