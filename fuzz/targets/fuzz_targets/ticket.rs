//! See `rialto_fuzz::market::ticket`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::market::ticket(bytes);
});
