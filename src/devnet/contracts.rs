//! The contracts of the development network, compiled from `contracts/*.sol` by `.ci/contracts`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ethers_core::abi::{Contract, Token};
use ethers_core::types::Bytes;
use serde::Deserialize;

/// A compiled contract.
#[derive(Clone, Debug, Deserialize)]
pub struct Compiled {
    /// Its ABI.
    pub abi: Contract,
    /// The creation code, without constructor arguments.
    pub bytecode: Bytes,
}

/// A call does not match the contract's ABI.
#[derive(Debug, thiserror::Error)]
#[error("the call does not match the contract's ABI: {0}")]
pub struct NotInInterface(#[from] ethers_core::abi::Error);

/// The channel contract: constructor `(address token, uint32 challenge_period, address[] trusted)`.
pub fn channel_manager() -> &'static Compiled {
    &COMPILED["ChannelManager"]
}

/// The token with ERC-223's transfer; its constructor has no arguments.
pub fn token() -> &'static Compiled {
    &COMPILED["Token"]
}

/// The token without it; its constructor has no arguments.
pub fn plain_token() -> &'static Compiled {
    &COMPILED["PlainToken"]
}

/// The token with EIP-3009's authorizations and 6 decimals, like USDC; its constructor has no arguments.
pub fn authorized_token() -> &'static Compiled {
    &COMPILED["AuthorizedToken"]
}

/// The name in the EIP-712 domain of [`authorized_token`].
pub const AUTHORIZED_NAME: &str = "Demo Dollar";
/// The version in that domain.
pub const AUTHORIZED_VERSION: &str = "2";

impl Compiled {
    /// The data of the transaction that creates the contract.
    pub fn creation(&self, arguments: &[Token]) -> Result<Bytes, NotInInterface> {
        let Some(constructor) = self.abi.constructor() else { return Ok(self.bytecode.clone()) };
        Ok(constructor.encode_input(self.bytecode.to_vec(), arguments)?.into())
    }

    /// The data of a call to the function `name`; among overloads, the one with this number of arguments.
    pub fn call(&self, name: &str, arguments: &[Token]) -> Result<Bytes, NotInInterface> {
        let functions = self.abi.functions_by_name(name)?;
        let function = functions.iter().find(|function| function.inputs.len() == arguments.len());
        let function = function.ok_or_else(|| ethers_core::abi::Error::InvalidName(name.to_owned()))?;
        Ok(function.encode_input(arguments)?.into())
    }
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test parses it")]
static COMPILED: LazyLock<BTreeMap<String, Compiled>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("contracts/compiled.json")).expect("compiled.json is well-formed")
});

#[cfg(test)]
mod tests {
    use crate::devnet::contracts::*;

    #[test]
    fn the_interface_has_the_selectors_and_topics_of_the_original() {
        let selector = |compiled: &Compiled, name: &str, inputs: usize| {
            let functions = compiled.abi.functions_by_name(name).unwrap();
            let function = functions.iter().find(|function| function.inputs.len() == inputs).unwrap();
            ethers_core::utils::hex::encode(function.short_signature())
        };
        assert_eq!(selector(token(), "transfer", 3), "be45fd62");
        assert_eq!(selector(token(), "transfer", 2), "a9059cbb");
        assert_eq!(selector(channel_manager(), "tokenFallback", 3), "c0ee0b8a");
        for (name, signature) in [
            ("createChannel", "createChannel(address,uint192)"),
            ("topUp", "topUp(address,uint32,uint192)"),
            ("createChannelDelegate", "createChannelDelegate(address,address,uint192)"),
            ("topUpDelegate", "topUpDelegate(address,address,uint32,uint192)"),
            ("cooperativeClose", "cooperativeClose(address,uint32,uint192,bytes,bytes)"),
            ("uncooperativeClose", "uncooperativeClose(address,uint32,uint192)"),
            ("settle", "settle(address,uint32)"),
            ("withdraw", "withdraw(uint32,uint192,bytes)"),
        ] {
            let expected = ethers_core::utils::hex::encode(ethers_core::utils::id(signature));
            let inputs = signature.matches(',').count() + 1;
            assert_eq!(selector(channel_manager(), name, inputs), expected, "{signature}");
        }
        // Those of EIP-3009 and, with the signature as one argument, of version 2.2 of USDC.
        for (name, inputs, expected) in [
            ("transferWithAuthorization", 9, "e3ee160e"),
            ("transferWithAuthorization", 7, "cf092995"),
            ("receiveWithAuthorization", 9, "ef55bec6"),
            ("receiveWithAuthorization", 7, "88b7ab63"),
            ("cancelAuthorization", 5, "5a049a70"),
            ("cancelAuthorization", 3, "b7b72899"),
            ("authorizationState", 2, "e94a0102"),
        ] {
            assert_eq!(selector(authorized_token(), name, inputs), expected, "{name}, {inputs} arguments");
        }
        let topic = channel_manager().abi.event("ChannelCreated").unwrap().signature();
        assert_eq!(topic.0, ethers_core::utils::keccak256("ChannelCreated(address,address,uint192)"));
        assert!(plain_token().abi.functions_by_name("transfer").unwrap().len() == 1);
    }
}
