//! Connection strings, as libpq takes them: `postgres://…` or `keyword=value …`.

use std::fmt;

use url::{Url, form_urlencoded};

use crate::settings::quote_conninfo;

/// What a connection is made with, keyword by keyword, in the order in which it was given.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Conninfo {
    parameters: Vec<(String, String)>,
}

/// Why a text is no connection string. The text itself may hold a password, so it is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConninfo(pub(crate) &'static str);

// What stands in it may be secret.
impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keywords: Vec<&str> = self.keywords().collect();
        f.debug_tuple("Conninfo").field(&keywords).finish()
    }
}

impl Conninfo {
    /// Reads either form.
    pub(crate) fn parse(text: &str) -> Result<Conninfo, InvalidConninfo> {
        let text = text.trim();
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Conninfo::parse_url(text)
        } else {
            Conninfo::parse_words(text)
        }
    }

    fn parse_url(text: &str) -> Result<Conninfo, InvalidConninfo> {
        let url = Url::parse(text).map_err(|_| {
            InvalidConninfo("it does not read as postgres://USER@HOST:PORT/?sslmode=… (one host, one port)")
        })?;
        let mut conninfo = Conninfo::default();
        let mut add = |keyword: &str, value: &str| {
            if !value.is_empty() {
                conninfo.set(keyword, &decoded(value));
            }
        };
        add("host", url.host_str().unwrap_or("").trim_start_matches('[').trim_end_matches(']'));
        add("port", &url.port().map_or_else(String::new, |port| port.to_string()));
        add("user", url.username());
        add("password", url.password().unwrap_or(""));
        add("dbname", url.path().trim_start_matches('/'));
        for pair in url.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (keyword, value) = pair
                .split_once('=')
                .ok_or(InvalidConninfo("a parameter of the URL has no value: it takes ?keyword=value&…"))?;
            conninfo.set(&decoded(keyword), &decoded(value));
        }
        Ok(conninfo)
    }

    fn parse_words(text: &str) -> Result<Conninfo, InvalidConninfo> {
        let mut conninfo = Conninfo::default();
        let mut rest = text.chars().peekable();
        loop {
            while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            if rest.peek().is_none() {
                return Ok(conninfo);
            }
            let mut keyword = String::new();
            while let Some(c) = rest.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
                keyword.push(c);
            }
            while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            if rest.next() != Some('=') {
                return Err(InvalidConninfo("it is neither a postgres:// URL nor keyword=value pairs"));
            }
            while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
            let quoted = rest.next_if_eq(&'\'').is_some();
            let mut value = String::new();
            loop {
                match rest.next() {
                    Some('\\') => value.extend(rest.next()),
                    Some('\'') if quoted => break,
                    Some(c) if !quoted && c.is_ascii_whitespace() => break,
                    Some(c) => value.push(c),
                    None if quoted => return Err(InvalidConninfo("a quotation mark is not closed")),
                    None => break,
                }
            }
            conninfo.set(&keyword, &value);
        }
    }

    pub(crate) fn keywords(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(keyword, _)| keyword.as_str())
    }

    /// The value of a keyword; an empty one counts as none, as in libpq.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == keyword);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Sets a keyword; a value that it had before goes.
    pub(crate) fn set(&mut self, keyword: &str, value: &str) {
        match self.parameters.iter_mut().find(|(known, _)| known == keyword) {
            Some((_, old)) => value.clone_into(old),
            None => self.parameters.push((keyword.to_owned(), value.to_owned())),
        }
    }

    /// Sets a keyword that has no value yet.
    pub(crate) fn set_default(&mut self, keyword: &str, value: &str) {
        if self.get(keyword).is_none() {
            self.set(keyword, value);
        }
    }

    /// Removes a keyword and returns its value.
    pub(crate) fn take(&mut self, keyword: &str) -> Option<String> {
        let value = self.get(keyword).map(str::to_owned);
        self.parameters.retain(|(known, _)| known != keyword);
        value
    }

    /// The host as a person names it; empty is the local socket.
    pub(crate) fn host(&self) -> &str {
        self.get("host").or_else(|| self.get("hostaddr")).unwrap_or("")
    }

    /// The port, or PostgreSQL's own.
    pub(crate) fn port(&self) -> &str {
        self.get("port").unwrap_or("5432")
    }

    /// Where it leads, for messages.
    pub(crate) fn place(&self) -> String {
        let host = if self.host().is_empty() { "the local socket" } else { self.host() };
        format!("{host}, port {}", self.port())
    }

    /// The text for PostgreSQL's programs and settings. Whoever passes it on has taken the secrets out.
    pub(crate) fn render(&self) -> String {
        let plain = |value: &str| {
            !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/,".contains(&b))
        };
        let words = self.parameters.iter().map(|(keyword, value)| match plain(value) {
            true => format!("{keyword}={value}"),
            false => format!("{keyword}={}", quote_conninfo(value)),
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// Undoes percent encoding; a plus sign is one, as in libpq.
fn decoded(text: &str) -> String {
    let escaped = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(escaped.as_bytes()).map(|(key, _)| key.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        Conninfo::parse(text).unwrap().parameters
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(keyword, value)| ((*keyword).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_forms_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            (
                "postgres://u%40x:p%2Fw+%3d@h:5433/d?sslmode=verify-full&sslrootcert=%2Fa%20b%2Bc.crt",
                owned(&[
                    ("host", "h"),
                    ("port", "5433"),
                    ("user", "u@x"),
                    ("password", "p/w+="),
                    ("dbname", "d"),
                    ("sslmode", "verify-full"),
                    ("sslrootcert", "/a b+c.crt"),
                ]),
            ),
            ("postgresql://u@[::1]/", owned(&[("host", "::1"), ("user", "u")])),
            ("postgres:///?host=%2Frun%2Fpg&user=u", owned(&[("host", "/run/pg"), ("user", "u")])),
            (
                r"host=h  port = 5433 password='it\'s \\ so' user=a\ b options=''",
                owned(&[
                    ("host", "h"),
                    ("port", "5433"),
                    ("password", r"it's \ so"),
                    ("user", "a b"),
                    ("options", ""),
                ]),
            ),
            ("", owned(&[])),
            ("host=a host=b", owned(&[("host", "b")])),
        ] {
            assert_eq!(pairs(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_repeating_it() {
        for text in ["hunter2", "password='hunter2", "postgres://u:hunter2@h:x/", "postgres://u:hunter2@h?a"]
        {
            let error = Conninfo::parse(text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        let conninfo = Conninfo::parse("host=h password=hunter2").unwrap();
        assert!(!format!("{conninfo:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_rendered_reads_the_same() {
        let mut conninfo = Conninfo::default();
        for (keyword, value) in
            [("host", "h"), ("passfile", r"/it's/a\b c"), ("options", "-c a=b"), ("x", "")]
        {
            conninfo.set(keyword, value);
        }
        assert_eq!(Conninfo::parse(&conninfo.render()).unwrap(), conninfo);
        assert_eq!(conninfo.take("host").as_deref(), Some("h"));
        assert_eq!((conninfo.get("host"), conninfo.get("x")), (None, None));
    }
}
