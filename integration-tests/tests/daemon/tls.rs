//! Who may connect: over TCP with a certificate that the configured authority has signed, on the unix socket by its mode and
//! by `peer_uids`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use integration_tests::registry::free_port;
use integration_tests::{Scratch, binaries, run};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use wharf_proto::containerd::services::version::v1::version_client::VersionClient;

use crate::client;
use crate::subject::Subject;

/// An authority with the certificates that it has signed.
struct Authority(PathBuf);

impl Authority {
    fn new(scratch: &Scratch, name: &str) -> Authority {
        let directory = scratch.directory(name);
        let authority = Authority(directory);
        let constraint = "basicConstraints=critical,CA:TRUE";
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=authority",
            "-addext",
            constraint,
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        for (name, purpose) in [("server", "serverAuth"), ("client", "clientAuth")] {
            let subject = format!("/CN={name}");
            let (key, request, certificate) = (
                format!("{name}.key"),
                format!("{name}.csr"),
                format!("{name}.pem"),
            );
            authority.openssl(&[
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &request,
            ]);
            let extensions = format!("subjectAltName=DNS:localhost\nextendedKeyUsage={purpose}\n");
            fs::write(authority.0.join("extensions"), extensions).expect("write the extensions");
            authority.openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                "extensions",
                "-out",
                &certificate,
            ]);
        }
        authority
    }

    fn openssl(&self, arguments: &[&str]) {
        run(Command::new(binaries::peer("openssl"))
            .current_dir(&self.0)
            .args(arguments))
        .ok();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("a PEM file")
    }

    fn identity(&self) -> Identity {
        Identity::from_pem(self.read("client.pem"), self.read("client.key"))
    }
}

/// Asks for the version over TCP.
fn version(port: u16, tls: Option<ClientTlsConfig>) -> Result<String, String> {
    client::runtime().block_on(async {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::try_from(format!("{scheme}://127.0.0.1:{port}")).expect("an address");
        if let Some(tls) = tls {
            endpoint = endpoint
                .tls_config(tls.domain_name("localhost"))
                .expect("a configuration");
        }
        let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
        let answer = VersionClient::new(channel).version(()).await;
        answer
            .map(|answer| answer.into_inner().version)
            .map_err(|status| format!("{status:?}"))
    })
}

#[test]
fn only_certificates_of_the_authority_get_in_over_tcp() {
    let mut subject = Subject::unstarted();
    let authority = Authority::new(&subject.scratch, "authority");
    let stranger = Authority::new(&subject.scratch, "stranger");
    let port = free_port();
    let table = |ca: &str, key: &str| {
        let file = |name: &str| authority.0.join(name).display().to_string();
        let ca = if ca.is_empty() {
            String::new()
        } else {
            format!("tcp_tls_ca = {:?}\n", file(ca))
        };
        format!(
            "[grpc]\ntcp_address = \"127.0.0.1:{port}\"\ntcp_tls_cert = {:?}\ntcp_tls_key = {:?}\n{ca}",
            file("server.pem"),
            file(key)
        )
    };
    // Without all of it, there is no daemon at all.
    for (ca, key, named) in [
        ("", "server.key", "tcp_tls_ca"),
        ("ca.pem", "none.key", "none.key"),
        ("ca.pem", "client.key", "tcp_tls_key"),
        ("server.key", "server.key", "tcp_tls_ca"),
    ] {
        subject.configure(&table(ca, key));
        let refused = run(&mut subject.wharfd.command(&[]));
        assert_eq!(refused.code, 1, "{refused}");
        assert!(
            refused.stderr.lines().count() == 1 && refused.stderr.contains(named),
            "{refused}"
        );
    }

    subject.configure(&table("ca.pem", "server.key"));
    subject.wharfd.restart();
    let trusting = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.read("ca.pem")));
    let allowed = || version(port, Some(trusting().identity(authority.identity())));
    assert!(allowed().expect("the version").starts_with('v'));
    for refused in [
        version(port, None),
        version(port, Some(trusting())),
        version(port, Some(trusting().identity(stranger.identity()))),
        // The authority's own mark of what a certificate is for counts.
        version(
            port,
            Some(trusting().identity(Identity::from_pem(
                authority.read("server.pem"),
                authority.read("server.key"),
            ))),
        ),
    ] {
        refused.expect_err("a stranger got in");
    }
    subject.wharfd.take_over();
    allowed().expect("the next daemon serves TCP as well");
    version(port, Some(trusting())).expect_err("a stranger got in");
}

#[test]
fn the_socket_belongs_to_whom_the_configuration_says() {
    let nobody = 65534;
    let subject = Subject::configured("[grpc]\ngid = 65534\n");
    let socket = fs::metadata(subject.wharfd.socket()).expect("the socket");
    assert_eq!(
        (socket.uid(), socket.gid(), socket.mode() & 0o777),
        (0, nobody, 0o660)
    );
    drop(subject);

    // Whoever can open it is not enough when users are named.
    let mut subject = Subject::unstarted();
    for directory in [subject.scratch.path(), subject.wharfd.home()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).expect("let others pass");
    }
    subject.configure("[grpc]\nmode = 0o666\npeer_uids = [0]\n");
    subject.wharfd.restart();
    let as_nobody = |subject: &Subject| {
        let mut command = Command::new(binaries::peer("setpriv"));
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command
            .arg(binaries::peer("ctr"))
            .arg("--connect-timeout")
            .arg("2s");
        command
            .arg("--address")
            .arg(subject.wharfd.socket())
            .arg("version");
        run(&mut command)
    };
    let refused = as_nobody(&subject);
    assert_ne!(refused.code, 0, "{refused}");
    subject.configure("[grpc]\nmode = 0o666\npeer_uids = [0, 65534]\n");
    subject.wharfd.take_over();
    let mode = fs::metadata(subject.wharfd.socket()).expect("the socket").mode();
    assert_eq!(mode & 0o777, 0o666);
    as_nobody(&subject).ok();
}
