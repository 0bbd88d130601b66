//! Mounts that clients have made.

use wharf_proto::containerd::services::mounts::v1 as mounts;
use wharf_proto::containerd::types::{ActivationInfo, Mount};

use crate::case::Method;

fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        r#type: kind.into(),
        source: source.into(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
        ..Mount::default()
    }
}

pub(crate) fn mounts() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.mounts.v1.Mounts/{name}"));
    let activate = |name: &str, mounts| mounts::ActivateRequest {
        name: name.into(),
        mounts,
        ..mounts::ActivateRequest::default()
    };
    let deactivate = |name| mounts::DeactivateRequest { name };
    let info = |name| mounts::InfoRequest { name };
    let update = |name: &str, update_mask| mounts::UpdateRequest {
        info: Some(ActivationInfo {
            name: name.into(),
            ..ActivationInfo::default()
        }),
        update_mask,
    };
    vec![
        method("Activate")
            .namespaces(activate("m-1", Vec::new()))
            .send("no mounts", activate("m-2", Vec::new()))
            .send("no name", activate("", vec![mount("loop", "/not/there", &[])]))
            .send(
                "a type that nobody knows",
                activate("m-3", vec![mount("unheard-of", "/not/there", &[])]),
            )
            .send(
                "a template that is none",
                activate(
                    "m-4",
                    vec![
                        mount("tmpfs", "tmpfs", &[]),
                        mount("format/bind", "{{ unheard 0 }}", &[]),
                    ],
                ),
            )
            .send(
                "a template of a mount that comes later",
                activate(
                    "m-5",
                    vec![
                        mount("format/bind", "{{ mount 7 }}", &["bind"]),
                        mount("tmpfs", "tmpfs", &[]),
                    ],
                ),
            )
            .ids("name", |name| activate(&name, Vec::new()))
            .labels(|labels| mounts::ActivateRequest {
                labels,
                ..activate("m-6", Vec::new())
            }),
        method("Deactivate")
            .namespaces(deactivate("unheard-of".into()))
            .ids("name", deactivate),
        method("Info")
            .namespaces(info("unheard-of".into()))
            .ids("name", info),
        method("Update")
            .namespaces(update("unheard-of", None))
            .send("no activation", mounts::UpdateRequest::default())
            .masks(|mask| update("unheard-of", mask)),
        method("List")
            .namespaces(mounts::ListRequest::default())
            .filters(|filter| mounts::ListRequest {
                filters: vec![filter],
            }),
    ]
}
