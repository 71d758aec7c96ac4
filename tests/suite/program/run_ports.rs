//! The port that `tollpass run` has for its command: each way in counts in its report, and it closes with the run.

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tollpass::devnet::origin;

use super::runs::{PAID, Scene, Talk, ended};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE};
use crate::support::payer::Alice;
use crate::support::raw::soon;
use crate::support::secure::Notary;

/// A seller that also speaks https, and a route to it.
pub(super) async fn with_every_way_in(more: &str) -> (Scene, Notary) {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
    let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
    let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
    let more = format!(
        "{QUICK}[upstream]\nca_file = \"{}\"\n[[route]]\nprefix = \"/shop\"\norigin = \"{}\"\n{more}",
        notary.ca_file().display(),
        fair.origin.url()
    );
    let alice = Alice::with(&fair.market, &more).await;
    (Scene { fair, alice }, notary)
}

/// Requests the URLs `$0` (http) and `$1` (https): plain, through a tunnel, inside an intercepted one over HTTP/1.1 and
/// HTTP/2, and by a route.
pub(super) const EACH_WAY: &str = r#"
curl -q -sS "$0"
curl -q -sS --proxytunnel "$0"
curl -q -sS --http1.1 "$1"
curl -q -sS --http2 "$1"
curl -q -sS --noproxy '*' "$http_proxy/shop/paid"
"#;

#[tokio::test]
async fn the_report_has_each_way_in_and_no_other_programs_requests() {
    let (scene, _notary) = with_every_way_in("").await;
    let (url, secure) = (scene.url("/paid"), scene.fair.origin.secure_url().unwrap() + "/paid");
    let serving = scene.alice.serve(&[]).await;
    let mut other = Talk::start(scene.run(&[], &["sh", "-c", r#"curl -q -sS "$0"; cat"#, &url]));
    assert_eq!(other.hear().await + "\n", PAID);
    let ran = ended(scene.run(&[], &["sh", "-c", EACH_WAY, &url, &secure])).await;
    assert_eq!(ran.out, PAID.repeat(5), "{ran:?}");
    assert!(ran.errors.starts_with("tollpass: paid 5000 in 5 requests: "), "{ran:?}");
    let (_, errors) = other.end().await;
    assert!(errors.starts_with("tollpass: paid 1000 in 1 request: "), "{errors}");
    assert_eq!(scene.fair.origin.total_registered(), (6 * PRICE).into());
    serving.terminate();
    serving.ended().await;
}

#[tokio::test]
async fn the_port_closes_with_the_run_however_that_ends_and_their_number_is_bounded() {
    let mut scene = Scene::open().await;
    scene.alice.change("[[pay]]", "[limits]\nruns = 1\n\n[[pay]]");
    let serving = scene.alice.serve(&[]).await;
    for is_killed in [false, true] {
        let mut talk = Talk::start(scene.run(&[], &["sh", "-c", "echo ${http_proxy#http://}; cat"]));
        let address = talk.hear().await;
        TcpStream::connect(&address).await.unwrap();
        let more = ended(scene.run(&[], &["true"])).await;
        assert_eq!(more.status.code(), Some(125), "{more:?}");
        assert!(
            more.errors.contains("1 other `tollpass run` commands use the proxy (limits.runs)"),
            "{more:?}"
        );
        if is_killed {
            let id = talk.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
            kill_process(id, Signal::KILL).unwrap();
        }
        talk.end().await;
        soon("the end of accepting", async { while TcpStream::connect(&address).await.is_ok() {} }).await;
    }
    // There is room again.
    let done = async { while ended(scene.run(&[], &["true"])).await.status.code() != Some(0) {} };
    soon("the end of the last run", done).await;
    serving.terminate();
    serving.ended().await;
}
