//! See `rialto_fuzz::requests::embedding`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::requests::embedding(bytes);
});
