// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// What the demo tokens share: balances, allowances, and a mint that is open to anyone, because this money is worth
/// nothing. A refused call reverts without a reason.
abstract contract Erc20 {
    string public name;
    string public symbol;
    uint8 public immutable decimals;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed _from, address indexed _to, uint256 _value);
    event Approval(address indexed _owner, address indexed _spender, uint256 _value);

    constructor(string memory _name, string memory _symbol, uint8 _decimals) {
        name = _name;
        symbol = _symbol;
        decimals = _decimals;
    }

    function mint(address _to, uint256 _value) external {
        require(_to != address(0) && _value <= type(uint256).max - totalSupply);
        totalSupply += _value;
        balanceOf[_to] += _value;
        emit Transfer(address(0), _to, _value);
    }

    /// Moves tokens and tells nobody: sent to a contract that does not expect them, they are lost.
    function transfer(address _to, uint256 _value) external returns (bool) {
        move(msg.sender, _to, _value);
        return true;
    }

    function transferFrom(address _from, address _to, uint256 _value) external returns (bool) {
        uint256 allowed = allowance[_from][msg.sender];
        require(_value <= allowed);
        allowance[_from][msg.sender] = allowed - _value;
        move(_from, _to, _value);
        return true;
    }

    function approve(address _spender, uint256 _value) external virtual returns (bool) {
        allowance[msg.sender][_spender] = _value;
        emit Approval(msg.sender, _spender, _value);
        return true;
    }

    function move(address _from, address _to, uint256 _value) internal {
        require(_to != address(0) && _value <= balanceOf[_from]);
        balanceOf[_from] -= _value;
        balanceOf[_to] += _value;
        emit Transfer(_from, _to, _value);
    }
}
