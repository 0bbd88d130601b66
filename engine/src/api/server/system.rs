//! `/_ping`, `/version`, `/info`, `/events`.

use super::query::Query;
use super::reply::{Reply, json_lines};
use crate::api::types::{
    API_VERSION, Event, Info, MIN_API_VERSION, Members, Platform, Plugins, Runtime as RuntimeInfo, Version,
    VersionComponent,
};
use crate::container::record::Phase;
use crate::container::runtime::Runtime;
use crate::engine::{Engine, SNAPSHOTTER};
use crate::error::Error;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::json;
use std::sync::Arc;
use tokio_stream::wrappers::BroadcastStream;

type Shared = State<Arc<Engine>>;

/// `GET` and `HEAD /_ping`: the versions are in the headers of every answer.
pub async fn ping() -> impl IntoResponse {
    let headers = [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (HeaderName::from_static("builder-version"), "1"),
        (HeaderName::from_static("swarm"), "inactive"),
    ];
    (headers, "OK")
}

/// `GET /version`.
pub async fn version(State(engine): Shared) -> Reply<Json<Version>> {
    let uname = rustix::system::uname();
    let own = env!("CARGO_PKG_VERSION");
    let component = |name: &str, version: &str| VersionComponent {
        name: name.to_owned(),
        version: version.to_owned(),
        ..Default::default()
    };
    let mut components = vec![component("Engine", own)];
    components[0].details = [
        ("ApiVersion".to_owned(), API_VERSION.to_owned()),
        ("MinAPIVersion".to_owned(), MIN_API_VERSION.to_owned()),
        ("Os".to_owned(), "linux".to_owned()),
        ("Arch".to_owned(), engine.images.platform().architecture.clone()),
        (
            "KernelVersion".to_owned(),
            uname.release().to_string_lossy().into_owned(),
        ),
    ]
    .into();
    components.push(component(
        "containerd",
        &engine.client.version().await.map_err(Error::from)?,
    ));
    Ok(Json(Version {
        platform: Platform {
            name: "Wharf".to_owned(),
        },
        components,
        version: own.to_owned(),
        api_version: API_VERSION.to_owned(),
        min_api_version: MIN_API_VERSION.to_owned(),
        os: "linux".to_owned(),
        arch: engine.images.platform().architecture.clone(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        ..Default::default()
    }))
}

/// `GET /info`.
pub async fn info(State(engine): Shared) -> Reply<Json<Info>> {
    let containers = engine.containers.all();
    let count = |wanted: &[Phase]| {
        let number = containers
            .iter()
            .filter(|container| container.with_record(|record| wanted.contains(&record.state.phase)));
        u32::try_from(number.count()).unwrap_or(u32::MAX)
    };
    let uname = rustix::system::uname();
    let facts = &engine.facts;
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = text("/etc/os-release");
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    let runtimes = Runtime::known()
        .into_iter()
        .map(|(name, path)| (name, RuntimeInfo { path }));
    Ok(Json(Info {
        id: engine.id.clone(),
        containers: u32::try_from(containers.len()).unwrap_or(u32::MAX),
        containers_running: count(&[Phase::Running]),
        containers_paused: count(&[Phase::Paused]),
        containers_stopped: count(&[Phase::Created, Phase::Exited, Phase::Dead]),
        images: u32::try_from(engine.images.list().await?.len()).unwrap_or(u32::MAX),
        driver: SNAPSHOTTER.to_owned(),
        driver_status: vec![[
            "driver-type".to_owned(),
            "io.containerd.snapshotter.v1".to_owned(),
        ]],
        plugins: Plugins {
            network: ["host", "none"].map(str::to_owned).to_vec(),
            log: vec!["json-file".to_owned()],
            ..Default::default()
        },
        memory_limit: true,
        swap_limit: facts.swap_limit,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: text("/proc/sys/net/ipv4/ip_forward").trim() == "1",
        debug: tracing::enabled!(tracing::Level::DEBUG),
        system_time: jiff::Timestamp::now().to_string(),
        logging_driver: "json-file".to_owned(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if facts.cgroup_v2 { "2" } else { "1" }.to_owned(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        operating_system: field("PRETTY_NAME="),
        os_version: field("VERSION_ID="),
        os_type: "linux".to_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        ncpu: std::thread::available_parallelism().map_or(1, usize::from),
        mem_total: mem_total(&text("/proc/meminfo")),
        docker_root_dir: engine.root.to_string_lossy().into_owned(),
        name: uname.nodename().to_string_lossy().into_owned(),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtimes: runtimes.collect(),
        default_runtime: "wharf".to_owned(),
        live_restore_enabled: true,
        security_options: vec!["name=seccomp,profile=builtin".to_owned()],
        rest: Members::from([("Swarm".to_owned(), json!({ "LocalNodeState": "inactive" }))]),
        ..Default::default()
    }))
}

fn mem_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// `GET /events`: from now on, until `until` or the client leaves.
pub async fn events(State(engine): Shared, uri: Uri) -> Reply<Response> {
    let query = Query::of(&uri);
    let filters = query.filters(&["container", "event", "image", "label", "type"])?;
    if !query.get("since").is_empty() {
        return Err(Error::not_supported("the parameter since: past events are not kept").into());
    }
    let until = query.number("until")?;
    let passes = move |event: &Event| {
        let attribute = |name: &str| event.actor.attributes.get(name).cloned().unwrap_or_default();
        filters.pass("type", |wanted| event.kind == wanted)
            && filters.pass("event", |wanted| event.action == wanted)
            && filters.pass("container", |wanted| {
                event.kind == "container"
                    && (event.actor.id.starts_with(wanted) || attribute("name") == wanted)
            })
            && filters.pass("image", |wanted| {
                attribute("image") == wanted || event.kind == "image" && event.actor.id == wanted
            })
            && filters.pass_labels(&event.actor.attributes)
    };
    // What a slow listener lost is lost: events are hints.
    let events = BroadcastStream::new(engine.events.subscribe()).filter_map(|event| async { event.ok() });
    let events = events.filter(move |event| std::future::ready(passes(event)));
    let seconds = until.map(|until| until.saturating_sub(jiff::Timestamp::now().as_second()).max(0));
    let end = async move {
        match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
            Some(seconds) => tokio::time::sleep(std::time::Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    Ok(json_lines(events.take_until(Box::pin(end))))
}
