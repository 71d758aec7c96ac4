//! HTTPS for programs that do not trust our CA: https targets in plain requests, `upgrade`, routes.

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use tollpass::channels::{Operation, OperationOutcome};
use tollpass::devnet::origin;
use tollpass::protocol::Amount;

use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::Alice;
use crate::support::raw::{Raw, field};
use crate::support::secure::{Notary, Secure};
use crate::support::town::only;
use crate::support::wire::ask;

/// Trusts Bob's CA and upgrades plain requests to him.
fn upstream(notary: &Notary) -> String {
    format!("[upstream]\nca_file = \"{}\"\nupgrade = [\"127.0.0.1\"]\n", notary.ca_file().display())
}

#[tokio::test]
async fn each_way_without_a_certificate_pays_for_the_same_resource() {
    for alpn in [&["http/1.1"][..], &["h2", "http/1.1"]] {
        let notary = Notary::new();
        let config = notary.certify("127.0.0.1", alpn).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let url = fair.origin.secure_url().unwrap();
        let route = format!("[[route]]\nprefix = \"/bob\"\norigin = \"{url}\"\n");
        let alice = Alice::with(&fair.market, &format!("{QUICK}{}{route}", upstream(&notary))).await;
        let proxy = alice.start().await;

        let in_plain = Request::get(format!("{url}/paid")).body(empty()).unwrap();
        let got = ask(proxy.address, in_plain).await;
        assert_eq!(got.status, StatusCode::OK, "{alpn:?} {got:?}");
        let first = fair.origin.exchanges();
        let upgraded = format!("{}/paid", url.replace("https://", "http://"));
        let got = curl(Some(proxy.address), &[&upgraded]).await.got;
        assert_eq!(got.status, StatusCode::OK, "{alpn:?} {got:?}");
        let got = curl(None, &[&format!("http://{}/bob/paid", proxy.address)]).await.got;
        assert_eq!(got.status, StatusCode::OK, "{alpn:?} {got:?}");
        assert_eq!(proxy.promised().await, Amount::from(3 * PRICE), "{alpn:?}");
        // One resource, one remembered price: only the first request had to get a 402.
        assert_eq!((fair.origin.payments(), fair.origin.exchanges() - first), (3, 2), "{alpn:?}");

        // The close is requested at the URL where it was paid.
        let channel = only(&proxy).await.id();
        let together = Operation::CloseTogether { channel, seller: None };
        let done = proxy.channels.operate(together).await.unwrap_or_else(|trouble| panic!("{trouble}"));
        assert!(matches!(done.outcome, OperationOutcome::Ended(ended) if ended == channel), "{done:?}");
        proxy.stop().await;
        fair.origin.stop().await;
    }
}

#[tokio::test]
async fn redirects_keep_a_program_on_the_proxy_where_its_host_is_listed() {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["http/1.1"]).await;
    let bob = Secure::serve(config, |request: Request<_>| async move {
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        let location = match request.uri().path() {
            "/here" => format!("https://{host}/there?x"),
            "/elsewhere" => "https://other.example/".to_owned(),
            path => return Response::new(Full::new(Bytes::from(format!("secure {path}")))),
        };
        let found = Response::builder().status(302).header(header::LOCATION, location);
        found.body(Full::default()).unwrap()
    })
    .await;
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}{}", upstream(&notary))).await;
    let proxy = alice.start().await;
    for (path, location) in [
        ("here", format!("http://{}/there?x", bob.address)),
        ("elsewhere", "https://other.example/".to_owned()),
    ] {
        let request = format!("GET http://{0}/{path} HTTP/1.1\r\nHost: {0}\r\n\r\n", bob.address);
        let head = Raw::asking(proxy.address, request).await.head().await;
        assert_eq!(field(&head, "location"), Some(location.as_str()), "{head}");
    }
    let got = curl(Some(proxy.address), &["-L", &format!("http://{}/here", bob.address)]).await.got;
    assert!(got.text().ends_with("\r\n\r\nsecure /there"), "{got:?}");
    // For an https target in a plain request, locations in the response use https.
    let request = format!("GET https://{0}/here HTTP/1.1\r\nHost: {0}\r\n\r\n", bob.address);
    let head = Raw::asking(proxy.address, request).await.head().await;
    assert_eq!(field(&head, "location"), Some(format!("https://{}/there?x", bob.address).as_str()), "{head}");
    proxy.stop().await;
    fair.origin.stop().await;
}

#[tokio::test]
async fn an_untrusted_origin_gets_no_request_on_any_path() {
    let (trusted, other) = (Notary::new(), Notary::new());
    let config = other.certify("127.0.0.1", &["http/1.1"]).await;
    let mallory = Secure::serve(config, |_| async { panic!("it was asked") as Response<String> }).await;
    let fair = Fair::open().await;
    let route = format!("[[route]]\nprefix = \"/m\"\norigin = \"https://{}\"\n", mallory.address);
    let alice = Alice::with(&fair.market, &format!("{QUICK}{}{route}", upstream(&trusted))).await;
    let proxy = alice.start().await;
    for target in
        [format!("https://{}/", mallory.address), format!("http://{}/", mallory.address), "/m/".to_owned()]
    {
        let host = if target.starts_with('/') { proxy.address } else { mallory.address };
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let head = Raw::asking(proxy.address, request).await.head().await;
        assert!(
            head.starts_with("HTTP/1.1 502 ") && head.contains("tls_certificate_error"),
            "{target}: {head}"
        );
    }
    assert_eq!(proxy.channels().await.len(), 0);
    proxy.stop().await;
    fair.origin.stop().await;
}
