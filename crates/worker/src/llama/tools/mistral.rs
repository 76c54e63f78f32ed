//! Mistral's style: one list of calls at the end of an answer.

use super::Marks;

pub(super) const MARKS: Marks = Marks {
    open: "[TOOL_CALLS]",
    close: "",
    arguments: "arguments",
    list: true,
};
