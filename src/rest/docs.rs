//! `/docs` and `/redoc`: pages that render `/openapi.json` in the browser, with nothing from anywhere else.

use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};

use super::reply::Reply;

const HTML: &str = "text/html; charset=utf-8";
/// The pages may run their own lines and talk to this address, nothing more.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What both pages have in common, before and after what each adds.
const STYLE: &str = include_str!("pages/style.css");
const COMMON: &str = include_str!("pages/common.js");

/// `GET /docs`: a form for each operation.
pub(crate) fn interactive() -> Reply {
    page("Trine: try it", include_str!("pages/docs.js"))
}

/// `GET /redoc`: everything to read, on one page.
pub(crate) fn readable() -> Reply {
    page("Trine: reference", include_str!("pages/redoc.js"))
}

fn page(title: &str, script: &str) -> Reply {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
        <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
        <noscript>This page needs JavaScript; <a href=\"/openapi.json\">/openapi.json</a> says the same.</noscript>\n\
        <main id=\"page\"></main>\n<script>\n{COMMON}{script}</script>\n</body>\n</html>\n"
    );
    Reply::text(StatusCode::OK, HTML, html).header(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))
}
