// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface PaymentToken {
    function transfer(address _to, uint256 _value) external returns (bool);
    function transferFrom(address _from, address _to, uint256 _value) external returns (bool);
}

/// One-way payment channels with the interface, the events and the rules of RaidenMicroTransferChannels 0.2.0.
///
/// Written anew for current Solidity, for development chains only: it has seen no audit and must not hold
/// money that is worth anything. Like its model it reverts without a reason, takes signatures with a high s, and
/// has the lock-up trap: closing alone on less than was withdrawn is accepted and can never be settled.
contract ChannelManager {
    struct Channel {
        uint192 deposit;
        uint32 open_block_number;
    }

    struct ClosingRequest {
        uint192 closing_balance;
        uint32 settle_block_number;
    }

    string public constant version = "0.2.0";
    uint256 public constant channel_deposit_bugbounty_limit = 100 * 10 ** 18;

    address public immutable owner_address;
    uint32 public immutable challenge_period;
    PaymentToken public immutable token;

    mapping(bytes32 => Channel) public channels;
    mapping(bytes32 => ClosingRequest) public closing_requests;
    mapping(bytes32 => uint192) public withdrawn_balances;
    mapping(address => bool) public trusted_contracts;

    event ChannelCreated(address indexed _sender_address, address indexed _receiver_address, uint192 _deposit);
    event ChannelToppedUp(
        address indexed _sender_address,
        address indexed _receiver_address,
        uint32 indexed _open_block_number,
        uint192 _added_deposit
    );
    event ChannelCloseRequested(
        address indexed _sender_address,
        address indexed _receiver_address,
        uint32 indexed _open_block_number,
        uint192 _balance
    );
    event ChannelSettled(
        address indexed _sender_address,
        address indexed _receiver_address,
        uint32 indexed _open_block_number,
        uint192 _balance,
        uint192 _receiver_tokens
    );
    event ChannelWithdraw(
        address indexed _sender_address,
        address indexed _receiver_address,
        uint32 indexed _open_block_number,
        uint192 _withdrawn_balance
    );
    event TrustedContract(address indexed _trusted_contract_address, bool _trusted_status);

    modifier onlyOwner() {
        require(msg.sender == owner_address);
        _;
    }

    modifier onlyTrusted() {
        require(trusted_contracts[msg.sender]);
        _;
    }

    constructor(address _token_address, uint32 _challenge_period, address[] memory _trusted_contracts) {
        require(_token_address.code.length > 0 && _challenge_period >= 500);
        token = PaymentToken(_token_address);
        challenge_period = _challenge_period;
        owner_address = msg.sender;
        trust(_trusted_contracts);
    }

    // Opening and topping up.

    /// Called by the token (ERC-223). 40 bytes of data, sender and receiver, open a channel; 44 bytes, with the
    /// open block after them, top one up. Only a trusted contract may name a sender other than itself.
    function tokenFallback(address _sender_address, uint256 _deposit, bytes calldata _data) external {
        require(msg.sender == address(token));
        require(_data.length == 40 || _data.length == 44);
        uint192 deposit = uint192(_deposit);
        require(deposit == _deposit);
        address sender = address(bytes20(_data[0:20]));
        address receiver = address(bytes20(_data[20:40]));
        require(_sender_address == sender || trusted_contracts[_sender_address]);
        if (_data.length == 40) {
            open(sender, receiver, deposit);
        } else {
            add(sender, receiver, uint32(bytes4(_data[40:44])), deposit);
        }
    }

    function createChannel(address _receiver_address, uint192 _deposit) external {
        open(msg.sender, _receiver_address, _deposit);
        collect(_deposit);
    }

    function createChannelDelegate(address _sender_address, address _receiver_address, uint192 _deposit)
        external
        onlyTrusted
    {
        open(_sender_address, _receiver_address, _deposit);
        collect(_deposit);
    }

    function topUp(address _receiver_address, uint32 _open_block_number, uint192 _added_deposit) external {
        add(msg.sender, _receiver_address, _open_block_number, _added_deposit);
        collect(_added_deposit);
    }

    function topUpDelegate(
        address _sender_address,
        address _receiver_address,
        uint32 _open_block_number,
        uint192 _added_deposit
    ) external onlyTrusted {
        add(_sender_address, _receiver_address, _open_block_number, _added_deposit);
        collect(_added_deposit);
    }

    // Taking out and closing.

    /// The receiver takes out what it holds a proof for, beyond what it took before.
    function withdraw(uint32 _open_block_number, uint192 _balance, bytes calldata _balance_msg_sig) external {
        address sender = extractBalanceProofSignature(msg.sender, _open_block_number, _balance, _balance_msg_sig);
        bytes32 key = getKey(sender, msg.sender, _open_block_number);
        require(channels[key].open_block_number > 0 && closing_requests[key].settle_block_number == 0);
        uint192 withdrawn = withdrawn_balances[key];
        require(_balance <= channels[key].deposit && withdrawn < _balance);
        uint192 moved = _balance - withdrawn;
        withdrawn_balances[key] = _balance;
        pay(msg.sender, moved);
        emit ChannelWithdraw(sender, msg.sender, _open_block_number, moved);
    }

    /// Settles at once on what both signed; also during the challenge period. Anyone may send it.
    function cooperativeClose(
        address _receiver_address,
        uint32 _open_block_number,
        uint192 _balance,
        bytes calldata _balance_msg_sig,
        bytes calldata _closing_sig
    ) external {
        address sender =
            extractBalanceProofSignature(_receiver_address, _open_block_number, _balance, _balance_msg_sig);
        address receiver = extractClosingSignature(sender, _open_block_number, _balance, _closing_sig);
        require(receiver == _receiver_address);
        settleChannel(sender, receiver, _open_block_number, _balance);
    }

    /// The sender asks to close on `_balance`, which starts the challenge period. What was withdrawn is not
    /// looked at: on less than that, the channel is locked up.
    function uncooperativeClose(address _receiver_address, uint32 _open_block_number, uint192 _balance) external {
        bytes32 key = getKey(msg.sender, _receiver_address, _open_block_number);
        require(channels[key].open_block_number > 0 && closing_requests[key].settle_block_number == 0);
        require(_balance <= channels[key].deposit);
        closing_requests[key] = ClosingRequest(_balance, uint32(block.number) + challenge_period);
        emit ChannelCloseRequested(msg.sender, _receiver_address, _open_block_number, _balance);
    }

    /// The sender settles on the balance of its closing request, in a block after the settle block.
    function settle(address _receiver_address, uint32 _open_block_number) external {
        ClosingRequest memory closing = closing_requests[getKey(msg.sender, _receiver_address, _open_block_number)];
        require(closing.settle_block_number > 0 && block.number > closing.settle_block_number);
        settleChannel(msg.sender, _receiver_address, _open_block_number, closing.closing_balance);
    }

    // Trusted contracts: those that may open and top up for others.

    function addTrustedContracts(address[] calldata _trusted_contracts) external onlyOwner {
        trust(_trusted_contracts);
    }

    function removeTrustedContracts(address[] calldata _trusted_contracts) external onlyOwner {
        for (uint256 i = 0; i < _trusted_contracts.length; i++) {
            if (trusted_contracts[_trusted_contracts[i]]) {
                trusted_contracts[_trusted_contracts[i]] = false;
                emit TrustedContract(_trusted_contracts[i], false);
            }
        }
    }

    // Views.

    function getKey(address _sender_address, address _receiver_address, uint32 _open_block_number)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encodePacked(_sender_address, _receiver_address, _open_block_number));
    }

    /// The settle block is 0 while nobody asked to close. Reverts when there is no such channel.
    function getChannelInfo(address _sender_address, address _receiver_address, uint32 _open_block_number)
        external
        view
        returns (bytes32, uint192, uint32, uint192, uint192)
    {
        bytes32 key = getKey(_sender_address, _receiver_address, _open_block_number);
        require(channels[key].open_block_number > 0);
        ClosingRequest memory closing = closing_requests[key];
        return (
            key,
            channels[key].deposit,
            closing.settle_block_number,
            closing.closing_balance,
            withdrawn_balances[key]
        );
    }

    /// Who signed this balance proof.
    function extractBalanceProofSignature(
        address _receiver_address,
        uint32 _open_block_number,
        uint192 _balance,
        bytes calldata _balance_msg_sig
    ) public view returns (address) {
        bytes32 schema = keccak256(
            "string message_idaddress receiveruint32 block_createduint192 balanceaddress contract"
        );
        bytes32 values = keccak256(
            abi.encodePacked(
                "Sender balance proof signature",
                _receiver_address,
                _open_block_number,
                _balance,
                address(this)
            )
        );
        return signerOf(keccak256(abi.encodePacked(schema, values)), _balance_msg_sig);
    }

    /// Who agreed to close on this balance.
    function extractClosingSignature(
        address _sender_address,
        uint32 _open_block_number,
        uint192 _balance,
        bytes calldata _closing_sig
    ) public view returns (address) {
        bytes32 schema = keccak256(
            "string message_idaddress senderuint32 block_createduint192 balanceaddress contract"
        );
        bytes32 values = keccak256(
            abi.encodePacked(
                "Receiver closing signature",
                _sender_address,
                _open_block_number,
                _balance,
                address(this)
            )
        );
        return signerOf(keccak256(abi.encodePacked(schema, values)), _closing_sig);
    }

    // Below: what the calls above are made of.

    function open(address _sender, address _receiver, uint192 _deposit) private {
        require(_deposit <= channel_deposit_bugbounty_limit);
        uint32 number = uint32(block.number);
        bytes32 key = getKey(_sender, _receiver, number);
        require(channels[key].open_block_number == 0);
        channels[key] = Channel(_deposit, number);
        emit ChannelCreated(_sender, _receiver, _deposit);
    }

    function add(address _sender, address _receiver, uint32 _open_block_number, uint192 _added) private {
        bytes32 key = getKey(_sender, _receiver, _open_block_number);
        Channel storage channel = channels[key];
        require(channel.open_block_number > 0 && closing_requests[key].settle_block_number == 0);
        require(_added > 0 && _added <= channel_deposit_bugbounty_limit - channel.deposit);
        channel.deposit += _added;
        emit ChannelToppedUp(_sender, _receiver, _open_block_number, _added);
    }

    function settleChannel(address _sender, address _receiver, uint32 _open_block_number, uint192 _balance)
        private
    {
        bytes32 key = getKey(_sender, _receiver, _open_block_number);
        Channel memory channel = channels[key];
        uint192 withdrawn = withdrawn_balances[key];
        require(channel.open_block_number > 0);
        require(_balance <= channel.deposit && withdrawn <= _balance);
        delete channels[key];
        delete closing_requests[key];
        delete withdrawn_balances[key];
        pay(_receiver, _balance - withdrawn);
        pay(_sender, channel.deposit - _balance);
        emit ChannelSettled(_sender, _receiver, _open_block_number, _balance, _balance - withdrawn);
    }

    function collect(uint192 _value) private {
        require(token.transferFrom(msg.sender, address(this), _value));
    }

    function pay(address _to, uint192 _value) private {
        require(token.transfer(_to, _value));
    }

    function trust(address[] memory _contracts) private {
        for (uint256 i = 0; i < _contracts.length; i++) {
            if (_contracts[i].code.length > 0) {
                trusted_contracts[_contracts[i]] = true;
                emit TrustedContract(_contracts[i], true);
            }
        }
    }

    /// v is 0, 1, 27 or 28. A high s is taken, as ever.
    function signerOf(bytes32 _digest, bytes calldata _signature) private pure returns (address signer) {
        require(_signature.length == 65);
        uint8 v = uint8(_signature[64]);
        if (v < 27) {
            v = v < 2 ? v + 27 : 0;
        }
        signer = ecrecover(_digest, v, bytes32(_signature[0:32]), bytes32(_signature[32:64]));
        require(signer != address(0));
    }
}
