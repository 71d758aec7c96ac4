//! Sellers that ask within the result of an MCP tool.

use super::*;
use crate::support::payer::Program;

const ASKS: &str = r#"event: message
data: {"jsonrpc":"2.0","id":1,"result":{"isError":true,"structuredContent":{"x402Version":2,"accepts":[]}}}

"#;

#[tokio::test]
async fn a_payment_that_is_asked_for_within_a_200_is_not_made_and_the_log_says_so() {
    let seller = Mallory::spawn(|_| Answer::new(StatusCode::OK, "").with_content(Content::Text(ASKS))).await;
    let alice = Alice::without_chain(RULE);
    let proxy: Program = alice.serve(&[]).await;
    let mcp = HeaderMap::from_iter([(
        HeaderName::from_static("mcp-protocol-version"),
        "2025-06-18".parse().unwrap(),
    )]);
    for headers in [mcp, HeaderMap::new()] {
        let url = format!("http://localhost:{}/mcp?key=secret", seller.address().port());
        let mut request = Request::post(url).body(empty()).unwrap();
        request.headers_mut().extend(headers);
        let got = tokio::time::timeout(PATIENCE, ask(proxy.address, request)).await.expect("no answer");
        assert_eq!((got.status, got.text()), (StatusCode::OK, ASKS));
    }
    proxy.terminate();
    let (_, log) = proxy.ended().await;
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains("within the result of an MCP tool")).collect();
    assert!(told.len() == 1 && told[0].contains("/mcp") && !log.contains("secret"), "{log}");
}
