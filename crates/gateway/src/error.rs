//! What can go wrong in the gateway: whose fault it is, whether it can be retried, and what the public sees.

use rialto_api::BadRequest;
use rialto_protocol::wire::{Refusal, RefusalCode};

use crate::Reached;

/// Why a request, or the gateway itself, failed. Every variant has a row in `docs/status-codes.md`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The body is malformed or asks for what is not supported.
    #[error(transparent)]
    BadRequest(#[from] BadRequest),
    /// The body is larger than allowed.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body did not arrive in time, or the connection broke.
    #[error("the body did not arrive")]
    BodyMissing,
    /// There is no such path.
    #[error("there is no {path}")]
    NoSuchPath {
        /// What was asked for.
        path: String,
    },
    /// The path exists, the method does not.
    #[error("the method is not allowed here")]
    MethodNotAllowed,
    /// No API key was sent.
    #[error("no api key was sent")]
    NoKey,
    /// The API key is unknown or revoked.
    #[error("the api key is unknown or revoked")]
    BadKey,
    /// The key's budget does not cover what the request may cost.
    #[error("the request may cost {needed}, and {left} of the key's budget is left")]
    BudgetExhausted {
        /// The most that the request can cost.
        needed: rialto_protocol::MicroDollars,
        /// What is left.
        left: rialto_protocol::MicroDollars,
    },
    /// The key has used, or reserved, as much as it may in this time.
    #[error("{0}")]
    LimitReached(Reached),
    /// Neither the escrow nor the wallet holds enough for a channel.
    #[error("a channel needs {needed}, and {reason}")]
    DepositExhausted {
        /// What the channel needs.
        needed: rialto_protocol::MicroDollars,
        /// Where money was looked for.
        reason: String,
    },
    /// There is no such file or batch, or it is another key's.
    #[error("there is no such {kind}")]
    NoSuchObject {
        /// `file` or `batch`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The key has uploaded as much as it may.
    #[error("the key has as many files as it may have")]
    TooManyFiles {
        /// Most bytes of one key.
        most: u64,
    },
    /// The key, or the gateway, has as many unfinished batches as it may have.
    #[error("there are as many unfinished batches as there may be")]
    TooManyBatches {
        /// The pause before another try.
        retry_ms: u64,
    },
    /// An unfinished batch reads the file.
    #[error("a batch reads the file")]
    FileInUse,
    /// The folder of files failed.
    #[error("a file could not be read or written: {0}")]
    Files(String),
    /// Nobody has offered this model as far as this gateway knows.
    #[error("the model is not known here")]
    UnknownModel {
        /// What was asked for.
        model: String,
    },
    /// The model exists and does something else.
    #[error("the model is for {task}")]
    WrongTask {
        /// What was asked for.
        model: String,
        /// What it does.
        task: &'static str,
    },
    /// The model is known, and nobody sells it now.
    #[error("nobody sells the model now")]
    NoSeller {
        /// What was asked for.
        model: String,
        /// When the book is read again.
        retry_ms: u64,
    },
    /// The model is sold, and no seller is what the request or its key asks for.
    #[error("no seller fits: {reasons}")]
    NobodyFits {
        /// What was asked for.
        model: String,
        /// How many sellers do not fit, and why.
        reasons: String,
    },
    /// All sellers ask for more than the gateway's ceiling, in price or in what is paid ahead.
    #[error("every seller asks for more than this gateway pays")]
    TooExpensive {
        /// What was asked for.
        model: String,
    },
    /// All sellers are busy.
    #[error("all sellers are busy")]
    Busy {
        /// The shortest wait that a seller named.
        retry_ms: u64,
    },
    /// The owner's own servers have no room.
    #[error("the owner's own servers are busy")]
    OwnServersBusy {
        /// When one of them may be asked again.
        retry_ms: u64,
    },
    /// The owner's own servers failed, before or after the first output.
    #[error("the owner's own server failed: {reason}")]
    OwnServerFailed {
        /// Why.
        reason: String,
    },
    /// The settings of a server of the owner's are wrong.
    #[error("the owner's own server {root}: {reason}")]
    BadOwnServer {
        /// Which.
        root: String,
        /// Why.
        reason: String,
    },
    /// This gateway has as many requests as it takes.
    #[error("the gateway has as many requests as it takes")]
    Overloaded,
    /// A provider refused the job as such: the client's fault.
    #[error("a provider refused the job: {0}")]
    Refused(Refusal),
    /// Providers failed, before or after the first output.
    #[error("the provider failed: {reason}")]
    ProviderFailed {
        /// Why, in public words.
        reason: String,
        /// Whether something may have to be paid.
        charged: bool,
    },
    /// A provider was silent for too long.
    #[error("the provider was silent for too long")]
    ProviderTimeout {
        /// Whether something may have to be paid.
        charged: bool,
    },
    /// The chain is needed to open or top up a channel, and does not answer.
    #[error("the chain does not answer: {0}")]
    ChainUnreachable(String),
    /// The chain refused to open or top up a channel.
    #[error("the chain refused: {0}")]
    Settlement(String),
    /// What an earlier attempt of this call bought is not there any more.
    #[error("the answer to an earlier attempt is gone")]
    RetryLost,
    /// The same idempotency key with another body.
    #[error("the idempotency key was used with another body")]
    IdempotencyConflict,
    /// A request with this idempotency key was cut off by a crash after something was sent to a provider.
    #[error("the outcome of the first request with this idempotency key is not known")]
    IdempotencyLost,
    /// Too many answers are kept for this API key.
    #[error("too many idempotency keys are in use")]
    IdempotencyFull,
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] sqlx::Error),
    /// The same, where it is written.
    #[error("the store failed: {0}")]
    Write(#[from] rusqlite::Error),
    /// The store was written by another version, or is damaged.
    #[error("the store cannot be read: {0}")]
    BadStore(String),
    /// The HTTP address is taken or may not be used.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        reason: String,
    },
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicError {
    /// The HTTP status.
    pub status: u16,
    /// OpenAI's class of error.
    pub kind: &'static str,
    /// The reason, for programs.
    pub code: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    /// The reason, for people.
    pub message: String,
    /// An honest estimate of when to try again.
    pub retry_ms: Option<u64>,
    /// Whether the same request may succeed.
    pub retry: bool,
}

