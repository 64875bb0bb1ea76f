//! The embedded upstream `builtin:echo`: it echoes WebSocket messages and bodies, and serves a page to try it from.
//!
//! It is a server like any other, reached over a pipe instead of a socket, so that a request to it takes the whole way.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, TRAILER, UPGRADE, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::{Either, Full};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError,
        error::CapacityError,
        protocol::{CloseFrame, Message, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::protocol::{
    log_text::Escaped,
    token_list,
    upgrade::{self, Intent},
    websocket::key,
};

/// The page itself; it loads nothing from anywhere.
const PAGE: &str = include_str!("echo_page.html");

/// What the page may do: run its own script and open WebSockets, nothing else.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src ws: wss:; \
     base-uri 'none'; form-action 'none'",
);

/// The largest message that comes back; a larger one is answered with close code 1009.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Most connections carry short messages typed by a person; longer ones grow the buffers and give them back.
const BUFFER: usize = 4 * 1024;

type Reply = Response<Either<Full<Bytes>, Incoming>>;

/// Serves one connection until its peer leaves: HTTP/1.1 with keep-alive, or a WebSocket once that was asked for.
pub(super) async fn serve(io: DuplexStream) {
    // hyper gives up the connection by finishing its future; the pending upgrade has to survive it.
    let (switch, mut switched) = mpsc::channel(1);
    let service = service_fn(move |request| {
        let switch = switch.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(request, &switch)) }
    });
    // A peer that has said all it wanted to say still gets its answer.
    let connection = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(io), service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(error = %Escaped(error), "builtin:echo: connection ended");
        return;
    }
    let Ok(pending) = switched.try_recv() else { return };
    let pending: OnUpgrade = pending;
    let ended = match pending.await {
        // Boxed: it is many times the size of the HTTP part and most connections never come here.
        Ok(stream) => Box::pin(echo(stream)).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(error = %Escaped(error), "builtin:echo: WebSocket ended");
    }
}

fn answer(mut request: Request<Incoming>, switch: &mpsc::Sender<OnUpgrade>) -> Reply {
    match *request.method() {
        Method::GET if upgrade::intent(request.headers()) == Intent::WebSocket => match accept(request.headers()) {
            Some(response) if switch.try_send(hyper::upgrade::on(&mut request)).is_ok() => response,
            _ => {
                refusal(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or repeated (RFC 6455 section 4.2.1).\n")
            }
        },
        Method::GET | Method::HEAD => page(),
        Method::CONNECT => {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "This upstream opens no tunnels.\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"));
            response
        }
        _ => echo_body(request),
    }
}

/// The 101 (RFC 6455 §4.2.2), or nothing when there is no single key to answer.
///
/// The proxy has judged the handshake already, with the waivers of its route; judging it again would undo those.
fn accept(headers: &HeaderMap) -> Option<Reply> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else { return None };
    let accept = HeaderValue::try_from(key::accept_value(key.to_str().ok()?)).ok()?;

    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    let first = token_list::members(headers.get_all(SEC_WEBSOCKET_PROTOCOL)).find(|name| token_list::is_token(name));
    if let Some(subprotocol) = first.and_then(|name| HeaderValue::try_from(name).ok()) {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Some(response)
}

fn page() -> Reply {
    let mut response = Response::new(Either::Left(Full::from(PAGE)));
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    fields.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    unstored(fields);
    response
}

/// The body as it arrives, chunk by chunk, so that its length costs no memory.
fn echo_body(request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let mut response = Response::new(Either::Right(body));
    let fields = response.headers_mut();
    // hyper passes on only those trailers that the head announces.
    for name in [CONTENT_TYPE, TRAILER] {
        for value in parts.headers.get_all(&name) {
            fields.append(&name, value.clone());
        }
    }
    unstored(fields);
    response
}

fn refusal(status: StatusCode, text: &'static str) -> Reply {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    unstored(fields);
    response
}

