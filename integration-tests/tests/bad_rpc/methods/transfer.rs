//! Transfers, and the streams that they talk through.

use prost_types::Any;
use wharf_proto::any::pack;
use wharf_proto::containerd::services::streaming::v1::StreamInit;
use wharf_proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use wharf_proto::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageStore, OciRegistry, RegistryResolver,
};

use crate::case::{Method, stranger};

pub(crate) fn transfer() -> Vec<Method> {
    let request = |source: Option<Any>, destination: Option<Any>| TransferRequest {
        source,
        destination,
        options: None,
    };
    let image = |name: &str| {
        Some(pack(&ImageStore {
            name: name.into(),
            ..ImageStore::default()
        }))
    };
    let registry = |reference: &str| {
        Some(pack(&OciRegistry {
            reference: reference.into(),
            resolver: Some(RegistryResolver {
                default_scheme: "http".into(),
                ..RegistryResolver::default()
            }),
        }))
    };
    let import = || {
        Some(pack(&ImageImportStream {
            stream: "unheard-of".into(),
            ..ImageImportStream::default()
        }))
    };
    let export = || {
        Some(pack(&ImageExportStream {
            stream: "unheard-of".into(),
            ..ImageExportStream::default()
        }))
    };
    let garbage = Any {
        type_url: image("").expect("an image").type_url,
        value: b"\xff\xff".to_vec(),
    };
    let init = |id: &str| pack(&StreamInit { id: id.into() });
    vec![
        Method::new("containerd.services.transfer.v1.Transfer/Transfer")
            .namespaces(request(image("unheard-of"), image("tagged")))
            .send("nothing", request(None, None))
            .send("no destination", request(image("image"), None))
            .send("no source", request(None, image("tagged")))
            .send(
                "a source that nobody knows",
                request(Some(stranger()), image("tagged")),
            )
            .send(
                "a destination that nobody knows",
                request(image("image"), Some(stranger())),
            )
            .send(
                "a source that cannot be read",
                request(Some(garbage), image("tagged")),
            )
            .send(
                "two registries",
                request(registry("127.0.0.1:1/a:b"), registry("127.0.0.1:1/a:b")),
            )
            .send("an unknown image", request(image("unheard-of"), image("tagged")))
            .send("a malformed reference", request(registry("///"), image("tagged")))
            .send(
                "a registry that is not there",
                request(registry("127.0.0.1:1/a:b"), image("tagged")),
            )
            .send(
                "an import from an unknown stream",
                request(import(), image("tagged")),
            )
            .send(
                "an export to an unknown stream",
                request(image("image"), export()),
            )
            .send(
                "progress to an unknown stream",
                TransferRequest {
                    options: Some(TransferOptions {
                        progress_stream: "unheard-of".into(),
                    }),
                    ..request(image("unheard-of"), image("tagged"))
                },
            ),
        Method::new("containerd.services.streaming.v1.Streaming/Stream")
            .send("no id", init(""))
            .send("a message that nobody knows", stranger())
            .namespaces(init("stream-1")),
    ]
}
