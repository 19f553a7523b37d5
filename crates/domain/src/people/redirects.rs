//! Where a browser goes after sign-in: to a page of this server, never to another site.

use percent_encoding::percent_decode_str;
use url::{Position, Url};

/// Bytes of a target that is followed.
const MAX_TARGET_BYTES: usize = 2_048;
/// Where everything else leads.
const START: &str = "/";

/// The path, query and fragment to go to, for a target that came with a request. The text is read as a browser reads a link on
/// a page of `public_origin`; what leads to another origin, or might be read so by someone on the way, becomes `/`.
pub fn local_target(public_origin: &Url, text: &str) -> String {
    find_local(public_origin, text).unwrap_or_else(|| START.to_owned())
}

fn find_local(public_origin: &Url, text: &str) -> Option<String> {
    if text.len() > MAX_TARGET_BYTES {
        return None;
    }
    let target = public_origin.join(text).ok()?;
    // Not `Url::origin`: that of `blob:https://this.server/x` is the one of this server.
    let place = |url: &Url| (url.scheme().to_owned(), url.host().map(|host| host.to_owned()), url.port());
    if place(&target) != place(public_origin) || !target.has_host() {
        return None;
    }
    let local = &target[Position::BeforePath..];
    (local.starts_with('/') && !leaves(target.path())).then(|| local.to_owned())
}

/// Whether a path by itself is a link to another host: `//host`, and what old browsers and proxies make of `/\host` and its
/// encoded forms.
fn leaves(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).take(2).collect();
    matches!(decoded.get(1), Some(b'/' | b'\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local(text: &str) -> String {
        local_target(&Url::parse("https://lens.example").unwrap(), text)
    }

    #[test]
    fn pages_of_this_server_are_followed() {
        for page in ["/", "/o/acme", "/o/acme/sessions?range=7d&q=a%20b#row-3", "/invite#token"] {
            assert_eq!(local(page), page);
            assert_eq!(local(&format!("https://lens.example{page}")), page);
        }
        assert_eq!(local("sessions"), "/sessions");
        assert_eq!(local("?a=1"), "/?a=1");
        assert_eq!(local("HTTPS://LENS.example:443/x"), "/x");
        assert_eq!(local("//lens.example/x"), "/x");
        assert_eq!(local("https://someone@lens.example/x"), "/x");
        assert_eq!(local("/a/../b"), "/b");
        assert_eq!(local("/a//b"), "/a//b");
        assert_eq!(local("/ä b"), "/%C3%A4%20b");
        let with_port = Url::parse("http://localhost:3000/").unwrap();
        assert_eq!(local_target(&with_port, "http://localhost:3000/x"), "/x");
        assert_eq!(local_target(&with_port, "http://localhost:3001/x"), "/");
    }

    #[test]
    fn everything_else_leads_to_the_start() {
        let evil = [
            "//e",
            "/\\e",
            "\\\\e",
            "/%5Ce",
            "/%5ce",
            "/%2Fe",
            "/%2fe",
            "\t//e",
            "/\t/e",
            "/\n/e",
            "/.//e",
            "/..//e",
            "/a/..//e",
            "/./\\e",
            "///e",
            "/%2e//e",
            "https:e.example",
            "https:/e.example",
            "http://lens.example/x",
            "https://lens.example:444/x",
            "https://lens.example.e/x",
            "https://lens.example@e/x",
            "https://e\\@lens.example/x",
            "https://e#@lens.example/",
            "javascript:alert(1)",
            "java\nscript:alert(1)",
            " javascript:alert(1)",
            "data:text/html,x",
            "blob:https://lens.example/x",
            "mailto:a@lens.example",
            "file:///etc/passwd",
            "https://",
            &format!("/{}", "a".repeat(MAX_TARGET_BYTES)),
        ];
        for text in evil {
            let target = local(text);
            let is_relative = text.starts_with("https:e") || text.starts_with("https:/e");
            assert_eq!(target, if is_relative { "/e.example" } else { "/" }, "{text:?}");
        }
    }

    proptest! {
        /// Whatever is asked for, a browser that follows the answer stays here.
        #[test]
        fn no_target_leaves_this_server(text in prop_oneof![any::<String>(), "[/\\\\.%25cCfFeE:@#?\\t a-z]{0,16}"]) {
            let origin = Url::parse("https://lens.example").unwrap();
            let target = local_target(&origin, &text);
            prop_assert!(target.starts_with('/') && !target.starts_with("//") && !target.starts_with("/\\"));
            prop_assert!(target.bytes().all(|byte| (b'!'..=b'~').contains(&byte)), "{}", target);
            let followed = origin.join(&target).unwrap();
            prop_assert_eq!(followed.origin(), origin.origin());
            // What was answered is answered again.
            prop_assert_eq!(local_target(&origin, &target), target);
        }
    }
}
