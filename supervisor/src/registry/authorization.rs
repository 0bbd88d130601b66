//! From a challenge to an `Authorization` header: basic, or a bearer token from the service that the registry names
//! (<https://distribution.github.io/distribution/spec/auth/token/>).
//!
//! Credentials are asked for only once a registry demands them, for that registry's host. Secrets have no `Debug`.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{
    challenge::{self, Challenge},
    http::{self, Ask, Http, Payload},
};
use crate::error::{Error, Kind, Result};

/// The longest answer of a token service.
const MAX_TOKEN: u64 = 256 * 1024;

/// What a client has for a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Nothing.
    Anonymous,
    /// A user and a password or access token.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// An identity token, to be exchanged at the token service.
    Refresh(String),
    /// The `Authorization` header itself.
    Header(String),
}

/// Somebody who knows credentials.
#[async_trait]
pub(crate) trait CredentialSource: Send + Sync {
    /// The credentials for `host`, which asked for them.
    async fn credentials(&self, host: &str) -> Result<Credentials>;
}

/// The source of a caller without credentials.
pub(crate) struct NoCredentials;

#[async_trait]
impl CredentialSource for NoCredentials {
    async fn credentials(&self, _host: &str) -> Result<Credentials> {
        Ok(Credentials::Anonymous)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// What a token is to allow.
pub(super) struct Scopes {
    repository: String,
    push: bool,
}

impl Scopes {
    /// Reading `repository`, with `push` also writing.
    pub(super) fn new(repository: &str, push: bool) -> Self {
        Self {
            repository: repository.to_owned(),
            push,
        }
    }

    /// The word for what is done.
    pub(super) fn verb(&self) -> &'static str {
        if self.push { "push" } else { "pull" }
    }

    /// The scope to ask for, where a challenge names `asked`. Who pushes wants one token for all that it will do, not
    /// only for the request that was refused.
    fn choose(&self, asked: &str) -> String {
        match (self.push, asked) {
            (true, _) => format!("repository:{}:pull,push", self.repository),
            (false, "") => format!("repository:{}:pull", self.repository),
            (false, asked) => asked.to_owned(),
        }
    }
}

/// Answers the challenges in `headers`, which `registry` (its root URL) sent, for `scopes`.
///
/// # Errors
///
/// `Unauthenticated` when the token service refuses, or when the registry wants what the caller does not have.
pub(super) async fn answer(
    http: &Http,
    registry: &Uri,
    headers: &HeaderMap,
    scopes: &Scopes,
    source: &dyn CredentialSource,
) -> Result<HeaderValue> {
    let challenges: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect();
    let host = registry.authority().map_or("", |authority| authority.as_str());
    let credentials = source.credentials(host).await?;
    if let Credentials::Header(header) = credentials {
        return sensitive(header);
    }
    if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
        let token = token(http, registry, bearer, scopes, credentials).await?;
        return sensitive(format!("Bearer {token}"));
    }
    if challenges.iter().any(|challenge| challenge.scheme == "basic") {
        return match credentials {
            Credentials::Basic { username, password } => sensitive(basic(&username, &password)),
            _ => Err(Error::new(
                Kind::Unauthenticated,
                format!("{host}: no basic auth credentials"),
            )),
        };
    }
    Err(Error::new(
        Kind::Unauthenticated,
        format!("{host}: it offers no known way to authorise"),
    ))
}

async fn token(
    http: &Http,
    registry: &Uri,
    challenge: &Challenge,
    scopes: &Scopes,
    credentials: Credentials,
) -> Result<String> {
    let realm = challenge.parameter("realm");
    let refused = |reason: &str| {
        let shown: String = realm.chars().take(200).collect();
        Error::new(
            Kind::Unauthenticated,
            format!("token service {shown:?} named by {registry}: {reason}"),
        )
    };
    let uri: Uri = realm.parse().map_err(|_malformed| refused("malformed URL"))?;
    if uri
        .authority()
        .is_none_or(|authority| authority.as_str().contains('@'))
    {
        return Err(refused("malformed URL"));
    }
    match (registry.scheme_str(), uri.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => {}
        _ => return Err(refused("a registry on HTTPS must name one on HTTPS")),
    }
    let scope = scopes.choose(challenge.parameter("scope"));
    let mut query = form_urlencoded(&[("service", challenge.parameter("service")), ("scope", &scope)]);
    let mut ask = Ask {
        method: Method::GET,
        uri: uri.clone(),
        headers: HeaderMap::new(),
        authorization: None,
        payload: Payload::default(),
        far: false,
    };
    if let Credentials::Refresh(token) = &credentials {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", "wharf"),
            ("refresh_token", token),
        ];
        query = format!("{}&{query}", form_urlencoded(&fields));
        ask.method = Method::POST;
        ask.headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        ask.payload = Payload::Bytes(query.into());
    } else {
        if let Credentials::Basic { username, password } = &credentials {
            ask.authorization = Some(sensitive(basic(username, password))?);
        }
        let separator = if uri.query().is_some() { '&' } else { '?' };
        ask.uri = format!("{uri}{separator}{query}")
            .parse()
            .map_err(|_malformed| refused("malformed URL"))?;
    }
    let answer = http.ask(ask).await?;
    let status = answer.response.status();
    let what = format!("token from {}", http::without_query(&uri));
    let body = http::read_all(answer.response.into_body(), MAX_TOKEN, &what).await?;
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            return Err(refused("unauthorized: incorrect username or password"));
        }
        status if super::retry::is_transient(status) => {
            return Err(Error::unavailable(format!("{what}: status {status}")));
        }
        status => return Err(refused(&format!("status {status}"))),
    }
    token_of(&body).ok_or_else(|| refused("the answer is not a token"))
}

/// The token in the answer of a token service.
pub(super) fn token_of(body: &[u8]) -> Option<String> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    [answer.token, answer.access_token]
        .into_iter()
        .find(|token| !token.is_empty())
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

fn sensitive(text: String) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text).map_err(|_malformed| {
        Error::new(
            Kind::Unauthenticated,
            "credentials hold characters that no header may",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// `application/x-www-form-urlencoded`, without empty fields.
fn form_urlencoded(fields: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                write!(text, "%{byte:02X}").expect("writing to a String cannot fail");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            form_urlencoded(&[
                ("scope", "repository:a/b:pull"),
                ("service", ""),
                ("x", "a&b=c d")
            ]),
            "scope=repository%3Aa%2Fb%3Apull&x=a%26b%3Dc%20d"
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        let header = sensitive(basic("user", "secret")).unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic dXNlcjpzZWNyZXQ=");
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert!(sensitive("a\nb".into()).is_err());
    }
}
