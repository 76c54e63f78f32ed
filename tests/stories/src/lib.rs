//! Stories of a whole market; they are in `tests/`.
