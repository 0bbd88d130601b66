//! Content: digests, offsets, references, and streams of writes.

use wharf_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, ListContentRequest, ListStatusesRequest,
    ReadContentRequest, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest,
};

use crate::case::{Labels, Method, NOWHERE};
use crate::side::{HELLO, PARTIAL};

fn method(name: &str) -> Method {
    Method::new(&format!("containerd.services.content.v1.Content/{name}"))
}

fn info(digest: &str) -> InfoRequest {
    InfoRequest {
        digest: digest.into(),
    }
}

fn read(digest: &str, offset: i64, size: i64) -> ReadContentRequest {
    ReadContentRequest {
        digest: digest.into(),
        offset,
        size,
    }
}

fn update(digest: &str, labels: Labels) -> UpdateRequest {
    UpdateRequest {
        info: Some(Info {
            digest: digest.into(),
            labels,
            ..Info::default()
        }),
        ..UpdateRequest::default()
    }
}

fn delete(digest: &str) -> DeleteContentRequest {
    DeleteContentRequest {
        digest: digest.into(),
    }
}

fn write(action: WriteAction, reference: &str) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.into(),
        ..WriteContentRequest::default()
    }
}

fn commit(reference: &str, data: &'static [u8], total: i64, expected: &str) -> WriteContentRequest {
    WriteContentRequest {
        data: data.into(),
        total,
        expected: expected.into(),
        ..write(WriteAction::Commit, reference)
    }
}

pub(crate) fn content() -> Vec<Method> {
    let filters = |filter| ListContentRequest {
        filters: vec![filter],
    };
    let statuses = |filter| ListStatusesRequest {
        filters: vec![filter],
    };
    vec![
        method("Info")
            .namespaces(info(HELLO))
            .digests("digest", |digest| info(&digest)),
        method("Update")
            .namespaces(update(HELLO, Labels::new()))
            .send("no info", UpdateRequest::default())
            .digests("digest", |digest| update(&digest, Labels::new()))
            .labels(|labels| update(HELLO, labels))
            .masks(|update_mask| UpdateRequest {
                update_mask,
                ..update(HELLO, Labels::new())
            }),
        method("List")
            .namespaces(ListContentRequest::default())
            .filters(filters),
        method("Delete")
            .namespaces(delete(HELLO))
            .digests("digest", |digest| delete(&digest)),
        method("Read")
            .namespaces(read(HELLO, 0, 0))
            .digests("digest", |digest| read(&digest, 0, 0))
            .send("a negative offset", read(HELLO, -1, 0))
            .send("an offset behind the end", read(HELLO, 7, 0))
            .send("the offset of the end", read(HELLO, 6, 0))
            .send("a negative size", read(HELLO, 0, -1))
            .send("a size behind the end", read(HELLO, 3, 100))
            .send("a size that overflows", read(HELLO, 3, i64::MAX)),
        method("Status")
            .namespaces(StatusRequest {
                r#ref: PARTIAL.into(),
            })
            .ids("ref", |r#ref| StatusRequest { r#ref }),
        method("ListStatuses")
            .namespaces(ListStatusesRequest::default())
            .filters(statuses),
        method("Abort")
            .namespaces(AbortRequest {
                r#ref: "unheard-of".into(),
            })
            .ids("ref", |r#ref| AbortRequest { r#ref }),
        writes(),
    ]
}

fn writes() -> Method {
    let bytes = |reference: &str, offset, data: &'static [u8]| WriteContentRequest {
        offset,
        data: data.into(),
        ..write(WriteAction::Write, reference)
    };
    method("Write")
        .namespaces(commit("new", b"new", 3, ""))
        .send("no reference", write(WriteAction::Stat, ""))
        .send("no reference, written", bytes("", 0, b"x"))
        .send("no reference, committed", commit("", b"x", 1, ""))
        .send(
            "an unknown action",
            WriteContentRequest {
                action: 77,
                ..write(WriteAction::Stat, "r-1")
            },
        )
        .digests("expected", |expected| {
            // An ingest for each: containerd leaves those that it refuses.
            let reference = format!("r-2-{}-{}", expected.len(), expected.ends_with('0'));
            WriteContentRequest {
                expected,
                ..commit(&reference, b"x", 1, "")
            }
        })
        .send("a negative total", commit("r-3", b"x", -1, ""))
        .send("a total that is wrong", commit("r-4", b"x", 2, ""))
        .send("a negative offset", bytes("r-5", -1, b"x"))
        .send("an offset that leaves a gap", bytes("r-6", 5, b"x"))
        .send("an offset in the ingest's middle", bytes(PARTIAL, 1, b"x"))
        .send("what is there already", commit("r-7", b"hello\n", 6, HELLO))
        .send(
            "what is not what was expected",
            commit("r-8", b"hello\n", 6, NOWHERE),
        )
        .send(
            "the commit of a part",
            WriteContentRequest {
                offset: 3,
                ..commit(PARTIAL, b"", 10, "")
            },
        )
        .stream(
            "another reference in the middle",
            &[bytes("r-9", 0, b"x"), bytes("r-10", 1, b"y")],
        )
        .stream(
            "another total in the middle",
            &[
                WriteContentRequest {
                    total: 5,
                    ..bytes("r-11", 0, b"x")
                },
                WriteContentRequest {
                    total: 6,
                    ..bytes("r-11", 1, b"y")
                },
            ],
        )
        .stream(
            "another digest in the middle",
            &[
                WriteContentRequest {
                    expected: HELLO.into(),
                    ..bytes("r-12", 0, b"x")
                },
                WriteContentRequest {
                    expected: NOWHERE.into(),
                    ..bytes("r-12", 1, b"y")
                },
            ],
        )
        .stream(
            "more than its total",
            &[WriteContentRequest {
                total: 2,
                ..bytes("r-13", 0, b"xyz")
            }],
        )
        .labels(|labels| WriteContentRequest {
            labels,
            ..commit("r-14", b"labelled", 8, "")
        })
}
