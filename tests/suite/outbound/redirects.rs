//! The node cannot send tollpass to another address.

use std::sync::Arc;
use std::time::Duration;

use tollpass::chain::signer::Signer;
use tollpass::chain::{Chain, ChainError, ChainSettings};
use tollpass::protocol::{Address, Wei};

use crate::support::next::{Does, Next};
use crate::support::payer::KEY;
use crate::support::raw::{RawOrigin, soon};

#[tokio::test]
async fn a_redirect_of_the_node_is_an_error_and_leads_nowhere() {
    let elsewhere = RawOrigin::start().await;
    for status in [301, 302, 307, 308] {
        let answer = format!(
            "HTTP/1.1 {status} Moved\r\nLocation: http://{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            elsewhere.address
        );
        let node = Next::start(Does::Say(answer.leak()), None).await;
        let settings = ChainSettings {
            rpc_url: format!("http://{}", node.address),
            channel_manager: Address([1; 20]),
            confirmations: 1,
            start_block: 0,
            request_timeout: Duration::from_secs(5),
            poll_every: Duration::from_secs(5),
            confirm_timeout: Duration::from_secs(5),
            log_range: 1000,
            retry_timeout: Duration::ZERO,
            chain_id: None,
            max_fee_per_gas: Wei(1),
            max_fee: Wei(1),
            max_fees_per_day: Wei(1),
        };
        let chain = Chain::new(settings, Arc::new(Signer::new(&KEY).unwrap().into())).unwrap();
        let error = soon("an error", chain.balances()).await.unwrap_err();
        assert!(
            matches!(error, ChainError::NodeRejected { status: found, .. } if found == status),
            "{error:?}"
        );
        assert!(elsewhere.is_left_alone().await, "{status}");
    }
}
