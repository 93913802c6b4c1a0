//! Where a request carries its token: `Authorization: Bearer T`, InfluxDB's `Token T`, or `Basic` with the token as password; for
//! clients of InfluxDB's first version also the parameter `p`. What is found is not written anywhere.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::token::Token;

/// There is something where a token should be, and it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The token of the header, if there is one.
///
/// # Errors
/// [`Malformed`]: two headers, a scheme that is not known, or no token in it.
pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Option<Token>, Malformed> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed);
    }
    let (scheme, rest) = value.to_str().map_err(|_| Malformed)?.split_once(' ').ok_or(Malformed)?;
    let rest = rest.trim();
    let token = if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        // Clients of InfluxDB's first version write user and password behind its second version's word.
        rest.rsplit_once(':').map_or(rest, |(_, password)| password).parse()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest).map_err(|_| Malformed)?;
        let text = std::str::from_utf8(&decoded).map_err(|_| Malformed)?;
        // A user's name has no colon, a password may.
        let (_user, password) = text.split_once(':').ok_or(Malformed)?;
        password.parse()
    } else {
        return Err(Malformed);
    };
    token.map(Some).map_err(|_| Malformed)
}

/// The token in a query of InfluxDB's first version, where `p` is the password.
///
/// # Errors
/// [`Malformed`]: it is no token, or there are two.
pub(crate) fn of_influx_query(query: &str) -> Result<Option<Token>, Malformed> {
    let mut passwords = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "p");
    let Some((_, password)) = passwords.next() else { return Ok(None) };
    if passwords.next().is_some() {
        return Err(Malformed);
    }
    password.parse().map(Some).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, Malformed> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        of_headers(&headers).map(|token| token.map(|token| token.reveal()))
    }

    #[test]
    fn a_token_is_found_in_every_scheme_that_clients_speak() {
        let token = Token::draw().unwrap().reveal();
        let basic = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{token}")));
        let good = [
            format!("Bearer {token}"),
            format!("bearer  {token} "),
            format!("Token {token}"),
            format!("Token anybody:{token}"),
            basic("anybody"),
            basic(""),
        ];
        for value in good {
            assert_eq!(read(&[&value]), Ok(Some(token.clone())), "{value}");
        }
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(of_influx_query(&format!("u=x&p={token}")).unwrap().unwrap().reveal(), token);
        assert!(of_influx_query("db=plant").unwrap().is_none());
    }

    #[test]
    fn what_is_no_token_is_refused_and_two_are_one_too_many() {
        let token = Token::draw().unwrap().reveal();
        let bearer = format!("Bearer {token}");
        let no_colon = format!("Basic {}", STANDARD.encode(&token));
        for bad in ["", "Bearer", "Bearer ", "Bearer x", &token, "Basic !!!", &no_colon, "Digest a=b"] {
            assert_eq!(read(&[bad]), Err(Malformed), "{bad}");
        }
        assert_eq!(read(&[&bearer, &bearer]), Err(Malformed));
        assert!(of_influx_query(&format!("p={token}&p={token}")).is_err());
        assert!(of_influx_query("p=secret").is_err());
    }
}
