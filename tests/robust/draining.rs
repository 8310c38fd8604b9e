//! A drain in an outage.

use std::time::Duration;

use lepus::ErrorKind;
use lepus::robust::Outage;

use crate::case::test;
use crate::tools::{Patient, within};

/// A connection without a link, and a publish that waits for one.
async fn waiting(
    case: &crate::case::Case,
    queue: &str,
) -> (Patient, tokio::task::JoinHandle<lepus::Result<()>>) {
    let options = |robust: &lepus::robust::Options| robust.clone().on_outage(Outage::Wait);
    let mut patient = Patient::with(case, |options| options, options).await;
    let channel = patient.channel().await;
    channel.declare_queue(queue).await.unwrap();
    patient.lose().await;
    let (exchange, queue) = (channel.default_exchange(), queue.to_owned());
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let publish = tokio::spawn(async move {
        let mut publish = std::pin::pin!(exchange.publish(queue, "late"));
        assert!(is_pending(publish.as_mut()).await);
        begun.send(()).unwrap();
        publish.await
    });
    has_begun.await.unwrap();
    (patient, publish)
}

/// Whether a future is not done at once.
async fn is_pending(mut future: std::pin::Pin<&mut impl Future>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[test]
fn a_drain_waits_for_publishes_that_wait_for_a_link() {
    test(async |t| {
        let name = t.name();
        let (mut patient, publish) = waiting(t, &name).await;
        let connection = patient.connection.clone();
        let draining = tokio::spawn(async move { connection.drain(Duration::from_secs(60)).await });
        tokio::task::yield_now().await;
        assert!(!draining.is_finished() && !publish.is_finished());
        patient.recover().await;
        within("the publish", publish).await.unwrap().unwrap();
        within("the drain", draining).await.unwrap().unwrap();
        let queue = patient.other.channel().await.unwrap().declare_queue(name).passive().await.unwrap();
        assert_eq!(queue.message_count(), 1);
    });
}

#[test]
fn a_drain_without_a_link_says_that_a_publish_was_not_handed_over() {
    test(async |t| {
        let name = t.name();
        let (patient, publish) = waiting(t, &name).await;
        let begun = std::time::Instant::now();
        let error = patient.connection.drain(Duration::from_millis(100)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("1 publish was not handed over"), "{error}");
        let error = within("the publish", publish).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    });
}
