//! The contracts that payments by Permit2 name, at the same addresses on all networks.

use crate::protocol::Address;

/// Permit2.
pub const PERMIT2: Address =
    Address(*b"\x00\x00\x00\x00\x00\x22\xd4\x73\x03\x0f\x11\x6d\xde\xe9\xf6\xb4\x3a\xc7\x8b\xa3");
/// The contract of x402 that redeems payments of the scheme `exact`.
pub(super) const EXACT_PROXY: Address =
    Address(*b"\x40\x20\x85\xc2\x48\xee\xa2\x7d\x92\xe8\xb3\x0b\x2c\x58\xed\x07\xf9\xe2\x00\x01");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contracts_are_those_that_x402_names() {
        assert_eq!(PERMIT2.to_string(), "0x000000000022D473030F116dDEE9F6B43aC78BA3");
        assert_eq!(EXACT_PROXY.to_string(), "0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
    }
}
