//! What the seller of these tests says: words, or calls of tools, with log-probabilities if they are asked for.

use rialto_protocol::{
    job::{Generation, Job, ToolChoice, Tools},
    output::{Alternative, Output, TokenLogprob},
};

use super::seller::Manner;

fn asked(job: &Job) -> (Option<&Tools>, Option<&Generation>) {
    match job {
        Job::Chat { tools, generation, .. } => (Some(tools), Some(generation)),
        Job::Completion { generation, .. } => (None, Some(generation)),
        Job::Embedding { .. } | Job::Predict { .. } => (None, None),
    }
}

/// Token number `number`. A seller that calls tools says nothing else.
pub(crate) fn token(job: &Job, manner: Manner, number: u64) -> Output {
    let (tools, generation) = asked(job);
    let before = generation.map_or(0, |generation| generation.so_far.ids.len());
    let number = number + u64::try_from(before).unwrap();
    let text = match tools {
        Some(tools) if !tools.offered.is_empty() => String::new(),
        _ => format!("w{number} "),
    };
    let top = generation.and_then(|generation| generation.logprobs);
    let top = top.or((manner == Manner::TellsUnasked).then_some(0));
    Output::Tokens {
        logprobs: top.map(|top| likely(number, top)).into_iter().collect(),
        text,
        ids: vec![u32::try_from(number).unwrap()],
    }
}

/// The chosen token is the likeliest one.
fn likely(number: u64, top: u8) -> TokenLogprob {
    let other = |place: u8| Alternative {
        id: place.into(),
        bytes: if place == 0 {
            format!("w{number} ").into_bytes()
        } else {
            // A part of a character.
            vec![0xF0, place]
        },
        logprob: -0.25 - f32::from(place),
    };
    TokenLogprob {
        bytes: format!("w{number} ").into_bytes(),
        logprob: -0.25,
        top: (0..top).map(other).collect(),
    }
}

/// The calls at the end of the answer: of the tool that is demanded, or of the first and of the last that is offered.
pub(crate) fn calls(job: &Job, manner: Manner) -> Vec<Output> {
    let call = |index, name: &str, arguments: &str| Output::ToolCall {
        index,
        name: name.into(),
        arguments: arguments.into(),
    };
    let Some(tools) = asked(job).0.filter(|tools| !tools.offered.is_empty()) else {
        return vec![];
    };
    let (first, last) = (&tools.offered[0].name, &tools.offered[tools.offered.len() - 1].name);
    match (&tools.choice, manner) {
        (_, Manner::CallsUnoffered) => vec![call(0, "format_disk", "{}")],
        (_, Manner::ClaimsCalls) => vec![],
        (ToolChoice::Named(name), _) => vec![call(0, name, r#"{"at":"#), call(0, "", "1}")],
        _ => vec![
            call(0, first, r#"{"at":"#),
            call(0, "", "1}"),
            // Cut off, so no JSON: the client must cope with it.
            call(1, last, r#"{"at"#),
        ],
    }
}
