// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import {Erc20} from "./Erc20.sol";

/// A token of 6 decimals that also moves by authorizations that its owner signs and anyone may submit (EIP-3009), as USDC
/// does. Reverts have reasons in the words of USDC's, which facilitators tell apart.
contract AuthorizedToken is Erc20 {
    string public constant version = "2";

    bytes32 public constant TRANSFER_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 public constant RECEIVE_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 public constant CANCEL_AUTHORIZATION_TYPEHASH =
        keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");

    /// Half the order of the curve. A signature with a greater s is the malleable twin of another one.
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    /// Whether an authorization was used or canceled, by its authorizer and nonce.
    mapping(address => mapping(bytes32 => bool)) public authorizationState;

    event AuthorizationUsed(address indexed _authorizer, bytes32 indexed _nonce);
    event AuthorizationCanceled(address indexed _authorizer, bytes32 indexed _nonce);

    constructor() Erc20("Demo Dollar", "DUSD", 6) {}

    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(name)),
                keccak256(bytes(version)),
                block.chainid,
                address(this)
            )
        );
    }

    /// Moves tokens, no matter who calls it.
    function transferWithAuthorization(
        address _from,
        address _to,
        uint256 _value,
        uint256 _validAfter,
        uint256 _validBefore,
        bytes32 _nonce,
        uint8 _v,
        bytes32 _r,
        bytes32 _s
    ) external {
        transferWithAuthorization(_from, _to, _value, _validAfter, _validBefore, _nonce, abi.encodePacked(_r, _s, _v));
    }

    function transferWithAuthorization(
        address _from,
        address _to,
        uint256 _value,
        uint256 _validAfter,
        uint256 _validBefore,
        bytes32 _nonce,
        bytes memory _signature
    ) public {
        useWithin(_validAfter, _validBefore, _from, _nonce);
        check(
            _from,
            keccak256(
                abi.encode(
                    TRANSFER_WITH_AUTHORIZATION_TYPEHASH, _from, _to, _value, _validAfter, _validBefore, _nonce
                )
            ),
            _signature
        );
        moveAuthorized(_from, _to, _value);
    }

    /// Moves tokens if the payee itself calls it.
    function receiveWithAuthorization(
        address _from,
        address _to,
        uint256 _value,
        uint256 _validAfter,
        uint256 _validBefore,
        bytes32 _nonce,
        uint8 _v,
        bytes32 _r,
        bytes32 _s
    ) external {
        receiveWithAuthorization(_from, _to, _value, _validAfter, _validBefore, _nonce, abi.encodePacked(_r, _s, _v));
    }

    function receiveWithAuthorization(
        address _from,
        address _to,
        uint256 _value,
        uint256 _validAfter,
        uint256 _validBefore,
        bytes32 _nonce,
        bytes memory _signature
    ) public {
        require(_to == msg.sender, "caller must be the payee");
        useWithin(_validAfter, _validBefore, _from, _nonce);
        check(
            _from,
            keccak256(
                abi.encode(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, _from, _to, _value, _validAfter, _validBefore, _nonce)
            ),
            _signature
        );
        moveAuthorized(_from, _to, _value);
    }

    /// Revokes an authorization that was not used yet.
    function cancelAuthorization(address _authorizer, bytes32 _nonce, uint8 _v, bytes32 _r, bytes32 _s) external {
        cancelAuthorization(_authorizer, _nonce, abi.encodePacked(_r, _s, _v));
    }

    function cancelAuthorization(address _authorizer, bytes32 _nonce, bytes memory _signature) public {
        use(_authorizer, _nonce);
        check(_authorizer, keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, _authorizer, _nonce)), _signature);
        emit AuthorizationCanceled(_authorizer, _nonce);
    }

    function useWithin(uint256 _validAfter, uint256 _validBefore, address _authorizer, bytes32 _nonce) private {
        require(block.timestamp > _validAfter, "authorization is not yet valid");
        require(block.timestamp < _validBefore, "authorization is expired");
        use(_authorizer, _nonce);
        emit AuthorizationUsed(_authorizer, _nonce);
    }

    function use(address _authorizer, bytes32 _nonce) private {
        require(!authorizationState[_authorizer][_nonce], "authorization is used or canceled");
        authorizationState[_authorizer][_nonce] = true;
    }

    /// v must be 27 or 28, and s low. Contracts cannot sign (no ERC-1271).
    function check(address _signer, bytes32 _structHash, bytes memory _signature) private view {
        require(_signature.length == 65, "invalid signature");
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(_signature, 32))
            s := mload(add(_signature, 64))
            v := byte(0, mload(add(_signature, 96)))
        }
        require(uint256(s) <= HALF_ORDER, "invalid signature");
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), _structHash));
        address signer = ecrecover(digest, v, r, s);
        require(signer != address(0) && signer == _signer, "invalid signature");
    }

    function moveAuthorized(address _from, address _to, uint256 _value) private {
        require(_value <= balanceOf[_from], "transfer amount exceeds balance");
        move(_from, _to, _value);
    }
}
