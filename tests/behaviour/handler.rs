//! Consuming with a handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lepus::{Channel, ErrorKind, Incoming, OnError, Queue};
use tokio::sync::{Barrier, Semaphore, mpsc};

use crate::case::{Case, test};
use crate::tools::{bodies, fill, numbers, take, until};

/// A queue, and where what it rejects ends up.
async fn with_dead_letters(t: &Case, channel: &Channel) -> (Queue, Queue) {
    let dead = t.shared_queue(channel).await;
    let name = dead.name().to_string();
    let declare = channel.declare_queue(t.name()).dead_letter_to("").dead_letter_routing_key(name);
    (declare.await.unwrap(), dead)
}

fn body(message: &Incoming) -> String {
    String::from_utf8(message.body().to_vec()).unwrap()
}

#[test]
fn success_acknowledges_failure_and_panic_reject() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let (queue, dead) = with_dead_letters(t, &channel).await;
        let (done, mut seen) = mpsc::unbounded_channel();
        let handle = queue.consume().handle(move |message| {
            let done = done.clone();
            async move {
                let body = body(&message);
                done.send(body.clone()).unwrap();
                match body.as_str() {
                    "error" => Err(io::Error::other("cannot work on it")),
                    "panic" => panic!("as the test wants it"),
                    _ => Ok(()),
                }
            }
        });
        let worker = handle.await.unwrap();
        fill(&queue, &channel, ["1", "error", "panic", "2"].map(Into::into)).await;
        for expected in ["1", "error", "panic", "2"] {
            assert_eq!(seen.recv().await.unwrap(), expected);
        }
        worker.drain().await.unwrap();
        let mut rejected = dead.consume().await.unwrap();
        assert_eq!(bodies(&take(&mut rejected, 2).await), ["error", "panic"]);
        // with nothing unacknowledged a close gives nothing back
        channel.close().await.unwrap();
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (0, 0)).await;
    });
}

/// Panics when it is called, and never makes a future.
fn refuse(_: Incoming) -> std::future::Ready<io::Result<()>> {
    panic!("as the test wants it")
}

#[test]
fn a_panic_before_the_first_await_rejects_too() {
    test(async |t| {
        let channel = t.channel().await;
        let (queue, dead) = with_dead_letters(t, &channel).await;
        let _worker = queue.consume().handle(refuse).await.unwrap();
        fill(&queue, &channel, ["x".into()]).await;
        let mut rejected = dead.consume().await.unwrap();
        assert_eq!(bodies(&take(&mut rejected, 1).await), ["x"]);
    });
}

#[test]
fn a_failure_can_requeue() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let (done, mut seen) = mpsc::unbounded_channel();
        let handle = queue.consume().handle(move |message| {
            let done = done.clone();
            async move {
                done.send(message.redelivered()).unwrap();
                if message.redelivered() { Ok(()) } else { Err("not yet") }
            }
        });
        let worker = handle.on_error(OnError::Requeue).await.unwrap();
        fill(&queue, &channel, ["x".into()]).await;
        assert!(!seen.recv().await.unwrap());
        assert!(seen.recv().await.unwrap());
        worker.drain().await.unwrap();
        assert_eq!(queue.purge().await.unwrap(), 0);
    });
}

#[test]
fn no_more_than_the_bound_run_at_once_and_as_many_do() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        fill(&queue, &channel, numbers(1, 60)).await;
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // three must be there at once for any of them to go on
        let (three, (done, mut seen)) = (Arc::new(Barrier::new(3)), mpsc::unbounded_channel());
        let handle = queue.consume().prefetch(20).handle({
            let most = Arc::clone(&most);
            move |_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                let (three, done) = (Arc::clone(&three), done.clone());
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    three.wait().await;
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    done.send(()).unwrap();
                    Ok::<_, io::Error>(())
                }
            }
        });
        let worker = handle.concurrency(3).await.unwrap();
        for _ in 0..60 {
            seen.recv().await.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 3);
        worker.drain().await.unwrap();
    });
}

/// Starts a worker whose handlers begin, and then wait until the gate opens.
async fn gated(
    queue: &Queue,
    at_once: usize,
) -> (lepus::Worker, Arc<Semaphore>, mpsc::UnboundedReceiver<String>) {
    let (gate, (begun, seen)) = (Arc::new(Semaphore::new(0)), mpsc::unbounded_channel());
    let handler = {
        let gate = Arc::clone(&gate);
        move |message: Incoming| {
            let (gate, begun) = (Arc::clone(&gate), begun.clone());
            async move {
                begun.send(body(&message)).unwrap();
                gate.acquire().await.unwrap().forget();
                Ok::<_, io::Error>(())
            }
        }
    };
    let worker = queue.consume().prefetch(8).handle(handler).concurrency(at_once).await.unwrap();
    (worker, gate, seen)
}

#[test]
fn draining_waits_for_what_runs_and_gives_back_the_rest() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 10)).await;
        let (worker, gate, mut begun) = gated(&queue, 2).await;
        let mut first = [begun.recv().await.unwrap(), begun.recv().await.unwrap()];
        first.sort_unstable();
        assert_eq!(first, ["1", "2"]);
        let draining = tokio::spawn(worker.drain());
        // cancelled, and all but the two that run are back, while these still run
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (8, 0)).await;
        assert!(!draining.is_finished());
        gate.add_permits(2);
        draining.await.unwrap().unwrap();
        channel.close().await.unwrap();
        until(&connection, &queue, |ready, _| ready == 8).await;
        assert!(begun.recv().await.is_none(), "nothing else was begun");
    });
}

#[test]
fn a_dropped_worker_drains_in_the_background() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        fill(&queue, &channel, numbers(1, 5)).await;
        let (worker, gate, mut begun) = gated(&queue, 1).await;
        assert_eq!(begun.recv().await.unwrap(), "1");
        drop(worker);
        until(&connection, &queue, |ready, consumers| (ready, consumers) == (4, 0)).await;
        gate.add_permits(1);
        // the handler ends, and with it the sender
        assert!(begun.recv().await.is_none());
    });
}

#[test]
fn a_worker_tells_why_it_ended() {
    test(async |t| {
        let connection = t.connect().await;
        let channel = connection.channel().await.unwrap();
        let queue = t.shared_queue(&channel).await;
        let handle = || queue.consume().handle(|_| async { Ok::<_, io::Error>(()) });
        let mut worker = handle().await.unwrap();
        connection.channel().await.unwrap().queue(queue.name()).unwrap().delete().await.unwrap();
        assert_eq!(worker.ended().await.unwrap_err().kind(), ErrorKind::ConsumerCancelled);

        channel.declare_queue(queue.name()).await.unwrap();
        let mut worker = handle().await.unwrap();
        connection.close().await.unwrap();
        worker.ended().await.unwrap();
    });
}

#[test]
fn a_handler_without_acks_just_gets_the_messages() {
    test(async |t| {
        let channel = t.channel().await;
        let queue = channel.declare_queue("").await.unwrap();
        let (done, mut seen) = mpsc::unbounded_channel();
        let handle = queue.consume().no_ack().handle(move |message| {
            let done = done.clone();
            async move { done.send(body(&message)) }
        });
        let worker = handle.await.unwrap();
        fill(&queue, &channel, numbers(1, 3)).await;
        for number in numbers(1, 3) {
            assert_eq!(seen.recv().await.unwrap(), number);
        }
        worker.drain().await.unwrap();
        assert!(channel.is_open());
    });
}
