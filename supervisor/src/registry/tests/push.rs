//! Pushes: what is sent, what is not, and what becomes of a broken one.

use super::*;

fn content(data: &'static [u8]) -> Content {
    Content {
        digest: Digest::of(data),
        size: data.len() as u64,
        open: Arc::new(move |offset, length| {
            let part = Bytes::from_static(&data[offset as usize..(offset + length) as usize]);
            Box::pin(futures_util::stream::iter([Ok(part)]))
        }),
    }
}

#[tokio::test]
async fn a_blob_is_sent_whole_and_only_when_it_is_missing() {
    let registry = Registry::start(|_, head| match head.split(' ').next().unwrap() {
        "HEAD" if head.contains(Digest::of(b"there").as_str()) => response("200 OK", &[], b""),
        "HEAD" => response("404 Not Found", &[], b""),
        "POST" if head.contains("mount=") => response("201 Created", &[], b""),
        "POST" => response("202 Accepted", &[("Location", "/v2/upload?state=1")], b""),
        _ => response("201 Created", &[], b""),
    })
    .await;
    let client = registry.pusher(Arc::new(NoCredentials));
    assert_eq!(
        client.push_blob(&content(b"there"), Some("other")).await.unwrap(),
        Pushed::Present
    );
    assert_eq!(registry.requests().len(), 1);
    assert_eq!(
        client
            .push_blob(&content(DATA), Some("other/repo"))
            .await
            .unwrap(),
        Pushed::Mounted
    );
    assert!(
        registry.requests()[2].contains("&from=other/repo "),
        "{}",
        registry.requests()[2]
    );
    assert_eq!(
        client.push_blob(&content(DATA), None).await.unwrap(),
        Pushed::Uploaded
    );
    let put = &registry.requests()[5];
    assert!(
        put.starts_with(&format!("PUT /v2/upload?state=1&digest={} ", Digest::of(DATA))),
        "{put}"
    );
    assert_eq!(registry.body(5), DATA);
}

#[tokio::test]
async fn a_broken_upload_is_continued_where_it_arrived() {
    let registry = Registry::start(|number, head| match (number, head.split(' ').next().unwrap()) {
        (_, "HEAD") => response("404 Not Found", &[], b""),
        (_, "POST") => response("202 Accepted", &[("Location", "/v2/upload")], b""),
        (2, "PUT") => Vec::new(),
        (_, "GET") => response("204 No Content", &[("Range", "0-4"), ("Location", "/v2/on")], b""),
        (_, "PATCH") => {
            assert!(head.starts_with("PATCH /v2/on "), "{head}");
            assert!(head.contains("content-range: 5-15"), "{head}");
            response("202 Accepted", &[("Range", "0-15"), ("Location", "/v2/end")], b"")
        }
        (_, "PUT") => {
            assert!(head.starts_with("PUT /v2/end?digest=sha256:"), "{head}");
            response("201 Created", &[], b"")
        }
        other => panic!("{other:?}"),
    })
    .await;
    let client = registry.pusher(Arc::new(NoCredentials));
    assert_eq!(
        client.push_blob(&content(DATA), None).await.unwrap(),
        Pushed::Uploaded
    );
    assert_eq!(registry.body(4), &DATA[5..]);
    assert_eq!(registry.requests().len(), 6);
}

/// The place of an upload is the registry's to name, but another host gets neither token nor credentials.
#[tokio::test]
async fn credentials_do_not_follow_an_upload() {
    let other = Registry::start(|_, _| {
        response(
            "401 Unauthorized",
            &[("WWW-Authenticate", "Basic realm=\"give\"")],
            b"",
        )
    })
    .await;
    let location = format!("http://{}/upload", other.address);
    let registry = Registry::start(move |_, head| {
        authorising(head, &host_of(head)).unwrap_or_else(|| match head.starts_with("HEAD") {
            true => response("404 Not Found", &[], b""),
            false => response("202 Accepted", &[("Location", &location)], b""),
        })
    })
    .await;
    let client = registry.pusher(Arc::new(Password));
    let error = client.push_blob(&content(DATA), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error}");
    assert!(error.to_string().contains("push access denied for"), "{error}");
    assert_eq!(other.requests().len(), 1);
    assert!(!other.requests()[0].to_lowercase().contains("authorization"));
    let asked = &registry.requests()[1];
    assert!(
        asked.contains("scope=repository%3Arepo%2Fname%3Apull%2Cpush "),
        "{asked}"
    );
}

#[tokio::test]
async fn a_registry_that_stores_another_manifest_is_refused() {
    let lie = Digest::of(b"something else").to_string();
    let registry =
        Registry::start(move |_, _| response("201 Created", &[("Docker-Content-Digest", &lie)], b"")).await;
    let client = registry.pusher(Arc::new(NoCredentials));
    let pushed = client
        .push_manifest("application/x", &Digest::of(DATA), Bytes::from_static(DATA), true)
        .await;
    assert_eq!(pushed.unwrap_err().kind(), Kind::FailedPrecondition);
    assert!(registry.requests()[0].starts_with("PUT /v2/repo/name/manifests/v1 "));
    assert_eq!(registry.body(0), DATA);
}
