//! What clients send to a gateway.

use rialto_api::{
    BadRequest,
    inference::{self, Datatype, InferRequest},
    openai::{BatchEndpoint, BatchLine, BatchRequest, ChatRequest, CompletionRequest, EmbeddingRequest},
};

/// What a client reads about its own request must be short.
fn accepted<T>(result: Result<T, BadRequest>) -> bool {
    match result {
        Ok(_) => true,
        Err(bad) => {
            assert!(bad.message.len() <= 1_024, "a message of {} bytes", bad.message.len());
            false
        }
    }
}

/// `POST /v1/chat/completions`.
pub fn chat(bytes: &[u8]) -> bool {
    accepted(ChatRequest::parse(bytes))
}

/// `POST /v1/completions`.
pub fn completion(bytes: &[u8]) -> bool {
    accepted(CompletionRequest::parse(bytes))
}

/// `POST /v1/embeddings`.
pub fn embedding(bytes: &[u8]) -> bool {
    accepted(EmbeddingRequest::parse(bytes))
}

/// `POST /v1/batches`, and the file that it names: what is accepted of one endpoint is refused by the others.
pub fn batch(bytes: &[u8]) -> bool {
    let mut any = accepted(BatchRequest::parse(bytes));
    for line in bytes.split(|byte| *byte == b'\n') {
        let read = BatchEndpoint::ALL.map(|endpoint| BatchLine::parse(line, endpoint));
        let taken = read.iter().flatten().count();
        assert!(taken <= 1, "a line of {taken} endpoints");
        for line in read {
            if let Ok(line) = &line {
                assert!(!line.custom_id.is_empty() && line.body.get().starts_with('{'));
            }
            any |= accepted(line);
        }
    }
    any
}

/// `POST /v2/models/{m}/infer`.
pub fn infer(bytes: &[u8]) -> bool {
    let request = InferRequest::parse(bytes);
    for tensor in request.iter().flat_map(|request| &request.inputs) {
        let elements = tensor
            .shape
            .iter()
            .try_fold(1u64, |product, extent| product.checked_mul(*extent));
        let values = inference::values(tensor.datatype, &tensor.data);
        let found = values.and_then(|values| u64::try_from(values.len()).ok());
        assert_eq!(found, elements, "a tensor whose data is not what its shape says");
    }
    accepted(request)
}

/// Elements of an answer as JSON: the first byte says of which type.
pub fn values(bytes: &[u8]) -> bool {
    let Some((kind, data)) = bytes.split_first() else {
        return false;
    };
    let index = usize::from(*kind) % DATATYPES.len();
    let datatype = DATATYPES.get(index).and_then(|name| Datatype::from_name(name));
    datatype.is_some_and(|datatype| inference::values(datatype, data).is_some())
}

/// Every element type, as the protocol spells it.
const DATATYPES: [&str; 13] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
];
