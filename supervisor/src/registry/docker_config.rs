//! Credentials from Docker's `config.json`: kept in the file itself, or by a helper program that it names.
//!
//! ```json
//! { "auths": { "registry.example": { "auth": "dXNlcjpwYXNz" }, "https://index.docker.io/v1/": {} },
//!   "credHelpers": { "other.example": "pass" },
//!   "credsStore": "secretservice" }
//! ```
//!
//! A host's own helper wins over the store for all, the store over the file. A helper is `docker-credential-NAME get`,
//! found on `$PATH`, which reads the host and answers in JSON
//! (<https://github.com/docker/docker-credential-helpers>); it gets a bounded time and says a bounded amount.
//!
//! Refuses helper names with a slash, and files that are not understood.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{CredentialSource, Credentials};
use crate::error::{Error, Kind, Result};

const MAX_FILE: u64 = 4 << 20;
/// The longest answer of a helper, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// How long a helper may take; some ask a cloud's service.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// What Docker's client calls Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";
/// The user that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// The credentials of a `config.json`, which is read anew whenever some are asked for.
pub(crate) struct DockerConfig {
    path: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Deserialize, Default)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

impl DockerConfig {
    /// The credentials in the file at `path`; a file that is not there holds none.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    async fn read(&self) -> Result<File> {
        let failed = |error| Error::io(format!("read {}", self.path.display()), error);
        let mut file = match tokio::fs::File::open(&self.path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(File::default()),
            file => file.map_err(failed)?.take(MAX_FILE),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).await.map_err(failed)?;
        // Not the parser's own words: they may quote a secret.
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::invalid(format!(
                "{}: malformed at line {} column {}",
                self.path.display(),
                error.line(),
                error.column()
            ))
        })
    }
}

#[async_trait]
impl CredentialSource for DockerConfig {
    async fn credentials(&self, host: &str) -> Result<Credentials> {
        let file = self.read().await?;
        let names = names(host);
        let own = names.iter().find_map(|name| file.cred_helpers.get(*name));
        let helper = own.unwrap_or(&file.creds_store);
        if !helper.is_empty() {
            for name in &names {
                if let Some(found) = ask(helper, name).await? {
                    return Ok(found);
                }
            }
            if own.is_some() {
                return Ok(Credentials::Anonymous);
            }
        }
        let kept = file.auths.iter().find(|(key, _)| names.contains(&host_of(key)));
        kept.map_or(Ok(Credentials::Anonymous), |(key, auth)| {
            decode(auth)
                .ok_or_else(|| Error::invalid(format!("{}: malformed auth of {key:?}", self.path.display())))
        })
    }
}

/// The names under which Docker's client may have kept the credentials for `host`.
fn names(host: &str) -> Vec<&str> {
    match host {
        "docker.io" | "registry-1.docker.io" | "index.docker.io" => {
            vec![HUB, "index.docker.io", "docker.io", "registry-1.docker.io"]
        }
        host => vec![host],
    }
}

/// The host of a key of `auths`, which may be a URL; Docker Hub's own URL stays whole.
fn host_of(key: &str) -> &str {
    if key == HUB {
        return key;
    }
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or_default()
}

fn decode(auth: &Auth) -> Option<Credentials> {
    if !auth.registrytoken.is_empty() {
        return Some(Credentials::Header(format!("Bearer {}", auth.registrytoken)));
    }
    if !auth.identitytoken.is_empty() {
        return Some(Credentials::Refresh(auth.identitytoken.clone()));
    }
    if auth.auth.is_empty() {
        return Some(basic(auth.username.clone(), auth.password.clone()));
    }
    let text = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(basic(username.into(), password.trim_end_matches('\0').into()))
}

fn basic(username: String, password: String) -> Credentials {
    match username.is_empty() {
        true => Credentials::Anonymous,
        false => Credentials::Basic { username, password },
    }
}

/// Asks the helper for the credentials of `name`; `None` when it has none.
async fn ask(helper: &str, name: &str) -> Result<Option<Credentials>> {
    if helper.contains('/') {
        return Err(Error::invalid(format!("credential helper {helper:?}")));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |reason: &str| Error::new(Kind::Unauthenticated, format!("{program} get: {reason}"));
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error.to_string()))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        if let Some(mut stdin) = stdin {
            // One that does not read has its reasons; its answer counts.
            drop(stdin.write_all(name.as_bytes()).await);
        }
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, answer))
    };
    let (status, answer) = tokio::time::timeout(HELPER_TIMEOUT, talk)
        .await
        .map_err(|_elapsed| failed("no answer"))?
        .map_err(|error| failed(&error.to_string()))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&answer);
        // The protocol's words for "none"; anything else must not pass for it.
        return match said.trim() {
            "credentials not found in native keychain" => Ok(None),
            said => Err(failed(
                &said
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect::<String>(),
            )),
        };
    }
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_malformed| failed("the answer is not understood"))?;
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Credentials::Refresh(answer.secret),
        _ => basic(answer.username, answer.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(config: &str, host: &str) -> Result<Credentials> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        DockerConfig::new(file.path()).credentials(host).await
    }

    fn named(username: &str, password: &str) -> Credentials {
        Credentials::Basic {
            username: username.into(),
            password: password.into(),
        }
    }

    #[tokio::test]
    async fn the_file_keeps_credentials_by_host() {
        let config = r#"{"auths": {
            "a.example:5000": {"auth": "dXNlcjpwYTpzcw=="},
            "https://b.example/v1/": {"username": "b", "password": "c"},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "t.example": {"identitytoken": "T"},
            "h.example": {"registrytoken": "R"},
            "e.example": {},
            "bad.example": {"auth": "***"}}}"#;
        assert!(found(config, "a.example:5000").await.unwrap() == named("user", "pa:ss"));
        assert!(found(config, "b.example").await.unwrap() == named("b", "c"));
        assert!(found(config, "registry-1.docker.io").await.unwrap() == named("hub", "pw"));
        assert!(found(config, "t.example").await.unwrap() == Credentials::Refresh("T".into()));
        assert!(found(config, "h.example").await.unwrap() == Credentials::Header("Bearer R".into()));
        for anonymous in ["e.example", "other.example", "a.example", "xa.example:5000"] {
            assert!(
                found(config, anonymous).await.unwrap() == Credentials::Anonymous,
                "{anonymous}"
            );
        }
        let error = found(config, "bad.example").await.err().unwrap().to_string();
        assert!(error.contains("bad.example") && !error.contains("***"), "{error}");
        assert!(found("{", "a").await.is_err());
        let missing = DockerConfig::new(Path::new("/nonexistent/config.json"));
        assert!(missing.credentials("a").await.unwrap() == Credentials::Anonymous);
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_told_by_name() {
        let config = r#"{"credHelpers": {"a.example": "wharf-test-missing", "b.example": "../x"}}"#;
        let error = found(config, "a.example").await.err().unwrap();
        assert_eq!(error.kind(), Kind::Unauthenticated);
        assert!(
            error.to_string().contains("docker-credential-wharf-test-missing"),
            "{error}"
        );
        assert!(found(config, "b.example").await.is_err());
        assert!(found(config, "c.example").await.unwrap() == Credentials::Anonymous);
    }
}
