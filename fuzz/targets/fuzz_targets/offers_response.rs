//! See `rialto_fuzz::market::offers_response`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::market::offers_response(bytes);
});