impl PublicError {
    fn new(status: u16, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code,
            param: None,
            message: message.into(),
            retry_ms: None,
            retry: matches!(status, 408 | 429) || status >= 500,
        }
    }

    fn param(mut self, param: Option<String>) -> Self {
        self.param = param;
        self
    }

    fn never(mut self) -> Self {
        self.retry = false;
        self
    }

    fn after(mut self, milliseconds: u64) -> Self {
        self.retry_ms = Some(milliseconds);
        self
    }
}

const INVALID: &str = "invalid_request_error";
const AUTH: &str = "authentication_error";
const QUOTA: &str = "insufficient_quota";
const LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";

/// A limit of the API key.
fn limited(reached: &Reached) -> PublicError {
    let Some(retry_ms) = reached.retry_ms else {
        let message = format!(
            "This request alone is over a limit of the API key: {reached}. Lower 'max_tokens', or raise the limit: `rialto \
             key set`."
        );
        return PublicError::new(400, INVALID, "over_key_limit", message);
    };
    let seconds = retry_ms.div_ceil(1_000);
    let message = format!("The API key has reached a limit: {reached}. Try again in {seconds} s.");
    PublicError::new(429, LIMIT, "rate_limit_exceeded", message).after(retry_ms)
}

impl Error {
    /// Whether a provider may bill something for the request that failed so.
    pub fn may_be_charged(&self) -> bool {
        matches!(
            self,
            Self::ProviderFailed { charged: true, .. } | Self::ProviderTimeout { charged: true }
        )
    }

    /// What the client is told. Inside words stay in the log.
    pub fn public(&self) -> PublicError {
        self.about_the_request()
            .or_else(|| self.about_repetitions())
            .or_else(|| self.about_files())
            .or_else(|| self.about_money())
            .or_else(|| self.about_own_servers())
            .unwrap_or_else(|| self.about_the_market())
    }

