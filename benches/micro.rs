//! Micro benchmarks of the codec and the multiplexer, without a socket:
//! `RUSTFLAGS="--cfg lepus_bench" cargo bench --bench micro`.
//!
//! On a noisy machine `benches/instructions.rs` tells more.

#![cfg_attr(lepus_bench, expect(clippy::expect_used, reason = "a benchmark: what fails ends it"))]

#[cfg(not(lepus_bench))]
fn main() {
    eprintln!("built without --cfg lepus_bench: nothing to measure");
}

#[cfg(lepus_bench)]
fn main() {
    divan::main();
}

#[cfg(lepus_bench)]
mod works {
    use bytes::{Bytes, BytesMut};
    use divan::counter::ItemsCount;
    use divan::{Bencher, black_box};
    use lepus::bench::{Incoming, Outbound, deliveries, put_table, split, table};
    use lepus::{FieldTable, Message};

    /// Messages in each sample.
    const BATCH: u64 = 1000;
    const SIZES: [usize; 3] = [16, 1 << 10, 64 << 10];

    /// As many deliveries as a read of at most 256 KiB brings.
    fn chunk(size: usize) -> (BytesMut, u64) {
        let count = (256 << 10) / (size as u64 + 120);
        let bytes = deliveries(count, size).expect("the names are short");
        (BytesMut::from(bytes.as_slice()), count)
    }

    #[divan::bench(args = SIZES)]
    fn frame_split(bencher: Bencher<'_, '_>, size: usize) {
        let (chunk, count) = chunk(size);
        let bencher = bencher.counter(ItemsCount::new(count));
        bencher.with_inputs(|| chunk.clone()).bench_local_refs(split);
    }

    #[divan::bench(args = SIZES)]
    fn delivery(bencher: Bencher<'_, '_>, size: usize) {
        let (chunk, count) = chunk(size);
        let mut incoming = Incoming::new().expect("the name is short");
        let bencher = bencher.counter(ItemsCount::new(count));
        bencher.with_inputs(|| chunk.clone()).bench_local_refs(|chunk| incoming.receive(chunk));
    }

    #[divan::bench(args = SIZES)]
    fn publish_encode(bencher: Bencher<'_, '_>, size: usize) {
        let message = Message::new(vec![b'x'; size]);
        let mut outbound = Outbound::new(false);
        // as much as one write takes
        let count = (256 << 10) / (size as u64 + 80);
        bencher.counter(ItemsCount::new(count)).bench_local(|| {
            for _ in 0..count {
                outbound.publish(b"", b"orders.new", black_box(&message));
            }
            outbound.clear()
        });
    }

    /// Published, and settled with one ack for each, or one for all.
    #[divan::bench(args = [false, true])]
    fn confirm_settle(bencher: Bencher<'_, '_>, multiple: bool) {
        let message = Message::new("x");
        let mut outbound = Outbound::new(true);
        let mut settled = 0;
        bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
            for _ in 0..BATCH {
                outbound.publish(b"", b"orders.new", &message);
            }
            outbound.clear();
            let first = if multiple { BATCH } else { 1 };
            for number in first..=BATCH {
                outbound.acked(settled + number, multiple);
            }
            settled += BATCH;
        });
    }

    fn headers() -> FieldTable {
        let fill = || {
            let mut nested = FieldTable::new();
            nested.insert("count", 3)?;
            nested.insert("reason", "expired")?;
            let mut headers = FieldTable::new();
            headers.insert("x-death", nested)?;
            headers.insert("retries", 3)?;
            headers.insert("urgent", true)?;
            headers.insert("source", "orders")?;
            Ok::<_, lepus::FieldError>(headers)
        };
        fill().expect("the names are short")
    }

    #[divan::bench]
    fn table_encode(bencher: Bencher<'_, '_>) {
        let headers = headers();
        let mut out = Vec::new();
        bencher.bench_local(|| {
            out.clear();
            put_table(&mut out, black_box(&headers));
        });
    }

    #[divan::bench]
    fn table_decode(bencher: Bencher<'_, '_>) {
        let mut out = Vec::new();
        put_table(&mut out, &headers());
        let bytes = Bytes::from(out);
        bencher.bench_local(|| table(black_box(&bytes)));
    }
}
