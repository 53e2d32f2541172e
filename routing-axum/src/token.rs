//! The session token on its way in and out.

use std::time::Duration;

use cookie::{Cookie, SameSite};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use routing_core::Session;

/// The cookie that carries the token.
pub(crate) const COOKIE_NAME: &str = "db_session";
/// The header that carries it, for clients that keep no cookies.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-db-session");

/// What the cookie says beside the token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CookieAttributes {
    pub(crate) secure: bool,
    pub(crate) lifetime: Duration,
}

/// Puts every token of a request into its session. A browser sends two cookies of one name when they were set for two
/// paths; which of them is newer is for the tokens to say.
pub(crate) fn present(headers: &HeaderMap, session: &Session) {
    for value in headers.get_all(HEADER) {
        // Whoever stands between may put several lines into one (RFC 9110, section 5.3).
        let texts = value.to_str().unwrap_or_default().split(',').map(str::trim);
        texts.filter(|text| !text.is_empty()).for_each(|text| session.present(text));
    }
    for value in headers.get_all(COOKIE) {
        // What is not text cannot hold a token, and what stands beside it may.
        let text = String::from_utf8_lossy(value.as_bytes());
        let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        for (_, token) in pairs.filter(|(name, _)| *name == COOKIE_NAME) {
            session.present(token.trim_matches('"'));
        }
    }
}

/// Hands a token to the client, in both forms.
pub(crate) fn hand_out(token: &str, attributes: CookieAttributes, headers: &mut HeaderMap) {
    let cookie = Cookie::build((COOKIE_NAME, token))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(attributes.secure)
        .max_age(attributes.lifetime.try_into().unwrap_or(cookie::time::Duration::MAX))
        .build();
    // Tokens are letters, digits and a few marks: both values are headers.
    if let (Ok(value), Ok(cookie)) = (HeaderValue::try_from(token), HeaderValue::try_from(cookie.to_string()))
    {
        headers.insert(HEADER, value);
        headers.append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_handed_out_for_scripts_and_browsers() {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, HeaderValue::from_static("other=1"));
        let attributes = CookieAttributes { secure: true, lifetime: Duration::from_secs(300) };
        hand_out("v1.abc-_", attributes, &mut headers);
        assert_eq!(headers[HEADER], "v1.abc-_");
        let cookies: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        let expected = "db_session=v1.abc-_; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=300";
        assert_eq!(cookies, ["other=1", expected]);
    }
}
