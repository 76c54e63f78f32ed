//! The list of models.

use serde::{Deserialize, Serialize};

/// `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models on sale.
    pub data: Vec<Model>,
}

/// One model. What OpenAI does not know is an extension, named as OpenRouter names it where it has a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// `publisher/name:tag`, or an alias.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// When the gateway first heard of it, in seconds since 1970.
    pub created: u64,
    /// The publisher's name.
    pub owned_by: String,
    /// The model's id in the market.
    pub model_id: String,
    /// `chat`, `completion`, `embedding` or `predict`.
    pub task: String,
    /// One line for people.
    pub description: String,
    /// Most tokens of prompt and answer together; zero for predictive models.
    pub context_length: u64,
    /// How the weights are stored.
    pub quantization: String,
    /// Providers that sell it now.
    pub providers: u32,
    /// The engines that they run it with, such as `llama.cpp exact`, each once.
    pub engines: Vec<String>,
    /// The lowest price on offer.
    pub pricing: ModelPricing,
}

/// Dollars a unit, as decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPricing {
    /// A unit of input.
    pub prompt: String,
    /// A unit of output.
    pub completion: String,
    /// A request.
    pub request: String,
}
