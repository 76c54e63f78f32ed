//! Hermes' style, which Qwen and many others took over.

use super::Marks;

pub(super) const MARKS: Marks = Marks {
    open: "<tool_call>",
    close: "</tool_call>",
    arguments: "arguments",
    list: false,
};
