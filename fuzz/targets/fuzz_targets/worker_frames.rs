//! See `rialto_fuzz::market::worker_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::market::worker_frames(bytes);
});
