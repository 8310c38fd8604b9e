//! Instructions for each message on the main paths, counted by valgrind: the same on every run, so that a
//! change can be judged on a noisy machine. `RUSTFLAGS="--cfg lepus_bench" cargo bench --bench instructions`.
//!
//! The program runs itself under callgrind, for each path with two numbers of messages: the difference
//! leaves out what starting costs. `instructions <path> <messages>` runs a path alone, for profiles.

#[cfg(not(lepus_bench))]
fn main() {
    eprintln!("built without --cfg lepus_bench: nothing to count");
}

#[cfg(lepus_bench)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    paths::run()
}

#[cfg(lepus_bench)]
#[path = "support/null_server.rs"]
mod null_server;

#[cfg(lepus_bench)]
mod paths {
    use std::collections::VecDeque;
    use std::env;
    use std::error::Error;
    use std::hint::black_box;
    use std::process::Command;

    use bytes::{Bytes, BytesMut};
    use lepus::bench::{Incoming, Outbound, TAG, deliveries, put_table, split, table};
    use lepus::{Confirm, Connection, FieldTable, Message};
    use tokio::runtime::Builder;

    use crate::null_server;

    type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

    /// Messages handled at once.
    const BATCH: u64 = 500;
    const FEW: u64 = 4 * BATCH;
    const MANY: u64 = 12 * BATCH;

    /// Unconfirmed messages under way.
    const WINDOW: usize = 1_000;

    /// A path, given the number of messages.
    type Path = fn(u64) -> Result;

    /// Each with what must be taken off: copies of the input, which callgrind counts byte by byte.
    const PATHS: [(&str, Path, Option<&str>); 16] = [
        ("publish encode 16 B", |count| publish(count, 16), None),
        ("publish encode 1 KiB", |count| publish(count, 1 << 10), None),
        ("publish 16 B + confirm, one ack each", |count| confirm(count, false), None),
        ("publish 16 B + confirm, one ack for 500", |count| confirm(count, true), None),
        ("frame split 16 B (three frames)", frame_split, Some("copy 16 B")),
        ("delivery 16 B", |count| delivery(count, 16), Some("copy 16 B")),
        ("delivery 1 KiB", |count| delivery(count, 1 << 10), Some("copy 1 KiB")),
        ("table of 6 fields, encode and decode", table_round_trip, None),
        ("client: publish 16 B + confirm", |count| client(confirms(count, false), false), None),
        ("client: publish 16 B + confirm, robust", |count| client(confirms(count, false), true), None),
        ("client: publish realistic + confirm", |count| client(confirms(count, true), false), None),
        ("client: publish realistic + confirm, robust", |count| client(confirms(count, true), true), None),
        ("client: consume 16 B", |count| client(consume(count), false), None),
        ("client: consume 16 B, robust", |count| client(consume(count), true), None),
        ("copy 16 B", |count| copy(count, 16), None),
        ("copy 1 KiB", |count| copy(count, 1 << 10), None),
    ];

    pub(super) fn run() -> Result {
        let arguments: Vec<String> = env::args().skip(1).collect();
        if let [name, count] = arguments.as_slice() {
            let path = PATHS.iter().find(|(known, ..)| known == name).ok_or("no such path")?;
            return path.1(count.parse()?);
        }
        let each = |name| Ok::<_, Box<dyn Error>>((count(name, MANY)? - count(name, FEW)?) / (MANY - FEW));
        for (name, _, without) in PATHS.iter().filter(|(name, ..)| !name.starts_with("copy")) {
            let copies = without.map(each).transpose()?.unwrap_or(0);
            println!("{name:44} {:6} instructions", each(name)?.saturating_sub(copies));
        }
        Ok(())
    }

