//! The flags that `run` and `create` share, and the create request they make.
//!
//! Owns one flag for each thing that the daemon honours, named and meaning as in Docker. Refuses nothing else than what
//! cannot be put into the request: limits, names and combinations are judged by the daemon, in one place for all clients.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};

use super::failure::Failure;
use super::option_values as values;
use super::quantity;
use crate::api::types::{ContainerConfig, CreateRequest, HostConfig, LogConfig};

/// When an image is fetched before a container is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    // No doc comments: they would make the help of all options twice as long.
    Always,
    Missing,
    Never,
}

/// What a container is made of.
#[derive(Debug, Args)]
pub(crate) struct ContainerOptions {
    /// Give the container a name, instead of a made-up one
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Remove the container, with its files and logs, when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep stdin open, and pass ours on when attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Attach to these streams only
    #[arg(short, long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr"])]
    pub(crate) attach: Vec<String>,
    /// When to pull the image: if it is missing, always, or never
    #[arg(long, value_enum, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Do not show the progress of a pull
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the container's id into a new file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Show this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Set an environment variable; a bare NAME passes ours on
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "Process")]
    env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = "Process")]
    env_file: Vec<PathBuf>,
    /// The working directory inside
    #[arg(short, long, value_name = "DIR", help_heading = "Process")]
    workdir: Option<String>,
    /// The user, and group, inside: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Process")]
    user: Option<String>,
    /// One more group of the process
    #[arg(long, value_name = "GROUP", help_heading = "Process")]
    group_add: Vec<String>,
    /// The program to run instead of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM", help_heading = "Process")]
    entrypoint: Option<String>,
    /// A label
    #[arg(short, long, value_name = "KEY[=VALUE]", help_heading = "Process")]
    label: Vec<String>,
    /// An annotation of the OCI spec
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Process")]
    annotation: Vec<String>,
    /// The signal that `stop` sends first
    #[arg(long, value_name = "SIGNAL", help_heading = "Process")]
    stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills
    #[arg(
        long,
        value_name = "SECONDS",
        help_heading = "Process",
        allow_negative_numbers = true
    )]
    stop_timeout: Option<i64>,
    /// How output is kept
    #[arg(long, value_name = "DRIVER", help_heading = "Process")]
    log_driver: Option<String>,
    /// An option of the log driver, such as max-size=10m
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Process")]
    log_opt: Vec<String>,

    /// Mount a file or directory of the host
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]", help_heading = "Files")]
    volume: Vec<String>,
    /// Mount in the long form: type=bind|tmpfs,source=…,target=…,readonly
    #[arg(long, value_name = "MOUNT", help_heading = "Files")]
    mount: Vec<String>,
    /// Mount an empty tmpfs
    #[arg(long, value_name = "TARGET[:OPTIONS]", help_heading = "Files")]
    tmpfs: Vec<String>,
    /// Make the root filesystem read-only
    #[arg(long, help_heading = "Files")]
    read_only: bool,
    /// Make a device of the host usable inside
    #[arg(long, value_name = "DEVICE[:TARGET[:rwm]]", help_heading = "Files")]
    device: Vec<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE", help_heading = "Files")]
    shm_size: Option<String>,

    /// Most memory, such as 512m
    #[arg(short, long, value_name = "SIZE", help_heading = "Resources")]
    memory: Option<String>,
    /// Most memory and swap together; -1 for unlimited swap
    #[arg(
        long,
        value_name = "SIZE",
        help_heading = "Resources",
        allow_hyphen_values = true
    )]
    memory_swap: Option<String>,
    /// Memory that reclaim leaves alone, a soft limit
    #[arg(long, value_name = "SIZE", help_heading = "Resources")]
    memory_reservation: Option<String>,
    /// Most CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER", help_heading = "Resources")]
    cpus: Option<String>,
    /// Relative CPU weight; 1024 is the usual
    #[arg(short, long, value_name = "SHARES", help_heading = "Resources")]
    cpu_shares: Option<i64>,
    /// CPU period in microseconds
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Resources")]
    cpu_period: Option<i64>,
    /// CPU time in microseconds a period
    #[arg(
        long,
        value_name = "MICROSECONDS",
        help_heading = "Resources",
        allow_negative_numbers = true
    )]
    cpu_quota: Option<i64>,
    /// CPUs to run on, such as 0-3,7
    #[arg(long, value_name = "LIST", help_heading = "Resources")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST", help_heading = "Resources")]
    cpuset_mems: Option<String>,
    /// Most processes and threads; -1 for unlimited
    #[arg(
        long,
        value_name = "NUMBER",
        help_heading = "Resources",
        allow_negative_numbers = true
    )]
    pids_limit: Option<i64>,
    /// A resource limit of the process, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Resources")]
    ulimit: Vec<String>,
    /// Preference of the OOM killer, -1000 to 1000
    #[arg(
        long,
        value_name = "SCORE",
        help_heading = "Resources",
        allow_negative_numbers = true
    )]
    oom_score_adj: Option<i64>,
    /// The parent cgroup
    #[arg(long, value_name = "CGROUP", help_heading = "Resources")]
    cgroup_parent: Option<String>,

    /// The network: none or host
    #[arg(
        long,
        alias = "net",
        value_name = "NETWORK",
        help_heading = "Network and namespaces"
    )]
    network: Option<String>,
    /// The host name inside
    #[arg(
        short = 'h',
        long,
        value_name = "NAME",
        help_heading = "Network and namespaces"
    )]
    hostname: Option<String>,
    /// The domain name inside
    #[arg(long, value_name = "NAME", help_heading = "Network and namespaces")]
    domainname: Option<String>,
    /// A line of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network and namespaces")]
    add_host: Vec<String>,
    /// A name server
    #[arg(long, value_name = "ADDRESS", help_heading = "Network and namespaces")]
    dns: Vec<String>,
    /// An option of /etc/resolv.conf
    #[arg(
        long,
        alias = "dns-opt",
        value_name = "OPTION",
        help_heading = "Network and namespaces"
    )]
    dns_option: Vec<String>,
    /// A search domain
    #[arg(long, value_name = "DOMAIN", help_heading = "Network and namespaces")]
    dns_search: Vec<String>,
    /// The PID namespace: host, or a private one
    #[arg(long, value_name = "MODE", help_heading = "Network and namespaces")]
    pid: Option<String>,
    /// The IPC namespace: host, none, private or shareable
    #[arg(long, value_name = "MODE", help_heading = "Network and namespaces")]
    ipc: Option<String>,
    /// The UTS namespace: host, or a private one
    #[arg(long, value_name = "MODE", help_heading = "Network and namespaces")]
    uts: Option<String>,
    /// The cgroup namespace: host or private
    #[arg(long, value_name = "MODE", help_heading = "Network and namespaces")]
    cgroupns: Option<String>,
    /// A kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Network and namespaces")]
    sysctl: Vec<String>,

    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    cap_drop: Vec<String>,
    /// Give the container every capability and device: it is root on the host
    #[arg(long, help_heading = "Security")]
    privileged: bool,
    /// A security option: no-new-privileges, seccomp=unconfined, seccomp=FILE
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    security_opt: Vec<String>,
    /// The OCI runtime: a name that the daemon knows, or the path of a program
    #[arg(long, value_name = "RUNTIME", help_heading = "Security")]
    runtime: Option<String>,

    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    image_and_command: Vec<String>,
}

