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
mod paths {
    use std::env;
    use std::error::Error;
    use std::hint::black_box;
    use std::process::Command;

    use bytes::{Bytes, BytesMut};
    use lepus::bench::{Incoming, Outbound, deliveries, put_table, split, table};
    use lepus::{FieldTable, Message};

    type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

    /// Messages handled at once.
    const BATCH: u64 = 500;
    const FEW: u64 = 4 * BATCH;
    const MANY: u64 = 12 * BATCH;

    /// A path, given the number of messages.
    type Path = fn(u64) -> Result;

    /// Each with what must be taken off: copies of the input, which callgrind counts byte by byte.
    const PATHS: [(&str, Path, Option<&str>); 10] = [
        ("publish encode 16 B", |count| publish(count, 16), None),
        ("publish encode 1 KiB", |count| publish(count, 1 << 10), None),
        ("publish 16 B + confirm, one ack each", |count| confirm(count, false), None),
        ("publish 16 B + confirm, one ack for 500", |count| confirm(count, true), None),
        ("frame split 16 B (three frames)", frame_split, Some("copy 16 B")),
        ("delivery 16 B", |count| delivery(count, 16), Some("copy 16 B")),
        ("delivery 1 KiB", |count| delivery(count, 1 << 10), Some("copy 1 KiB")),
        ("table of 6 fields, encode and decode", table_round_trip, None),
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
            println!("{name:42} {:6} instructions", each(name)?.saturating_sub(copies));
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
