// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {Erc20} from "./Erc20.sol";

/// A contract that wants to know when it is sent tokens (ERC-223).
interface TokenReceiver {
    function tokenFallback(address _sender, uint256 _value, bytes calldata _data) external;
}

/// The demo's token: ERC-20 with the three-argument transfer of ERC-223.
contract Token is Erc20 {
    constructor() Erc20("Demo Token", "DEMO", 18) {}

    /// Moves tokens and, when they go to a contract, calls its `tokenFallback`; a refusal there undoes it all.
    function transfer(address _to, uint256 _value, bytes calldata _data) external returns (bool) {
        move(msg.sender, _to, _value);
        if (_to.code.length > 0) {
            TokenReceiver(_to).tokenFallback(msg.sender, _value, _data);
        }
        return true;
    }
}
