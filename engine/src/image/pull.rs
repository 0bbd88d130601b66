//! Pulling: the supervisor does it; here its progress becomes the lines that Docker's clients draw.

use super::reference::Reference;
use super::store::Images;
use crate::api::types::{Progress, ProgressDetail};
use crate::error::Result;
use crate::supervisor::{ProgressEvent, RegistryAuth, Source};
use std::collections::HashMap;
use tokio::sync::mpsc;

impl Images {
    /// Pulls `reference` and unpacks it with `snapshotter`; lines for the client go to `lines` as things happen.
    ///
    /// # Errors
    ///
    /// What the registry or the supervisor said. Lines that were sent are not taken back.
    pub async fn pull(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        snapshotter: &str,
        lines: &mpsc::Sender<Progress>,
    ) -> Result<()> {
        let before = self
            .client()
            .image(&reference.to_string())
            .await
            .ok()
            .and_then(|row| row.target);
        let label = reference.tag().or(reference.digest()).unwrap_or_default();
        // A client that has gone does not stop a pull.
        lines
            .send(line(&format!("Pulling from {}", reference.path()), label))
            .await
            .ok();
        let (events, mut incoming) = mpsc::channel(64);
        let source = Source::Registry {
            reference: reference.to_string(),
            plain_http: reference.is_local(),
            auth,
            host: registry_host(reference.registry()).to_owned(),
        };
        let name = reference.to_string();
        let transfer =
            self.client()
                .transfer_image(source, &name, self.platform().clone(), snapshotter, events);
        let draw = async {
            let mut shown = HashMap::new();
            while let Some(event) = incoming.recv().await {
                if let Some(progress) = layer_line(&event, &mut shown) {
                    lines.send(progress).await.ok();
                }
            }
            shown
        };
        let (outcome, shown) = tokio::join!(transfer, draw);
        outcome?;
        for (id, last) in shown {
            if !matches!(last.as_str(), "Pull complete" | "Already exists") {
                lines.send(line("Pull complete", &id)).await.ok();
            }
        }
        let after = self.client().image(&name).await?.target.unwrap_or_default();
        lines
            .send(line(&format!("Digest: {}", after.digest), ""))
            .await
            .ok();
        let status = if before.is_some_and(|before| before.digest == after.digest) {
            format!("Status: Image is up to date for {}", reference.familiar())
        } else {
            format!("Status: Downloaded newer image for {}", reference.familiar())
        };
        lines.send(line(&status, "")).await.ok();
        Ok(())
    }
}

/// The host that a registry's name stands for: Docker Hub's API is elsewhere than its name.
fn registry_host(registry: &str) -> &str {
    if registry == "docker.io" {
        "registry-1.docker.io"
    } else {
        registry
    }
}

fn line(status: &str, id: &str) -> Progress {
    Progress {
        status: status.to_owned(),
        id: id.to_owned(),
        ..Default::default()
    }
}

// `shown` remembers each layer's last status, so that a status without numbers is said once.
fn layer_line(event: &ProgressEvent, shown: &mut HashMap<String, String>) -> Option<Progress> {
    let descriptor = event.descriptor.as_ref()?;
    if !(descriptor.media_type.contains("layer") || descriptor.media_type.contains("rootfs")) {
        return None;
    }
    let id: String = descriptor.digest.rsplit(':').next()?.chars().take(12).collect();
    let status = match event.event.as_str() {
        "waiting" => "Pulling fs layer",
        "downloading" => "Downloading",
        "complete" => "Download complete",
        "exists" | "already exists" => "Already exists",
        "extracting" | "unpacking" => "Extracting",
        "extracted" | "unpacked" => "Pull complete",
        _ => return None,
    };
    let total = if event.total > 0 {
        event.total
    } else {
        descriptor.size
    };
    let counted = matches!(status, "Downloading" | "Extracting") && event.current > 0;
    if !counted && shown.get(&id).is_some_and(|last| last == status) {
        return None;
    }
    shown.insert(id.clone(), status.to_owned());
    let detail = ProgressDetail {
        current: if counted { event.current } else { 0 },
        total: if counted { total } else { 0 },
    };
    Some(Progress {
        progress: if counted {
            bar(event.current, total)
        } else {
            String::new()
        },
        progress_detail: Some(detail),
        ..line(status, &id)
    })
}

// Clients that do not draw for themselves print this.
fn bar(current: i64, total: i64) -> String {
    const WIDTH: i64 = 50;
    if total <= 0 {
        return size(current);
    }
    let done = usize::try_from((current * WIDTH / total).clamp(0, WIDTH)).unwrap_or(0);
    let rest = usize::try_from(WIDTH).unwrap_or(0) - done;
    format!(
        "[{}>{}] {}/{}",
        "=".repeat(done),
        " ".repeat(rest),
        size(current),
        size(total)
    )
}

fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    #[allow(clippy::cast_precision_loss, reason = "shown with four digits")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", Digits(value), UNITS[unit])
}

struct Digits(f64);

impl std::fmt::Display for Digits {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = match self.0 {
            value if value >= 1000.0 || value.fract() == 0.0 => 0,
            value if value >= 100.0 => 1,
            value if value >= 10.0 => 2,
            _ => 3,
        };
        write!(out, "{:.decimals$}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Descriptor;

    fn event(word: &str, media_type: &str, current: i64) -> ProgressEvent {
        ProgressEvent {
            event: word.to_owned(),
            current,
            descriptor: Some(Descriptor {
                media_type: media_type.to_owned(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                size: 2_000_000,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn layers_are_shown_and_the_rest_is_not() {
        let mut shown = HashMap::new();
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert_eq!(
            layer_line(
                &event("downloading", "application/vnd.oci.image.config.v1+json", 5),
                &mut shown
            ),
            None
        );
        let first = layer_line(&event("downloading", layer, 1_000_000), &mut shown).unwrap();
        assert_eq!(
            (first.status.as_str(), first.id.as_str()),
            ("Downloading", "abababababab")
        );
        assert!(first.progress.ends_with("1MB/2MB"), "{}", first.progress);
        assert!(layer_line(&event("complete", layer, 0), &mut shown).is_some());
        assert_eq!(layer_line(&event("complete", layer, 0), &mut shown), None);
    }
}
