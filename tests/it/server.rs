//! A server on this machine that answers as a test wants: with refusals, with half an answer, or never.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A server that runs until the tests end.
pub struct Server {
    port: u16,
    asked: Receiver<()>,
}

/// What a client asked for.
pub struct Request {
    pub method: String,
    /// Its first line and its headers, in lower case.
    pub head: String,
}

impl Server {
    /// Answers each request by `answer`, which may keep the connection as long as it wants.
    pub fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = channel();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (mut connection, tell, answer) = (connection.unwrap(), tell.clone(), answer.clone());
                std::thread::spawn(move || {
                    while let Some(request) = read_request(&mut connection) {
                        // The test may have seen enough.
                        let _ = tell.send(());
                        answer(&request, &mut connection);
                    }
                });
            }
        });
        Server { port, asked }
    }

    /// A bucket in it, as a location.
    pub fn bucket(&self) -> String {
        format!("s3+http://127.0.0.1:{}/bucket/prefix", self.port)
    }

    /// Waits for the next request.
    #[track_caller]
    pub fn wait_until_asked(&self) {
        self.asked.recv_timeout(Duration::from_secs(120)).expect("somebody asks");
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.asked.try_iter().for_each(drop);
    }
}

/// The head of one request, its body passed over.
fn read_request(connection: &mut TcpStream) -> Option<Request> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8(head).ok()?;
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
    let mut body = vec![0; head.lines().find_map(length).unwrap_or(0)];
    connection.read_exact(&mut body).ok()?;
    Some(Request { method: head.split(' ').next()?.to_owned(), head: head.to_ascii_lowercase() })
}

/// Writes an answer; the client may have gone.
pub fn answer(connection: &mut TcpStream, request: &Request, status: &str, body: &str) {
    let length = body.len();
    let body = if request.method == "HEAD" { "" } else { body };
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"a\"\r\n\r\n{body}");
    let _ = connection.write_all(text.as_bytes());
}

/// An error as S3 words it.
pub fn refuse(connection: &mut TcpStream, request: &Request, status: &str, code: &str) {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
    answer(connection, request, status, &body);
}
