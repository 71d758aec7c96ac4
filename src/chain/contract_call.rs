//! A call of a contract, encoded as its ABI says.

use ethers_core::abi::{Token, encode};
use ethers_core::types::Bytes;
use ethers_core::utils::id;

/// A function of a contract, with its arguments.
#[derive(Clone, Debug)]
pub(super) struct ContractCall {
    /// The function's name and the types of its arguments, such as `approve(address,uint256)`.
    signature: &'static str,
    arguments: Vec<Token>,
}

impl ContractCall {
    /// The call of the function with this signature. The arguments must have the types that it names.
    pub fn new(signature: &'static str, arguments: impl Into<Vec<Token>>) -> Self {
        Self { signature, arguments: arguments.into() }
    }

    /// The name of the function.
    pub fn function(&self) -> &'static str {
        self.signature.split('(').next().unwrap_or(self.signature)
    }

    /// What a transaction or `eth_call` contains: the selector and the encoded arguments.
    pub fn data(&self) -> Bytes {
        [&id(self.signature)[..], &encode(&self.arguments)].concat().into()
    }

    /// The data again, by a library that parses the signature and checks the arguments against it.
    #[cfg(test)]
    pub fn checked_data(&self) -> Result<Bytes, String> {
        let function = ethers_core::abi::HumanReadableParser::parse_function(self.signature)
            .map_err(|error| error.to_string())?;
        function.encode_input(&self.arguments).map(Bytes::from).map_err(|error| error.to_string())
    }
}
