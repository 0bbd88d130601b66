//! Mirrors that have nothing, lie, or stop half-way.

use super::*;

/// A client for `registry.invalid`, for which `servers` stand in this order.
fn mirrored(servers: &[&Registry], header: &'static str) -> Client {
    let directory = tempfile::tempdir().unwrap();
    let named = directory.path().join("registry.invalid");
    fs::create_dir(&named).unwrap();
    let (last, mirrors) = servers.split_last().unwrap();
    let mut text = format!("server = \"http://{}\"\n", last.address);
    for mirror in mirrors {
        text += &format!(
            "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
            mirror.address
        );
    }
    fs::write(named.join("hosts.toml"), text).unwrap();
    let options = Options {
        hosts: vec![directory.path().into()],
        headers: [("x-caller".parse().unwrap(), header.parse().unwrap())]
            .into_iter()
            .collect(),
        ..Options::default()
    };
    let reference = "registry.invalid/repo/name:v1".parse().unwrap();
    Client::new(reference, options, Arc::new(NoCredentials)).unwrap()
}

#[tokio::test]
async fn mirrors_are_asked_first_and_passed_over_when_they_fail_or_lie() {
    let digest = Digest::of(DATA).to_string();
    let empty = Registry::start(|_, _| response("404 Not Found", &[], b"")).await;
    let liar = Registry::start(|_, head| match head.starts_with("HEAD") {
        true => response("500 No", &[], b""),
        // As long as it should be, and something else.
        false => response("200 OK", &[("Content-Length", "16")], b"fedcba9876543210"),
    })
    .await;
    let server = Registry::start(move |_, head| {
        let headers = [
            ("Docker-Content-Digest", &*digest),
            ("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
            ("Content-Length", "16"),
        ];
        response(
            "200 OK",
            &headers,
            if head.starts_with("HEAD") { b"" } else { DATA },
        )
    })
    .await;
    let client = mirrored(&[&empty, &server], "mine");
    assert_eq!(
        client.resolve().await.unwrap().digest,
        Digest::of(DATA).to_string()
    );
    let asked = &empty.requests()[0];
    assert!(
        asked.starts_with("HEAD /v2/repo/name/manifests/v1?ns=registry.invalid "),
        "{asked}"
    );
    assert!(
        !asked.contains("x-caller"),
        "the caller's headers are for the registry: {asked}"
    );

    let client = mirrored(&[&liar, &server], "mine");
    assert_eq!(client.manifest(&blob(DATA)).await.unwrap(), DATA);
    assert_eq!(liar.requests().len(), 1);
}

#[tokio::test]
async fn a_blob_goes_on_at_the_next_host_where_the_last_one_stopped() {
    let mirror = Registry::start(|number, _| match number {
        0 => response("200 OK", &[("Content-Length", "16")], &DATA[..7]),
        _ => response("403 Forbidden", &[], b""),
    })
    .await;
    let server = Registry::start(|_, head| {
        assert!(head.contains("range: bytes=7-"), "{head}");
        response(
            "206 Partial Content",
            &[("Content-Range", "bytes 7-15/16")],
            &DATA[7..],
        )
    })
    .await;
    let client = mirrored(&[&mirror, &server], "mine");
    assert_eq!(fetch(&client, &blob(DATA), 0).await.unwrap(), DATA);
}
