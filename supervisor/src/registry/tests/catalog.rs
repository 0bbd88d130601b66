//! Lists of tags and referrers, from registries with and without them, and from those that would have us read for ever.

use super::*;

async fn listing(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> (Registry, Client) {
    let registry = Registry::start(answer).await;
    let client = registry.client("", Arc::new(NoCredentials));
    (registry, client)
}

fn page(tags: &str, link: &str) -> Vec<u8> {
    let body = format!(r#"{{"name":"repo/name","tags":{tags}}}"#);
    match link {
        "" => response("200 OK", &[], body.as_bytes()),
        link => response(
            "200 OK",
            &[("Link", &format!("<{link}>; rel=\"next\""))],
            body.as_bytes(),
        ),
    }
}

#[tokio::test]
async fn tags_come_in_pages() {
    let (registry, client) = listing(|number, head| match number {
        0 => page(r#"["a","b"]"#, "/v2/repo/name/tags/list?n=2&last=b"),
        1 => page(
            r#"["c"]"#,
            &format!("http://{}/v2/repo/name/tags/list?last=c", host_of(head)),
        ),
        _ => page("null", ""),
    })
    .await;
    assert_eq!(client.tags().await.unwrap(), ["a", "b", "c"]);
    let requests = registry.requests();
    assert!(
        requests[0].starts_with("GET /v2/repo/name/tags/list?n=1000 "),
        "{}",
        requests[0]
    );
    assert!(
        requests[1].starts_with("GET /v2/repo/name/tags/list?n=2&last=b "),
        "{}",
        requests[1]
    );
    assert_eq!(requests.len(), 3);
}

#[tokio::test]
async fn pages_lead_nowhere_else_and_come_to_an_end() {
    let other = Registry::start(|_, _| page(r#"["x"]"#, "")).await;
    let elsewhere = format!("http://{}/v2/repo/name/tags/list", other.address);
    let (_registry, client) = listing(move |_, _| page(r#"["a"]"#, &elsewhere)).await;
    assert_eq!(client.tags().await.unwrap_err().kind(), Kind::InvalidArgument);
    assert!(other.requests().is_empty());

    let (registry, client) =
        listing(|number, _| page("[]", &format!("/v2/repo/name/tags/list?last={}", number % 3))).await;
    assert_eq!(client.tags().await.unwrap_err().kind(), Kind::InvalidArgument);
    assert!(registry.requests().len() <= 5);

    let (registry, client) =
        listing(|number, _| page("[]", &format!("/v2/repo/name/tags/list?last={number}"))).await;
    assert_eq!(client.tags().await.unwrap_err().kind(), Kind::OutOfRange);
    assert_eq!(registry.requests().len(), 1000);

    let many = format!("[{}]", vec!["\"a\""; 60_000].join(","));
    let (_registry, client) =
        listing(move |number, _| page(&many, &format!("/v2/repo/name/tags/list?last={number}"))).await;
    assert_eq!(client.tags().await.unwrap_err().kind(), Kind::OutOfRange);

    for bad in [r#"["../a"]"#, r#"["a\u001b[2J"]"#, "7"] {
        let (_registry, client) = listing(move |_, _| page(bad, "")).await;
        assert_eq!(
            client.tags().await.unwrap_err().kind(),
            Kind::InvalidArgument,
            "{bad}"
        );
    }
    let (_registry, client) = listing(|_, _| response("404 Not Found", &[], b"")).await;
    assert!(client.tags().await.unwrap_err().is_not_found());
}

fn index() -> Vec<u8> {
    let entry = |kind: &str, data: &[u8]| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":7,"artifactType":"{kind}","annotations":{{"k":"v"}}}}"#,
            Digest::of(data)
        )
    };
    let entries = [entry("signature", b"1"), entry("sbom", b"2")].join(",");
    format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#).into_bytes()
}

#[tokio::test]
async fn referrers_come_from_the_api_or_from_the_tag_that_stands_for_it() {
    let digest = Digest::of(DATA);
    let api = format!("GET /v2/repo/name/referrers/{digest} ");
    let tag = format!("GET /v2/repo/name/manifests/sha256-{} ", digest.hex());
    for with_api in [true, false] {
        let (api, tag) = (api.clone(), tag.clone());
        let (registry, client) = listing(move |_, head| match head {
            head if with_api && head.starts_with(&api) => response("200 OK", &[], &index()),
            head if !with_api && head.starts_with(&tag) => response("200 OK", &[], &index()),
            _ => response("404 Not Found", &[], b""),
        })
        .await;
        let all = client.referrers(&digest, &[]).await.unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].digest.clone(), all[0].size),
            (Digest::of(b"1").to_string(), 7)
        );
        assert_eq!(all[0].annotations["k"], "v");
        let some = client.referrers(&digest, &["sbom".to_owned()]).await.unwrap();
        assert_eq!(some, all[1..]);
        assert_eq!(registry.requests().len(), if with_api { 2 } else { 4 });
    }
    let (_registry, client) = listing(|_, _| response("404 Not Found", &[], b"")).await;
    assert!(client.referrers(&digest, &[]).await.unwrap().is_empty());
    for bad in [
        "{}",
        r#"{"manifests":[],"layers":[]}"#,
        r#"{"manifests":[{"mediaType":"","digest":"sha256:..","size":1}]}"#,
    ] {
        let (_registry, client) = listing(move |_, _| response("200 OK", &[], bad.as_bytes())).await;
        assert_eq!(
            client.referrers(&digest, &[]).await.unwrap_err().kind(),
            Kind::InvalidArgument,
            "{bad}"
        );
    }
}
