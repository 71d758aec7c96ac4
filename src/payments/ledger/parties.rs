//! The columns that the rows of many payments share.

use serde::Serialize;

/// Who is paid, for which host, and under which rule. The journal has each once for many rows. Absent strings are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct LedgerParties {
    /// The host, with its port unless it is the scheme's default.
    pub host: String,
    /// The `[[client]]` that sent the request.
    pub client: String,
    /// The host pattern of the rule that allowed the payment.
    pub rule: String,
    /// The budgets that it counts in.
    pub budgets: Vec<String>,
    /// The payment scheme.
    pub scheme: String,
    /// The payee.
    pub payee: String,
    /// The network of the asset, as a CAIP-2 ID.
    pub network: String,
    /// The token on this network.
    pub token: String,
    /// The channel, `RECEIVER@BLOCK`.
    pub channel: String,
}
