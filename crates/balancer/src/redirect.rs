//! Redirect actions: a location made of the request's own parts.

use domain::balancing as nouns;
use http::{StatusCode, uri::Uri};

/// A compiled redirect.
#[derive(Debug)]
pub struct Redirect {
    /// 301 or 302.
    pub status: StatusCode,
    protocol: Template,
    host: Template,
    port: Template,
    path: Template,
    query: Template,
}

/// The parts of a request that a location may hold.
#[derive(Debug)]
pub struct Parts<'a> {
    /// `http` or `https`.
    pub protocol: &'a str,
    /// Host name without port.
    pub host: &'a str,
    /// The listener's port.
    pub port: u16,
    /// The request's URI.
    pub uri: &'a Uri,
}

#[derive(Debug)]
struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Protocol,
    Host,
    Port,
    Path,
    Query,
}

impl Redirect {
    /// Compiles the action; none if it is another kind of action.
    pub fn compile(action: &nouns::Action) -> Option<Self> {
        let nouns::Action::Redirect { protocol, host, port, path, query, status_code } = action else { return None };
        Some(Self {
            status: StatusCode::from_u16(*status_code).unwrap_or(StatusCode::FOUND),
            protocol: Template::new(protocol),
            host: Template::new(host),
            port: Template::new(port),
            path: Template::new(path),
            query: Template::new(query),
        })
    }

    /// The location for a request. The port is always written, as Amazon does.
    pub fn location(&self, parts: &Parts<'_>) -> String {
        let protocol = self.protocol.fill(parts).to_ascii_lowercase();
        let mut path = self.path.fill(parts);
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        let query = self.query.fill(parts);
        let separator = if query.is_empty() { "" } else { "?" };
        format!("{protocol}://{}:{}{path}{separator}{query}", self.host.fill(parts), self.port.fill(parts))
    }
}

impl Template {
    fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("#{") {
            let (before, tail) = rest.split_at(at);
            let known = [
                ("#{protocol}", Piece::Protocol),
                ("#{host}", Piece::Host),
                ("#{port}", Piece::Port),
                ("#{path}", Piece::Path),
                ("#{query}", Piece::Query),
            ]
            .into_iter()
            .find_map(|(name, piece)| tail.strip_prefix(name).map(|after| (piece, after)));
            match known {
                Some((piece, after)) => {
                    pieces.push(Piece::Text(before.to_owned()));
                    pieces.push(piece);
                    rest = after;
                }
                None => {
                    pieces.push(Piece::Text(format!("{before}#{{")));
                    rest = tail.get(2..).unwrap_or_default();
                }
            }
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Self(pieces)
    }

    fn fill(&self, parts: &Parts<'_>) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Protocol => filled.push_str(parts.protocol),
                Piece::Host => filled.push_str(parts.host),
                Piece::Port => filled.push_str(&parts.port.to_string()),
                // Amazon's #{path} has no leading slash: the default is `/#{path}`.
                Piece::Path => filled.push_str(parts.uri.path().trim_start_matches('/')),
                Piece::Query => filled.push_str(parts.uri.query().unwrap_or_default()),
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocol: &str, host: &str, port: &str, path: &str, query: &str) -> String {
        let action = nouns::Action::Redirect {
            protocol: protocol.into(),
            host: host.into(),
            port: port.into(),
            path: path.into(),
            query: query.into(),
            status_code: 301,
        };
        let uri = Uri::from_static("/a/b?x=1&y=2");
        let parts = Parts { protocol: "http", host: "example.com", port: 8080, uri: &uri };
        Redirect::compile(&action).unwrap().location(&parts)
    }

    #[test]
    fn the_default_parts_give_the_request_back() {
        assert_eq!(
            check("#{protocol}", "#{host}", "#{port}", "/#{path}", "#{query}"),
            "http://example.com:8080/a/b?x=1&y=2"
        );
    }

    #[test]
    fn parts_are_replaced_and_mixed_with_text() {
        assert_eq!(
            check("HTTPS", "www.#{host}", "443", "/new/#{path}", "#{query}&v=1"),
            "https://www.example.com:443/new/a/b?x=1&y=2&v=1"
        );
        assert_eq!(check("HTTPS", "other.org", "443", "/", ""), "https://other.org:443/");
        assert_eq!(check("HTTPS", "h", "1", "/#{nothing}#{", ""), "https://h:1/#{nothing}#{");
    }
}
