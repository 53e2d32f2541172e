//! The page that a person finds first.

use axum::response::Html;

/// What to try, on the page and after the start.
pub(crate) const TRY: [&str; 6] = [
    "/stocks?country=Germany&sort=-employees&page_size=5",
    "/stocks?q=bank&index=S%26P%20500",
    "/screen?window=30&sort=return&limit=10",
    "/routing/dashboard",
    "/routing",
    "/metrics",
];

pub(crate) async fn home() -> Html<String> {
    let links: String = TRY
        .iter()
        .map(|path| {
            let path = path.replace('&', "&amp;");
            format!("<li><a href=\"{path}\">{path}</a></li>\n")
        })
        .collect();
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Stock screener</title>\
         <style>:root {{ color-scheme: light dark; font: 16px/1.6 system-ui, sans-serif }}</style></head>\n\
         <body>\n<h1>Stock screener</h1>\n<p>The response headers <code>x-db-node</code>, <code>x-db-role</code> and \
         <code>x-db-reason</code> say which node served.</p>\n<ul>\n{links}</ul>\n</body>\n</html>\n"
    ))
}
