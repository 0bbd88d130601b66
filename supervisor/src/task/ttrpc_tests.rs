//! Tests of [`super`], against servers that are written out here.

use super::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use wharf_proto::containerd::task::v2::{WaitRequest, WaitResponse};
use wharf_proto::google::rpc::Status;

const SECOND: Duration = Duration::from_secs(1);

fn pair() -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Client::over(ours).unwrap(), theirs)
}

fn wait(
    client: &Client,
    id: &str,
    timeout: Duration,
) -> impl Future<Output = Result<WaitResponse, CallError>> {
    let request = WaitRequest {
        id: id.to_owned(),
        exec_id: String::new(),
    };
    async move { client.call("test.Task", "Wait", &request, Some(timeout)).await }
}

async fn request(stream: &mut OwnedReadHalf, buffer: &mut Vec<u8>) -> (u32, WaitRequest) {
    let frame = next_frame(stream, buffer).await.unwrap().unwrap();
    let request = Request::decode(frame.payload.as_slice()).unwrap();
    assert_eq!(
        (request.service.as_str(), request.method.as_str()),
        ("test.Task", "Wait")
    );
    (
        frame.stream,
        WaitRequest::decode(request.payload.as_slice()).unwrap(),
    )
}

async fn respond(stream: &mut OwnedWriteHalf, id: u32, response: &Response) {
    let mut bytes = Vec::new();
    Frame::new(Kind::Response, id, response)
        .encode(&mut bytes)
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
}

fn exited(exit_status: u32) -> Response {
    let payload = WaitResponse {
        exit_status,
        exited_at: None,
    };
    Response {
        status: None,
        payload: payload.encode_to_vec(),
    }
}

#[tokio::test]
async fn responses_find_their_calls_in_any_order() {
    let (client, server) = pair();
    let (mut read, mut write) = server.into_split();
    let serve = async {
        let mut buffer = Vec::new();
        let (first, a) = request(&mut read, &mut buffer).await;
        let (second, b) = request(&mut read, &mut buffer).await;
        assert_eq!((first, second), (1, 3));
        assert_eq!((a.id.as_str(), b.id.as_str()), ("a", "b"));
        respond(&mut write, second, &exited(2)).await;
        respond(&mut write, first, &exited(1)).await;
    };
    let (a, b, ()) = tokio::join!(wait(&client, "a", SECOND), wait(&client, "b", SECOND), serve);
    assert_eq!(a.unwrap().exit_status, 1);
    assert_eq!(b.unwrap().exit_status, 2);
}

#[tokio::test]
async fn the_servers_error_reaches_the_caller_unchanged() {
    let (client, server) = pair();
    let (mut read, mut write) = server.into_split();
    let serve = async {
        let (id, _) = request(&mut read, &mut Vec::new()).await;
        let status = Status {
            code: 5,
            message: "process does not exist".to_owned(),
            details: Vec::new(),
        };
        let response = Response {
            status: Some(status),
            payload: Vec::new(),
        };
        respond(&mut write, id, &response).await;
    };
    let (error, ()) = tokio::join!(wait(&client, "a", SECOND), serve);
    let error = error.unwrap_err();
    assert_eq!(error.code(), 5);
    assert_eq!(error.to_string(), "process does not exist");
}

#[tokio::test]
async fn a_lost_connection_fails_what_is_pending_and_what_comes_after() {
    let (client, server) = pair();
    let serve = async {
        let (mut read, write) = server.into_split();
        request(&mut read, &mut Vec::new()).await;
        drop((read, write));
    };
    let (error, ()) = tokio::join!(wait(&client, "a", SECOND), serve);
    assert!(matches!(error, Err(CallError::Closed)));
    tokio::time::timeout(SECOND, client.closed()).await.unwrap();
    assert!(matches!(wait(&client, "b", SECOND).await, Err(CallError::Closed)));
}

#[tokio::test]
async fn a_silent_server_costs_a_timeout_and_leaves_no_trace() {
    let (client, _server) = pair();
    let error = wait(&client, "a", Duration::from_millis(10)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded as i32);
    assert!(client.shared.calls().pending.is_empty());
    assert!(!client.is_closed());
}

#[tokio::test]
async fn a_request_longer_than_a_frame_is_refused_and_the_connection_lives() {
    let (client, server) = pair();
    let huge = "x".repeat(wharf_proto::ttrpc::MAX_PAYLOAD);
    let error = wait(&client, &huge, SECOND).await.unwrap_err();
    assert!(matches!(error, CallError::Request { .. }));
    let (mut read, mut write) = server.into_split();
    let serve = async {
        let (id, _) = request(&mut read, &mut Vec::new()).await;
        respond(&mut write, id, &exited(0)).await;
    };
    let (fine, ()) = tokio::join!(wait(&client, "a", SECOND), serve);
    assert_eq!(fine.unwrap().exit_status, 0);
}

#[tokio::test]
async fn nobody_listening_is_told_apart_from_a_stranger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let error = Client::connect(&path, SECOND).await.unwrap_err();
    assert!(error.nobody_listens());
    assert_eq!(
        error.to_string(),
        format!(
            "connect to {}: No such file or directory (os error 2)",
            path.display()
        )
    );
}