    fn about_the_request(&self) -> Option<PublicError> {
        Some(match self {
            Self::BadRequest(bad) => {
                PublicError::new(400, INVALID, bad.code, bad.message.clone()).param(bad.param.clone())
            }
            Self::TooLarge { limit } => PublicError::new(
                413,
                INVALID,
                "request_too_large",
                format!("The request body is larger than the {limit} bytes that this gateway accepts. Send less."),
            ),
            Self::BodyMissing => PublicError::new(408, INVALID, "body_timeout", "The request body did not arrive in time."),
            Self::NoSuchPath { path } => {
                PublicError::new(404, INVALID, "unknown_url", format!("Unknown request URL: {path}."))
            }
            Self::MethodNotAllowed => {
                PublicError::new(405, INVALID, "method_not_allowed", "This URL does not accept this method.")
            }
            Self::NoKey => PublicError::new(
                401,
                AUTH,
                "missing_api_key",
                "No API key was sent. Send 'Authorization: Bearer rk-…'; `rialto key create` makes a key.",
            ),
            Self::BadKey => PublicError::new(
                401,
                AUTH,
                "invalid_api_key",
                "The API key is unknown or was revoked. `rialto key create` makes a new one.",
            ),
            Self::UnknownModel { model } => PublicError::new(
                404,
                INVALID,
                "model_not_found",
                format!("The model '{model}' does not exist here. GET /v1/models lists what is on sale."),
            )
            .param(Some("model".into())),
            Self::WrongTask { model, task } => PublicError::new(
                400,
                INVALID,
                "wrong_task",
                format!("The model '{model}' is for {task}, not for this endpoint."),
            )
            .param(Some("model".into())),
            Self::NobodyFits { model, reasons } => PublicError::new(
                404,
                INVALID,
                "no_eligible_provider",
                format!(
                    "No seller of '{model}' is what 'provider' asks for: {reasons}. Ask for less; `rialto market` shows \
                     the sellers."
                ),
            )
            .param(Some("provider".into())),
            Self::Refused(refusal) => refused(refusal),
            _ => return None,
        })
    }

    fn about_repetitions(&self) -> Option<PublicError> {
        Some(match self {
            Self::IdempotencyConflict => PublicError::new(
                422,
                INVALID,
                "idempotency_key_reused",
                "This Idempotency-Key was used with a different request. Use a new key for a new request.",
            ),
            Self::IdempotencyLost => PublicError::new(
                409,
                INVALID,
                "idempotency_outcome_unknown",
                "The answer to the first request with this Idempotency-Key was lost or too large to be kept, and it may \
                 have been billed. Send it with a new key to run it again.",
            )
            .never(),
            Self::RetryLost => PublicError::new(
                409,
                INVALID,
                "retry_outcome_unknown",
                "An earlier attempt of this call was cut off, its answer is gone, and it may have been billed. Send the \
                 request anew to buy it again.",
            )
            .never(),
            Self::IdempotencyFull => PublicError::new(
                429,
                LIMIT,
                "idempotency_keys_exhausted",
                "Too many Idempotency-Keys of this API key are in use. Send requests without one, or wait.",
            )
            .after(60_000),
            _ => return None,
        })
    }

    fn about_files(&self) -> Option<PublicError> {
        Some(match self {
            Self::NoSuchObject { kind, id } => PublicError::new(
                404,
                INVALID,
                "not_found",
                format!("There is no {kind} '{id}' of this API key."),
            )
            .param(Some("id".into())),
            Self::TooManyFiles { most } => PublicError::new(
                429,
                QUOTA,
                "files_exhausted",
                format!("The files of this API key would be more than {most} bytes, or too many. Delete some first."),
            )
            .never(),
            Self::TooManyBatches { retry_ms } => PublicError::new(
                429,
                LIMIT,
                "batches_exhausted",
                "There are as many unfinished batches as this gateway takes. Wait until one has ended.",
            )
            .after(*retry_ms),
            Self::FileInUse => PublicError::new(
                409,
                INVALID,
                "file_in_use",
                "A batch that has not ended reads this file. Cancel it first, or wait.",
            )
            .never(),
            _ => return None,
        })
    }

    fn about_money(&self) -> Option<PublicError> {
        Some(match self {
            Self::BudgetExhausted { needed, left } => PublicError::new(
                402,
                QUOTA,
                "budget_exhausted",
                format!(
                    "This request may cost up to {needed}, and {left} of the API key's budget is left. Lower \
                     'max_tokens', or use a key with a larger budget: `rialto key create NAME --budget DOLLARS`."
                ),
            ),
            Self::LimitReached(reached) => limited(reached),
            Self::DepositExhausted { needed, .. } => PublicError::new(
                402,
                QUOTA,
                "deposit_exhausted",
                format!(
                    "A payment channel needs {needed}, and neither the escrow nor the wallet holds so much. The \
                     gateway's owner adds stablecoin; `rialto wallet` shows where to."
                ),
            ),
            Self::ChainUnreachable(_) => PublicError::new(
                503,
                SERVER,
                "chain_unreachable",
                "A payment channel must be opened or filled, and the chain does not answer. Open channels go on.",
            )
            .after(5_000),
            Self::Settlement(_) => PublicError::new(
                502,
                SERVER,
                "settlement_failed",
                "A payment channel could not be opened or filled. The gateway's log says why.",
            ),
            _ => return None,
        })
    }

