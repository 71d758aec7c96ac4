// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {Erc20} from "./Erc20.sol";

/// A token without the transfer of ERC-223, as strict about allowances as old tokens are: one that is not
/// zero cannot be changed to another that is not zero.
contract PlainToken is Erc20 {
    constructor() Erc20("Plain Token", "PLAIN", 18) {}

    function approve(address _spender, uint256 _value) external override returns (bool) {
        require(_value == 0 || allowance[msg.sender][_spender] == 0);
        allowance[msg.sender][_spender] = _value;
        emit Approval(msg.sender, _spender, _value);
        return true;
    }
}
