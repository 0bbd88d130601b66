//! Debian's registry over TLS, with an authority of the test's own, as `hosts.toml` and Docker's directories name it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::daemon::Daemon;
use integration_tests::image::{Compression, Layout};
use integration_tests::registry::{Registry, free_port};
use integration_tests::{Scratch, binaries, run};
use serde_json::json;
use tonic::{Code, Status};
use wharf_proto::containerd::types::transfer::RegistryResolver;

use crate::compare::{assert_same, umoci};
use crate::image::{GZIP, image};
use crate::supervisor::{Supervisor, unique};

/// An authority, and the certificates that it gives out.
struct Authority {
    directory: PathBuf,
}

impl Authority {
    fn new(scratch: &Scratch) -> Self {
        let directory = scratch.directory(unique("authority"));
        openssl(
            &directory,
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=tests",
                "-keyout",
                "ca.key",
                "-out",
                "ca.pem",
            ],
        );
        Self { directory }
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A certificate and its key, called `name`, with `extensions`.
    fn issue(&self, name: &str, extensions: &str) -> (PathBuf, PathBuf) {
        let file = |suffix: &str| format!("{name}.{suffix}");
        fs::write(
            self.directory.join(file("ext")),
            format!("basicConstraints=CA:FALSE\n{extensions}\n"),
        )
        .unwrap();
        let subject = format!("/CN={name}");
        openssl(
            &self.directory,
            &[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                &subject,
                "-keyout",
                &file("key"),
                "-out",
                &file("csr"),
            ],
        );
        openssl(
            &self.directory,
            &[
                "x509",
                "-req",
                "-days",
                "2",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-in",
                &file("csr"),
                "-extfile",
                &file("ext"),
                "-out",
                &file("pem"),
            ],
        );
        (self.directory.join(file("pem")), self.directory.join(file("key")))
    }
}

fn openssl(directory: &Path, arguments: &[&str]) {
    run(Command::new(binaries::peer("openssl"))
        .current_dir(directory)
        .args(arguments))
    .ok();
}

const FOR_LOOPBACK: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth";

/// A registry over TLS, over the storage of the plain one of the test.
struct Secure {
    host: String,
    daemon: Daemon,
}

impl Secure {
    /// Shows `certificate`; with `clients`, only those are served that this authority knows.
    fn start(scratch: &Scratch, certificate: &(PathBuf, PathBuf), clients: Option<&Path>) -> Self {
        let home = scratch.directory(unique("secure"));
        let port = free_port();
        let host = format!("127.0.0.1:{port}");
        let mut tls = json!({"certificate": certificate.0, "key": certificate.1});
        if let Some(clients) = clients {
            tls["clientcas"] = json!([clients]);
        }
        let config = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": false}},
            "storage": {"filesystem": {"rootdirectory": scratch.join("registry/storage")}},
            "http": {"addr": host, "tls": tls},
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
        Self { host, daemon }
    }

    /// A directory that says of this registry what `toml` says, below its `server`.
    fn hosts(&self, scratch: &Scratch, toml: &str) -> PathBuf {
        let directory = scratch.directory(unique("hosts"));
        let own = directory.join(&self.host);
        fs::create_dir(&own).unwrap();
        let text = format!("server = \"https://{}\"\n{toml}\n", self.host);
        fs::write(own.join("hosts.toml"), text).unwrap();
        directory
    }

    async fn pull(&self, supervisor: &Supervisor, hosts: &Path) -> Result<(), Status> {
        let resolver = RegistryResolver {
            host_dir: hosts.display().to_string(),
            ..RegistryResolver::default()
        };
        let reference = format!("{}/team/app:v1", self.host);
        supervisor
            .transfer(supervisor.pull_with(&reference, resolver))
            .await
    }
}

/// A registry whose image is served over TLS as well, and a supervisor.
async fn start(scratch: &Scratch) -> (Registry, Layout, Supervisor) {
    let layout = image(scratch, GZIP);
    let registry = Registry::start(scratch);
    registry.push(layout.path(), "latest", "team/app:v1");
    (registry, layout, Supervisor::start(scratch).await)
}

fn toml_ca(authority: &Authority) -> String {
    format!("ca = {:?}", authority.certificate())
}

