//! The nodes of registered providers, as the registry logged them.

use alloy::{rpc::types::Filter, sol_types::SolEvent};
use rialto_protocol::NodeKey;

use super::logs;
use crate::{Chain, Error, abi, bindings::Providers};

impl Chain {
    /// The nodes that providers named in these blocks, both included, when they registered or changed it; the latest last.
    /// Whether a provider is still one is not looked up.
    pub async fn registered_nodes(&self, first: u64, last: u64) -> Result<Vec<NodeKey>, Error> {
        let providers = abi::to_evm(self.contracts().providers);
        let filter = Filter::new().address(providers).event_signature(vec![
            Providers::ProviderRegistered::SIGNATURE_HASH,
            Providers::ProviderUpdated::SIGNATURE_HASH,
        ]);
        let logs = logs(self, &filter, first, last).await?;
        let node = |log: &alloy::rpc::types::Log| {
            if log.removed || log.address() != providers {
                return Err(Error::corrupt("a log that was not asked for"));
            }
            let registered = Providers::ProviderRegistered::decode_log(&log.inner).map(|event| event.nodeKey);
            let node =
                registered.or_else(|_| Providers::ProviderUpdated::decode_log(&log.inner).map(|event| event.nodeKey));
            let node = node.map_err(|_| Error::corrupt("a log of the registry that cannot be read"))?;
            Ok(NodeKey(node.0))
        };
        logs.iter().map(node).collect()
    }
}
