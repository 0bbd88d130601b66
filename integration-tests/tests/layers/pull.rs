//! Pulls beside each other, pulls that need a password, and pulls of what is not there.

use std::fs;
use std::process::Command;

use integration_tests::daemon::Daemon;
use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries};
use serde_json::json;
use tonic::Code;
use wharf_proto::any;
use wharf_proto::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType, RegistryResolver};

use crate::image::{GZIP, image};
use crate::supervisor::{Supervisor, store};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pulls_of_one_image_agree() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    let pulls = (0..6).map(|_| supervisor.transfer(supervisor.pull(&reference)));
    for outcome in futures_join(pulls).await {
        outcome.unwrap();
    }
    assert_eq!(supervisor.snapshots().await.len(), 3);
    assert_eq!(supervisor.images().await.len(), 1);
}

/// Polls all futures at the same time.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if pending.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_by_name() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let supervisor = Supervisor::start(&scratch).await;
    let missing = registry.reference("nobody/nothing:1");
    let refused = supervisor.transfer(supervisor.pull(&missing)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(refused.message().contains("manifest unknown"), "{refused}");

    let port = integration_tests::registry::free_port();
    let dead = format!("127.0.0.1:{port}/a:1");
    let refused = supervisor.transfer(supervisor.pull(&dead)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(
        refused
            .message()
            .contains(&format!("dial tcp 127.0.0.1:{port}: connection refused")),
        "{refused}"
    );

    let cut = scratch.join("cut.tar");
    fs::write(&cut, [1; 700]).unwrap();
    assert_eq!(
        supervisor.import(&cut, store("a")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// The registry wants a password; the client gives it over its stream when it is asked, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_over_the_stream() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    registry.push(layout.path(), "latest", "team/app:v1");
    let (_guarded, host) = guarded(&scratch);
    let reference = format!("{host}/team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;

    let (answers, mut questions) = supervisor.stream("auth").await;
    let client = tokio::spawn(async move {
        let question = questions.message().await.unwrap().unwrap();
        let question: AuthRequest = any::unpack(&question).unwrap().unwrap();
        assert_eq!(question.host, host);
        let answer = AuthResponse {
            auth_type: AuthType::Credentials.into(),
            username: "user".into(),
            secret: "secret".into(),
            ..AuthResponse::default()
        };
        answers.send(any::pack(&answer)).await.unwrap();
        questions.message().await
    });
    let resolver = RegistryResolver {
        auth_stream: "auth".into(),
        ..RegistryResolver::default()
    };
    supervisor
        .transfer(supervisor.pull_with(&reference, resolver))
        .await
        .unwrap();
    assert!(
        client.await.unwrap().unwrap().is_none(),
        "the stream ends with the transfer"
    );
    let refused = supervisor
        .transfer(supervisor.pull(&reference))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

/// A second registry over the storage of the first, which wants `user` and `secret`; with its `host:port`.
fn guarded(scratch: &Scratch) -> (Daemon, String) {
    let home = scratch.directory("guarded");
    // The bcrypt of "secret".
    let password = "user:$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    fs::write(home.join("htpasswd"), password).unwrap();
    let host = format!("127.0.0.1:{}", integration_tests::registry::free_port());
    let config = json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": scratch.join("registry/storage")}},
        "http": {"addr": host},
        "auth": {"htpasswd": {"realm": "tests", "path": home.join("htpasswd")}},
    });
    // JSON is YAML.
    fs::write(home.join("config.yml"), config.to_string()).unwrap();
    let daemon = Daemon::start(
        Command::new(binaries::peer("docker-registry"))
            .arg("serve")
            .arg(home.join("config.yml")),
        &home.join("log"),
        || std::net::TcpStream::connect(&host).is_ok(),
    );
    (daemon, host)
}
