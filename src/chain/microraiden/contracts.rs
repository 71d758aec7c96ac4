//! Typed calls and events of the contracts (µRaiden 0.2.0; the token: ERC-20 with ERC-223's `transfer`).
//!
//! The two-argument `transfer` is left out on purpose: sent to the channel contract it succeeds, and the tokens are
//! lost.

use ethers_contract::abigen;
use ethers_core::abi::AbiEncode as _;
use ethers_core::types::{Bytes, H160};

use crate::protocol::{Address, Amount, ChannelId, ChannelOp};

abigen!(
    ChannelManager,
    r"[
        function token() external view returns (address)
        function version() external view returns (string)
        function challenge_period() external view returns (uint32)
        function channel_deposit_bugbounty_limit() external view returns (uint256)
        function createChannel(address receiver, uint192 deposit) external
        function topUp(address receiver, uint32 open_block, uint192 added) external
        function cooperativeClose(address receiver, uint32 open_block, uint192 balance, bytes balance_signature, bytes closing_signature) external
        function uncooperativeClose(address receiver, uint32 open_block, uint192 balance) external
        function settle(address receiver, uint32 open_block) external
        function getChannelInfo(address sender, address receiver, uint32 open_block) external view returns (bytes32 key, uint192 deposit, uint32 settle_block, uint192 closing_balance, uint192 withdrawn)
        event ChannelCreated(address indexed sender, address indexed receiver, uint192 deposit)
        event ChannelToppedUp(address indexed sender, address indexed receiver, uint32 indexed open_block, uint192 added)
        event ChannelCloseRequested(address indexed sender, address indexed receiver, uint32 indexed open_block, uint192 balance)
        event ChannelSettled(address indexed sender, address indexed receiver, uint32 indexed open_block, uint192 balance, uint192 receiver_tokens)
        event ChannelWithdraw(address indexed sender, address indexed receiver, uint32 indexed open_block, uint192 withdrawn)
    ]"
);

abigen!(
    Token,
    r"[
        function balanceOf(address owner) external view returns (uint256)
        function decimals() external view returns (uint8)
        function symbol() external view returns (string)
        function allowance(address owner, address spender) external view returns (uint256)
        function approve(address spender, uint256 value) external returns (bool)
        function transfer(address to, uint256 value, bytes data) external returns (bool)
    ]"
);

/// The `data` that the token passes to the channel contract: payer and receiver, and for a top-up the open block.
pub(in crate::chain) fn transfer_data(payer: Address, op: &ChannelOp) -> Vec<u8> {
    let mut data = Vec::with_capacity(44);
    data.extend_from_slice(&payer.0);
    data.extend_from_slice(&op.receiver().0);
    if let ChannelOp::TopUp { channel, .. } = op {
        data.extend_from_slice(&channel.open_block.to_be_bytes());
    }
    data
}

/// How an operation is carried out on the chain.
pub(in crate::chain) enum OpKind {
    /// Moves this many base units into a channel.
    Fund(Amount),
    /// Ends a channel, or starts its challenge period, by this call of the channel contract.
    End(ChannelId, Bytes),
}

/// How `op` is carried out.
pub(in crate::chain) fn op_kind(op: &ChannelOp) -> OpKind {
    match *op {
        ChannelOp::Open { deposit, .. } => OpKind::Fund(deposit),
        ChannelOp::TopUp { added, .. } => OpKind::Fund(added),
        ChannelOp::CloseTogether { channel, total, balance_signature, closing_signature } => {
            let call = CooperativeCloseCall {
                receiver: channel.receiver.into(),
                open_block: channel.open_block,
                balance: total.into(),
                balance_signature: Bytes::from(balance_signature.0),
                closing_signature: Bytes::from(closing_signature.0),
            };
            OpKind::End(channel, call.encode().into())
        }
        ChannelOp::CloseAlone { channel, total } => {
            let (receiver, open_block) = (channel.receiver.into(), channel.open_block);
            let call = UncooperativeCloseCall { receiver, open_block, balance: total.into() };
            OpKind::End(channel, call.encode().into())
        }
        ChannelOp::Settle { channel } => {
            let (receiver, open_block) = (channel.receiver.into(), channel.open_block);
            OpKind::End(channel, SettleCall { receiver, open_block }.encode().into())
        }
    }
}

/// The ERC-223 call that moves `amount` into the channel of `op`.
pub(in crate::chain) fn transfer_call(
    contract: Address,
    payer: Address,
    op: &ChannelOp,
    amount: Amount,
) -> TransferCall {
    TransferCall { to: H160::from(contract), value: amount.into(), data: transfer_data(payer, op).into() }
}

#[cfg(test)]
mod tests {
    use ethers_contract::{EthCall, EthEvent};
    use ethers_core::utils::{hex, id};

    use crate::chain::microraiden::contracts::*;

    #[test]
    fn calls_and_events_have_the_selectors_of_the_original() {
        assert_eq!(hex::encode(TransferCall::selector()), "be45fd62");
        for (selector, signature) in [
            (CreateChannelCall::selector(), "createChannel(address,uint192)"),
            (TopUpCall::selector(), "topUp(address,uint32,uint192)"),
            (CooperativeCloseCall::selector(), "cooperativeClose(address,uint32,uint192,bytes,bytes)"),
            (UncooperativeCloseCall::selector(), "uncooperativeClose(address,uint32,uint192)"),
            (SettleCall::selector(), "settle(address,uint32)"),
            (GetChannelInfoCall::selector(), "getChannelInfo(address,address,uint32)"),
        ] {
            assert_eq!(selector, id(signature), "{signature}");
        }
        assert_eq!(ChannelCreatedFilter::abi_signature(), "ChannelCreated(address,address,uint192)");
        assert_eq!(
            ChannelSettledFilter::abi_signature(),
            "ChannelSettled(address,address,uint32,uint192,uint192)"
        );
    }

    #[test]
    fn the_data_of_a_transfer_is_40_bytes_to_open_and_44_to_top_up() {
        let (payer, receiver) = (Address([1; 20]), Address([2; 20]));
        let open = transfer_data(payer, &ChannelOp::Open { receiver, deposit: Amount::from(5) });
        assert_eq!(open, [[1; 20], [2; 20]].concat());
        let channel = ChannelId { receiver, open_block: 0x0102_0304 };
        let top_up = transfer_data(payer, &ChannelOp::TopUp { channel, added: Amount::from(5) });
        assert_eq!(top_up, [&[1; 20][..], &[2; 20], &[1, 2, 3, 4]].concat());
    }
}
