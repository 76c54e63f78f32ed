//! What a job is likely to use, and the most that it can.

use rialto_protocol::{Usage, job::Job, manifest::Manifest};

/// The most units of input that an honest provider can count: what the model's context holds, if it has one.
pub(crate) fn max_input(job: &Job, manifest: &Manifest) -> u64 {
    let most = job.max_input();
    match job {
        Job::Chat { .. } | Job::Completion { .. } if manifest.context_length > 0 => most.min(manifest.context_length),
        _ => most,
    }
}

/// What a job is likely to use: a token is about three bytes, and few answers reach their limit.
pub(crate) fn likely_usage(job: &Job) -> Usage {
    Usage {
        input: estimate_input(job, job.max_input()),
        output: job.max_output().div_ceil(2),
    }
}

/// Units of input as the first voucher pays for them: a guess that is corrected when the provider has counted.
pub(crate) fn estimate_input(job: &Job, most: u64) -> u64 {
    match job {
        Job::Predict { .. } => most,
        Job::Chat { .. } | Job::Completion { .. } | Job::Embedding { .. } => {
            (job.max_input() / 3).saturating_add(64).min(most)
        }
    }
}
