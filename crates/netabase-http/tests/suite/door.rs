//! The places of connections: strangers without the token do not keep others away.

use std::net::SocketAddr;
use std::time::Duration;

use netabase_client::{Client, Token};
use netabase_http::{ApiConfig, Limits, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::common::{Served, config, node};

const SECRET: &str = "0123456789abcdef0123";
/// Nothing is closed in these tests because time has passed.
const LONG: Duration = Duration::from_secs(3600);
/// What a client asks for.
const PATH: &str = "/v1/models";

fn token() -> Token {
    SECRET.parse().unwrap()
}

fn with_token(max_connections: usize) -> ApiConfig {
    let limits = Limits { max_connections, head_timeout: LONG, write_timeout: LONG, ..Limits::default() };
    ApiConfig { token: Some(token()), limits, ..config() }
}

fn request() -> String {
    format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\n\r\n")
}

/// Reads an answer from a connection that stays open, and returns its first line.
async fn answer(stream: &mut BufReader<TcpStream>) -> String {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if let Some(given) = line.strip_prefix("content-length: ") {
            length = given.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    first
}

/// Returns how many of so many clients with the token are answered before one is not, each on a
/// connection of its own.
async fn answered(address: SocketAddr, clients: usize) -> usize {
    for answered in 0..clients {
        let client = Client::new(&format!("http://{address}")).unwrap().with_token(&token());
        if client.get(PATH).await.is_err() {
            return answered;
        }
    }
    clients
}

/// Opens 300 connections from one address, each of which sends so much, while clients with the
/// token ask.
async fn besiege(sent: &str) {
    let served = Served::with(node(), with_token(256)).await;
    let mut kept = BufReader::new(TcpStream::connect(served.address).await.unwrap());
    kept.get_mut().write_all(request().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut kept).await, "HTTP/1.1 200 OK\r\n");

    let (mut strangers, mut count) = (Vec::new(), 0);
    for _ in 0..30 {
        for _ in 0..10 {
            let mut stranger = TcpStream::connect(served.address).await.unwrap();
            // The server may have closed it for the next one.
            let _ = stranger.write_all(sent.as_bytes()).await;
            strangers.push(stranger);
        }
        count += answered(served.address, 1).await;
    }
    assert_eq!(count, 30);
    kept.get_mut().write_all(request().as_bytes()).await.unwrap();
    assert_eq!(answer(&mut kept).await, "HTTP/1.1 200 OK\r\n", "it is still open");
    // A quarter of 256 may be left.
    for stranger in &mut strangers[..300 - 64] {
        assert_eq!(stranger.read(&mut [0]).await.unwrap_or(0), 0, "the oldest are closed");
    }
}

#[tokio::test]
async fn half_requests_keep_no_client_with_the_token_away() {
    besiege("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n").await;
}

#[tokio::test]
async fn idle_connections_keep_no_client_with_the_token_away() {
    besiege("").await;
}

/// Asks for a file again and again without the token, and reads nothing but the first byte. The
/// task ends when the server closes the connection.
async fn read_nothing(address: SocketAddr) -> JoinHandle<()> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let (mut answers, mut requests) = socket.connect(address).await.unwrap().into_split();
    let asking = tokio::spawn(async move {
        let many = "GET /assets/style.css HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
        while requests.write_all(many.as_bytes()).await.is_ok() {}
    });
    answers.read_exact(&mut [0]).await.unwrap();
    tokio::spawn(async move {
        asking.await.unwrap();
        drop(answers);
    })
}

#[tokio::test]
async fn answers_that_nobody_reads_keep_no_client_with_the_token_away() {
    let served = Served::with(node(), with_token(16)).await;
    let mut strangers = Vec::new();
    for _ in 0..16 {
        strangers.push(read_nothing(served.address).await);
    }
    let closed = || strangers.iter().filter(|stranger| stranger.is_finished()).count();
    for asked in 0..100 {
        assert_eq!(answered(served.address, 1).await, 1);
        // A quarter of 16 may be left.
        if asked >= 20 && closed() >= 16 - 4 {
            return;
        }
    }
    panic!("only {} of 16 are closed", closed());
}

#[tokio::test]
async fn a_request_that_waited_for_its_turn_is_read_before_the_next_connection_is_accepted() {
    for _ in 0..20 {
        let server = Server::bind(node().node().clone(), with_token(8)).await.unwrap();
        let address = server.local_addr();
        let mut first = BufReader::new(TcpStream::connect(address).await.unwrap());
        first.get_mut().write_all(request().as_bytes()).await.unwrap();
        let mut strangers = Vec::new();
        for _ in 0..20 {
            strangers.push(TcpStream::connect(address).await.unwrap());
        }
        let running = tokio::spawn(server.run(std::future::pending()));
        assert_eq!(answer(&mut first).await, "HTTP/1.1 200 OK\r\n");
        running.abort();
    }
}

#[tokio::test]
async fn who_shows_the_token_is_told_if_all_places_are_busy() {
    let served = Served::with(node(), with_token(2)).await;
    let stream = served.client.events("/v1/events", None).await.unwrap();
    let another = Client::new(&format!("http://{}", served.address)).unwrap().with_token(&token());
    let error = another.get(PATH).await.unwrap_err();
    assert_eq!(error.problem(), Some("busy"), "{error}");
    assert!(another.get("/health/live").await.is_ok(), "the server is alive");
    drop(stream);
    while another.get(PATH).await.is_err() {
        tokio::task::yield_now().await;
    }
}
