//! Lists that a registry gives in pages, each with a `Link` to the next one (RFC 8288).
//!
//! A registry may say anything: the next page must be on the same host, no page is read twice, and pages, bytes and entries
//! are bounded.

use std::collections::BTreeSet;

use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{ACCEPT, HeaderValue, LINK},
};

use super::{
    client::MAX_MANIFEST,
    endpoint::{Endpoint, place},
    http::{self, Payload},
    retry,
};
use crate::error::{Error, Kind, Result};

/// Pages of one list.
const MAX_PAGES: usize = 1000;

/// What became of a list.
pub(super) enum Listed<T> {
    /// All of it.
    Entries(Vec<T>),
    /// The registry does not know the path.
    Unknown,
}

/// Reads the list at `path` of the repository, at most `limit` entries; `parse` takes the entries out of a page.
///
/// # Errors
///
/// Those of the registry; `InvalidArgument` for pages that make no sense; `OutOfRange` for a list that is too long.
pub(super) async fn list<T>(
    endpoint: &Endpoint,
    path: &str,
    accept: &'static str,
    limit: usize,
    parse: impl Fn(&[u8]) -> Result<Vec<T>>,
) -> Result<Listed<T>> {
    let what = format!("{path} of {}", endpoint.reference);
    let too_long = || Error::new(Kind::OutOfRange, format!("{what}: the list is too long"));
    let mut entries = Vec::new();
    let mut seen = BTreeSet::new();
    let mut uri = endpoint.url(path)?;
    loop {
        if seen.len() == MAX_PAGES {
            return Err(too_long());
        }
        if !seen.insert(uri.to_string()) {
            return Err(Error::invalid(format!("{what}: its pages go round in a circle")));
        }
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let answer = endpoint
            .request(
                Method::GET,
                uri.clone(),
                headers,
                Payload::default(),
                retry::TRIES,
            )
            .await?;
        let unknown = matches!(
            answer.response.status(),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        );
        if unknown && seen.len() == 1 {
            return Ok(Listed::Unknown);
        }
        let answer = endpoint
            .successful(answer, || Error::not_found(format!("{what}: a page of it")))
            .await?;
        let next = next(&uri, answer.response.headers())
            .map_err(|reason| Error::invalid(format!("{what}: link to the next page: {reason}")))?;
        let bytes = http::read_all(answer.response.into_body(), MAX_MANIFEST, &what).await?;
        entries.append(&mut parse(&bytes).map_err(|error| error.context(&what))?);
        if entries.len() > limit {
            return Err(too_long());
        }
        match next {
            Some(next) => uri = next,
            None => return Ok(Listed::Entries(entries)),
        }
    }
}

/// Where the page after `from` is.
pub(super) fn next(from: &Uri, headers: &HeaderMap) -> Result<Option<Uri>, String> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    let Some(target) = links.flat_map(targets).next() else {
        return Ok(None);
    };
    let shown: String = target.chars().take(200).collect();
    let refused = |reason: &str| format!("{shown:?}: {reason}");
    let scheme = from.scheme_str().unwrap_or_default();
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let absolute = match target {
        // Not the start of a path, but of another host.
        target if target.starts_with("//") => format!("{scheme}:{target}"),
        target if target.starts_with('/') => format!("{scheme}://{authority}{target}"),
        target if target.starts_with('?') => format!("{scheme}://{authority}{}{target}", from.path()),
        target if target.contains("://") => target.to_owned(),
        _ => return Err(refused("neither a URL nor a path")),
    };
    let uri: Uri = absolute.parse().map_err(|_malformed| refused("malformed"))?;
    let user = uri
        .authority()
        .is_none_or(|authority| authority.as_str().contains('@'));
    if user || place(&uri) != place(from) {
        return Err(refused("it is on another host"));
    }
    Ok(Some(uri))
}

/// The targets of a `Link` header that are the next page.
fn targets(header: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((_, opened)) = rest.split_once('<') {
        let Some((target, parameters)) = opened.split_once('>') else {
            break;
        };
        // The parameters end where the next link begins.
        let end = parameters.find('<').unwrap_or(parameters.len());
        let is_next = parameters[..end].split([';', ',']).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else {
                return false;
            };
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split_ascii_whitespace()
                    .any(|rel| rel.eq_ignore_ascii_case("next"))
        });
        if is_next {
            found.push(target);
        }
        rest = &parameters[end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(link: &str) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::try_from(link).unwrap());
        let from = Uri::from_static("https://a.example/v2/x/tags/list?n=2");
        Ok(next(&from, &headers)?.map(|uri| uri.to_string()))
    }

    #[test]
    fn the_next_page_is_found() {
        for (link, expected) in [
            ("</v2/x/tags/list?last=b>; rel=\"next\"", "/v2/x/tags/list?last=b"),
            ("<https://a.example:443/y>;rel=next", ":443/y"),
            (
                "<?last=b>; title=\"t\"; rel=\"last next\"",
                "/v2/x/tags/list?last=b",
            ),
            ("</one>; rel=\"prev\", </two>; rel=\"next\"", "/two"),
        ] {
            assert_eq!(
                to(link).unwrap().unwrap(),
                format!("https://a.example{expected}"),
                "{link}"
            );
        }
        for none in ["</one>; rel=\"prev\"", "", "nonsense", "</one"] {
            assert_eq!(to(none).unwrap(), None, "{none}");
        }
    }

    #[test]
    fn no_page_is_elsewhere() {
        for bad in [
            "https://b.example/v2/x/tags/list",
            "http://a.example/v2/x/tags/list",
            "https://a.example:444/",
            "//b.example/",
            "https://a.example@b.example/",
            "https://user@a.example/",
            "ftp://a.example/",
            "list",
        ] {
            assert!(to(&format!("<{bad}>; rel=next")).is_err(), "{bad}");
        }
    }
}
