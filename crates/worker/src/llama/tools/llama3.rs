//! Llama 3's style: an answer that is a JSON object with a tool's name is a call.

use super::Marks;

pub(super) const MARKS: Marks = Marks {
    open: "",
    close: "",
    arguments: "parameters",
    list: false,
};

/// What some of its answers begin with.
pub(super) const PYTHON_TAG: &str = "<|python_tag|>";