    /// Runs this program under callgrind.
    fn count(name: &str, messages: u64) -> Result<u64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe()?)
            .args([name, &messages.to_string()])
            .output()
            .map_err(|error| format!("valgrind: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let collected = said.lines().find_map(|line| line.split_once("Collected :")).ok_or(said.as_ref())?;
        Ok(collected.1.trim().parse()?)
    }

    /// An error instead of a figure that means nothing.
    fn taken(taken: bool) -> Result {
        if taken { Ok(()) } else { Err("it was refused".into()) }
    }

    fn publish(count: u64, size: usize) -> Result {
        let message = Message::new(vec![b'x'; size]);
        let mut outbound = Outbound::new(false);
        for _ in 0..count / BATCH {
            for _ in 0..BATCH {
                taken(outbound.publish(b"", b"orders.new", black_box(&message)))?;
            }
            outbound.clear();
        }
        Ok(())
    }

    fn confirm(count: u64, multiple: bool) -> Result {
        let message = Message::new(vec![b'x'; 16]);
        let mut outbound = Outbound::new(true);
        for batch in 0..count / BATCH {
            for _ in 0..BATCH {
                taken(outbound.publish(b"", b"orders.new", black_box(&message)))?;
            }
            outbound.clear();
            let first = if multiple { BATCH } else { 1 };
            for number in first..=BATCH {
                taken(outbound.acked(batch * BATCH + number, multiple))?;
            }
        }
        Ok(())
    }

    fn frame_split(count: u64) -> Result {
        let chunk = BytesMut::from(deliveries(BATCH, 16)?.as_slice());
        for _ in 0..count / BATCH {
            black_box(split(&mut chunk.clone()));
        }
        Ok(())
    }

    fn copy(count: u64, size: usize) -> Result {
        let chunk = BytesMut::from(deliveries(BATCH, size)?.as_slice());
        for _ in 0..count / BATCH {
            black_box(chunk.clone());
        }
        Ok(())
    }

    fn delivery(count: u64, size: usize) -> Result {
        let chunk = BytesMut::from(deliveries(BATCH, size)?.as_slice());
        let mut incoming = Incoming::new()?;
        for _ in 0..count / BATCH {
            black_box(incoming.receive(&mut chunk.clone()));
        }
        Ok(())
    }

    /// A whole client, on one thread with a server that does next to nothing.
    fn client(work: impl AsyncFnOnce(&Connection) -> Result, robust: bool) -> Result {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let options = null_server::options()?;
            let connection =
                if robust { options.robust().connect().await? } else { options.connect().await? };
            work(&connection).await
        })
    }

    /// Publishes with so many confirms under way that the server is never waited for long.
    fn confirms(count: u64, realistic: bool) -> impl AsyncFnOnce(&Connection) -> Result {
        async move |connection| {
            let channel = connection.channel().await?;
            let exchange = channel.default_exchange();
            let body = Bytes::from(vec![b'x'; if realistic { 256 } else { 16 }]);
            let mut under_way: VecDeque<Confirm> = VecDeque::new();
            for number in 0..count {
                if under_way.len() == WINDOW
                    && let Some(oldest) = under_way.pop_front()
                {
                    oldest.await?;
                }
                let message = Message::new(body.clone());
                let message = if realistic { with_properties(message, number) } else { message };
                under_way.push_back(exchange.enqueue("orders.new", message).await?);
            }
            for confirm in under_way {
                confirm.await?;
            }
            Ok(())
        }
    }

    /// What a service says of a message.
    fn with_properties(message: Message, number: u64) -> Message {
        message
            .content_type("application/json")
            .message_id(format!("order-{number}"))
            .timestamp(std::time::SystemTime::UNIX_EPOCH)
            .app_id("orders")
            .header("attempt", 1)
            .header("trace", "4bf92f3577b34da6a3ce929d0e0e4736")
    }

    fn consume(count: u64) -> impl AsyncFnOnce(&Connection) -> Result {
        async move |connection| {
            let channel = connection.channel().await?;
            let mut deliveries = channel.queue("orders")?.consume().tag(TAG).no_ack().await?;
            for _ in 0..count {
                drop(deliveries.next().await.ok_or("the deliveries ended")??);
            }
            Ok(())
        }
    }

    fn table_round_trip(count: u64) -> Result {
        let mut nested = FieldTable::new();
        nested.insert("count", 3)?;
        nested.insert("reason", "expired")?;
        let mut headers = FieldTable::new();
        headers.insert("x-death", nested)?;
        headers.insert("retries", 3)?;
        headers.insert("urgent", true)?;
        headers.insert("source", "orders")?;
        for _ in 0..count {
            let mut out = Vec::new();
            put_table(&mut out, black_box(&headers));
            black_box(table(&Bytes::from(out))?);
        }
        Ok(())
    }
}
