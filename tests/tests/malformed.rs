//! Bytes that are no proper HTTP: refused, the connection closed, and the node none the worse.

use keyward_tests::server::Server;

struct Case {
    name: &'static str,
    bytes: &'static [u8],
    status: u16,
}

const CASES: &[Case] = &[
    Case {
        name: "a folded header",
        bytes: b"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        status: 400,
    },
    Case { name: "a blank before the colon", bytes: b"GET /v1/sys/health HTTP/1.1\r\nHost : x\r\n\r\n", status: 400 },
    Case {
        name: "two lengths",
        bytes: b"PUT /v1/sys/seal HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        status: 400,
    },
    Case {
        name: "a length that is none",
        bytes: b"PUT /v1/sys/seal HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        status: 400,
    },
    Case {
        name: "a chunk without a size",
        bytes: b"PUT /v1/sys/unseal HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        status: 400,
    },
    Case {
        name: "an unknown transfer encoding",
        bytes: b"PUT /v1/sys/unseal HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        status: 400,
    },
    Case {
        name: "a control character in a header",
        bytes: b"GET /v1/sys/mounts HTTP/1.1\r\nHost: x\r\nX-Vault-Token: a\x1bb\r\n\r\n",
        status: 400,
    },
    Case { name: "a zero byte in the path", bytes: b"GET /v1/sys/\0 HTTP/1.1\r\nHost: x\r\n\r\n", status: 400 },
    Case { name: "a blank in the path", bytes: b"GET /v1/sys/ health HTTP/1.1\r\nHost: x\r\n\r\n", status: 400 },
    Case { name: "another protocol", bytes: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello", status: 400 },
    Case {
        name: "too long a body",
        bytes: b"PUT /v1/secret/data/x HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n",
        status: 413,
    },
];

#[test]
fn malformed_requests_are_refused_and_close_the_connection() {
    let server = Server::dev();
    for case in CASES {
        let mut client = server.client();
        let response = client.raw(case.bytes, false).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert_eq!(response.status, case.status, "{}: {}", case.name, response.text());
        assert!(client.is_hung_up(), "{}: the connection goes on", case.name);
    }
    server.client().get("sys/health").expect(200);
}

#[test]
fn a_request_has_exactly_one_host() {
    let server = Server::dev();
    for head in ["", "Host: a\r\nHost: b\r\n"] {
        let request = format!("GET /v1/sys/health HTTP/1.1\r\n{head}\r\n");
        server.client().raw(request.as_bytes(), false).unwrap().expect(400).json();
    }
}

#[test]
fn too_large_a_header_block_is_refused() {
    let server = Server::dev();
    let huge = "a".repeat(70_000);
    let response = server.client().send("GET", "/v1/sys/health", &[("X-Long", &huge)], None).unwrap();
    assert_eq!((response.status, response.header("connection")), (431, Some("close")));
}

#[test]
fn deep_and_wide_json_is_refused_with_bounded_work() {
    let server = Server::dev();
    let headers = [("X-Vault-Token", "root"), ("Content-Type", "application/json")];
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let wide = format!("{{\"data\":{{{}}}}}", (0..1_500).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","));
    for (body, why) in [(deep, "exceeded max depth"), (wide, "exceeded maximum number of strings")] {
        let answer = server.client().send("PUT", "/v1/secret/data/x", &headers, Some(body.as_bytes())).unwrap();
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    server.client().get("secret/data/x").expect(404);
}

#[test]
fn a_slow_or_silent_client_holds_nobody_up() {
    let server = Server::dev();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(std::net::TcpStream::connect(server.address.trim_start_matches("http://")).unwrap());
    }
    for stream in &mut silent {
        std::io::Write::write_all(stream, b"GET /v1/sys/health HTT").unwrap();
    }
    server.client().get("sys/health").expect(200);
}
