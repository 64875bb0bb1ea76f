//! SIGTERM, as the program meets it.

use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::{Upstream, accepted, handshake, process::Process, within};

#[tokio::test]
async fn sigterm_lets_requests_finish_ends_relays_after_the_grace_and_exits_0() {
    let mut upstream = Upstream::start().await;
    let mut process = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\nframes = \"off\"\n[upstream.u]\nurl = \"{}\"\n\
         [drain]\ngrace = \"1s\"\n",
        upstream.url
    ))
    .await;
    let mut socket = process.connect().await;
    socket.send(handshake("")).await;
    let mut relayed = upstream.accept().await;
    relayed.head().await;
    relayed.send(accepted("")).await;
    assert_eq!(socket.answer().await.status, 101);
    let mut idle = process.connect().await;
    let mut busy = process.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nHost: gate.test\r\n\r\n").await;
    let mut asked = upstream.accept().await;
    asked.head().await;

    process.terminate();
    process.event("stopping").await;
    assert!(idle.rest().await.is_empty(), "an idle connection ends at once");
    within("closed listener", async { while TcpStream::connect(&process.addresses[0]).await.is_ok() {} }).await;
    socket.send("still").await;
    assert_eq!(relayed.take(5).await, b"still");
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "done"));
    assert!(answer.has("connection: close"), "{}", answer.head);
    assert!(busy.rest().await.is_empty());

    assert!(socket.rest().await.is_empty());
    assert_eq!(process.exit_code().await, Some(0));
    let stopped = process.seen.iter().find(|event| event["message"] == "stopped").unwrap();
    assert_eq!((&stopped["websockets_cut"], &stopped["connections_cut"]), (&Value::from(1), &Value::from(0)));
    let ended = process.seen.iter().find(|event| event["message"] == "websocket ended").unwrap();
    assert_eq!((&ended["reason"], &ended["closed_by"]), (&Value::from("cut"), &Value::from("switchgate")));
}
