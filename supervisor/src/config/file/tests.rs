//! What the file says, and what is refused of it.

use super::*;

#[test]
fn unknown_keys_are_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "root = \"/x\"\n").unwrap();
    assert_eq!(File::read(file.path()).unwrap().root, Some("/x".into()));
    std::fs::write(file.path(), "rooot = \"/x\"\n").unwrap();
    let error = File::read(file.path()).unwrap_err().to_string();
    assert!(error.contains("rooot"), "{error}");
}

fn config(text: &str) -> Result<Config> {
    toml::from_str::<File>(text)
        .map_err(|error| Error::invalid(error.to_string()))
        .and_then(|file| file.config())
}

#[test]
fn the_default_file_means_the_default_configuration() {
    let text = File::default().complete().to_toml().unwrap();
    assert_eq!(config(&text).unwrap(), Config::default(), "{text}");
    let own = "log_level = 'debug'\n[grpc]\nuid = 7\nmode = 0o600\n[metrics]\naddress = '[::1]:1'\n\
               [proxy_plugins.x]\ntype = 'snapshot'\naddress = '/x'\n";
    let file: File = toml::from_str(own).unwrap();
    let again: File = toml::from_str(&file.clone().complete().to_toml().unwrap()).unwrap();
    assert_eq!(again.config().unwrap(), file.config().unwrap());
    assert_eq!(file.config().unwrap().grpc.mode, 0o600);
}

#[test]
fn tracing_is_configured_as_containerds_is() {
    let text = "[plugins.'io.containerd.tracing.processor.v1.otlp']\nendpoint = 'http://c:4318'\ninsecure = true\n\
                [plugins.'io.containerd.internal.v1.tracing']\nsampling_ratio = 0.5\n";
    if cfg!(feature = "otlp") {
        let config = config(text).unwrap();
        assert_eq!(
            config.tracing[0],
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318".to_owned())
        );
        assert_eq!(config.tracing.last().unwrap().1, "0.5");
        assert!(super::tests::config(&text.replace("http:", "https:")).is_err());
    } else {
        let error = config(text).unwrap_err().to_string();
        assert!(error.contains("feature otlp"), "{error}");
    }
}

