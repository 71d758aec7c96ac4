//! URLs as they are logged and sent to webhooks.

use http::Uri;

/// A URL without user info.
pub(super) fn without_user(url: &Uri) -> String {
    let (Some(scheme), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return url.path().to_owned();
    };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    [scheme, "://", host, path].concat()
}

#[cfg(test)]
mod tests {
    use crate::proxy::pay::url::*;

    #[test]
    fn a_user_name_is_not_told() {
        for (url, told) in [
            ("http://a.example/x?y=1", "http://a.example/x?y=1"),
            ("http://me:hush@a.example:81/", "http://a.example:81/"),
            ("http://me:hush@[::1]:81/?a=b@c", "http://[::1]:81/?a=b@c"),
        ] {
            assert_eq!(without_user(&url.parse().unwrap()), told);
        }
    }
}
