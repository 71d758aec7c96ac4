// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// What this contract uses of Permit2.
interface SignatureTransfer {
    struct TokenPermissions {
        address token;
        uint256 amount;
    }

    struct PermitTransferFrom {
        TokenPermissions permitted;
        uint256 nonce;
        uint256 deadline;
    }

    struct SignatureTransferDetails {
        address to;
        uint256 requestedAmount;
    }

    function permitWitnessTransferFrom(
        PermitTransferFrom calldata _permit,
        SignatureTransferDetails calldata _details,
        address _owner,
        bytes32 _witness,
        string calldata _witnessType,
        bytes calldata _signature
    ) external;
}

/// Stands for the contract of x402 that redeems payments of the scheme exact, whose code no package carries: it moves what was
/// signed, to the payee that was signed, no matter who calls it.
contract ExactProxy {
    struct Witness {
        address to;
        uint256 validAfter;
    }

    SignatureTransfer public constant PERMIT2 = SignatureTransfer(0x000000000022D473030F116dDEE9F6B43aC78BA3);
    bytes32 private constant WITNESS_TYPE = keccak256("Witness(address to,uint256 validAfter)");

    function settle(
        SignatureTransfer.PermitTransferFrom calldata _permit,
        address _owner,
        Witness calldata _witness,
        bytes calldata _signature
    ) external {
        require(block.timestamp >= _witness.validAfter);
        PERMIT2.permitWitnessTransferFrom(
            _permit,
            SignatureTransfer.SignatureTransferDetails(_witness.to, _permit.permitted.amount),
            _owner,
            keccak256(abi.encode(WITNESS_TYPE, _witness.to, _witness.validAfter)),
            "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)",
            _signature
        );
    }
}