/// What is echoed was chosen by the peer: no browser may keep it, or guess that it is a page.
fn unstored(fields: &mut HeaderMap) {
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

async fn echo(stream: Upgraded) -> Result<(), WsError> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, Some(config)).await;
    // Pings and Close are answered by the library while it is asked for the next message.
    while let Some(message) = socket.next().await {
        match message {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).await?,
            Ok(_) => {}
            Err(error) => {
                if let Some(code) = close_code(&error) {
                    // RFC 6455 §7.1.7: say why before leaving.
                    let frame = CloseFrame { code, reason: "".into() };
                    socket.send(Message::Close(Some(frame))).await?;
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The close code (RFC 6455 §7.4.1) for what the peer did wrong, where there is still somebody to tell.
fn close_code(error: &WsError) -> Option<CloseCode> {
    match error {
        WsError::Protocol(_) => Some(CloseCode::Protocol),
        WsError::Utf8(_) => Some(CloseCode::Invalid),
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => Some(CloseCode::Size),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_tungstenite::{
        client_async,
        tungstenite::{
            client::IntoClientRequest,
            protocol::frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    };

    use super::*;

    const OPENING: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    /// Sends `request`, leaves, and returns all that came back.
    async fn exchange(request: &[u8]) -> String {
        let (mut ours, theirs) = duplex(64 * 1024);
        let client = async {
            ours.write_all(request).await.unwrap();
            ours.shutdown().await.unwrap();
            let mut answer = Vec::new();
            ours.read_to_end(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        };
        let ((), answer) = tokio::join!(serve(theirs), client);
        answer
    }

    async fn with_socket<F: Future<Output = ()>>(client: impl FnOnce(WebSocketStream<DuplexStream>) -> F) {
        let (ours, theirs) = duplex(1024);
        let client = async {
            let (socket, _) = client_async("ws://builtin/", ours).await.unwrap();
            client(socket).await;
        };
        tokio::join!(serve(theirs), client);
    }

    #[tokio::test]
    async fn the_page_is_served_at_any_path_and_may_load_nothing() {
        let answer = exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /x/y HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "keep-alive: {answer:.200}");
        assert!(answer.contains("content-type: text/html; charset=utf-8\r\n"));
        assert!(answer.contains("cache-control: no-store\r\n"));
        assert!(answer.contains("default-src 'none'"));
        assert!(!PAGE.contains("src=\"http") && !PAGE.contains("url(") && !PAGE.contains("@import"));
    }

    #[tokio::test]
    async fn head_has_the_length_of_the_page_and_no_body() {
        let answer = exchange(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.contains(&format!("content-length: {}\r\n", PAGE.len())));
        assert!(answer.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_body_comes_back_with_its_type_and_is_never_sniffed() {
        let answer = exchange(
            b"POST /any HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\nContent-Length: 5\r\n\r\n1,2,3\
              PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await;
        assert!(
            answer.contains("content-type: text/csv\r\n") && answer.contains("\r\n\r\n1,2,3HTTP/1.1 200"),
            "{answer}"
        );
        assert!(answer.contains("3\r\nabc\r\n0\r\n\r\n"), "{answer}");
        assert_eq!(answer.matches("x-content-type-options: nosniff").count(), 2);
    }

    #[tokio::test]
    async fn an_offer_of_another_protocol_is_ignored_and_a_handshake_without_key_refused() {
        let other = exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        assert!(other.starts_with("HTTP/1.1 200"), "{other:.100}");
        let keyless = exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        assert!(keyless.starts_with("HTTP/1.1 400"), "{keyless:.100}");
    }

    #[tokio::test]
    async fn the_accept_value_is_that_of_rfc_6455_section_1_3() {
        let answer = exchange(OPENING.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn messages_sent_together_with_the_handshake_are_echoed() {
        // Masked with four zero bytes, so that the payload stays readable.
        let answer = exchange(&[OPENING.as_bytes(), b"\x81\x85\0\0\0\0early"].concat()).await;
        assert!(answer.ends_with("\u{fffd}\u{5}early"), "{answer:?}");
    }

    #[tokio::test]
    async fn the_first_subprotocol_is_taken_and_extensions_are_declined() {
        let (ours, theirs) = duplex(1024);
        let client = async {
            let mut request = "ws://builtin/".into_client_request().unwrap();
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat.v2, chat"));
            request.headers_mut().insert("sec-websocket-extensions", HeaderValue::from_static("permessage-deflate"));
            let (_, response) = client_async(request, ours).await.unwrap();
            assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], "chat.v2");
            assert!(!response.headers().contains_key("sec-websocket-extensions"));
        };
        tokio::join!(serve(theirs), client);
    }

    #[tokio::test]
    async fn text_binary_and_fragments_are_echoed_and_pings_answered() {
        with_socket(|mut socket| async move {
            let fragment =
                |text: &'static str, code, last| Message::Frame(Frame::message(text, OpCode::Data(code), last));
            socket.send(Message::text("grüß dich")).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("grüß dich"));
            socket.send(Message::binary(vec![0, 255, 7])).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![0, 255, 7]));
            socket.send(fragment("one ", Data::Text, false)).await.unwrap();
            socket.send(Message::Ping("between".into())).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("between".into()));
            socket.send(fragment("two", Data::Continue, true)).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one two"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_long_message_passes_a_narrow_pipe() {
        with_socket(|socket| async move {
            let (mut sink, mut stream) = socket.split();
            let long = Message::binary(vec![42; 3 * 1024 * 1024]);
            let (sent, received) = tokio::join!(sink.send(long.clone()), stream.next());
            sent.unwrap();
            assert!(received.unwrap().unwrap() == long);
        })
        .await;
    }

    #[tokio::test]
    async fn close_is_answered_with_the_same_code() {
        with_socket(|mut socket| async move {
            let code = CloseCode::from(4001);
            socket.close(Some(CloseFrame { code, reason: "done".into() })).await.unwrap();
            let Some(Ok(Message::Close(Some(frame)))) = socket.next().await else { panic!("no Close came") };
            assert_eq!((frame.code, frame.reason.as_str()), (code, "done"));
            assert!(socket.next().await.is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn a_broken_peer_is_told_why() {
        for (bytes, code) in [
            (&b"\x81\x05naked"[..], 1002_u16),               // RFC 6455 §5.1: a client masks
            (b"\x83\x80\0\0\0\0", 1002),                     // §5.2: opcode 3 is reserved
            (b"\x81\x81\0\0\0\0\xff", 1007),                 // §8.1: text is UTF-8
            (b"\x82\xff\0\0\0\0\x01\0\0\x01\0\0\0\0", 1009), // more than 16 MiB announced
        ] {
            let (mut ours, theirs) = duplex(1024);
            let client = async {
                ours.write_all(OPENING.as_bytes()).await.unwrap();
                ours.write_all(bytes).await.unwrap();
                let mut answer = Vec::new();
                ours.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let ((), answer) = tokio::join!(serve(theirs), client);
            let [high, low] = code.to_be_bytes();
            assert!(answer.ends_with(&[0x88, 2, high, low]), "{code}: {:?}", String::from_utf8_lossy(&answer));
        }
    }
}
