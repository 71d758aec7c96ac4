//! The files of the page, which are part of the program. They are the same for everyone and load nothing from elsewhere.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::proxy::Body;
use crate::proxy::frontend::page;

/// Only these files run or load, no other site can frame the page or keep a handle on its window, and text never
/// becomes markup or code.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// One file.
#[derive(Clone, Copy)]
pub(super) struct DashboardFile {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

const FILES: [DashboardFile; 3] = [
    DashboardFile {
        path: "/dashboard",
        kind: "text/html; charset=utf-8",
        content: include_str!("index.html"),
    },
    DashboardFile {
        path: "/dashboard/app.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("app.js"),
    },
    DashboardFile {
        path: "/dashboard/style.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("style.css"),
    },
];

/// The file with this path.
pub(super) fn find(path: &str) -> Option<DashboardFile> {
    let path = path.strip_suffix('/').unwrap_or(path);
    FILES.into_iter().find(|file| file.path == path)
}

impl DashboardFile {
    pub(super) fn answer(self) -> Response<Body> {
        let kind = HeaderValue::from_static(self.kind);
        let mut response =
            page::with(StatusCode::OK, kind, Body::full(Bytes::from_static(self.content.as_bytes())));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_code_or_style_of_its_own_and_loads_nothing_from_elsewhere() {
        for DashboardFile { path, content, .. } in FILES {
            // The name of SVG is no address to load from.
            let content = content.replace("http://www.w3.org/2000/svg", "");
            for part in ["http://", "https://", " style=", " onclick=", " onload=", "<style", "javascript:"] {
                assert!(!content.contains(part), "{part} is in {path}");
            }
            for part in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "localStorage",
                "cookie",
            ] {
                assert!(!content.contains(part), "{part} is in {path}");
            }
        }
        let page = FILES[0].content;
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script src=\"/dashboard/app.js\"").count()
        );
    }
}
