//! See `rialto_fuzz::files::gguf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::files::gguf(bytes);
});
