//! The escrow's rules in Rust against the compiled contracts in an EVM, on random traces; the test is in `tests/`.