async fn assert_nothing(supervisor: &Supervisor) {
    assert!(supervisor.images().await.is_empty());
    assert!(supervisor.blobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_over_tls_from_who_the_authority_vouches_for() {
    let scratch = Scratch::new();
    let (_plain, layout, supervisor) = start(&scratch).await;
    let (ours, other) = (Authority::new(&scratch), Authority::new(&scratch));
    let secure = Secure::start(&scratch, &ours.issue("server", FOR_LOOPBACK), None);

    // Nobody, somebody else, and the files of another registry.
    let elsewhere = scratch.directory("elsewhere");
    fs::create_dir(elsewhere.join("127.0.0.1:1")).unwrap();
    fs::copy(ours.certificate(), elsewhere.join("127.0.0.1:1/ca.crt")).unwrap();
    for (hosts, reason) in [
        (
            secure.hosts(&scratch, ""),
            "invalid peer certificate: UnknownIssuer",
        ),
        (
            secure.hosts(&scratch, &toml_ca(&other)),
            "invalid peer certificate",
        ),
        // What nothing is said of is spoken to in plain HTTP on loopback, which the server refuses.
        (elsewhere, "400 Bad Request"),
    ] {
        let refused = secure.pull(&supervisor, &hosts).await.unwrap_err();
        assert!(refused.message().contains(reason), "{reason}: {refused}");
        assert_nothing(&supervisor).await;
    }

    secure
        .pull(&supervisor, &secure.hosts(&scratch, &toml_ca(&ours)))
        .await
        .unwrap();
    let target = supervisor.images().await[0].target.clone().unwrap().digest;
    let expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    assert_same(&supervisor.tree(&scratch, &target).await, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_host_is_refused() {
    let scratch = Scratch::new();
    let (_plain, _layout, supervisor) = start(&scratch).await;
    let authority = Authority::new(&scratch);
    for (name, extensions) in [
        ("other", "subjectAltName=DNS:registry.example,IP:127.0.0.2"),
        // The name in the subject alone has not counted for years.
        ("127.0.0.1", ""),
        // Who may show it to servers may not be one.
        (
            "client",
            "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=clientAuth",
        ),
    ] {
        let secure = Secure::start(&scratch, &authority.issue(name, extensions), None);
        let hosts = secure.hosts(&scratch, &toml_ca(&authority));
        let refused = secure.pull(&supervisor, &hosts).await.unwrap_err();
        assert!(refused.message().contains("certificate"), "{name}: {refused}");
        assert_nothing(&supervisor).await;
        // It is the certificate: who is told not to look at it gets the image.
        if name == "client" {
            let blind = secure.hosts(&scratch, "skip_verify = true");
            secure.pull(&supervisor, &blind).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_certificate_where_it_is_told_to() {
    let scratch = Scratch::new();
    let (_plain, _layout, supervisor) = start(&scratch).await;
    let (authority, stranger) = (Authority::new(&scratch), Authority::new(&scratch));
    let server = authority.issue("server", FOR_LOOPBACK);
    let secure = Secure::start(&scratch, &server, Some(&authority.certificate()));
    let client = |from: &Authority| {
        let (certificate, key) = from.issue("client", "extendedKeyUsage=clientAuth");
        format!("{}\nclient = [[{certificate:?}, {key:?}]]", toml_ca(&authority))
    };
    for toml in [toml_ca(&authority), client(&stranger)] {
        let refused = secure
            .pull(&supervisor, &secure.hosts(&scratch, &toml))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert_nothing(&supervisor).await;
    }
    // As Docker keeps them.
    let docker = scratch.directory("docker-certs");
    let own = docker.join(&secure.host);
    fs::create_dir(&own).unwrap();
    let (certificate, key) = authority.issue("docker", "extendedKeyUsage=clientAuth");
    for (from, to) in [
        (&authority.certificate(), "ca.crt"),
        (&certificate, "client.cert"),
        (&key, "client.key"),
    ] {
        fs::copy(from, own.join(to)).unwrap();
    }
    let resolver = RegistryResolver {
        host_dir: docker.display().to_string(),
        default_scheme: "https".into(),
        ..RegistryResolver::default()
    };
    let reference = format!("{}/team/app:v1", secure.host);
    supervisor
        .transfer(supervisor.pull_with(&reference, resolver))
        .await
        .unwrap();
    secure
        .pull(&supervisor, &secure.hosts(&scratch, &client(&authority)))
        .await
        .unwrap();
}

/// A blob of many pieces, from a registry that writes down what it was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_come_in_pieces() {
    let scratch = Scratch::new();
    let tree = scratch.directory("tree");
    let noise = fs::File::open("/dev/urandom").unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(noise, 22 << 20), &mut bytes).unwrap();
    fs::write(tree.join("noise"), &bytes).unwrap();
    let mut layout = Layout::new(&scratch.join("layout"));
    layout.layer_of(&tree, Compression::None);
    layout.tag("latest", &json!({}));
    let registry = Registry::start(&scratch);
    registry.push(layout.path(), "latest", "team/app:v1");
    let authority = Authority::new(&scratch);
    let secure = Secure::start(&scratch, &authority.issue("server", FOR_LOOPBACK), None);
    let supervisor = Supervisor::start(&scratch).await;
    secure
        .pull(&supervisor, &secure.hosts(&scratch, &toml_ca(&authority)))
        .await
        .unwrap();
    let pieces = secure.daemon.log().matches(" 206 ").count();
    assert!(pieces >= 5, "{pieces} pieces: {}", secure.daemon.log());
    let target = supervisor.images().await[0].target.clone().unwrap().digest;
    let expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    let found = supervisor.tree(&scratch, &target).await;
    assert_eq!(found["noise"], expected["noise"]);
}
