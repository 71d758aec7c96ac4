//! What the set-up page and the commands say about a proxy with TLS.

use crate::encrypted::Scene;
use crate::pays::QUICK;
use crate::program::{run, text};
use crate::support::curl::curl_of;
use crate::support::fair::Fair;
use crate::support::office::{NAME, Office};
use crate::support::payer::Alice;

#[tokio::test]
async fn the_page_shows_https_urls() {
    let scene = Scene::open("", |_| {}).await;
    let port = scene.proxy.address.port();
    let ca = scene.office.ca_file();
    let resolve = format!("{NAME}:{port}:127.0.0.1");
    for host in [NAME, "127.0.0.1"] {
        let base = format!("https://{host}:{port}");
        let get = async |path: &str| {
            let url = format!("{base}{path}");
            let more = ["--resolve", &resolve, "--cacert", ca.to_str().unwrap(), &url];
            curl_of(None, None, &more).await.got
        };
        let page = get("/").await;
        let page = page.text();
        assert!(page.contains(&format!("proxy        {base}\n")), "{page}");
        assert!(
            page.contains(&format!("curl -x {base} ")) && !page.contains(&format!("http://{host}:{port}")),
            "{page}"
        );
        let route = if host == NAME { "/TOKEN/seller (" } else { "/seller\n" };
        assert!(page.contains(&format!("Base URL {base}{route}")), "{page}");
        let pac = get("/proxy.pac").await;
        assert!(pac.text().contains(&format!("return \"HTTPS {host}:{port}; DIRECT\"")), "{}", pac.text());
    }
    let works = scene.curl(None, &["http://tollpass.local/"]).await;
    assert!(works.text().starts_with("It works"), "{works:?}");
    scene.proxy.stop().await;
}

#[tokio::test]
async fn run_without_a_wallet_has_a_port_without_tls() {
    let (office, fair) = (Office::new(), Fair::open().await);
    let config = office.at("proxy.toml");
    let top = format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{}", office.keys());
    std::fs::write(&config, top).unwrap();
    let url = format!("{}/free", fair.origin.url());
    let ran = run(&["run", "--config", text(&config), "--", "curl", "-sfi", &url]).await;
    assert!(ran.code == 0 && ran.out.to_lowercase().contains("via: 1.1 tollpass"), "{ran:?}");
}

#[tokio::test]
async fn env_prints_an_https_url_and_run_needs_none() {
    let office = Office::new();
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    alice.change("listen =", &format!("{}listen =", office.keys()));
    let config = alice.config_path();
    let url = format!("{}/paid", fair.origin.url());
    let paid =
        ["run", "--config", text(&config), "--", "sh", "-c", "echo $http_proxy; exec curl -s \"$0\"", &url];
    for is_serving in [false, true] {
        let proxy = if is_serving { Some(alice.serve(&[]).await) } else { None };
        // A port of its own, on loopback and without TLS.
        let ran = run(&paid).await;
        assert!(ran.out.starts_with("http://127.0.0.1:") && ran.out.contains("was paid for"), "{ran:?}");
        let Some(proxy) = proxy else { continue };
        let port = proxy.address.port();
        for (names, host) in
            [(&[NAME, "127.0.0.1"][..], "127.0.0.1"), (&[NAME], NAME), (&["*.test"], "127.0.0.1")]
        {
            office.put(&office.issue(names));
            let ran = run(&["env", "--config", text(&config)]).await;
            for name in ["http_proxy", "https_proxy", "HTTPS_PROXY"] {
                assert!(ran.out.contains(&format!("export {name}='https://{host}:{port}'\n")), "{ran:?}");
            }
            assert!(ran.errors.contains("speaks TLS") && ran.errors.contains("`tollpass run`"), "{ran:?}");
        }
        let status = run(&["status", "--config", text(&config)]).await;
        assert!(status.out.contains(&format!("listening on 127.0.0.1:{port} with TLS, ")), "{status:?}");
        proxy.terminate();
        proxy.ended().await;
    }
}
