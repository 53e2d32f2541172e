//! The status, drawn for a person.

use axum::response::{Html, IntoResponse};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};

/// One page, from a file for each thing that it does.
const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<title>Database routing</title>\n<style>\n",
    include_str!("dashboard/style.css"),
    "</style>\n</head>\n<body>\n",
    include_str!("dashboard/page.html"),
    "<script type=\"module\">\n",
    include_str!("dashboard/dom.js"),
    include_str!("dashboard/words.js"),
    include_str!("dashboard/history.js"),
    include_str!("dashboard/topology.js"),
    include_str!("dashboard/charts.js"),
    include_str!("dashboard/panels.js"),
    include_str!("dashboard/main.js"),
    "</script>\n</body>\n</html>\n",
);

/// The page brings its own style and script, asks only its own server, and may not be framed.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) async fn dashboard() -> impl IntoResponse {
    let headers =
        [(CONTENT_SECURITY_POLICY, POLICY), (CACHE_CONTROL, "no-cache"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Html(PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_and_inserts_text_only_as_text() {
        for forbidden in [
            "http://",
            "https://",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "src=",
            "style=",
            "url(",
            "@import",
            " onclick=",
            " onload=",
        ] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        assert!(PAGE.contains("fetch(\"../routing\""));
    }
}