/// Which streams `run` attaches to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AttachStreams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl ContainerOptions {
    /// The image as the user wrote it, or, if it is a path on this machine, with the path made absolute.
    pub(crate) fn image(&self) -> Result<values::ImageSource, Failure> {
        values::image_source(&self.image_and_command[0])
    }

    /// The command and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        &self.image_and_command[1..]
    }

    /// The streams to attach to, of a container that is not detached.
    pub(crate) fn streams(&self) -> AttachStreams {
        if self.attach.is_empty() {
            return AttachStreams {
                stdin: self.interactive,
                stdout: true,
                stderr: true,
            };
        }
        let has = |name: &str| self.attach.iter().any(|stream| stream == name);
        AttachStreams {
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        }
    }

    /// The create request, of a container whose `streams` will be attached.
    pub(crate) fn request(&self, image: &str, streams: AttachStreams) -> Result<CreateRequest, Failure> {
        Ok(CreateRequest {
            config: self.config(image, streams)?,
            host_config: self.host_config()?,
            ..CreateRequest::default()
        })
    }

    fn config(&self, image: &str, streams: AttachStreams) -> Result<ContainerConfig, Failure> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(values::env_file(file)?);
        }
        for variable in &self.env {
            env.extend(values::env(variable)?);
        }
        let anonymous = self.volume.iter().filter(|volume| !volume.contains(':'));
        Ok(ContainerConfig {
            hostname: self.hostname.clone().unwrap_or_default(),
            domainname: self.domainname.clone().unwrap_or_default(),
            user: self.user.clone().unwrap_or_default(),
            attach_stdin: streams.stdin,
            attach_stdout: streams.stdout,
            attach_stderr: streams.stderr,
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive && streams.stdin,
            env,
            cmd: self.command().to_vec(),
            image: image.to_owned(),
            volumes: anonymous
                .map(|target| (target.clone(), BTreeMap::new()))
                .collect(),
            working_dir: self.workdir.clone().unwrap_or_default(),
            entrypoint: self.entrypoint.clone().map(|program| vec![program]),
            labels: values::map("--label", &self.label, values::Bare::MeansEmpty)?,
            stop_signal: self.stop_signal.clone().unwrap_or_default(),
            stop_timeout: self.stop_timeout,
            ..ContainerConfig::default()
        })
    }

    fn host_config(&self) -> Result<HostConfig, Failure> {
        let size = |text: &Option<String>| text.as_deref().map_or(Ok(0), quantity::bytes);
        Ok(HostConfig {
            binds: values::binds(&self.volume)?,
            mounts: self
                .mount
                .iter()
                .map(|mount| values::mount(mount))
                .collect::<Result<_, _>>()?,
            tmpfs: self
                .tmpfs
                .iter()
                .map(|tmpfs| values::split_at_colon(tmpfs))
                .collect(),
            network_mode: self.network.clone().unwrap_or_else(|| "default".to_owned()),
            auto_remove: self.rm,
            log_config: LogConfig {
                r#type: self.log_driver.clone().unwrap_or_default(),
                config: values::map("--log-opt", &self.log_opt, values::Bare::Refused)?,
            },
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            readonly_rootfs: self.read_only,
            security_opt: values::security_options(&self.security_opt)?,
            group_add: self.group_add.clone(),
            dns: self.dns.clone(),
            dns_options: self.dns_option.clone(),
            dns_search: self.dns_search.clone(),
            extra_hosts: self.add_host.clone(),
            ipc_mode: self.ipc.clone().unwrap_or_default(),
            pid_mode: self.pid.clone().unwrap_or_default(),
            uts_mode: self.uts.clone().unwrap_or_default(),
            cgroupns_mode: self.cgroupns.clone().unwrap_or_default(),
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
            shm_size: size(&self.shm_size)?,
            runtime: self.runtime.clone().unwrap_or_default(),
            memory: size(&self.memory)?,
            memory_swap: if self.memory_swap.as_deref() == Some("-1") {
                -1
            } else {
                size(&self.memory_swap)?
            },
            memory_reservation: size(&self.memory_reservation)?,
            nano_cpus: self.cpus.as_deref().map_or(Ok(0), quantity::nano_cpus)?,
            cpu_shares: self.cpu_shares.unwrap_or(0),
            cpu_period: self.cpu_period.unwrap_or(0),
            cpu_quota: self.cpu_quota.unwrap_or(0),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            pids_limit: self.pids_limit.unwrap_or(0),
            oom_score_adj: self.oom_score_adj.unwrap_or(0),
            ulimits: self
                .ulimit
                .iter()
                .map(|ulimit| values::ulimit(ulimit))
                .collect::<Result<_, _>>()?,
            sysctls: values::map("--sysctl", &self.sysctl, values::Bare::Refused)?,
            devices: self.device.iter().map(|device| values::device(device)).collect(),
            annotations: values::map("--annotation", &self.annotation, values::Bare::Refused)?,
            ..HostConfig::default()
        })
    }
}
