#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lepus::fuzzing::broker_steps(data));
