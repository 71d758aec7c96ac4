// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A token of 6 decimals without EIP-3009, as strict as Tether's on Ethereum: its calls return nothing, and an allowance that is
/// not 0 must become 0 before it becomes another. Anyone can mint it.
contract StrictToken {
    uint8 public constant decimals = 6;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address _to, uint256 _value) external {
        balanceOf[_to] += _value;
    }

    function transferFrom(address _from, address _to, uint256 _value) external {
        allowance[_from][msg.sender] -= _value;
        balanceOf[_from] -= _value;
        balanceOf[_to] += _value;
    }

    function approve(address _spender, uint256 _value) external {
        require(_value == 0 || allowance[msg.sender][_spender] == 0);
        allowance[msg.sender][_spender] = _value;
    }
}
