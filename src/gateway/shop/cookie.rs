//! The cookies that a browser has: its session's token, and its mark once somebody was logged in there.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::config::CookieTransport;
use crate::limits;
use crate::types::SessionToken;

/// How cookies are written and read here.
pub struct Cookies {
    /// With the prefix, a browser takes them over TLS only, and for this very host.
    session: &'static str,
    device: &'static str,
    secure: &'static str,
}

impl Cookies {
    /// For fronts that are reached so.
    pub fn new(transport: CookieTransport) -> Self {
        match transport {
            CookieTransport::Tls => Self {
                session: "__Host-trolley",
                device: "__Host-trolley-device",
                secure: "; Secure",
            },
            CookieTransport::PlainHttp => Self {
                session: "trolley",
                device: "trolley-device",
                secure: "",
            },
        }
    }

    /// The token of its session that a browser shows, if it could be one.
    pub fn session(&self, headers: &HeaderMap) -> Option<String> {
        read(self.session, headers)
    }

    /// The mark that it shows, which looks like a token.
    pub fn device(&self, headers: &HeaderMap) -> Option<String> {
        read(self.device, headers)
    }

    /// Has the browser keep this token, for as long as a session can live unless the shop says otherwise.
    pub fn keep(&self, token: &str) -> HeaderValue {
        let lives_ms = limits::SESSION_ABSOLUTE_TTL_DEFAULT_MS;
        self.write(self.session, token, lives_ms, "Lax")
    }

    /// Has it forget the token.
    pub fn forget(&self) -> HeaderValue {
        self.write(self.session, "", 0, "Lax")
    }

    /// Has it keep this mark. Only pages of the shop need it.
    pub fn keep_device(&self, mark: &str) -> HeaderValue {
        self.write(self.device, mark, limits::DEVICE_TTL_MS, "Strict")
    }

    fn write(&self, name: &str, value: &str, lives_ms: u64, same_site: &str) -> HeaderValue {
        let (seconds, secure) = (lives_ms / 1000, self.secure);
        let text = format!(
            "{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"
        );
        let mut header = HeaderValue::from_str(&text).expect("base64url is visible ASCII");
        header.set_sensitive(true);
        header
    }
}

/// Two of one name are none: nobody knows who has set the other.
fn read(wanted: &str, headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).into_iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let mut values = pairs.filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted).then_some(value)
    });
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    SessionToken::parse(value).ok().map(|_| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "AAAAAAAAAAAAAAAAAAAAAAAA";

    fn read(transport: CookieTransport, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_str(line).expect("a header's value");
            headers.append(COOKIE, value);
        }
        let cookies = Cookies::new(transport);
        // One is not taken for the other.
        assert_eq!(cookies.device(&headers), None);
        cookies.session(&headers)
    }

    #[test]
    fn a_browser_is_told_what_it_may_do_with_it() {
        let cookie = Cookies::new(CookieTransport::Tls).keep(TOKEN);
        let text = cookie.to_str().expect("it is ASCII");
        assert!(text.starts_with("__Host-trolley=AAAA"), "{text}");
        for attribute in ["Path=/", "HttpOnly", "Secure", "SameSite=Lax"] {
            assert!(text.split("; ").any(|part| part == attribute), "{text}");
        }
        assert!(cookie.is_sensitive());
        let device = Cookies::new(CookieTransport::Tls).keep_device(TOKEN);
        let text = device.to_str().expect("it is ASCII");
        assert!(text.starts_with("__Host-trolley-device=AAAA"), "{text}");
        for attribute in ["Path=/", "HttpOnly", "Secure", "SameSite=Strict"] {
            assert!(text.split("; ").any(|part| part == attribute), "{text}");
        }
        assert!(device.is_sensitive());
        let plain = Cookies::new(CookieTransport::PlainHttp).forget();
        let text = plain.to_str().expect("it is ASCII");
        assert!(text.starts_with("trolley=; "), "{text}");
        assert!(
            text.contains("Max-Age=0") && !text.contains("Secure"),
            "{text}"
        );
    }

    #[test]
    fn one_token_is_read_and_nothing_else() {
        use CookieTransport::{PlainHttp, Tls};
        let line = format!("a=b; __Host-trolley={TOKEN}; trolleys=1");
        assert_eq!(read(Tls, &[&line]).as_deref(), Some(TOKEN));
        assert_eq!(read(PlainHttp, &[&line]), None);
        assert_eq!(read(Tls, &[&line, &line]), None);
        assert_eq!(read(Tls, &["__Host-trolley=short"]), None);
        assert_eq!(read(Tls, &["__Host-trolley=\"AAAA\"", "x"]), None);
        assert_eq!(read(Tls, &[]), None);
    }
}
