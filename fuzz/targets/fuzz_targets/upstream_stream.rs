//! See `rialto_fuzz::market::upstream_stream`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::market::upstream_stream(bytes);
});
