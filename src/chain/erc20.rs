//! Calls of tokens (ERC-20).

use ethers_core::abi::Token;
use ethers_core::types::U256;

use crate::chain::contract_call::ContractCall;
use crate::protocol::Address;

/// How much `owner` has: a `uint256`.
pub(super) fn balance_of(owner: Address) -> ContractCall {
    ContractCall::new("balanceOf(address)", [Token::Address(owner.into())])
}

/// The decimals of an amount: a `uint8`.
pub(super) fn decimals() -> ContractCall {
    ContractCall::new("decimals()", [])
}

/// The token's symbol: a `string`.
pub(super) fn symbol() -> ContractCall {
    ContractCall::new("symbol()", [])
}

/// How much of what `owner` has `spender` may move: a `uint256`.
pub(super) fn allowance(owner: Address, spender: Address) -> ContractCall {
    ContractCall::new(
        "allowance(address,address)",
        [Token::Address(owner.into()), Token::Address(spender.into())],
    )
}

/// Lets `spender` move this much.
pub(super) fn approve(spender: Address, value: U256) -> ContractCall {
    ContractCall::new("approve(address,uint256)", [Token::Address(spender.into()), Token::Uint(value)])
}

#[cfg(test)]
mod tests {
    use ethers_core::utils::hex;

    use crate::chain::erc20::*;

    #[test]
    fn calls_are_those_of_the_standard() {
        let (owner, spender) = (Address([1; 20]), Address([2; 20]));
        for (selector, call) in [
            ("70a08231", balance_of(owner)),
            ("313ce567", decimals()),
            ("95d89b41", symbol()),
            ("dd62ed3e", allowance(owner, spender)),
            ("095ea7b3", approve(spender, U256::from(5))),
        ] {
            assert_eq!(hex::encode(&call.data()[..4]), selector, "{call:?}");
            assert_eq!(Ok(call.data()), call.checked_data(), "{call:?}");
        }
        let approve = hex::encode(approve(spender, U256::from(5)).data());
        assert_eq!(approve, format!("095ea7b3{:0>24}{}{:0>64x}", "", "02".repeat(20), 5));
    }
}
