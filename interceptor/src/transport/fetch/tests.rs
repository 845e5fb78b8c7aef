use super::*;
use crate::config::Upstream;
use crate::transport::trust::Roots;

fn fetcher() -> Fetcher {
    let dialer =
        Arc::new(Dialer::with_roots(&Upstream::default(), &Roots::load(&Upstream::default()).unwrap()).unwrap());
    Fetcher::new(move || Arc::clone(&dialer))
}

#[tokio::test]
async fn only_https_is_fetched_and_a_server_that_is_not_there_is_told() {
    let fetcher = fetcher();
    for url in ["http://127.0.0.1/keys", "ftp://127.0.0.1/", "/keys", "not a url"] {
        assert!(matches!(fetcher.get(url).await, Err(FetchError::Unreachable(_))), "{url}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fetcher.get(&format!("https://{free}/keys")).await.unwrap_err();
    assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
}
