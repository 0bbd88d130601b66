//! `wharf run`: makes a container, starts it, and stays with it until it ends.
//!
//! Owns the exit codes: the process's own; 125 when there was no process; 126 and 127 when its program could not be
//! executed or found. Refuses a terminal when there is none to pass on.

use std::io::Write as _;

use clap::Args;

use super::container_options::{AttachStreams, ContainerOptions};
use super::create;
use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::session::{Session, SessionOptions, Settings};
use super::terminal;
use crate::api::client::{Client, segment};

/// Make a container from an image and run a command in it
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "wharf run [OPTIONS] IMAGE [COMMAND [ARG...]]",
    after_help = "IMAGE is a name such as alpine or registry.example.org/team/app:1.2, which is pulled when it is not \
        here, or oci:DIR, oci-archive:FILE, docker-archive:FILE, rootfs:DIR on this machine.\n\n\
        Examples:\n  \
        wharf run -it --rm alpine sh                            a shell; Ctrl-P Ctrl-Q detaches\n  \
        wharf run -d --name db -e PASSWORD=x -m 512m postgres   a service with limited memory\n  \
        wharf run --rm -v ./src:/src -w /src rust cargo test    on files of this directory\n  \
        echo hello | wharf run -i --rm alpine tr a-z A-Z        in a pipeline\n  \
        wharf run --rm rootfs:./debian cat /etc/os-release      a directory as the image\n\n\
        The exit code is the command's own; 125 when it was not started, 126 when it cannot be executed, 127 when it was \
        not found."
)]
pub(crate) struct Run {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    session: SessionOptions,
    #[command(flatten)]
    pub(super) container: ContainerOptions,
}

impl Run {
    pub(crate) async fn run(&self, globals: &Globals) -> Outcome {
        self.check().map_err(Failure::code_of_client)?;
        let client = globals.connect().await.map_err(Failure::code_of_client)?;
        let streams = if self.detach {
            AttachStreams::default()
        } else {
            self.container.streams()
        };
        let id = create::create(&client, &self.container, streams)
            .await
            .map_err(Failure::code_of_client)?;
        if self.detach {
            self.start(&client, &id).await?;
            writeln!(std::io::stdout(), "{id}")?;
            return Ok(0);
        }
        let settings = Settings {
            container: &id,
            streams,
            terminal: self.container.tty,
            sig_proxy: self.session.sig_proxy,
            detach_keys: self.session.detach_keys(),
            // With --rm the container's name must be free when this command has ended.
            until: if self.container.rm { "removed" } else { "next-exit" },
        };
        let session = match Session::open(&client, settings).await {
            Ok(session) => session,
            Err(failure) => return Err(self.discard(&client, &id, failure.code_of_client()).await),
        };
        self.start(&client, &id).await?;
        session.finish().await
    }

    fn check(&self) -> Result<(), Failure> {
        if self.detach && !self.container.attach.is_empty() {
            return Err(Failure::new("Error: conflicting options: --attach and --detach"));
        }
        if self.container.tty
            && self.container.streams().stdin
            && !self.detach
            && !terminal::stdin_is_terminal()
        {
            return Err(Failure::new("the input device is not a TTY")
                .hint("leave out -t when stdin is a pipe or a file"));
        }
        Ok(())
    }

    async fn start(&self, client: &Client, id: &str) -> Result<(), Failure> {
        match client
            .post(format!("/containers/{}/start", segment(id)))
            .done()
            .await
        {
            Ok(()) => Ok(()),
            Err(error) => Err(self.discard(client, id, Failure::from(error).of_start()).await),
        }
    }

    /// Removes a container that never ran, if it was to be removed; daemons differ in whether they do.
    async fn discard(&self, client: &Client, id: &str, failure: Failure) -> Failure {
        if self.container.rm {
            // The first error is the one to report, and "no such container" is the good case.
            client
                .delete(format!("/containers/{}", segment(id)))
                .flag("force", true)
                .flag("v", true)
                .done()
                .await
                .ok();
        }
        failure
    }
}