    fn about_own_servers(&self) -> Option<PublicError> {
        Some(match self {
            Self::OwnServersBusy { retry_ms } => {
                PublicError::new(503, SERVER, "own_servers_busy", "The servers of this model are busy.")
                    .after(*retry_ms)
            }
            Self::OwnServerFailed { reason } => PublicError::new(
                502,
                SERVER,
                "own_server_failed",
                format!("The model's server failed: {reason}."),
            ),
            _ => return None,
        })
    }

    fn about_the_market(&self) -> PublicError {
        match self {
            Self::NoSeller { model, retry_ms } => PublicError::new(
                503,
                SERVER,
                "no_seller",
                format!("Nobody sells '{model}' now. The book of offers is read again soon."),
            )
            .param(Some("model".into()))
            .after(*retry_ms),
            Self::TooExpensive { model } => PublicError::new(
                503,
                SERVER,
                "price_ceiling",
                format!(
                    "Every seller of '{model}' asks for more than this gateway pays. Its owner can raise max_price."
                ),
            )
            .param(Some("model".into()))
            .after(60_000),
            Self::Busy { retry_ms } => {
                PublicError::new(503, SERVER, "sellers_busy", "All sellers of this model are busy.").after(*retry_ms)
            }
            Self::Overloaded => PublicError::new(
                503,
                SERVER,
                "gateway_busy",
                "The gateway has as many requests as it takes.",
            )
            .after(1_000),
            Self::ProviderFailed { reason, .. } => PublicError::new(
                502,
                SERVER,
                "provider_failed",
                format!("The provider failed: {reason}."),
            ),
            Self::ProviderTimeout { .. } => {
                PublicError::new(504, SERVER, "provider_timeout", "The provider was silent for too long.")
            }
            Self::Stopping => PublicError::new(503, SERVER, "stopping", "The gateway is stopping.").after(2_000),
            _ => PublicError::new(500, SERVER, "internal_error", "The gateway failed. Its log says why."),
        }
    }
}

/// What a client is told about a provider's refusal of the job as such.
fn refused(refusal: &Refusal) -> PublicError {
    let message: String = refusal.message.chars().take(440).collect();
    let field = refusal.field.as_ref().map(|field| field.chars().take(64).collect());
    match refusal.code {
        RefusalCode::ContextExceeded => {
            // Libraries know this error by such words rather than by its code.
            let message = format!("The prompt is too long for this model: {message}");
            PublicError::new(400, INVALID, "context_length_exceeded", message).param(field.or(Some("messages".into())))
        }
        _ => PublicError::new(400, INVALID, "invalid_value", message).param(field),
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::MicroDollars;

    use super::*;

    #[test]
    fn the_classes_are_openais() {
        let cases = [
            (Error::NoKey, 401, AUTH, false),
            (Error::BadKey, 401, AUTH, false),
            (Error::UnknownModel { model: "m".into() }, 404, INVALID, false),
            (Error::TooLarge { limit: 1 }, 413, INVALID, false),
            (Error::BadRequest(BadRequest::missing("model")), 400, INVALID, false),
            (Error::IdempotencyConflict, 422, INVALID, false),
            (Error::IdempotencyLost, 409, INVALID, false),
            (Error::RetryLost, 409, INVALID, false),
            (Error::Busy { retry_ms: 5 }, 503, SERVER, true),
            (Error::ProviderTimeout { charged: true }, 504, SERVER, true),
            (Error::BadStore("secret".into()), 500, SERVER, true),
        ];
        for (error, status, kind, retry) in cases {
            let public = error.public();
            assert_eq!(
                (public.status, public.kind, public.retry),
                (status, kind, retry),
                "{error}"
            );
            assert!(!public.message.contains("secret"));
        }
    }

    #[test]
    fn a_budget_error_says_how_to_fix_it() {
        let error = Error::BudgetExhausted {
            needed: MicroDollars::new(2_000_000),
            left: MicroDollars::new(5),
        };
        let public = error.public();
        assert_eq!((public.status, public.code), (402, "budget_exhausted"));
        assert!(public.message.contains("$2.000000") && public.message.contains("rialto key create"));
    }

    #[test]
    fn a_refusal_names_its_field() {
        let refusal = Refusal::new(RefusalCode::BadRequest, "no").with_field("inputs");
        let public = Error::Refused(refusal).public();
        assert_eq!((public.status, public.param.as_deref()), (400, Some("inputs")));
        let long = Refusal::new(RefusalCode::ContextExceeded, "é".repeat(5_000));
        assert!(Error::Refused(long).public().message.len() <= 1_024);
    }
}
