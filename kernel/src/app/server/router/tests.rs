use super::*;

use alloc::vec::Vec;

use crate::app::server::http::{Connection, Limits, Poll, Stream, StreamError};

/// A stream that holds one request.
struct Bytes<'a>(&'a [u8]);

impl Stream for Bytes<'_> {
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let n = self.0.len().min(buffer.len());
        if n == 0 {
            return Err(StreamError::WouldBlock);
        }
        let (now, later) = self.0.split_at(n);
        buffer[..n].copy_from_slice(now);
        self.0 = later;
        Ok(n)
    }

    fn send(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        Ok(data.len())
    }

    fn shutdown(&mut self) {}
}

fn request(line: &str, headers: &str) -> Request {
    let text = std::format!("{line} HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
    let mut connection = Connection::new(Bytes(text.as_bytes()), Limits::default(), 0);
    loop {
        match connection.poll(0) {
            Poll::Request(request) => return request,
            Poll::Head => {}
            other => panic!("{other:?}: {text}"),
        }
    }
}

fn access(keys: &[&str]) -> Access {
    let keys: Vec<String> = keys.iter().map(|&key| key.into()).collect();
    Access::new(&keys, Cors::Localhost)
}

/// The status that refuses a request.
fn status(access: &Access, request: &Request) -> u16 {
    access.route(request).unwrap_err().status
}

#[test]
fn each_path_has_its_method() {
    let access = access(&[]);
    for &(path, route) in PATHS {
        let (own, other) = if route.takes_body() { ("POST", "GET") } else { ("GET", "POST") };
        let body = "Content-Length: 0\r\n";
        let headers = |method| if method == "POST" { body } else { "" };
        assert_eq!(
            access.route(&request(&std::format!("{own} {path}?x=1"), headers(own))),
            Ok(route)
        );
        let refused = request(&std::format!("{other} {path}"), headers(other));
        assert_eq!(status(&access, &refused), 405, "{path}");
        let deleted = request(&std::format!("DELETE {path}"), body);
        assert_eq!(status(&access, &deleted), 405, "{path}");
        if !route.takes_body() {
            let head = request(&std::format!("HEAD {path}"), "");
            assert_eq!(access.route(&head), Ok(route));
        }
        assert_eq!(status(&access, &request(&std::format!("OPTIONS {path}"), "")), 200, "{path}");
    }
    for &(path, call) in ollama::PATHS {
        let own = match call {
            Call::Delete => "DELETE",
            call if call.takes_body() => "POST",
            _ => "GET",
        };
        for method in ["GET", "POST", "PUT", "DELETE"] {
            let body = if method == "GET" { "" } else { "Content-Length: 0\r\n" };
            let asked = access.route(&request(&std::format!("{method} {path}"), body));
            match method == own {
                true => assert_eq!(asked, Ok(Ollama(call)), "{method} {path}"),
                false => assert_eq!(asked.unwrap_err().status, 405, "{method} {path}"),
            }
        }
        let head = access.route(&request(&std::format!("HEAD {path}"), ""));
        assert_eq!(head.is_ok(), own == "GET", "{path}");
    }
    for path in ["/v1", "/v1/models/", "/V1/models", "//health", "/favicon.ico"] {
        assert_eq!(status(&access, &request(&std::format!("GET {path}"), "")), 404, "{path}");
    }
}

#[test]
fn keys_are_needed_but_for_health_and_the_page() {
    let access = access(&["first", "second key"]);
    for path in ["/", "/index.html", "/health", "/v1/health"] {
        assert!(access.route(&request(&std::format!("GET {path}"), "")).is_ok(), "{path}");
    }
    for headers in [
        "Authorization: Bearer first\r\n",
        "authorization: bearer  first \r\n",
        "Authorization: Bearer second key\r\n",
        "X-Api-Key: first\r\n",
        "X-Api-Key: wrong\r\nAuthorization: Bearer first\r\n",
    ] {
        assert_eq!(access.route(&request("GET /v1/models", headers)), Ok(Models), "{headers}");
    }
    for headers in [
        "",
        "Authorization: first\r\n",
        "Authorization: Basic first\r\n",
        "Authorization: Bearer firs\r\n",
        "Authorization: Bearer first2\r\n",
        "Authorization: Bearer \r\n",
        "X-Api-Key: \r\n",
        "X-Api-Key: First\r\n",
    ] {
        assert_eq!(status(&access, &request("GET /v1/models", headers)), 401, "{headers}");
    }
    // Paths are no secret.
    assert_eq!(status(&access, &request("GET /nothing", "")), 404);
}

#[test]
fn errors_have_the_form_of_their_protocol() {
    let access = access(&["key"]);
    let body = |line: &str| {
        let headers = if line.starts_with("GET") { "" } else { "Content-Length: 0\r\n" };
        let response = access.route(&request(line, headers)).unwrap_err();
        (response.status, String::from_utf8(response.body().to_vec()).unwrap())
    };
    assert_eq!(body("GET /api/tags"), (401, r#"{"error":"Invalid API Key"}"#.into()));
    assert_eq!(body("GET /api/none"), (404, r#"{"error":"File Not Found"}"#.into()));
    assert_eq!(body("POST /api/tags"), (405, r#"{"error":"use GET, HEAD, OPTIONS"}"#.into()));
    assert_eq!(body("POST /api/delete"), (405, r#"{"error":"use DELETE, OPTIONS"}"#.into()));
    assert!(body("GET /none").1.starts_with(r#"{"error":{"code":404,"#));
}

#[test]
fn only_allowed_origins_may_read_answers() {
    let access = access(&[]);
    let has = |origin, name: &str| {
        let response = access.with_cors(Response::new(200), origin);
        std::format!("{response:?}").contains(name)
    };
    assert!(!has(None, "Vary"));
    assert!(has(Some("http://localhost:3000"), "\"http://localhost:3000\""));
    assert!(!has(Some("https://example.org"), "Access-Control"));
    assert!(has(Some("https://example.org"), "Vary"));
}

#[test]
fn paths_of_openai_also_go_without_v1() {
    let found = |path: &str| PATHS.iter().find(|(it, _)| *it == path).map(|(_, route)| *route);
    for path in ["/models", "/health", "/chat/completions", "/chat/completions/input_tokens"] {
        assert!(found(path).is_some(), "{path}");
        assert_eq!(found(path), found(&std::format!("/v1{path}")), "{path}");
    }
}