#[test]
fn installed_programs_and_shims_sockets_have_containerds_settings() {
    let config = super::tests::config;
    assert_eq!(config("").unwrap().opt, Opt::BelowRoot);
    let set = config(
        "[plugins.'io.containerd.internal.v1.opt']\npath = '/opt/x'\n\
         [plugins.'io.containerd.shim.v1.manager']\nsocket_dir = '/run/containerd/s'\n",
    )
    .unwrap();
    assert_eq!(set.opt, Opt::At("/opt/x".into()));
    assert_eq!(set.shim_sockets, Some("/run/containerd/s".into()));
    let without = config("disabled_plugins = ['io.containerd.internal.v1.opt']").unwrap();
    assert_eq!(without.opt, Opt::Disabled);
    for (bad, named) in [
        ("[plugins.'io.containerd.internal.v1.opt']\npath = 'x'", "path"),
        (
            "[plugins.'io.containerd.internal.v1.opt']\npath = '/x:/y'",
            "path",
        ),
        (
            "[plugins.'io.containerd.shim.v1.manager']\nsocket_dir = 's'",
            "socket_dir",
        ),
        (
            "[plugins.'io.containerd.shim.v1.manager']\nsocket_dir = '/a/directory/that/is/too/long/for/such/sockets'",
            "socket_dir",
        ),
    ] {
        let error = config(bad).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn tcp_is_served_with_mutual_tls_only() {
    let all = "tcp_tls_cert = '/c'\ntcp_tls_key = '/k'\ntcp_tls_ca = '/a'\n";
    let tcp = config(&format!("[grpc]\ntcp_address = '127.0.0.1:1'\n{all}"))
        .unwrap()
        .grpc
        .tcp
        .unwrap();
    assert_eq!(tcp.authority, Path::new("/a"));
    for missing in ["tcp_tls_cert", "tcp_tls_key", "tcp_tls_ca"] {
        let rest: String = all
            .lines()
            .filter(|line| !line.starts_with(missing))
            .map(|line| format!("{line}\n"))
            .collect();
        let error = config(&format!("[grpc]\ntcp_address = '127.0.0.1:1'\n{rest}")).unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
    }
    assert!(
        config(&format!("[grpc]\n{all}")).is_err(),
        "files without an address"
    );
    for bad in [
        "[grpc]\nmode = 0o4777",
        "[grpc]\nmode = 0o060",
        "[grpc]\ntcp_address = 'localhost:1'\ntcp_tls_cert = '/c'\ntcp_tls_key = '/k'\ntcp_tls_ca = '/a'",
        "[grpc]\nmax_recv_message_size = 99999999999",
        "[metrics]\naddress = ':1338'",
    ] {
        assert!(config(bad).is_err(), "{bad}");
    }
    // containerd's default configuration says 0 where it means its own default.
    let zero = config("[grpc]\nmax_recv_message_size = 0\ntcp_address = ''").unwrap();
    assert_eq!(zero.grpc, Grpc::default());
}

#[test]
fn paths_that_mount_options_cannot_carry_are_refused() {
    let with_root = |root: &str| {
        Config {
            root: root.into(),
            ..Config::default()
        }
        .validate()
    };
    with_root("/a/b").unwrap();
    for bad in ["a/b", "/a:b", "/a,b", "/a\\b", "/run/wharf/supervisor"] {
        assert!(with_root(bad).is_err(), "{bad:?} was accepted");
    }
}

fn settings(text: &str) -> Result<Settings> {
    toml::from_str::<File>(text)
        .map_err(|error| Error::invalid(error.to_string()))
        .and_then(|file| file.snapshots())
}

#[test]
fn snapshotters_are_configured_as_containerds_are() {
    let settings = settings(
        "disabled_plugins = ['io.containerd.snapshotter.v1.btrfs']\n\
         [proxy_plugins.far]\ntype = 'snapshot'\naddress = 'unix:///run/far'\ncapabilities = ['rebase']\n\
         [proxy_plugins.far.exports]\nroot = '/r'\n\
         [plugins.'io.containerd.snapshotter.v1.overlayfs']\nmount_options = ['volatile']\n",
    )
    .unwrap();
    assert!(settings.disabled.contains("btrfs"));
    assert_eq!(settings.overlay_options, ["volatile"]);
    let far = &settings.proxies["far"];
    assert_eq!(
        (far.address.as_path(), &far.capabilities[..]),
        (Path::new("/run/far"), &["rebase".to_owned()][..])
    );
    assert_eq!(far.exports["root"], "/r");
}

#[test]
fn processors_are_configured_as_containerds_are() {
    let processors = |text: &str| {
        toml::from_str::<File>(text)
            .map_err(|error| Error::invalid(error.to_string()))
            .and_then(|file| file.processors())
    };
    let one = "[stream_processors.one]\naccepts = ['a']\nreturns = 'b'\npath = 'decoder'\n";
    let read = processors(&format!("{one}args = ['-d']\nenv = ['K=V=W']\n")).unwrap();
    assert_eq!((read.0[0].id.as_str(), read.0[0].timeout.as_secs()), ("one", 300));
    for (from, to) in [
        ("['a']", "[]"),
        ("'b'", "''"),
        ("'decoder'", "'bin/decoder'"),
        ("'decoder'", "'decoder'\nenv = ['K']"),
        ("'decoder'", "'decoder'\ntimeout_seconds = 0"),
        ("'decoder'", "'decoder'\nshell = true"),
    ] {
        assert!(processors(&one.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn what_has_no_effect_is_refused() {
    for text in [
        "disabled_plugins = ['io.containerd.grpc.v1.cri']",
        "[proxy_plugins.x]\ntype = 'diff'\naddress = '/x'",
        "[proxy_plugins.x]\ntype = 'snapshot'\naddress = 'x'",
        "[proxy_plugins.'a b']\ntype = 'snapshot'\naddress = '/x'",
        "[plugins.'io.containerd.snapshotter.v1.overlayfs']\nmount_options = ['lowerdir=/']",
        "[plugins.'io.containerd.snapshotter.v1.devmapper']\nroot_path = '/'",
    ] {
        assert!(settings(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_served_of_debugging_is_refused_by_name() {
    for text in [
        "[debug]\nlevel = 'debug'\n",
        "[debug]\naddress = '/run/debug.sock'\n",
    ] {
        let error = config(text).unwrap_err().to_string();
        assert!(error.contains("unknown field `debug`"), "{error}");
    }
}

#[test]
fn the_time_between_restarts_is_configured_by_either_name() {
    for plugin in [
        "io.containerd.monitor.container.v1.restart",
        "io.containerd.internal.v1.restart",
    ] {
        let text = |interval: &str| format!("[plugins.'{plugin}']\ninterval = '{interval}'\n");
        let interval = config(&text("500ms")).unwrap().restart_interval;
        assert_eq!(interval, std::time::Duration::from_millis(500));
        let error = config(&text("soon")).unwrap_err().to_string();
        assert!(error.contains("restart") && error.contains("soon"), "{error}");
    }
}
