//! Mandatory messages that reach no queue.

use lepus::{ErrorKind, Message};

use crate::case::test;

#[test]
fn a_mandatory_message_comes_back_with_all_that_it_had() {
    test(async |t| {
        let channel = t.channel().await;
        let nowhere = t.name();
        let message = Message::new("back").message_id("7").header("n", 1);
        let error =
            channel.default_exchange().publish(&nowhere, message.clone()).mandatory().await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::Returned, Some(312)));
        let returned = error.returned().unwrap();
        assert_eq!(*returned.reply_text(), "NO_ROUTE");
        assert!(returned.exchange().is_empty());
        assert_eq!(*returned.routing_key(), *nowhere);
        assert_eq!(returned.to_message().unwrap(), message);
        assert!(channel.is_open());
    });
}

#[test]
fn each_return_belongs_to_its_own_publish() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let (here, nowhere) = (queue.name().to_string(), t.name());
        let exchange = channel.default_exchange();
        let mut confirms = Vec::new();
        for number in 0..300_u32 {
            let (key, mandatory) = match number % 4 {
                0 => (&here, false),
                1 => (&here, true),
                2 => (&nowhere, false),
                _ => (&nowhere, true),
            };
            let enqueue = exchange.enqueue(key, number.to_string());
            let enqueue = if mandatory { enqueue.mandatory() } else { enqueue };
            confirms.push(enqueue.await.unwrap());
        }
        for (number, confirm) in confirms.into_iter().enumerate() {
            match confirm.await {
                Ok(()) => assert_ne!(number % 4, 3),
                Err(error) => {
                    assert_eq!(number % 4, 3);
                    assert_eq!(*error.returned().unwrap().body(), number.to_string());
                }
            }
        }
    });
}

#[test]
fn without_confirms_returns_come_as_a_stream() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().without_confirms().await.unwrap();
        let mut returns = channel.returns();
        let nowhere = t.name();
        for body in ["1", "2"] {
            channel.default_exchange().publish(&nowhere, body).mandatory().await.unwrap();
        }
        assert_eq!(returns.next().await.unwrap().body(), "1");
        assert_eq!(returns.next().await.unwrap().body(), "2");
        assert_eq!(returns.missed(), 0);
        channel.close().await.unwrap();
        assert!(returns.next().await.is_none());
    });
}

#[test]
fn a_return_whose_confirm_was_dropped_goes_to_the_stream() {
    test(async |t| {
        let channel = t.channel().await;
        let mut returns = channel.returns();
        let exchange = channel.default_exchange();
        let nowhere = t.name();
        drop(exchange.enqueue(&nowhere, "dropped").mandatory().await.unwrap());
        let awaited = exchange.publish(&nowhere, "awaited").mandatory().await.unwrap_err();
        assert_eq!(awaited.returned().unwrap().body(), "awaited");
        assert_eq!(returns.next().await.unwrap().body(), "dropped");
    });
}

#[test]
fn a_return_goes_to_the_stream_also_if_its_confirm_is_dropped_later() {
    test(async |t| {
        let channel = t.channel().await;
        let mut returns = channel.returns();
        let exchange = channel.default_exchange();
        let confirm = exchange.enqueue(t.name(), "dropped").mandatory().await.unwrap();
        channel.wait_for_confirms().await.unwrap();
        drop(confirm);
        assert_eq!(returns.next().await.unwrap().body(), "dropped");
        let error = channel.wait_for_confirms().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Returned);
    });
}

#[test]
fn waiting_for_all_confirms_tells_of_a_return() {
    test(async |t| {
        let channel = t.channel().await;
        drop(channel.default_exchange().enqueue(t.name(), "x").mandatory().await.unwrap());
        let error = channel.wait_for_confirms().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Returned);
        channel.wait_for_confirms().await.unwrap();
    });
}
