//! Tokens for a node under test, and requests byte by byte, as an attacker would write them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use tidelog_node::door::{Entry, Scope, Sites, Token, TokenFileError, change, tokens_path};

/// Makes a token as the command does; no sites are all sites.
pub fn make_token(dir: &Path, scopes: &[Scope], sites: &[&str]) -> Token {
    let token = Token::draw().unwrap();
    let only = || Sites::Only(sites.iter().map(|site| site.parse().unwrap()).collect());
    let entry = Entry::of(
        &token,
        format!("token {}", token.id()),
        scopes.iter().copied().collect(),
        if sites.is_empty() { Sites::All } else { only() },
        0,
    );
    let made = change(&tokens_path(dir, None), |tokens| {
        tokens.push(entry);
        Ok::<_, TokenFileError>(())
    });
    made.unwrap();
    token
}

pub fn revoke_token(dir: &Path, token: &Token) {
    let revoked = change(&tokens_path(dir, None), |tokens| {
        tokens.retain(|entry| entry.id != token.id());
        Ok::<_, TokenFileError>(())
    });
    revoked.unwrap();
}

pub fn bearer(token: &Token) -> String {
    format!("Authorization: Bearer {}", token.reveal())
}

/// An answer as it came, heads included.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub text: String,
}

/// Sends exactly this target, these heads and this body.
pub fn raw(url: &str, method: &str, target: &str, heads: &[&str], body: &str) -> Raw {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let length = body.len();
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n");
    if method != "GET" {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for line in heads {
        head.push_str(line);
        head.push_str("\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    Raw { status: status.unwrap_or_else(|| panic!("no answer: {text}")), text }
}
