//! What the fuzz target of registries does with its input: any answer is read or refused, and leads to no other host.

use std::path::Path;

use hyper::{
    HeaderMap, Uri,
    header::{HeaderName, HeaderValue, LINK, LOCATION, RANGE, RETRY_AFTER},
};

use super::{
    Reference, authorization, blob, catalog, challenge, endpoint, foreign, hosts, http, paging, push, retry,
};

/// Reads `data`, whose first byte says as what, like something that a registry answered or an administrator wrote. Panics
/// when what was read is not what it may be.
pub fn registry(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    match choice % 11 {
        0 => challenges(&text),
        1 => next_page(data),
        2 => location(data),
        3 => ranges(&text),
        4 => drop(authorization::token_of(data)),
        5 => error_document(data),
        6 => tags(data),
        7 => drop(catalog::referrers_of(data)),
        8 => hosts_file(&text),
        9 => reference(&text),
        _ => foreign_url(&text),
    }
}

fn challenges(header: &str) {
    for challenge in challenge::parse(header) {
        assert!(!challenge.scheme.is_empty(), "{header:?}");
        assert!(!challenge.scheme.bytes().any(|byte| byte.is_ascii_uppercase()));
    }
}

fn headers(name: HeaderName, data: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(
        name,
        HeaderValue::from_bytes(data).ok()?,
    )]))
}

fn next_page(data: &[u8]) {
    let Some(headers) = headers(LINK, data) else {
        return;
    };
    let from = Uri::from_static("https://registry.example/v2/a/tags/list?n=1");
    if let Ok(Some(next)) = paging::next(&from, &headers) {
        assert_eq!(endpoint::place(&next), endpoint::place(&from), "{next}");
        assert!(
            !next
                .authority()
                .is_none_or(|authority| authority.as_str().contains('@'))
        );
    }
}

fn location(data: &[u8]) {
    let Some(headers) = headers(LOCATION, data) else {
        return;
    };
    let from = Uri::from_static("https://registry.example/v2/a/blobs/uploads/?x=1");
    if let Ok(to) = http::target(&from, &headers) {
        assert_eq!(to.scheme_str(), Some("https"));
        assert!(
            to.authority()
                .is_some_and(|authority| !authority.as_str().is_empty())
        );
        assert!(!http::without_query(&to).contains('?'), "{to}");
    }
}

fn ranges(text: &str) {
    if let Some((first, last, Some(total))) = blob::content_range(text) {
        // What it may be is for whoever asked to say.
        std::hint::black_box((first, last, total));
    }
    if let Some(headers) = headers(RANGE, text.as_bytes()) {
        assert_ne!(push::received(&headers), Some(1), "an empty upload is 0-0");
    }
    if let Some(headers) = headers(RETRY_AFTER, text.as_bytes()) {
        let pause = retry::pause(1, Some(&headers));
        assert!(pause <= retry::LONGEST_PAUSE, "{pause:?}");
    }
}

fn error_document(data: &[u8]) {
    if let Some(message) = endpoint::message(data) {
        assert!(message.chars().count() <= 300 && !message.chars().any(char::is_control));
    }
}

fn tags(data: &[u8]) {
    for tag in catalog::tags_of(data).unwrap_or_default() {
        assert!(
            !tag.is_empty() && tag.len() <= 128 && !tag.contains(['/', ':', '@']),
            "{tag:?}"
        );
    }
}

fn hosts_file(text: &str) {
    let reference: Reference = "registry.example/a".parse().expect("a reference");
    for host in hosts::parse(text, Path::new("/etc/certs.d/x"), &reference, false).unwrap_or_default() {
        let root: Uri = host
            .root
            .parse()
            .unwrap_or_else(|error| panic!("{:?}: {error}", host.root));
        assert!(matches!(root.scheme_str(), Some("http" | "https")), "{root}");
        let authority = root.authority().map_or("", hyper::http::uri::Authority::as_str);
        assert!(!authority.is_empty() && !authority.contains('@'), "{root}");
        assert!(host.root.ends_with('/'), "{root}");
    }
}

fn reference(text: &str) {
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    let again: Reference = reference
        .to_string()
        .parse()
        .unwrap_or_else(|error| panic!("{reference} is not read back: {error}"));
    assert_eq!(again.to_string(), reference.to_string());
    let url = format!(
        "https://{}/v2/{}/manifests/{}",
        reference.endpoint(),
        reference.repository(),
        reference.object()
    );
    let uri: Uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    assert_eq!(
        uri.authority().map(hyper::http::uri::Authority::as_str),
        Some(reference.endpoint())
    );
    assert!(uri.query().is_none() && !uri.path().contains("/../"), "{uri}");
}

fn foreign_url(text: &str) {
    if let Ok(uri) = foreign::accepted(text, false) {
        assert!(!foreign::is_near(uri.host().unwrap_or_default()), "{uri}");
        assert!(
            !uri.authority()
                .is_none_or(|authority| authority.as_str().contains('@'))
        );
    }
}
