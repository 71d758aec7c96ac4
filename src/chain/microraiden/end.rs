//! Calls that end a channel, checked before they are sent.

use ethers_core::types::Bytes;

use crate::chain::Chain;
use crate::chain::error::OpError;
use crate::chain::rpc::CallRequest;
use crate::protocol::schemes::microraiden::contract;
use crate::protocol::{ChannelId, ChannelOp};

impl Chain {
    /// The call `data` that ends `channel`, if the contract would accept it now.
    pub(in crate::chain) async fn end_request(
        &self,
        op: &ChannelOp,
        channel: ChannelId,
        data: Bytes,
    ) -> Result<CallRequest, OpError> {
        let head = self.head().await?;
        let on_chain = self.channel(channel).await?;
        if let Some(unmet) = contract::unmet_precondition(op, channel, on_chain, head) {
            return Err(unmet.into());
        }
        let (from, to) = (self.payer().into(), self.0.settings.channel_manager.into());
        Ok(CallRequest { from, to, data })
    }
}
