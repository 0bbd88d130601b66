//! Layers that the registry does not have, from the URLs of their manifest.

use super::*;

async fn without_the_blob() -> Registry {
    Registry::start(|_, head| {
        authorising(head, &host_of(head)).unwrap_or_else(|| response("404 Not Found", &[], b""))
    })
    .await
}

fn serving(status: &'static str) -> impl Fn(usize, &str) -> Vec<u8> + Send + Sync {
    move |_, _| response(status, &[("WWW-Authenticate", "Basic realm=\"give\"")], DATA)
}

#[tokio::test]
async fn a_layer_comes_from_its_url_when_the_registry_does_not_have_it() {
    let registry = without_the_blob().await;
    let gone = Registry::start(serving("410 Gone")).await;
    let elsewhere = Registry::start(serving("200 OK")).await;
    let urls = [
        "ftp://127.0.0.1/layer".to_owned(),
        format!("http://{}/layer", gone.address),
        format!("http://{}/layer?signature=x", elsewhere.address),
    ];
    let client = registry.client("", Arc::new(Password));
    let fetched = fetch_by(&client, &blob(DATA), &urls, 0, &one_request()).await;
    assert_eq!(fetched.unwrap(), DATA);
    let requests = elsewhere.requests();
    assert!(requests[0].starts_with("GET /layer?signature=x "), "{requests:?}");
    for request in requests.iter().chain(&gone.requests()) {
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
    }
}

#[tokio::test]
async fn no_credentials_go_to_a_url_that_asks_for_them() {
    let registry = without_the_blob().await;
    let elsewhere = Registry::start(serving("401 Unauthorized")).await;
    let urls = [format!("http://{}/layer", elsewhere.address)];
    let client = registry.client("", Arc::new(Password));
    let error = fetch_by(&client, &blob(DATA), &urls, 0, &one_request())
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(elsewhere.requests().len(), 1);
    assert!(!elsewhere.requests()[0].to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn the_registry_is_asked_first() {
    let registry = Registry::start(|_, _| response("200 OK", &[], DATA)).await;
    let elsewhere = Registry::start(serving("200 OK")).await;
    let urls = [format!("http://{}/layer", elsewhere.address)];
    let client = registry.client("", Arc::new(NoCredentials));
    let fetched = fetch_by(&client, &blob(DATA), &urls, 0, &one_request()).await;
    assert_eq!(fetched.unwrap(), DATA);
    assert!(elsewhere.requests().is_empty());
}
