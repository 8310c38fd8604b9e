//! Replays the seeds.

use std::fs;
use std::path::Path;

/// Runs a target on each of its seeds.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    for seed in seeds {
        println!("{}", seed.display());
        run(&fs::read(seed).unwrap());
    }
}

macro_rules! replayed {
    ($($name:ident: $($target:ident),+ => $folder:literal;)+) => {$(
        #[test]
        fn $name() {
            $(replay($folder, super::$target);)+
        }
    )+};
}

replayed! {
    seeds_of_frame: frame, frame_splits => "frame";
    seeds_of_table: table => "table";
    seeds_of_method: method => "method";
    seeds_of_properties: properties => "properties";
    seeds_of_ledger: ledger => "ledger";
    seeds_of_encode: encode => "encode";
    seeds_of_client: client => "client";
    seeds_of_content: content, content_splits => "content";
}

#[cfg(feature = "test-broker")]
replayed! {
    seeds_of_broker: broker, broker_steps => "broker";
}
